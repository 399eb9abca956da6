"""``evalscope-vacc demo``: a server with real weights and an EvalScope run against it, on this machine alone."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from evalscope_vacc.cli.options import AsJson, Lang

if TYPE_CHECKING:
    from evalscope_vacc.demo.run import DemoReport
    from evalscope_vacc.view.words import Words


def demo(
    *,
    as_json: AsJson = False,
    work_dir: Annotated[
        Optional[Path],  # noqa: UP045 - read at run time, by a typer that may know no `X | None`
        typer.Option(metavar="DIR", help="Folder for the files. [default: ./outputs/vacc-demo/TIME]"),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the server running afterwards, until Ctrl-C.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what EvalScope prints.")] = False,
    lang: Lang = "en",
) -> None:
    """Try it without a server or network: about a minute, nothing is left running.

    Starts a small server with the real weights of all-MiniLM-L6-v2 and runs EvalScope against it, first the encoder
    alone, then encoder and cross-encoder. Beside each score stands what the same weights get in process.
    """
    from rich.console import Console

    from evalscope_vacc.demo.run import run_demo
    from evalscope_vacc.view.words import Words

    words = Words(lang)

    # a copy of the real standard error: EvalScope's own output goes to a file meanwhile
    with os.fdopen(os.dup(2), "w", encoding="utf-8") as terminal:
        told = Console(file=terminal, highlight=False)

        def tell(line: str) -> None:
            told.print(line, style="dim", markup=False)

        def show(report: DemoReport, url: str) -> None:
            _print(report, words, as_json=as_json)
            if keep:
                tell(f"The server stays at {url} until Ctrl-C; its models: see {url}/v1/models.")
                try:
                    threading.Event().wait()
                except KeyboardInterrupt:
                    tell("Stopped.")

        report = run_demo(work_dir, tell=tell, verbose=verbose, before_stop=show)
    if not report.passed:
        raise typer.Exit(1)


def _print(report: DemoReport, words: Words, *, as_json: bool) -> None:
    from evalscope_vacc.view.document import show
    from evalscope_vacc.view.listings import demo as document

    if as_json:
        typer.echo(json.dumps(report.as_dict(), ensure_ascii=False))
    else:
        show(document(report, words))
