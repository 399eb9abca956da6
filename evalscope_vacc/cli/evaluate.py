"""``evalscope-vacc eval``: runs an EvalScope RAGEval file and prints the results."""

from __future__ import annotations

from pathlib import Path

import typer

from evalscope_vacc.cli.options import AsJson, Data, Lang, Verbose, Workers


def evaluate(
    config: Path = typer.Argument(
        ..., metavar="CONFIG.yaml", help="EvalScope's RAGEval file (tool, models, eval), or a whole task file."
    ),
    data: Data = None,
    workers: Workers = None,
    as_json: AsJson = False,
    lang: Lang = "en",
    verbose: Verbose = False,
) -> None:
    """Run an EvalScope RAGEval configuration against the served models.

    The same as `evalscope eval --eval-backend RAGEval --eval-config CONFIG.yaml`, with one line for each finished
    task, the results as a table, and an exit status that is not 0 when something failed. What EvalScope and the
    libraries print goes to logs/ in the run's folder.
    """
    from evalscope_vacc.hosts.spelling import read_count
    from evalscope_vacc.runner.command import evaluate as run_and_show
    from evalscope_vacc.view.words import Words

    count = read_count(workers, "--workers")
    run_and_show(config, Words(lang), data=data, workers=count, verbose=verbose, as_json=as_json)
