"""``evalscope-vacc estimate``: how many texts and tokens, and how long, before anything is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Optional

import typer


def estimate(
    config: Path = typer.Argument(..., metavar="CONFIG.yaml", help="EvalScope's RAGEval file (tool, models, eval)."),
    texts_per_second: float = typer.Option(
        ..., "--texts-per-second", help="Measured rate of the encoder (`usage.json` of an earlier run has one)."
    ),
    pairs_per_second: Optional[float] = typer.Option(  # noqa: UP045 - an older typer on Python 3.10 knows no `X | None`
        None, "--pairs-per-second", help="Measured rate of the cross-encoder. Default: the same number."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON, for machines."),
) -> None:
    """Estimate texts, tokens and time of a configuration, and list the scores to expect."""
    from evalscope_vacc.results.estimate import estimate as estimate_of

    found = estimate_of(config, texts_per_second=texts_per_second, pairs_per_second=pairs_per_second)
    if as_json:
        typer.echo(json.dumps(found.to_json(), ensure_ascii=False, indent=1))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    for model in dict.fromkeys(task.model for task in found.tasks):
        mine = [task for task in found.tasks if task.model == model]
        table = Table("Task", mine[0].unit.capitalize(), "Tokens", "Time", "Expected", title=escape(model))
        for column in table.columns[1:]:
            column.justify = "right"
        for task in mine:
            expected = "" if task.expected is None else f"{100 * task.expected:.2f}"
            table.add_row(escape(task.task), f"{task.count:,}", _many(task.tokens), duration(task.seconds), expected)
        table.add_section()
        seconds, tokens = sum(t.seconds for t in mine), sum(t.tokens for t in mine)
        table.add_row(f"{len(mine)} tasks", f"{sum(t.count for t in mine):,}", _many(tokens), duration(seconds), "")
        console.print(table)
    for model, benchmark, measure, value in found.means:
        console.print(f"published: {benchmark} {measure} {100 * value:.2f} ({model})", markup=False)
    if found.unknown:
        console.print(f"not counted, sizes unknown: {', '.join(found.unknown)}", style="yellow", markup=False)
    console.print(f"together about {duration(found.seconds)}", style="bold")
    for note in found.notes:
        console.print(f"  {note}", style="dim", markup=False)


def duration(seconds: float) -> str:
    """Writes a duration with the two units that matter."""
    whole = round(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


def _many(count: int) -> str:
    return f"{count / 1e6:,.1f} M" if count >= 1e6 else f"{count:,}"
