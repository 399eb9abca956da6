"""How a store's file is laid out: tables, pages, and what goes in and out."""

from __future__ import annotations

import os
import socket
import sys
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .index import MAX_SLOTS
from .keys import KEY_BYTES
from .records import MAX_VALUE_BYTES, Bytes2D

APPLICATION_ID = 0x76616363  # "vacc"
SCHEMA_VERSION = 1
LEASE_S = 120.0
"""A process that did not say for this long that it uses a file is taken for ended."""

PAGE_BYTES = 32768
# what fits into a leaf of a table beside the page's header, the cell's and the row's
_LEAF = PAGE_BYTES - 64
SCHEMA = {
    "meta": "CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "user": "CREATE TABLE user(token TEXT PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, seen REAL NOT NULL) "
    "WITHOUT ROWID",
    "segment": "CREATE TABLE segment(id INTEGER PRIMARY KEY AUTOINCREMENT, size INTEGER NOT NULL, keys BLOB NOT NULL)",
    "page": "CREATE TABLE page(id INTEGER PRIMARY KEY, records BLOB NOT NULL)",
    "probe": "CREATE TABLE probe(shape TEXT NOT NULL, answers BLOB NOT NULL, digest BLOB NOT NULL)",
}


@lru_cache(maxsize=1)
def boot_number() -> str:
    """Returns what changes when the machine starts anew, "" where it cannot be known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return "" if sys.platform == "linux" else f"since {round((time.time() - time.monotonic()) / 60)}"


def slots_for(record: int) -> int:
    """Returns how many records of this length go into one row.

    As many as fill a page, so that a look-up reads one page; where that would leave over a fifth of the page empty, as
    many as come to 128 KiB, which lie in a chain of pages.
    """
    fitting = _LEAF // record
    if fitting * record < 0.8 * _LEAF:
        fitting = max(1, 131072 // record)
    return min(fitting, MAX_SLOTS)


@dataclass(frozen=True)
class Block:
    """Sealed records of one length, ready to be written: keys (joined) and uint8 (n, record)."""

    value_bytes: int
    keys: bytes
    records: Bytes2D


@dataclass(frozen=True)
class Lease:
    """Who uses a file."""

    token: str
    host: str
    pid: int
    seen: float

    def live(self) -> bool:
        """Says whether that process may still run."""
        if time.time() - self.seen > LEASE_S:
            return False
        if self.host != socket.gethostname() or os.name != "posix":
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            return True
        return True


@dataclass(frozen=True)
class Found:
    """Values of one length: which keys they belong to, and the values, uint8 (n, bytes)."""

    positions: npt.NDArray[np.intp]
    values: Bytes2D


def sound_segment(size: object, keys: object) -> bool:
    """Says whether a segment's row can be what was written."""
    return (
        isinstance(size, int)
        and 0 <= size <= MAX_VALUE_BYTES
        and isinstance(keys, bytes)
        and 0 < len(keys) <= KEY_BYTES * MAX_SLOTS
        and len(keys) % KEY_BYTES == 0
    )
