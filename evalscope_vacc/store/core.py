"""The store as the models see it: scopes to get from and put into, and the thread that writes."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import logging
import os
import shutil
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from evalscope_vacc.errors import ConfigError, StoreError
from evalscope_vacc.redact import clean

from . import folder as folders
from .identity import ProbeResult, admit
from .table import KEY_BYTES, Table

_log = logging.getLogger(__name__)

Mode = Literal["resume", "reuse"]

_COLLECT_S = 0.03  # how long a queued answer waits for others; with the commit itself well under 100 ms
_MAX_WAITING = 64 * 2**20  # bytes that may wait in memory, and as many again that are being committed
_LOOK_EVERY = 64 * 2**20  # bytes after which the folder's size is looked at
_ROW_BYTES = 64  # what a row takes beside its value, which grows by an eighth itself: see benchmarks/STORE.md

_Waiting = dict[Table, dict[bytes, bytes]]


class Store:
    """A folder of stored vectors and scores; one thread writes what the callers hand over.

    What was put is committed within 100 ms and then survives the end of the process by SIGKILL. Several processes may
    use one folder, and one scope, at once. Of a process that forks only the parent goes on with it: SQLite's locks
    belong to a process, so the child's store finds nothing and keeps nothing.

    A store that cannot be written any more (full disk, size limit) says so once and keeps no more; what it has is still
    found.

    Attributes:
        not_kept: Answers that were not kept because there was no room, or the disk refused them.
        lag_s: Longest time from an answer's arrival to the end of its commit.
    """

    def __init__(self, folder: Path, mode: Mode, limit_bytes: int) -> None:
        self.folder = folder
        self.mode: Mode = mode
        self.limit_bytes = limit_bytes
        self.not_kept = 0
        self.lag_s = 0.0
        self.used: set[Path] = set()
        self._pid = os.getpid()
        self._cond = threading.Condition()
        self._tables: dict[Path, Table] = {}
        # queued answers, and those that the thread is committing
        self._waiting: _Waiting = {}
        self._writing: _Waiting = {}
        self._unreadable: set[Table] = set()
        self._bytes = 0
        self._since_look = 0
        self._first_s = 0.0
        self._hurry = False
        self._closed = False
        self._refused = ""
        self._thread: threading.Thread | None = None
        _OPEN.add(self)

    @classmethod
    def open(cls, folder: Path | None = None, *, mode: Mode = "resume", limit_bytes: int | None = None) -> Store:
        """Opens a folder, makes it where it is missing, and removes what is too old or too much.

        Args:
            folder: None for :func:`default_folder`.
            mode: "resume" keeps entries for one task of one unfinished run, until :meth:`drop`; "reuse" keeps them for
                every run that asks the same model for the same text.
            limit_bytes: Bytes that the folder may hold. Default: what it holds and half of what its disk has free.

        Raises:
            ConfigError: The mode or the limit is none.
            StoreError: The folder cannot be made.
        """
        if mode not in ("resume", "reuse"):
            raise ConfigError(f"store: {mode!r} is not a mode; use resume, reuse, off, or a folder")
        if limit_bytes is not None and limit_bytes < 2**20:
            raise ConfigError(f"the store's size limit is {limit_bytes} bytes; it takes at least one MiB")
        folder = (folder or folders.default_folder()).expanduser().absolute()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"the store's folder {folder} cannot be made: {error.strerror}; name another with `store:` or VACC_HOME"
            ) from error
        folders.warn_of_other_versions(folder)
        if limit_bytes is None:
            held = sum(map(folders.size_of, folders.files(folder)))
            limit_bytes = held + shutil.disk_usage(folder).free // 2
        store = cls(folder, mode, limit_bytes)
        store._make_room()
        return store

    def scope(self, scope_id: str, identity: str, *, label: str = "") -> Scope:
        """Returns the place of one task's entries.

        Args:
            scope_id: What must be the same for a later run to find them in the mode "resume": a hash of the run's
                configuration, and the task. A new process and another output folder do not matter.
            identity: From :func:`make_identity`; entries of another identity are never seen. In the mode "reuse" it
                alone decides.
            label: For people, such as "SciFact, http://h:8000"; control characters and passwords in it are masked.

        Raises:
            StoreError: The file that belongs there is foreign, damaged, or cannot be opened; or the store is closed.
        """
        if not self._usable():
            raise StoreError(f"the store in {self.folder} was opened by another process, before a fork; open another")
        parts = (scope_id, identity) if self.mode == "resume" else (identity,)
        path = self.folder / f"{'-'.join([self.mode, *map(_short, parts)])}.sqlite"
        table = self._tables.get(path)
        if table is None:
            about = {**json.loads(identity), "label": clean(label, limit=200)}
            table = self._tables[path] = Table(path, about)
            # the file's time says when it was last used, also where nothing is written
            os.utime(path)
            self.used.add(path)
        return Scope(self, table, identity)

    def release(self, table: Table) -> None:
        """Closes a scope's file; its entries stay. In the mode "reuse" it serves the next task, too, and stays open."""
        if self.mode == "resume" and self._usable():
            self.flush()
            self._tables.pop(table.path, None)
            table.close()

    def drop(self, scope_id: str) -> None:
        """Removes every entry under this scope, of whichever identity; nothing in the mode "reuse".

        A file that another process uses at the moment is left to that process.

        Raises:
            StoreError: A file cannot be removed.
        """
        if self.mode != "resume" or not self._usable():
            return
        self.flush()
        for path in sorted(self.folder.glob(f"resume-{_short(scope_id)}-*.sqlite")):
            table = self._tables.pop(path) if path in self._tables else Table(path)
            if not table.remove():
                table.close()
            self.used.discard(path)
        self._refused = ""

    # -- getting and putting -------------------------------------------------------------------------------------

    def get(self, table: Table, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Returns the values of those keys that are stored; none, and says why, where the file cannot be read."""
        if not self._usable():
            return {}
        with self._cond:
            # in memory first: what leaves there is in the file before it leaves
            coming = [waiting[table] for waiting in (self._writing, self._waiting) if table in waiting]
            found = {key: some[key] for some in coming for key in keys if key in some}
        if table in self._unreadable:
            return found
        try:
            return {**table.get([key for key in keys if key not in found]), **found}
        except StoreError as error:
            self._unreadable.add(table)
            _log.warning("%s. The run continues; what the file holds is requested again", error)
            return found

    def put(self, table: Table, values: dict[bytes, bytes]) -> None:
        """Queues values for writing; waits while the queue is full."""
        if not self._usable():
            return
        with self._cond:
            while self._bytes > _MAX_WAITING and not self._refused:
                self._hurry = True
                self._cond.notify_all()
                self._cond.wait()
            if self._refused:
                self.not_kept += len(values)
                return
            if not self._waiting:
                self._first_s = time.monotonic()
            self._waiting.setdefault(table, {}).update(values)
            self._bytes += sum(map(len, values.values()))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="evalscope-vacc store", daemon=True)
                self._thread.start()
            self._cond.notify_all()

    def _work(self) -> None:
        while True:
            with self._cond:
                self._cond.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                self._cond.wait_for(lambda: self._hurry or self._closed, _COLLECT_S)
                self._writing, self._waiting, self._hurry = self._waiting, {}, False
                size, self._bytes, since = self._bytes, 0, self._first_s
            if not self._refused:
                self._refused = self._commit(size, since)
                if self._refused:
                    _log.warning("%s. The run continues; further answers are not kept", self._refused)
            else:
                # handed over while a commit failed
                self.not_kept += sum(map(len, self._writing.values()))
            with self._cond:
                self._writing = {}
                self._cond.notify_all()

    def _commit(self, size: int, since: float) -> str:
        """Commits ``self._writing``; returns why no more can be kept, else ""."""
        try:
            for table, values in self._writing.items():
                table.put(values.items())
            self.lag_s = max(self.lag_s, time.monotonic() - since)
            return self._look_at_size(size)
        except Exception as error:  # noqa: BLE001 -- whatever it is, callers must hear of it and not wait for ever
            self.not_kept += sum(map(len, self._writing.values()))
            return str(error) if isinstance(error, StoreError) else f"{type(error).__name__}: {error}"

    def _look_at_size(self, size: int) -> str:
        """Makes room after so many bytes were written; returns why no more can be kept, else ""."""
        self._since_look += size
        if self._since_look < min(_LOOK_EVERY, self.limit_bytes // 8):
            return ""
        self._since_look = 0
        held = self._make_room()
        if held < self.limit_bytes:
            return ""
        return f"the store in {self.folder} holds {_size(held)}, which is its limit; its disk has no more room for it"

    def _make_room(self) -> int:
        """Removes what is too old or too much beside the runs of this process; returns how many bytes remain."""
        own = {path for store in list(_OPEN) if store.folder == self.folder for path in list(store.used)}
        rest = self.limit_bytes - sum(map(folders.size_of, own))
        folders.evict(self.folder, rest, keep=own)
        return sum(map(folders.size_of, folders.files(self.folder)))

    def announce(self, what: str, texts: int, width: int) -> None:
        """Says, before a task begins, when its vectors will not fit, and how much a restart would then repeat.

        Args:
            what: The task, for the message.
            texts: How many vectors are still to be stored.
            width: Numbers in a vector, float32.
        """
        row = _ROW_BYTES + 4 * width * 9 // 8
        own = sum(folders.size_of(path) for path in list(self.used))
        others = sum(map(folders.size_of, folders.files(self.folder))) - own
        room = max(0, min(self.limit_bytes - own, shutil.disk_usage(self.folder).free + others))
        if texts * row > room:
            lost = texts - room // row
            _log.warning(
                "%s: to keep %s vectors of %d numbers takes %s, and the store in %s has room for %s. The first %s are kept; "
                "a run that is started again sends the other %s (%d %%) again. Make room, or name a folder on another "
                "disk with VACC_HOME",
                what,
                f"{texts:,}",
                width,
                _size(texts * row),
                self.folder,
                _size(room),
                f"{texts - lost:,}",
                f"{lost:,}",
                round(100 * lost / texts),
            )

    def flush(self) -> None:
        """Returns when everything that was put before is committed, or refused."""
        if not self._usable():
            return
        with self._cond:
            self._hurry = bool(self._waiting)
            self._cond.notify_all()
            self._cond.wait_for(lambda: not (self._waiting or self._writing))

    def _usable(self) -> bool:
        """Says whether this is the process that opened the store; raises where it is closed."""
        if self._closed:
            raise StoreError(f"the store in {self.folder} is closed; open it again")
        return os.getpid() == self._pid

    def close(self) -> None:
        """Commits what was put, ends the thread and closes the files; a second call does nothing.

        Raises:
            StoreError: A file could not be closed in order.
        """
        if self._closed or not self._usable():
            return
        with self._cond:
            self._closed = True
            self._cond.notify_all()
        if self._thread is not None:
            self._thread.join()
        _OPEN.discard(self)
        if self.not_kept:
            _log.warning("%d answers were not kept; a run that is started again sends their texts again", self.not_kept)
        tables, self._tables = self._tables, {}
        for table in tables.values():
            table.close()

    def __enter__(self) -> Store:  # noqa: PYI034 - Self needs Python 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_OPEN: weakref.WeakSet[Store] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for store in list(_OPEN):
        with contextlib.suppress(StoreError):
            store.close()


class Scope:
    """One task's entries (mode "resume"), or one model's (mode "reuse"). From :meth:`Store.scope`."""

    def __init__(self, store: Store, table: Table, identity: str) -> None:
        self.store = store
        self.identity = identity
        self._table = table

    @property
    def path(self) -> Path:
        """The file that holds the entries."""
        return self._table.path

    def __len__(self) -> int:
        """Returns how many answers are stored."""
        self.store.flush()
        return self._table.count()

    def put(self, keys: Sequence[bytes], rows: npt.NDArray[Any]) -> None:
        """Hands over answers, float32 (n, d) vectors or float64 (n, 1) scores, which are copied; in 100 ms committed.

        Args:
            keys: From :func:`text_keys`.
            rows: One row for each key.
        """
        if rows.ndim != 2 or len(rows) != len(keys):
            raise ValueError(f"{len(keys)} keys for values of the shape {rows.shape}")
        if wrong := [key for key in keys if len(key) != KEY_BYTES]:
            raise ValueError(f"a key has {KEY_BYTES} bytes, this one has {len(wrong[0])}: use text_key()")
        rows = rows.astype(rows.dtype.newbyteorder("<"), copy=False)
        self.store.put(self._table, {key: row.tobytes() for key, row in zip(keys, rows, strict=True)})

    def get(self, keys: Sequence[bytes], dtype: str) -> tuple[npt.NDArray[np.intp], npt.NDArray[Any]]:
        """Returns (positions in ``keys`` that were found, ascending; their rows, shape (n, d)).

        Args:
            keys: From :func:`text_keys`.
            dtype: "<f4" for vectors, "<f8" for scores.

        Raises:
            StoreError: There are vectors of several sizes under these keys.
        """
        found = self.store.get(self._table, keys)
        positions = [at for at, key in enumerate(keys) if key in found]
        sizes = {len(value) // np.dtype(dtype).itemsize for value in found.values()}
        if len(sizes) > 1:
            raise StoreError(
                f"{self.path} holds vectors of different sizes ({', '.join(map(str, sorted(sizes)))}) from one model; "
                f"the server was changed: {self._table.way_out()}"
            )
        rows = np.frombuffer(b"".join(found[keys[at]] for at in positions), dtype)
        return np.array(positions, np.intp), rows.reshape(len(positions), *(sizes or {0}))

    def release(self) -> None:
        """Ends the use of this scope; its entries stay until the run that they belong to is done."""
        self.store.release(self._table)

    def admit_probe(self, answers: npt.ArrayLike) -> ProbeResult:
        """Compares the answers to the probe, removes the entries where the model is another one, and keeps the answers.

        Raises:
            ValueError: They are no answers to the probe.
            StoreError: The file cannot be read or written.
        """
        self.store.flush()
        return admit(self._table, answers)


def _short(text: str) -> str:
    """Returns 16 hex digits for a file's name."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, person=b"vacc table").hexdigest()


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"
