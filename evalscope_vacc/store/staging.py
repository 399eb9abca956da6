"""What a store did, and what is on its way into it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .file import StoreFile
from .keys import KEY_BYTES
from .layout import Block
from .records import Bytes2D, pack_rows, record_bytes, seal

_STAGE_BYTES = 2 * 2**20

Rows = npt.NDArray[Any]


@dataclass
class Stats:
    """What a store did since it was opened.

    Attributes:
        asked: Keys looked up.
        found: Of those, keys that were there.
        put: Values handed over.
        written: Bytes of values and checksums that were committed.
        commits: Transactions.
        blocked_s: Seconds in which a caller had to wait because the disk was slower than the server.
        lag_s: Longest time from a value's arrival to the end of its commit.
        damaged: Values that were refused because their checksum was wrong.
        evicted: Bytes that were removed because of the size or age limit.
    """

    asked: int = 0
    found: int = 0
    put: int = 0
    written: int = 0
    commits: int = 0
    blocked_s: float = 0.0
    lag_s: float = 0.0
    damaged: int = 0
    evicted: int = 0


class Stage:
    """Rows of one length on their way into one file; the writing thread makes records of them."""

    def __init__(self, file: StoreFile, value_bytes: int) -> None:
        self.file = file
        self.value_bytes = value_bytes
        self.since = time.monotonic()
        self.count = 0
        # keys and rows in one element: an interruption between two statements cannot shift them
        self.parts: list[tuple[Sequence[bytes], Rows]] = []
        self._seen = 0
        self._places: dict[bytes, tuple[int, int]] = {}

    @property
    def capacity(self) -> int:
        """Rows after which another stage is begun."""
        return max(32, _STAGE_BYTES // record_bytes(self.value_bytes))

    @property
    def size(self) -> int:
        """What the rows will take in the file."""
        return self.count * record_bytes(self.value_bytes)

    def add(self, keys: Sequence[bytes], rows: Rows) -> None:
        """Takes rows: values as they are, uint8 (n, bytes), or float32 (n, d) or float64 (n, 1) still to be packed."""
        self.parts.append((keys, rows))
        self.count += len(keys)

    def find(self, key: bytes) -> Bytes2D | None:
        """Returns the value, shape (bytes,), of a key that is on its way."""
        while self._seen < len(self.parts):
            for at, new in enumerate(self.parts[self._seen][0]):
                self._places[new] = (self._seen, at)
            self._seen += 1
        place = self._places.get(key)
        if place is None:
            return None
        value = np.empty((1, self.value_bytes), np.uint8)
        _pack(self.parts[place[0]][1][place[1] : place[1] + 1], value)
        packed: Bytes2D = value[0]
        return packed

    def block(self, spare: list[Bytes2D]) -> Block:
        """Returns the sealed records, in memory from ``spare`` where some fits."""
        keys = b"".join(key for keys, _ in self.parts for key in keys)
        count = len(keys) // KEY_BYTES
        record = record_bytes(self.value_bytes)
        # memory that was used before is already mapped: a fresh page for each vector costs as much as its copy
        fitting = next((i for i, old in enumerate(spare) if old.shape[1] == record and len(old) >= count), None)
        memory = np.empty((max(count, self.capacity), record), np.uint8) if fitting is None else spare.pop(fitting)
        records = memory[:count]
        at = 0
        for part, rows in self.parts:
            _pack(rows, records[at : at + len(part), : self.value_bytes])
            at += len(part)
        seal(records, keys, self.value_bytes)
        return Block(self.value_bytes, keys, records)


def _pack(rows: Rows, out: Bytes2D) -> None:
    if rows.dtype == np.uint8:
        out[:] = rows
    else:
        pack_rows(rows, out)
