"""``evalscope-vacc mteb …``: MTEB's own command, in a process where ``vacc/NAME`` is known for sure."""

from __future__ import annotations

import sys

import typer


def mteb(ctx: typer.Context) -> None:
    """Pass everything that follows to MTEB's own command, for example: mteb run -m vacc/NAME -t SciFact."""
    from evalscope_vacc.hosts.autoload import activate

    activate()
    from mteb.cli.build_cli import main

    argv = sys.argv
    sys.argv = ["mteb", *ctx.args]
    try:
        main()
    finally:
        sys.argv = argv
