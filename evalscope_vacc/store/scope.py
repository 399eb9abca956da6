"""The entries of one task, or of one kept model, as the models see them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from evalscope_vacc.errors import StoreError

from . import upkeep
from .file import StoreFile
from .probe import ProbeResult, admit, check, remember
from .records import HEADER, Bytes2D, unpack_rows

if TYPE_CHECKING:
    from .core import Store


class Scope:
    """One task's entries (mode "resume"), or one model's (mode "reuse"). From :meth:`Store.scope`."""

    def __init__(self, store: Store, file: StoreFile, scope_id: str, identity: str) -> None:
        self.store = store
        self.scope_id = scope_id
        self.identity = identity
        self._file = file

    @property
    def path(self) -> Path:
        """The file that holds the entries."""
        return self._file.path

    def __len__(self) -> int:
        """Returns how many values are stored; a text that was put twice counts twice."""
        return upkeep.count(self._file)

    def put_many(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        """Hands over keys and values; committed within 100 ms.

        Raises:
            StoreError: Something that was put before could not be written.
        """
        by_size: dict[int, list[tuple[bytes, bytes]]] = {}
        for key, value in items:
            by_size.setdefault(len(value), []).append((key, value))
        for size, some in by_size.items():
            matrix = np.frombuffer(b"".join(value for _, value in some) or b"\0", np.uint8)
            rows = matrix[: size * len(some)].reshape(len(some), size)
            self.store.put(self._file, [key for key, _ in some], size, rows)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Returns the value of each key, None where it is missing or damaged.

        Raises:
            StoreError: The file as a whole cannot be read.
        """
        values: list[bytes | None] = [None] * len(keys)
        for positions, rows in self.store.get(self._file, keys):
            for at, row in zip(positions.tolist(), rows, strict=True):
                values[at] = row.tobytes()
        return values

    def put_vectors(self, keys: Sequence[bytes], vectors: npt.NDArray[np.float32], *, copy: bool = True) -> None:
        """Hands over vectors, float32 (n, d). The fast way for vectors.

        Args:
            keys: From :func:`text_keys`.
            vectors: One row for each key.
            copy: Without, the array must not be changed before :meth:`Store.flush` or :meth:`Store.close`; the thread
                that writes then does all the work.

        Raises:
            StoreError: Something that was put before could not be written.
        """
        self._put_rows(keys, _contiguous(vectors, "<f4", copy=copy))

    def put_scores(self, keys: Sequence[bytes], scores: npt.NDArray[np.float64]) -> None:
        """Hands over scores, float64 (n,).

        Raises:
            StoreError: Something that was put before could not be written.
        """
        self._put_rows(keys, _contiguous(scores, "<f8", copy=True).reshape(-1, 1))

    def _put_rows(self, keys: Sequence[bytes], rows: npt.NDArray[Any]) -> None:
        if rows.ndim != 2 or len(rows) != len(keys):
            raise ValueError(f"{len(keys)} keys for values of the shape {rows.shape}")
        self.store.put(self._file, keys, HEADER.size + rows.shape[1] * rows.itemsize, rows)

    def get_vectors(self, keys: Sequence[bytes]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
        """Returns (positions in ``keys`` that were found, their vectors float32 (n, d)), in no particular order.

        Raises:
            StoreError: The file cannot be read, or holds vectors of two sizes or something else under these keys.
        """
        return self._get_rows(keys, "<f4")

    def get_scores(self, keys: Sequence[bytes]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
        """Returns (positions in ``keys`` that were found, their scores float64 (n,)), in no particular order.

        Raises:
            StoreError: The file cannot be read, or holds something else than scores under these keys.
        """
        positions, rows = self._get_rows(keys, "<f8")
        return positions, rows.reshape(-1)

    def _get_rows(self, keys: Sequence[bytes], dtype: str) -> tuple[npt.NDArray[np.intp], npt.NDArray[Any]]:
        groups: dict[int, list[tuple[npt.NDArray[np.intp], Bytes2D]]] = {}
        for positions, values in self.store.get(self._file, keys):
            groups.setdefault(values.shape[1], []).append((positions, values))
        if not groups:
            return np.empty(0, np.intp), np.empty((0, 0 if dtype == "<f4" else 1), dtype)
        if len(groups) > 1:
            sizes = ", ".join(str((size - HEADER.size) // np.dtype(dtype).itemsize) for size in sorted(groups))
            raise StoreError(
                f"{self.path} holds vectors of different sizes ({sizes}) from one model; the server was changed: "
                f"{self._file.way_on()}"
            )
        ((_, found),) = groups.items()
        if len(found) == 1:
            return found[0][0], unpack_rows(found[0][1], dtype)
        rows = np.concatenate([values for _, values in found])
        return np.concatenate([positions for positions, _ in found]), unpack_rows(rows, dtype)

    def release(self) -> None:
        """Ends the use of this scope; its entries stay until the run that they belong to is done.

        In the mode "reuse" the file serves the next task, too, and stays open.
        """
        if self.store.mode == "resume":
            self.store.release(self._file.path)

    def drop(self) -> None:
        """Removes the entries, as the task is done, and ends the use of this scope; in the mode "reuse" they are kept.

        Where another process uses the same scope at the moment, the last of them removes it.
        """
        if self.store.mode == "resume":
            self.store.drop_path(self._file.path)

    def clear(self) -> None:
        """Removes the entries and the probe's record; the scope stays in use."""
        self.store.flush()
        upkeep.clear(self._file)

    def remember_probe(self, answers: npt.NDArray[Any]) -> None:
        """Keeps the answers to the probe texts; see :mod:`evalscope_vacc.store.probe`."""
        remember(self._file, answers)

    def check_probe(self, answers: npt.NDArray[Any], tolerance: float | None = None) -> ProbeResult:
        """Compares the answers to the probe texts with the kept ones; see :mod:`evalscope_vacc.store.probe`."""
        return check(self._file, answers, tolerance)

    def admit_probe(self, answers: npt.NDArray[Any], tolerance: float | None = None) -> ProbeResult:
        """Compares, refuses (removes) the old entries where the model is another one, and keeps the new answers."""
        self.store.flush()
        return admit(self._file, answers, tolerance)


def _contiguous(rows: npt.NDArray[Any], dtype: str, *, copy: bool) -> npt.NDArray[Any]:
    return np.array(rows, dtype, order="C") if copy else np.ascontiguousarray(rows, dtype)
