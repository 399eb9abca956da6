"""Reads what MTEB hands to a model, a window at a time: a data loader of batches, or plain texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from evalscope_vacc.errors import TextError

COLUMNS = ("text", "query", "instruction")

WINDOW = 1024
"""Rows that are read at once: the first request leaves after so many, and within them the longest texts go first."""


@dataclass(frozen=True)
class Rows:
    """The columns of a window of one side, all of one length.

    Attributes:
        text: What MTEB would have an encoder read: title and text of a document, a query followed by its instruction.
        query: The query without its instruction, where the task has one.
        instruction: The instruction of each query, where the task's data have them.
    """

    text: Sequence[str]
    query: Sequence[str] | None = None
    instruction: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.text)


def count_rows(inputs: Any) -> int | None:
    """Returns how many texts there are, or None where that is known only at the end."""
    if isinstance(inputs, str):
        return 1
    if isinstance(inputs, (list, tuple)) and all(isinstance(item, str) for item in inputs[:1]):
        return len(inputs)
    dataset = _dataset(inputs)
    return None if dataset is None else len(dataset)


def read_rows(inputs: Any, *, what: str = "the inputs", window: int = WINDOW) -> Iterator[Rows]:
    """Yields the texts of a data loader in its order, a window at a time; every window but the last is full.

    A loader that walks an unshuffled data set is read by column, which is faster by far than collating rows: the texts
    are the same, because MTEB prepares them before it makes the loader.

    Args:
        inputs: ``DataLoader[BatchedInput]``, an iterable of such batches, or an iterable of strings.
        what: What this is, for messages.
        window: Rows at once.

    Raises:
        TextError: There is no text, or one is not a string.
    """
    position = 0
    for columns in _columns(inputs, window, what):
        text = columns["text"]
        for at, value in enumerate(text):
            if not isinstance(value, str):
                raise TextError(f"{what}: item {position + at} is a {type(value).__name__}, not a text")
        position += len(text)
        yield Rows(text, columns.get("query"), columns.get("instruction"))


def _columns(inputs: Any, window: int, what: str) -> Iterator[Mapping[str, list[Any]]]:
    dataset = _dataset(inputs)
    if dataset is not None:
        plain = dataset.with_format(None).select_columns([name for name in COLUMNS if name in dataset.column_names])
        for start in range(0, len(plain), window):
            yield plain[start : start + window]
        return
    rows = iter([{"text": inputs}]) if isinstance(inputs, str) else _one_by_one(inputs, what)
    names: set[str] | None = None
    while found := list(islice(rows, window)):
        names = set(found[0]) if names is None else names
        if any(set(row) != names for row in found):
            raise TextError(f"{what}: some batches have a query or instruction column and some have none")
        yield {name: [row[name] for row in found] for name in names}


def _one_by_one(inputs: Iterable[Any], what: str) -> Iterator[dict[str, Any]]:
    """The rows of batches, or of plain texts."""
    for batch in inputs:
        if isinstance(batch, str):
            yield {"text": batch}
            continue
        if not hasattr(batch, "keys") or "text" not in batch:
            raise TextError(f"{what} hold no text: a served text model cannot encode images, audio or video")
        columns = {name: batch[name] for name in COLUMNS if name in batch}
        if len({len(column) for column in columns.values()}) > 1:
            raise TextError(f"{what}: the columns of a batch are not of one length")
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))


def _dataset(inputs: Any) -> Any:
    """The data set behind an unshuffled loader, or None where that cannot be told for sure."""
    dataset = getattr(inputs, "dataset", None)
    names = getattr(dataset, "column_names", None)
    sampler = getattr(inputs, "sampler", None)
    if (
        not isinstance(names, list)
        or "text" not in names
        or type(sampler).__name__ != "SequentialSampler"
        or type(getattr(inputs, "batch_sampler", None)).__name__ not in {"BatchSampler", "NoneType"}
        or getattr(inputs, "drop_last", False)
        or not hasattr(dataset, "with_format")
    ):
        return None
    return dataset
