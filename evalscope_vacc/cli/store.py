"""``evalscope-vacc store``: what is kept on disk of unfinished runs and kept models, and its removal."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from evalscope_vacc.cli.options import AsJson, Lang

app = typer.Typer(
    no_args_is_help=True,
    help="Vectors and scores kept on disk: of unfinished tasks (resume), and of models whose answers are kept (reuse).",
)

Folder = Annotated[
    Path | None,
    typer.Option("--folder", help="The store's folder; by default $VACC_HOME/store, else the one in the user's cache."),
]


def _folder(folder: Path | None) -> Path:
    from evalscope_vacc.store import default_folder

    return (folder or default_folder()).expanduser().absolute()


@app.command("ls")
def list_entries(
    folder: Folder = None,
    as_json: AsJson = False,
    lang: Lang = "en",
) -> None:
    """Lists what is kept: model, task, number of answers, size, time since the last use."""
    from evalscope_vacc.store import listing
    from evalscope_vacc.view import listings
    from evalscope_vacc.view.document import show
    from evalscope_vacc.view.words import Words

    place, words = _folder(folder), Words(lang)
    lines = listing(place)
    if as_json:
        typer.echo(json.dumps([line.as_json() for line in lines], ensure_ascii=False, indent=2))
    else:
        show(listings.store(place, lines, words))


@app.command("rm")
def remove_entries(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names, or their beginnings, as `store ls` prints them.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all of it.")] = False,
    older_than: Annotated[
        float | None,
        typer.Option("--older-than", metavar="DAYS", min=0, help="Remove what was not used for this long."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also remove what a running process uses; it requests that again.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    folder: Folder = None,
) -> None:
    """Removes kept answers; they are requested again when they are needed."""
    from evalscope_vacc.errors import ConfigError, StoreError
    from evalscope_vacc.store import files, matching, remove
    from evalscope_vacc.view.words import size

    place = _folder(folder)
    if sum((bool(names), everything, older_than is not None)) != 1:
        raise ConfigError("store rm takes names, or --all, or --older-than DAYS; `evalscope-vacc store ls` lists them")
    paths = matching(place, names) if names else files(place)
    if older_than is not None:
        border = time.time() - older_than * 86400
        paths = [path for path in paths if path.stat().st_mtime < border]
    if not paths:
        typer.echo("Nothing to remove.")
        return
    total = size(sum(path.stat().st_size for path in paths))
    if not yes:
        typer.confirm(f"Remove {len(paths)} of the entries in {place}, {total}?", abort=True)
    kept = [path.stem for path in paths if not remove(path, force=force)]
    typer.echo(f"Removed {len(paths) - len(kept)} of {len(paths)} entries.")
    if kept:
        raise StoreError(f"in use by a running process and kept: {', '.join(kept)}; stop it, or give --force")


@app.command("verify")
def verify_entries(
    names: Annotated[list[str] | None, typer.Argument(help="Names, or their beginnings. Default: all.")] = None,
    folder: Folder = None,
    as_json: AsJson = False,
    lang: Lang = "en",
) -> None:
    """Reads and checks the whole store; the exit status is 1 when something is damaged."""
    from evalscope_vacc.store import files, matching, verify
    from evalscope_vacc.view import listings
    from evalscope_vacc.view.document import show
    from evalscope_vacc.view.words import Words

    place = _folder(folder)
    verdicts = [verify(path) for path in (matching(place, names) if names else files(place))]
    if as_json:
        found = [{**vars(verdict), "ok": verdict.ok} for verdict in verdicts]
        typer.echo(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        show(listings.verified(place, verdicts, Words(lang)))
    if any(not verdict.ok for verdict in verdicts):
        raise typer.Exit(1)
