"""``evalscope-vacc check``: is the server what the configuration says?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evalscope_vacc.cli.options import AsJson, Key, Lang, Model, Served, SpokenDialect
from evalscope_vacc.errors import ConfigError
from evalscope_vacc.wire.address import is_address

if TYPE_CHECKING:
    from evalscope_vacc.checks.findings import Report


def check(
    config: Served,
    model: Model = None,
    key: Key = None,
    dialect: SpokenDialect = None,
    *,
    as_json: AsJson = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also list the checks that pass.")] = False,
    lang: Lang = "en",
) -> None:
    """Check served models before the first task; takes at most a minute each.

    Exit status: 0 when nothing is wrong (warnings are no errors), 1 when something is, 2 for a configuration or usage
    that cannot be checked. A server that does not answer is waited for 5 seconds.
    """
    from evalscope_vacc.view import checks
    from evalscope_vacc.view.document import show, write_out
    from evalscope_vacc.view.machine import to_json
    from evalscope_vacc.view.words import Words

    words = Words(lang)
    url = address(config, dialect)
    if url:
        from evalscope_vacc.checks.run import check_address

        reports = [check_address(url, model=model, api_key=key, dialect=dialect)]
    else:
        reports = [_checked(entry) for entry in model_entries(Path(config), model=model, key=key)]
    if as_json:
        write_out(to_json(checks.check_mapping(reports, words)))
    else:
        show(checks.check(reports, words, verbose=verbose))
    raise typer.Exit(max(report.exit_status for report in reports))


def check_served(model: Mapping[str, Any]) -> int:
    """Checks one model's entry, prints the findings, and returns the exit status.

    Args:
        model: As an entry of EvalScope's ``models:`` list.

    Raises:
        ConfigError: The entry cannot be used.
    """
    from evalscope_vacc.view import checks
    from evalscope_vacc.view.document import show
    from evalscope_vacc.view.words import Words

    report = _checked(model)
    show(checks.check([report], Words()))
    return report.exit_status


def address(given: str, dialect: str | None = None) -> str:
    """Returns the address where a server's is given, "" where a file is.

    Raises:
        ConfigError: A dialect is named although a file is given.
    """
    if is_address(given):
        return given if "://" in given else f"http://{given}"
    if dialect is not None:
        raise ConfigError("--dialect goes with an address; in a file, write the key `dialect`")
    return ""


def model_entries(path: Path, *, model: str | None = None, key: str | None = None) -> list[dict[str, Any]]:
    """The ``vacc_api`` models of a RAGEval file, or of a whole task file that holds one.

    Args:
        path: YAML or JSON.
        model: Only the model of this name.
        key: Stands in for the entries' ``api_key``.

    Raises:
        ConfigError: The file cannot be read, or holds no such model.
    """
    from evalscope_vacc.config import MODEL_TYPE
    from evalscope_vacc.hosts.spelling import newer_spelling
    from evalscope_vacc.task_file import read_rageval

    inner = read_rageval(path)
    given = newer_spelling(inner).get("models")
    listed = [given] if isinstance(given, Mapping) else given
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not all(isinstance(e, Mapping) for e in listed):
        raise ConfigError(f"{path}: expected a list `models`, as `evalscope eval --eval-config` takes it")
    ours = [dict(entry) for entry in listed if entry.get("model_type") == MODEL_TYPE]
    if not ours:
        raise ConfigError(f"{path}: no model has model_type: {MODEL_TYPE}; the others are not served ones")
    if model is not None:
        names = [str(entry.get("model_name")) for entry in ours]
        ours = [entry for entry in ours if entry.get("model_name") == model]
        if not ours:
            raise ConfigError(f"{path}: no model is named {model!r}; there are {', '.join(names)}")
    return [{**entry, "api_key": key} for entry in ours] if key is not None else ours


def _checked(entry: Mapping[str, Any]) -> Report:
    from evalscope_vacc.checks.run import check_model
    from evalscope_vacc.config import configure

    return check_model(configure(entry, where=f"model {entry.get('model_name', '?')!r}"))
