"""``evalscope-vacc models``: the catalog as a table, or one model of it whole."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from evalscope_vacc.catalog import Entry


def models(
    name: Annotated[
        Optional[str],  # noqa: UP045 - a Python 3.10 host may carry a typer that knows no `X | None`
        typer.Argument(help="Show this model whole."),
    ] = None,
    *,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Lists the models of the catalog, or shows the one called NAME whole.

    A configuration takes its defaults from the entry that its served name matches, and always wins over it.
    """
    from evalscope_vacc import catalog

    shown = catalog.entries() if name is None else (catalog.get(name),)
    if json_:
        plain: Any = [entry.to_dict() for entry in shown]
        typer.echo(json.dumps(plain if name is None else plain[0], ensure_ascii=False, indent=1))
    elif name is None:
        _table(shown)
    else:
        _whole(shown[0])


_LEGEND = (
    "length: tokens that the model takes; dimension: – for cross-encoders, which answer with scores; MRL: Matryoshka, "
    "shorter vectors may be asked for; instruct: instruction aware; TP: tensor parallel, numbers of devices; requests: "
    "max. concurrency"
)


def _table(shown: tuple[Entry, ...]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("model", no_wrap=True)
    for heading in ("size", "layers", "length", "dimension", "MRL", "instruct", "TP", "requests"):
        table.add_column(heading, no_wrap=True, justify="right")
    for entry in (entry for entry in shown if not entry.rules_only):
        row = [entry.size, entry.layers, entry.model_limit, entry.dimensions]
        row += [_yes(entry.matryoshka), _yes(entry.instruction_aware)]
        row += ["/".join(map(str, entry.tensor_parallel)), entry.max_concurrency]
        table.add_row(entry.name, *("–" if value is None else str(value) for value in row))
    console = _console()
    console.print(table)
    typer.echo()
    console.print(_LEGEND, style="dim", width=min(console.width, 80))
    typer.echo()
    console.print(_other_models(shown))


def _other_models(shown: tuple[Entry, ...]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("other models", no_wrap=True)
    for heading in ("size", "length", "dimension"):
        table.add_column(heading, no_wrap=True, justify="right")
    table.add_column("texts get", no_wrap=True)
    for entry in (entry for entry in shown if entry.rules_only):
        row = [entry.size, entry.model_limit, entry.dimensions]
        table.add_row(entry.name, *("–" if value is None else str(value) for value in row), _rule(entry))
    return table


def _rule(entry: Entry) -> str:
    """What the model's texts get, in a word or two."""
    if entry.template_family:
        return "a template"
    if entry.profile not in (None, "none"):
        return "instructions"
    return "prefixes" if entry.prompts else "nothing"


def _yes(value: object) -> str:
    return "yes" if value else "–"


def _whole(entry: Entry) -> None:
    from rich.table import Table
    from rich.text import Text

    rows = {
        "kind": entry.kind,
        "Hugging Face": entry.huggingface,
        "ModelScope": entry.modelscope or "–",
        "parameters": entry.size,
        "download": "–" if entry.download_mb is None else f"about {entry.download_mb / 1000:.1f} GB",
        "layers": entry.layers,
        "hidden size": entry.hidden_size,
        "dimensions": _dimensions(entry),
        "pooling": entry.pooling or "–",
        "tokens": f"{entry.max_tokens} (as the published scores were measured)",
        "model limit": f"{entry.model_limit} tokens",
        "instruction aware": "yes" if entry.instruction_aware else "no",
        "instruction profile": entry.profile or "–",
        "instruction template": repr(entry.instruction_template) if entry.instruction_template else "–",
        "rerank template": entry.template or "–",
        "template family": entry.template_family or "–",
        "prompts": "\n".join(f"{key}: {value!r}" for key, value in entry.prompts.items()) or "–",
        "rules from": entry.rules_from or "–",
        "max concurrency": entry.max_concurrency,
        "tensor parallel": ", ".join(map(str, entry.tensor_parallel)),
        "hf overrides": entry.serve.hf_overrides or "–",
        "further arguments": " ".join(entry.serve.arguments) or "–",
        "languages": ", ".join(entry.languages) or "–",
        "license": entry.license or "–",
        "entry from": entry.source or "the built-in catalog",
    }
    table = Table(show_header=False, box=None, pad_edge=False)
    for key, value in rows.items():
        table.add_row(key, Text(str(value)))
    console = _console()
    console.print(Text(entry.name, style="bold"))
    console.print(table)


def _console() -> Console:
    from rich.console import Console

    console = Console()
    # in a pipe or a file there is no edge to wrap at
    return console if console.is_terminal else Console(width=160)


def _dimensions(entry: Entry) -> str:
    if entry.dimensions is None:
        return "–"
    return f"{entry.dimensions} (or {entry.matryoshka[0]} up)" if entry.matryoshka else str(entry.dimensions)
