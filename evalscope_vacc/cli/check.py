"""``evalscope-vacc check``: is the server what the configuration takes it for?"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import typer

from evalscope_vacc.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from evalscope_vacc.checks.findings import Report

_ADDRESS = re.compile(r"(?:[a-z][a-z0-9+.-]*://\S+|(?:[\w.-]+|\[[0-9a-f:]+\]):\d+(?:/\S*)?)", re.IGNORECASE)
_STYLE: Mapping[str, str] = {"ok": "green", "warning": "yellow", "wrong": "bold red"}


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
    as_json: bool = typer.Option(False, "--json", help="Print the findings as JSON, for machines."),
) -> None:
    """Check served models before the first task; takes at most a minute each.

    Exit status: 0 when nothing is wrong (warnings are no errors), 1 when something is, 2 for a configuration or usage
    that cannot be checked. A server that does not answer is waited for 5 seconds.
    """
    if is_address(config):
        from evalscope_vacc.checks.run import check_address

        reports = [check_address(config if "://" in config else f"http://{config}", model=model, api_key=key)]
    else:
        reports = [_checked(entry) for entry in model_entries(Path(config), model=model, key=key)]
    _show(reports, as_json=as_json)
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


def is_address(text: str) -> bool:
    """Whether an argument is a server's address and not a file."""
    return not Path(text).exists() and _ADDRESS.fullmatch(text) is not None


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


def findings_table(report: Report) -> Table:
    """The findings as a table."""
    from rich.markup import escape
    from rich.table import Table

    where = ", ".join(report.servers)
    kind = f", {report.kind}" if report.kind else ""
    table = Table(title=escape(f"{report.model} at {where}{kind}"), title_justify="left", show_lines=False)
    table.add_column("", no_wrap=True)
    table.add_column("Check", no_wrap=True)
    table.add_column("Seen, and what it means", ratio=3)
    table.add_column("What to do", ratio=2)
    for finding in report.findings:
        meaning = f"\n[dim]{escape(finding.meaning)}[/dim]" if finding.meaning else ""
        server = f"{escape(finding.server)}: " if finding.server else ""
        style = _STYLE[finding.state]
        table.add_row(
            f"[{style}]{finding.state}[/{style}]",
            finding.check,
            f"{server}{escape(finding.seen)}{meaning}",
            escape(finding.action),
        )
    return table


def _checked(entry: Mapping[str, Any]) -> Report:
    from evalscope_vacc.checks.run import check_model
    from evalscope_vacc.config import configure

    return check_model(configure(entry, where=f"model {entry.get('model_name', '?')!r}"))


def _show(reports: Sequence[Report], *, as_json: bool) -> None:
    if as_json:
        status = max(report.exit_status for report in reports)
        content = {"exit_status": status, "models": [report.to_json() for report in reports]}
        typer.echo(json.dumps(content, ensure_ascii=False, indent=1))
        return
    from rich.console import Console

    console = Console(highlight=False)
    for report in reports:
        console.print(findings_table(report))
        counts = {state: sum(f.state == state for f in report.findings) for state in _STYLE}
        shown = ", ".join(f"{count} {state}" for state, count in counts.items())
        console.print(f"{report.state}: {shown}; {report.seconds:.1f} s", style=_STYLE[report.state], markup=False)
