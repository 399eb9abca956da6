"""The command: registers the subcommands, and turns our errors into one line and an exit status."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn

import typer

from evalscope_vacc.errors import ConfigError, RunInterrupted, VaccError

app = typer.Typer(
    name="evalscope-vacc",
    help=(
        "Does a served embedding or rerank model score what its weights should?\n\n"
        "Start with `demo`, which needs no server. Then write `model_type: vacc_api` into an EvalScope RAGEval file and "
        "run it with `eval`, or with `evalscope eval` itself."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _options(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
) -> None:
    if debug:
        os.environ["EVALSCOPE_VACC_DEBUG"] = "1"


def _register() -> None:
    from evalscope_vacc.cli import (
        check,
        compare,
        demo,
        download,
        estimate,
        evaluate,
        migrate,
        models,
        mteb,
        parity,
        prompts,
        published,
        report,
        serve,
        show_text,
        store,
        version,
    )

    app.command("demo")(demo.demo)
    app.command("eval")(evaluate.evaluate)
    app.command("show-text")(show_text.show_text)
    app.command("check")(check.check)
    app.command("compare")(compare.compare)
    app.command("parity")(parity.parity)
    app.command("report")(report.report)
    app.command("estimate")(estimate.estimate)
    app.command("published")(published.published)
    app.command("models")(models.models)
    app.command("download")(download.download)
    app.command("serve")(serve.serve)
    app.command("migrate")(migrate.migrate)
    app.add_typer(prompts.app, name="prompts")
    app.add_typer(store.app, name="store")
    # what follows the name is MTEB's, its --help included
    hand_on = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command("mteb", context_settings=hand_on, add_help_option=False)(mteb.mteb)
    app.command("version")(version.version)


_register()


def main() -> None:
    """Runs the command; exit status 0 for success, 1 for a failure, 2 for a usage or configuration error."""
    from rich.console import Console

    try:
        app()
    except (VaccError, KeyboardInterrupt) as error:
        if os.environ.get("EVALSCOPE_VACC_DEBUG"):
            raise
        if isinstance(error, (KeyboardInterrupt, RunInterrupted)):
            # from here on another Ctrl-C ends the process at once
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if isinstance(error, KeyboardInterrupt):
            error = RunInterrupted()
        message = str(error) or type(error).__name__
        Console(stderr=True, highlight=False).print(f"error: {message}", style="bold red", markup=False, soft_wrap=True)
        if isinstance(error, RunInterrupted):
            _leave(130)
        sys.exit(2 if isinstance(error, ConfigError) else 1)


def _leave(status: int) -> NoReturn:
    """Ends the process without taking the hosts' thousands of modules apart, which takes seconds: somebody waits."""
    atexit._run_exitfuncs()  # noqa: SLF001 -- the only way to have them run before os._exit()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
