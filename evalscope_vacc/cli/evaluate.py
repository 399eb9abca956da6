"""``evalscope-vacc eval``: runs an EvalScope RAGEval file and prints the results."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from evalscope_vacc.cli.options import AsJson, Lang


def evaluate(
    config: Path = typer.Argument(
        ..., metavar="CONFIG.yaml", help="EvalScope's RAGEval file (tool, models, eval), or a whole task file."
    ),
    as_json: AsJson = False,
    lang: Lang = "en",
) -> None:
    """Run an EvalScope RAGEval configuration against the served models.

    The same as `evalscope eval --eval-backend RAGEval --eval-config CONFIG.yaml`, with the results as a table and an exit
    status that is not 0 when something failed.
    """
    from evalscope_vacc.hosts.entry import run
    from evalscope_vacc.view.document import show
    from evalscope_vacc.view.listings import scores
    from evalscope_vacc.view.words import Words

    words = Words(lang)
    result = run(config)
    if as_json:
        found = {"output_folder": str(result.output_folder), "results": result.rows()}
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    show(scores(result.rows(), result.output_folder, words))
