"""``evalscope-vacc prefetch``: all data of a run, to carry to a machine without internet."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from evalscope_vacc.cli.options import AsJson, Benchmarks, File, Lang, Tasks, Text, Verbose, task_names

_PLACE = "DIR|FILE.tar.zst"


def prefetch(
    config: Annotated[File, typer.Argument(metavar="[CONFIG.yaml]", help="A file as `eval` and `run` take it.")] = None,
    tasks: Tasks = None,
    benchmark: Benchmarks = None,
    preset: Annotated[
        Text,
        typer.Option("--preset", metavar="NAME", help="The tasks of a preset of `run`, for the file's models or all."),
    ] = None,
    to: Annotated[
        File,
        typer.Option(
            "--to",
            metavar=_PLACE,
            help="Where the data go, for `--data`. Default: this machine's cache, for runs here.",
        ),
    ] = None,
    verify: Annotated[
        File, typer.Option("--verify", metavar=_PLACE, help="Fetch nothing: compare every file with the manifest.")
    ] = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
    lang: Lang = "en",
) -> None:
    """Load the data of every task once, into a folder or file to carry to a machine without internet.

    Every language and split of the tasks, the instruction dictionary, and the tokenizers that the file's models name, from
    the hub or the mirror that HF_ENDPOINT names. The same command again goes on. There, `run --data FILE` needs no hub.

    Exit status: 0 when everything is there, 1 when something could not be fetched, or is damaged, 2 usage.
    """
    from evalscope_vacc.hosts.bundle import verify as verify_files
    from evalscope_vacc.runner import prefetch as runner
    from evalscope_vacc.view.words import Words

    words = Words(lang)
    if verify is not None:
        manifest, wrong = verify_files(verify)
        said = runner.verified(manifest, wrong, words)
    else:
        asked = runner.wanted(config, task_names(tasks), benchmark or (), preset)
        manifest, fetched = runner.prefetch(asked, to, words, verbose=verbose)
        wrong = {one.name: one.why for one in fetched if one.why and one.needed}
        said = runner.fetched(to, manifest, wrong, words)
    if as_json:
        where = verify or to
        found = {"place": str(where) if where else None, "bytes": manifest.bytes, "files": len(manifest.files)}
        tasks_there = {name: task.model_dump() for name, task in manifest.tasks.items()}
        said = [json.dumps({**found, "tasks": tasks_there, "wrong": wrong}, ensure_ascii=False, indent=1)]
    typer.echo("\n".join(said))
    raise typer.Exit(int(bool(wrong)))
