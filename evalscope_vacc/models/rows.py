"""Reads what MTEB hands to a model: a data loader of batches, or plain texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from evalscope_vacc.errors import TextError

COLUMNS = ("text", "query", "instruction")


@dataclass(frozen=True)
class Rows:
    """The columns of one side, all of one length.

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


def read_rows(inputs: Any, *, what: str = "the inputs") -> Rows:
    """Returns the texts of a data loader in its order.

    A loader that walks an unshuffled data set is read by column, which is faster by far than collating rows: the texts
    are the same, because MTEB prepares them before it makes the loader.

    Args:
        inputs: ``DataLoader[BatchedInput]``, an iterable of such batches, or an iterable of strings.
        what: What this is, for messages.

    Raises:
        TextError: There is no text, or one is not a string.
    """
    if isinstance(inputs, str):
        return Rows([inputs])
    columns = _columns(inputs)
    if columns is None:
        columns = _batches(inputs, what)
    text = columns["text"]
    for position, value in enumerate(text):
        if not isinstance(value, str):
            raise TextError(f"{what}: item {position} is a {type(value).__name__}, not a text")
    return Rows(text, columns.get("query"), columns.get("instruction"))


def _columns(inputs: Any) -> dict[str, list[Any]] | None:
    """The columns of the data set behind an unshuffled loader, or None where that cannot be told for sure."""
    dataset = getattr(inputs, "dataset", None)
    names = getattr(dataset, "column_names", None)
    sampler = getattr(inputs, "sampler", None)
    if (
        not isinstance(names, list)
        or "text" not in names
        or type(sampler).__name__ != "SequentialSampler"
        or getattr(inputs, "drop_last", False)
        or dataset is None
        or not hasattr(dataset, "with_format")
    ):
        return None
    plain = dataset.with_format(None)
    return {name: list(plain[name]) for name in COLUMNS if name in names}


def _batches(inputs: Iterable[Any], what: str) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {"text": []}
    for batch in inputs:
        if isinstance(batch, str):
            columns["text"].append(batch)
            continue
        if not hasattr(batch, "keys") or "text" not in batch:
            raise TextError(f"{what} hold no text: a served text model cannot encode images, audio or video")
        for name in COLUMNS:
            if name in batch:
                columns.setdefault(name, []).extend(batch[name])
    if any(len(column) != len(columns["text"]) for column in columns.values()):
        raise TextError(f"{what}: some batches have a query or instruction column and some have none")
    return columns
