"""``evalscope-vacc version``: our version, the hosts', and whether they go together."""

from __future__ import annotations

import typer


def version() -> None:
    """Show the versions of this package and of its hosts, the plugins, and whether the hooks are on."""
    from rich.console import Console

    from evalscope_vacc import __version__
    from evalscope_vacc.hosts.autoload import DISABLE_VARIABLE, disabled
    from evalscope_vacc.hosts.versions import check, installed
    from evalscope_vacc.plugins import plugins

    console = Console(highlight=False)
    console.print(f"evalscope-vacc {__version__}")
    for name, found in installed().items():
        console.print(f"{name} {found or 'not installed'}")
    loaded = plugins()
    console.print(f"model types: {', '.join(sorted(loaded.model_types())) or 'none'}")
    for name, why in loaded.broken.items():
        console.print(f"plugin {name} is left out: {why}", markup=False)
    console.print(f"hooks: {f'off ({DISABLE_VARIABLE} is set)' if disabled() else 'on'}")
    problem = check()
    if problem:
        console.print(problem, markup=False, soft_wrap=True)
        raise typer.Exit(1)
