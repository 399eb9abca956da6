"""The output of a command, independent of its form: lines and tables; and how a terminal and Markdown show them."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from evalscope_vacc.messages import Words

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

Style = Literal["", "good", "bad", "doubt", "soft"]
Kind = Literal["head", "text", "more", "loud", "fact", "note"]
_INDENT = ("more", "fact", "note")
_COLOURS = {"good": "green", "bad": "bold red", "doubt": "yellow", "soft": "dim", "": ""}
_GAP = 2
NARROWEST = 40
# a word with the blank before it, or one Chinese character with the punctuation that may not begin a line
_PARTS = re.compile(r"\s*[\u2e80-\u9fff][\u3000-\u303f\uff00-\uffef]*|\s*[^\s\u2e80-\u9fff]+|\s+")


@dataclass(frozen=True)
class Line:
    """One line, or paragraph."""

    text: str
    # "head" is the verdict or a title, "more" belongs to it, "loud" must not be missed, "fact" is provenance, "note"
    # belongs to a number in a table
    kind: Kind = "text"
    style: Style = ""
    number: int = 0  # of a note
    gap: bool = False  # whether a terminal leaves a line free before it


@dataclass(frozen=True)
class Column:
    """A column."""

    head: str
    right: bool = False  # whether it holds numbers
    extra: bool = False  # whether a narrow terminal may do without it; the last such column goes first


@dataclass(frozen=True)
class Table:
    """A table without boxes; ``styles`` colour the last cell of each row. A column of which every cell is empty goes."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    styles: tuple[Style, ...] = ()

    def __post_init__(self) -> None:
        kept = [i for i in range(len(self.columns)) if any(row[i] for row in self.rows)]
        object.__setattr__(self, "columns", tuple(self.columns[i] for i in kept))
        object.__setattr__(self, "rows", tuple(tuple(row[i] for i in kept) for row in self.rows))


Block = Line | Table


def table(
    words: Words,
    heads: Iterable[str],
    rows: Iterable[tuple[str, ...]],
    *,
    right: Iterable[str] = (),
    extra: Iterable[str] = (),
    styles: Iterable[Style] = (),
) -> Table:
    """Returns a table whose columns are called as the catalogue has it; those ``right`` hold numbers."""
    columns = tuple(Column(words(f"col_{head}"), head in right, head in extra) for head in heads)
    return Table(columns, tuple(rows), tuple(styles))


def show(blocks: Iterable[Block]) -> None:
    """Prints a document; a reader that has seen enough, such as `head`, must not turn the verdict into another."""
    write_out(to_terminal(list(blocks)))


def write_out(text: str) -> None:
    """Prints a text as it is."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def to_terminal(blocks: Sequence[Block], width: int | None = None) -> str:
    """Returns what a terminal of ``width`` columns shows; without a terminal nothing is wrapped or left out.

    No word is ever broken: a line is wrapped between words, and a table leaves out its extra columns.
    """
    from rich.console import Console
    from rich.text import Text

    real = Console(highlight=False)
    limit = width if width is not None else real.width if real.is_terminal else None
    out = io.StringIO()
    console = Console(
        file=out, highlight=False, width=1_000_000, force_terminal=real.is_terminal, no_color=real.no_color,
        color_system=real.color_system if real.is_terminal else None,  # type: ignore[arg-type]
    )  # fmt: skip
    for position, block in enumerate(blocks):
        if isinstance(block, Table):
            console.print(_aligned(console, block, limit))
            if position + 1 < len(blocks):
                console.print()
            continue
        if block.gap:
            console.print()
        style = "bold" if block.kind in ("head", "loud") else "dim" if block.kind in ("fact", "note") else ""
        indent = "  " if block.kind in _INDENT else ""
        said = f"[{block.number}] {block.text}" if block.number else block.text
        for line in _wrapped(said, limit - len(indent) if limit else 0):
            text = Text(indent + line, f"{style} {_COLOURS[block.style]}")
            console.print(text, no_wrap=True, crop=False, overflow="ignore")
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def _wrapped(text: str, width: int) -> Iterator[str]:
    """Breaks a line between words, and between Chinese characters; 0 breaks nothing."""
    from rich.cells import cell_len

    line = ""
    for part in _PARTS.findall(text.replace("\n", " ") if width else ""):
        if line and cell_len(line + part) > max(width, NARROWEST):
            yield line
            line = ""
        line = (line + part).lstrip()
    yield line if width else text.replace("\n", " ")


def _aligned(console: Console, table: Table, limit: int | None) -> RichTable:
    """Lays a table out; of one that is too wide the last extra column goes first."""
    from rich.table import Table as RichTable
    from rich.text import Text

    kept = list(range(len(table.columns)))
    while True:
        # a table of names and values has no heads
        laid = RichTable(
            box=None, padding=(0, _GAP, 0, 0), pad_edge=False, show_header=any(c.head for c in table.columns)
        )
        for column in (table.columns[i] for i in kept):
            laid.add_column(column.head, header_style="bold", justify="right" if column.right else "left", no_wrap=True)
        for number, row in enumerate(table.rows):
            styles = {len(table.columns) - 1: _COLOURS[table.styles[number]]} if number < len(table.styles) else {}
            laid.add_row(*(Text(row[i].replace("\n", " "), styles.get(i, "")) for i in kept))
        extra = [i for i in kept if table.columns[i].extra]
        if not limit or not extra or console.measure(laid).maximum - _GAP <= max(limit, NARROWEST):
            return laid
        kept.remove(extra[-1])


def to_markdown(blocks: Iterable[Block]) -> str:
    """Returns a page that can be pasted into an issue."""
    page, before = "", ""
    for block in blocks:
        kind = "table" if isinstance(block, Table) else block.kind
        # the items of a list follow one another, everything else is a paragraph
        page += "\n" if kind == before and kind in ("fact", "note") else "\n\n" if page else ""
        page += _markdown(block)
        before = kind
    return page + "\n"


def _markdown(block: Block) -> str:
    if isinstance(block, Table):
        heads = [column.head for column in block.columns]
        rule = ["---:" if column.right else "---" for column in block.columns]
        rows = [heads, rule, *([_escaped(cell) for cell in row] for row in block.rows)]
        return "\n".join("| " + " | ".join(row) + " |" for row in rows)
    before = {"head": "## ", "loud": "**", "fact": "* ", "note": f"{block.number}. ", "text": "", "more": ""}[
        block.kind
    ]
    return before + _escaped(block.text) + ("**" if block.kind == "loud" else "")


def _escaped(text: str) -> str:
    """Keeps names from becoming markup: a task may be called anything."""
    text = re.sub(r"[\\|*`\[\]_]", r"\\\g<0>", text)
    return text.replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ")
