"""``evalscope-vacc prompts``: the published dictionary of instructions."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import typer

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.names import did_you_mean

app = typer.Typer(
    help="Fetch and show Qwen's task prompts, which the profile qwen-official needs.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("fetch")
def fetch(
    url: Optional[str] = typer.Option(  # noqa: UP045 - a Python 3.10 host may carry a typer that knows no `X | None`
        None, "--url", help="Address of the same file, instead of the known ones."
    ),
    timeout: float = typer.Option(
        30.0, "--timeout", min=1.0, help="Seconds to wait for data before the next address is tried."
    ),
) -> None:
    """Download the published dictionary into the user's cache, where every run finds it.

    The command tries the mirror in HF_ENDPOINT, GitHub, and an address that can be reached from China. It accepts only
    the published file (by its sha256). If you already have a copy, name it with `model_kwargs.instruction_dict_path`.
    """
    from evalscope_vacc.text import dictionary

    path = dictionary.fetch(url, timeout_s=timeout)
    tasks = len(dictionary.load_dictionary(path))
    typer.echo(f"{tasks} tasks, sha256 as published: {path}")


@app.command("path")
def path() -> None:
    """Print where the fetched dictionary is kept; exit status 1 if it is not there."""
    from evalscope_vacc.text.dictionary import default_dictionary_path

    kept = default_dictionary_path()
    typer.echo(kept)
    if not kept.is_file():
        typer.echo("not fetched yet: evalscope-vacc prompts fetch", err=True)
        raise typer.Exit(1)


@app.command("show")
def show(
    tasks: list[str] | None = typer.Argument(None, metavar="[TASK]...", help="Task names; default all of them."),
    dictionary: Path | None = typer.Option(
        None, "--dictionary", metavar="FILE", help="A dictionary other than the fetched one."
    ),
) -> None:
    """Print the dictionary's instructions, tab-separated: task, side (or -), instruction.

    What is sent for a task also depends on the profile's rules and the task's type: see `show-text`.
    """
    from evalscope_vacc.text.dictionary import find_dictionary

    known = find_dictionary(None if dictionary is None else str(dictionary)) or {}
    for task in tasks or known:
        if task not in known:
            hint = did_you_mean(task, known, most=3)
            raise ConfigError(
                f"the dictionary has no task {task!r}. There, qwen-official takes the task's own metadata. {hint}".strip()
            )
    for task in tasks or known:
        entry = known[task]
        for side, instruction in [("-", entry)] if isinstance(entry, str) else list(entry.items()):
            typer.echo(f"{task}\t{side}\t{instruction}")
