"""``evalscope-vacc models``: the catalog as a table, or one model of it whole."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from rich.console import Console

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


def _table(shown: tuple[Entry, ...]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("model", "kind", "size", "layers", "dimensions", "tokens", "limit", "devices", "text"):
        table.add_column(heading, no_wrap=heading in {"model", "kind", "size"})
    for entry in shown:
        table.add_row(
            entry.name,
            entry.kind,
            entry.size,
            "–" if entry.layers is None else str(entry.layers),
            _dimensions(entry),
            str(entry.max_tokens),
            str(entry.model_limit),
            "/".join(map(str, entry.tensor_parallel)),
            _text(entry),
        )
    _console().print(table)


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
        "rerank template": entry.template or "–",
        "template family": entry.template_family or "–",
        "prompts": "\n".join(f"{key}: {value!r}" for key, value in entry.prompts.items()) or "–",
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


def _text(entry: Entry) -> str:
    if entry.is_cross_encoder:
        return f"template {entry.template or 'none'}"
    if entry.profile not in (None, "none"):
        return f"profile {entry.profile}"
    return f"prompt before {', '.join(entry.prompts)}" if entry.prompts else "as it is"
