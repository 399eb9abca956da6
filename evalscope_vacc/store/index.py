"""Where in a file a key's record is: sorted arrays in memory, read from the file's key lists.

An index inside the file would be a tree that hashes hit at random: each commit of 1,000 vectors would write nearly as
many tree pages as vectors. 24 bytes a key here buy files that only grow at their end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .keys import KEY_BYTES

Places = npt.NDArray[np.int64]
_Run = tuple[npt.NDArray[np.bytes_], Places]

SLOT_BITS = 10
MAX_SLOTS = 1 << SLOT_BITS


def places_of(segments: Places, slots: Places) -> Places:
    """Returns the places of the first ``slots[i]`` records of each of ``segments``, one behind the other.

    A place is segment and slot in one number; a newer one is larger.
    """
    starts = np.cumsum(slots) - slots
    return np.repeat((segments << SLOT_BITS) - starts, slots) + np.arange(slots.sum(), dtype=np.int64)


class KeyIndex:
    """Keys to places; of a key that comes twice the newest place holds."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []
        self._new_keys: list[bytes] = []
        self._new_places: list[Places] = []

    def add(self, keys: bytes, places: Places) -> None:
        """Adds joined keys and their places."""
        self._new_keys.append(keys)
        self._new_places.append(places)

    def find(self, keys: Sequence[bytes]) -> Places:
        """Returns the place of each key, -1 where there is none."""
        self._settle()
        wanted = np.frombuffer(b"".join(keys), f"S{KEY_BYTES}")
        found = np.full(len(wanted), -1, np.int64)
        for run_keys, run_places in self._runs:
            at = np.searchsorted(run_keys, wanted)
            at[at == len(run_keys)] = 0
            found = np.maximum(found, np.where(run_keys[at] == wanted, run_places[at], -1))
        return found

    def _settle(self) -> None:
        """Sorts what is new into a run of its own, then merges runs until each is four times as long as the next."""
        if self._new_keys:
            joined = np.frombuffer(b"".join(self._new_keys), f"S{KEY_BYTES}")
            self._runs.append(_sorted(joined, np.concatenate(self._new_places)))
            self._new_keys, self._new_places = [], []
        while len(self._runs) > 1 and len(self._runs[-2][0]) < 4 * len(self._runs[-1][0]):
            newer, older = self._runs.pop(), self._runs.pop()
            keys, places = (np.concatenate(both) for both in zip(older, newer, strict=True))
            # of a million keys each copy counts: what is not needed any more goes before the next is made
            del newer, older
            self._runs.append(_sorted(keys, places))


def _sorted(keys: npt.NDArray[np.bytes_], places: Places) -> _Run:
    # stable: places arrive in ascending order, so the last of equal keys is the newest
    order = np.argsort(keys, kind="stable")
    keys, places = keys[order], places[order]
    del order
    last = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=last[:-1])
    return (keys, places) if last.all() else (keys[last], places[last])
