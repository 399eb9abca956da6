"""The command: registers the subcommands."""

from __future__ import annotations

import os

import typer

from evalscope_vacc.exits import DEBUG_VARIABLE, ends_in_one_line

app = typer.Typer(
    name="evalscope-vacc",
    help=(
        "Does a served embedding or rerank model reproduce the scores of its weights?\n\n"
        "Start with `demo`, which needs no server. `run ADDRESS` then checks, evaluates and judges a server of yours. Or write "
        "`model_type: vacc_api` into an EvalScope RAGEval file and run it with `eval`, or with `evalscope eval` itself."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from evalscope_vacc._version import __version__

        typer.echo(f"evalscope-vacc {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(  # noqa: ARG001 -- the callback ends the command
        False, "--version", callback=_version, is_eager=True, help="Show this package's version."
    ),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
) -> None:
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"


def _register() -> None:
    from evalscope_vacc.cli import (
        check,
        check_data,
        compare,
        demo,
        download,
        estimate,
        evaluate,
        migrate,
        models,
        mteb,
        parity,
        prefetch,
        prompts,
        published,
        report,
        run,
        serve,
        show_text,
        store,
        version,
    )

    app.command("demo")(demo.demo)
    app.command("run")(run.run)
    app.command("eval")(evaluate.evaluate)
    app.command("show-text")(show_text.show_text)
    app.command("check")(check.check)
    app.command("check-data")(check_data.check_data)
    app.command("prefetch")(prefetch.prefetch)
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
    with ends_in_one_line():
        app()
