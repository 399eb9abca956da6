"""``evalscope-vacc show-text``: what would be sent, without a server."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import product
from pathlib import Path

import typer


def show_text(
    config: Path = typer.Argument(..., metavar="CONFIG.yaml", help="EvalScope's RAGEval file, or a whole task file."),
    task: str | None = typer.Option(None, "--task", help="MTEB's name of the task."),
    benchmark: str | None = typer.Option(None, "--benchmark", help="A benchmark of MTEB: every task of it."),
    split: str | None = typer.Option(None, "--split", help="Split of the task. Default: the first."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON, for machines."),
) -> None:
    """Show the exact texts that would be sent for a task. Loads the task's data and asks no server."""
    from rich.console import Console

    from evalscope_vacc.errors import ConfigError
    from evalscope_vacc.hosts.entry import task_config
    from evalscope_vacc.hosts.show_text import show_text as look
    from evalscope_vacc.redact import clean
    from evalscope_vacc.results.benchmarks import named
    from evalscope_vacc.task_file import read_config

    evaluation = task_config(read_config(config))["eval_config"]
    entries = [e for e in evaluation.get("models") or evaluation.get("model") or [] if e.get("model_type")]
    if not entries:
        raise ConfigError(f"{config}: no entry of models has model_type: vacc_api")
    console = Console(highlight=False)
    if (task is None) == (benchmark is None):
        raise ConfigError("show-text takes --task NAME or --benchmark NAME")
    tasks = [task] if task is not None else [part.name for part in named(str(benchmark)).tasks]
    for entry, name in product(entries, tasks):
        shown = look(entry, name, split)
        for item in shown:
            if as_json:
                typer.echo(json.dumps({"model": entry.get("model_name"), **asdict(item)}, ensure_ascii=False))
                continue
            where = " ".join(part for part in (item.task, item.split, item.subset, item.side) if part)
            console.print(f"{entry.get('model_name')}: {where} ({item.source})", style="bold", markup=False)
            for text in item.texts:
                for part in text:
                    console.print(json.dumps(clean(part), ensure_ascii=False), markup=False, soft_wrap=True)
