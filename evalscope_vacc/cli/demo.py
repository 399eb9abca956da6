"""``evalscope-vacc demo``: a server with real weights and an EvalScope run against it, on this machine alone."""

from __future__ import annotations

import json
import os
import threading
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from evalscope_vacc.demo.run import DemoReport


def demo(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON, for machines.")] = False,
    work_dir: Annotated[
        Optional[Path],  # noqa: UP045 - read at run time, by a typer that may know no `X | None`
        typer.Option(metavar="DIR", help="Where the files go. [default: ./outputs/vacc-demo/TIME]"),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the server running afterwards, until Ctrl-C.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what EvalScope says as it runs.")] = False,
) -> None:
    """Try it without a server or network: about a minute, nothing is left running.

    Starts a small server with the real weights of all-MiniLM-L6-v2 and runs EvalScope against it, first the encoder
    alone, then encoder and cross-encoder. Beside each score stands what the same weights get in process.
    """
    from rich.console import Console

    from evalscope_vacc.demo.run import run_demo

    # a copy of the real standard error: EvalScope's own output goes to a file meanwhile
    with os.fdopen(os.dup(2), "w", encoding="utf-8") as terminal:
        told = Console(file=terminal, highlight=False)

        def tell(line: str) -> None:
            told.print(line, style="dim", markup=False)

        def show(report: DemoReport, url: str) -> None:
            _print(report, as_json=as_json)
            if keep:
                tell(f"The server stays at {url} until Ctrl-C; its models: see {url}/v1/models.")
                try:
                    threading.Event().wait()
                except KeyboardInterrupt:
                    tell("Stopped.")

        report = run_demo(work_dir, tell=tell, verbose=verbose, before_stop=show)
    if not report.passed:
        raise typer.Exit(1)


def _print(report: DemoReport, *, as_json: bool) -> None:
    from rich.console import Console

    if as_json:
        typer.echo(json.dumps(report.as_dict(), ensure_ascii=False))
        return
    console = Console(highlight=False)
    for table in results_tables(report):
        console.print(table, "")
    if report.passed:
        console.print("[green]Every score is that of the same weights in process, and both stages agree.[/]")
    else:
        console.print(
            f"[bold red]A score differs from the same weights in process by {report.largest_difference:.2g}, "
            f"the stages by {report.two_stage_difference:.2g}.[/]"
        )
    console.print(
        f"{report.requests} requests in {report.seconds:.0f} s; {report.texts_encoded} texts were encoded, "
        f"{report.texts_remembered} more were still known to the server."
    )
    console.print("Files:", report.work_dir, soft_wrap=True, markup=False)


def results_tables(report: DemoReport) -> Iterator[Table]:
    """One table a stage, of less than 80 columns: the scores, each beside what it has to be."""
    from rich.table import Table

    titles = {"one-stage": "One stage", "first": "Two stages: candidates", "second": "Two stages: reranked"}
    for (stage, model), rows in groupby(report.results, key=lambda row: (row.stage, row.model)):
        table = Table(title=f"{titles[stage]}, {model}", title_justify="left", box=None, pad_edge=False)
        for name, width in (("task", 22), ("subset", 6), ("measure", 15)):
            table.add_column(name, min_width=width)
        for name in ("served", "in process"):
            table.add_column(name, min_width=10, justify="right")
        for row in rows:
            expected = "" if row.in_process is None else f"{row.in_process:.5f}"
            table.add_row(row.task, row.subset, row.metric, f"{row.score:.5f}", expected)
        yield table
