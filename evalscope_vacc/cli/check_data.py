"""``evalscope-vacc check-data``: can this folder of retrieval data be evaluated?"""

from __future__ import annotations

import json
from pathlib import Path

import typer

from evalscope_vacc.cli.options import AsJson


def check_data(
    folder: Path = typer.Argument(
        ..., metavar="DIR", help="The folder of a custom task, or one that holds several such folders."
    ),
    as_json: AsJson = False,
) -> None:
    """Check every row of custom data: file, line and _id of whatever a run would refuse, or count.

    Exit status: 0 when the data can be evaluated, 1 when a row cannot, 2 for a folder without data.
    """
    from evalscope_vacc.hosts.custom_data import data_folders, facts, read_folder

    found = [read_folder(one) for one in data_folders(folder)]
    if as_json:
        typer.echo(json.dumps([facts(data) for data in found], ensure_ascii=False, indent=1))
    else:
        for data in found:
            typer.echo("\n".join(data.report()))
    raise typer.Exit(int(any(data.errors for data in found)))
