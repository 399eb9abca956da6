"""``evalscope-vacc check``: is the server what the configuration takes it for?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import typer

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.wire.address import is_address

if TYPE_CHECKING:
    from rich.console import Console

    from evalscope_vacc.checks.findings import Report
    from evalscope_vacc.checks.wording import State

_STYLE: Mapping[State, str] = {"ok": "green", "warning": "yellow", "wrong": "bold red"}


def check(
    config: str = typer.Argument(
        ...,
        metavar="CONFIG|URL",
        help="EvalScope's RAGEval file (its vacc_api models are checked), or a server's address.",
    ),
    model: Optional[str] = typer.Option(  # noqa: UP045 - an older typer on Python 3.10 knows no `X | None`
        None, "--model", metavar="NAME", help="Served name; of a file's models only this one is checked."
    ),
    key: Optional[str] = typer.Option(  # noqa: UP045
        None,
        "--key",
        metavar="KEY",
        help="API key, or '${NAME}' of the environment. Default: the file's, $VACC_API_KEY.",
    ),
    dialect: Optional[str] = typer.Option(  # noqa: UP045
        None, "--dialect", metavar="NAME", help="How the server is spoken to, as the key `dialect`; of an address only."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the findings as JSON, for machines."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="List what is in order, too."),
) -> None:
    """Check served models before the first task; takes at most a minute each.

    Exit status: 0 when nothing is wrong (warnings are no errors), 1 when something is, 2 for a configuration or usage
    that cannot be checked. A server that does not answer is waited for 5 seconds.
    """
    if is_address(config):
        from evalscope_vacc.checks.run import check_address

        url = config if "://" in config else f"http://{config}"
        reports = [check_address(url, model=model, api_key=key, dialect=dialect)]
    elif dialect is not None:
        raise ConfigError("--dialect goes with an address; in a file, write the key `dialect`")
    else:
        reports = [_checked(entry) for entry in model_entries(Path(config), model=model, key=key)]
    _show(reports, as_json=as_json, verbose=verbose)
    raise typer.Exit(max(report.exit_status for report in reports))


def check_served(model: Mapping[str, Any]) -> int:
    """Checks one model's entry, prints the findings, and returns the exit status.

    Args:
        model: As an entry of EvalScope's ``models:`` list.

    Raises:
        ConfigError: The entry cannot be used.
    """
    report = _checked(model)
    _show([report], as_json=False)
    return report.exit_status


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
    from evalscope_vacc.task_file import read_config

    content = read_config(path)
    inner = content.get("eval_config", content)
    if isinstance(inner, str):
        inner = read_config(Path(inner))
    given = newer_spelling(inner).get("models") if isinstance(inner, Mapping) else None
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
    if key is not None:
        ours = [{**entry, "api_key": key} for entry in ours]
    return ours


def _checked(entry: Mapping[str, Any]) -> Report:
    from evalscope_vacc.checks.run import check_model
    from evalscope_vacc.config import configure

    return check_model(configure(entry, where=f"model {entry.get('model_name', '?')!r}"))


def _show(reports: Sequence[Report], *, as_json: bool, verbose: bool = False) -> None:
    if as_json:
        status = max(report.exit_status for report in reports)
        content = {"exit_status": status, "models": [report.to_json() for report in reports]}
        typer.echo(json.dumps(content, ensure_ascii=False, indent=1))
        return
    from rich.console import Console

    console = Console(highlight=False)
    for report in reports:
        _show_report(report, console, verbose=verbose)


def _show_report(report: Report, console: Console, *, verbose: bool) -> None:
    """What is wrong first, each with what to do; then how much passed; the last line is the verdict."""

    def line(text: str, style: str = "") -> None:
        # what is read by a program or kept in a file is never broken inside a sentence
        console.print(text, style=style, markup=False, soft_wrap=not console.is_terminal)

    line(f"{report.model} at {', '.join(report.servers)}{f', {report.kind}' if report.kind else ''}")
    bad: tuple[State, ...] = ("wrong", "warning")
    for state in bad:
        for finding in report.having(state):
            where = f" ({finding.server})" if finding.server else ""
            line(f"\n{state}  {finding.check}{where}: {finding.seen}", _STYLE[state])
            for text in (finding.meaning, finding.action and f"→ {finding.action}"):
                if text:
                    line(f"  {text}")
    passed = report.having("ok")
    line(f"\n{len(passed)} checks passed{':' if verbose else ' (-v lists them)'}")
    if verbose:
        for finding in passed:
            line(f"  {finding.line()}")
    counts = [f"{len(report.having('wrong'))} wrong", _several(len(report.having("warning")), "warning")]
    shown = ", ".join([count for count in counts if not count.startswith("0 ")] + [f"{len(passed)} passed"])
    verdict = "FAILED" if report.exit_status else "PASSED"
    line(f"{verdict}  {shown} in {report.seconds:.0f} s\n", _STYLE[report.state])


def _several(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"
