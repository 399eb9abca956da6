"""``evalscope-vacc eval``: runs an EvalScope RAGEval file and prints the results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from evalscope_vacc.hosts.run_result import RunResult


def evaluate(
    config: Path = typer.Argument(
        ..., metavar="CONFIG.yaml", help="EvalScope's RAGEval file (tool, models, eval), or a whole task file."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the results as JSON, for machines."),
) -> None:
    """Run an EvalScope RAGEval configuration against the served models.

    The same as `evalscope eval --eval-backend RAGEval --eval-config CONFIG.yaml`, with the results as a table and an exit
    status that is not 0 when something failed.
    """
    from rich.console import Console

    from evalscope_vacc.hosts.entry import run

    result = run(config)
    if as_json:
        typer.echo(
            json.dumps({"output_folder": str(result.output_folder), "results": result.rows()}, ensure_ascii=False)
        )
        return
    console = Console()
    console.print(results_table(result))
    console.print(f"Files: {result.output_folder}", soft_wrap=True, highlight=False)


def results_table(result: RunResult) -> Table:
    """Returns the main scores as a table."""
    from rich.table import Table

    table = Table(title="Main scores")
    rows = result.rows()
    columns = ["model", "task", "split", "subset"]
    if any(row["stage"] for row in rows):
        columns.insert(1, "stage")
    for name in columns:
        table.add_column(name, overflow="fold")
    table.add_column("main score", justify="right")
    for row in rows:
        score = row["main_score"]
        table.add_row(*(str(row[name]) for name in columns), f"{score:.5f}" if isinstance(score, float) else str(score))
    return table
