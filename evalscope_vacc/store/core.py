"""The store as the models see it: scopes to get from and put into, and the thread that writes."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import shutil
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
import numpy.typing as npt

from evalscope_vacc.errors import ConfigError, StoreError
from evalscope_vacc.paths import cache_folder
from evalscope_vacc.redact import clean

from . import upkeep
from .file import StoreFile
from .keys import short_hash
from .layout import LEASE_S
from .records import Bytes2D, joined
from .scope import Scope
from .staging import Rows, Stage, Stats

_log = logging.getLogger(__name__)

Mode = Literal["resume", "reuse"]

DEFAULT_LIMIT = 20 * 2**30
"""Bytes that a store's folder may hold: five million vectors of 1024 dimensions. Less where its disk has less room."""
DEFAULT_MAX_AGE_S = 30 * 86400.0
"""An unfinished task's entries that were not touched for this long are removed."""

COLLECT_S = 0.03
"""How long what came in waits for more before it is committed; with the commit itself well under 100 ms."""
_SPARE = 4
_PART = 4096
_MAX_PENDING = 128 * 2**20
_EVICT_EVERY = 64 * 2**20


def default_folder() -> Path:
    """Returns ``$VACC_HOME/store``, else ``store`` in the user's cache folder."""
    return cache_folder() / "store"


def _default_limit(folder: Path) -> int:
    """A store that fills the disk would stop the run that it is there to save."""
    held = sum(size for size, _ in map(upkeep.last_seen, upkeep.files(folder)))
    return max(2**28, min(DEFAULT_LIMIT, held + shutil.disk_usage(folder).free // 2))


class Store:
    """A folder of stored vectors and scores; one thread writes what the callers hand over.

    What was put is committed within 100 ms and then survives the end of the process by SIGKILL. Several processes may
    use one folder, and one scope, at once. A process that forks may go on in both; each then has its own thread.
    """

    def __init__(self, folder: Path, mode: Mode, limit_bytes: int, max_age_s: float) -> None:
        self.folder = folder
        self.mode: Mode = mode
        self.limit_bytes = limit_bytes
        self.max_age_s = max_age_s
        self.stats = Stats()
        self._cond = threading.Condition(threading.Lock())
        self._opening = threading.Lock()
        self._files: dict[Path, StoreFile] = {}
        self._reset()
        _OPEN.add(self)

    def _reset(self) -> None:
        self._stages: list[Stage] = []
        self._writing: list[Stage] = []
        self._spare: list[Bytes2D] = []
        self._pending = 0
        self._handed = self._done = 0
        self._since_evict = 0
        self._idle = False
        self._hurry = False
        self._stopping = False
        self._closed = False
        self._error: StoreError | None = None
        self._thread: threading.Thread | None = None

    @classmethod
    def open(
        cls,
        folder: Path | None = None,
        *,
        mode: Mode = "resume",
        limit_bytes: int | None = None,
        max_age_s: float = DEFAULT_MAX_AGE_S,
    ) -> Store:
        """Opens a folder, makes it where it is missing, and removes what is too old or too much.

        Args:
            folder: None for :func:`default_folder`.
            mode: "resume" keeps entries for one task of one unfinished run, until :meth:`Scope.drop`; "reuse" keeps them
                for every run that asks the same model for the same text.
            limit_bytes: Bytes that the folder may hold; the oldest go first. Default: ``DEFAULT_LIMIT``, at most what
                it holds and half of what its disk has free.
            max_age_s: Seconds after which the entries of an unfinished task that nobody went on with are removed.

        Raises:
            ConfigError: The mode or the limit is none.
            StoreError: The folder cannot be made or written.
        """
        if mode not in ("resume", "reuse"):
            raise ConfigError(f"store: {mode!r} is no mode; use resume, reuse, off, or a folder")
        if limit_bytes is not None and limit_bytes < 2**20:
            raise ConfigError(f"the store's size limit is {limit_bytes} bytes; it takes at least one MiB")
        folder = (folder or default_folder()).expanduser().absolute()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"the store's folder {folder} cannot be made: {error.strerror}; name another with `store:` or VACC_HOME"
            ) from error
        limit = _default_limit(folder) if limit_bytes is None else limit_bytes
        store = cls(folder, mode, limit, max_age_s)
        store.stats.evicted += upkeep.evict(folder, limit, max_age_s, keep=())
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
            StoreError: The file that belongs there is foreign, damaged, or cannot be opened.
        """
        self._check()
        resume = self.mode == "resume"
        name = f"resume-{short_hash(scope_id)}-{short_hash(identity)}" if resume else f"reuse-{short_hash(identity)}"
        path = self.folder / f"{name}.sqlite"
        with self._opening:
            file = self._files.get(path)
            if file is None:
                file = StoreFile(
                    path, about={"mode": self.mode, "identity": identity, "label": clean(label, limit=200)}
                )
                with self._cond:
                    self._files[path] = file
        file.use()
        return Scope(self, file, scope_id, identity)

    def drop(self, scope_id: str) -> None:
        """Removes every entry under this scope, of whichever identity; nothing in the mode "reuse".

        A file that another process uses at the moment is left to that process.
        """
        self._check()
        if self.mode == "resume":
            for path in sorted(self.folder.glob(f"resume-{short_hash(scope_id)}-*.sqlite")):
                self.drop_path(path)

    def release(self, path: Path) -> None:
        """Ends the use of one file; its entries stay.

        Raises:
            StoreError: Something that was put before could not be written.
        """
        self.flush()
        with self._cond:
            file = self._files.pop(path, None)
        if file is not None:
            # not forced to the disk: that may take seconds, and after the machine went down the file is checked anyway
            file.close(sync=False)

    def drop_path(self, path: Path) -> None:
        """Removes one file and what is on its way into it, unless another process uses it."""
        with self._cond:
            while any(stage.file.path == path for stage in self._writing):
                self._cond.wait(0.2)
            gone = [stage for stage in self._stages if stage.file.path == path]
            self._stages = [stage for stage in self._stages if stage.file.path != path]
            for stage in gone:
                self._pending -= stage.size
                self._done += stage.count
            self._cond.notify_all()
            file = self._files.pop(path, None)
        if file is None:
            if not path.exists():
                return
            file = StoreFile(path, create=False)
        if not upkeep.remove(file):
            file.close()

    def put(self, file: StoreFile, keys: Sequence[bytes], value_bytes: int, rows: Rows) -> None:
        """Takes ``len(keys)`` values, see :meth:`Stage.add`; ``rows`` must not be changed afterwards.

        Raises:
            StoreError: Something that was put before could not be written.
        """
        joined(keys)
        with self._cond:
            self._check()
            for at in range(0, len(keys), _PART):
                self._wait_for_room()
                # the file's last one or a new one, never an earlier: of two values under a key the newer must win
                stage = next((stage for stage in reversed(self._stages) if stage.file is file), None)
                if stage is None or stage.value_bytes != value_bytes or stage.count >= stage.capacity:
                    stage = Stage(file, value_bytes)
                    self._stages.append(stage)
                before = stage.size
                stage.add(keys[at : at + _PART], rows[at : at + _PART])
                self._pending += stage.size - before
                self._handed += len(keys[at : at + _PART])
            self.stats.put += len(keys)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="evalscope-vacc store", daemon=True)
                self._thread.start()
            elif self._idle:
                self._cond.notify_all()

    def _wait_for_room(self) -> None:
        if self._pending <= _MAX_PENDING:
            return
        start = time.monotonic()
        while self._pending > _MAX_PENDING:
            self._hurry = True
            self._cond.notify_all()
            self._cond.wait(0.2)
            self._check()
        self.stats.blocked_s += time.monotonic() - start

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if self._closed:
            raise StoreError(f"the store in {self.folder} is closed; open it again")

    def get(self, file: StoreFile, keys: Sequence[bytes]) -> list[tuple[npt.NDArray[np.intp], Bytes2D]]:
        """Returns groups of (positions in ``keys``, values as uint8 (n, bytes)), one for each length of value.

        Raises:
            StoreError: The file cannot be read, or something that was put before could not be written.
        """
        joined(keys)
        groups: dict[int, tuple[list[int], list[Bytes2D]]] = {}
        missing = range(len(keys))
        with self._cond:
            self._check()
            # what is on its way first: what leaves there is in the file before it leaves
            stages = [stage for stage in (*self._writing, *self._stages) if stage.file is file]
            if stages:
                left = []
                for at in missing:
                    value = next((v for s in reversed(stages) if (v := s.find(keys[at])) is not None), None)
                    if value is None:
                        left.append(at)
                    else:
                        positions, values = groups.setdefault(len(value), ([], []))
                        positions.append(at)
                        values.append(value)
                missing = left  # type: ignore[assignment]
        found = [(np.array(positions, np.intp), np.stack(values)) for positions, values in groups.values()]
        if len(missing):
            damaged = file.damaged
            file.use()
            where = np.asarray(missing, np.intp)
            found += [(where[f.positions], f.values) for f in file.read([keys[at] for at in missing])]
            self.stats.damaged += file.damaged - damaged
        self.stats.asked += len(keys)
        self.stats.found += sum(len(positions) for positions, _ in found)
        return found

    def _work(self) -> None:
        while True:
            with self._cond:
                self._idle = True
                while not self._stages and not self._stopping:
                    if not self._cond.wait(LEASE_S / 4):
                        break
                self._idle = False
                if not self._stages and self._stopping:
                    return
                if self._stages:
                    self._cond.wait_for(lambda: self._hurry or self._stopping, COLLECT_S)
                stages, self._stages, self._hurry = self._stages, [], False
                self._writing = stages
                files = list(self._files.values())
            error = None
            try:
                self._commit(stages)
                for file in files:
                    file.use()
            except StoreError as failed:
                error = failed
            except Exception as failed:  # noqa: BLE001 - whatever it is, the caller must hear of it and not wait for ever
                error = StoreError(
                    f"the store in {self.folder} could not be written: {type(failed).__name__}: {failed}"
                )
                error.__cause__ = failed
            with self._cond:
                self._writing = []
                for stage in stages:
                    self._pending -= stage.size
                    self._done += stage.count
                if error is not None:
                    self._error = error
                self._cond.notify_all()
                if error is not None:
                    return

    def _commit(self, stages: Sequence[Stage]) -> None:
        for file in {id(stage.file): stage.file for stage in stages}.values():
            blocks = [stage.block(self._spare) for stage in stages if stage.file is file]
            file.write(blocks)
            size = sum(block.records.nbytes for block in blocks)
            self.stats.commits += 1
            self.stats.written += size
            self._since_evict += size
            memory = (block.records.base for block in blocks)
            self._spare = [rows for rows in memory if isinstance(rows, np.ndarray)][:_SPARE]
        if stages:
            self.stats.lag_s = max(self.stats.lag_s, time.monotonic() - min(stage.since for stage in stages))
        if self._since_evict > min(_EVICT_EVERY, self.limit_bytes // 8):
            self._since_evict = 0
            with self._cond:
                own = list(self._files.values())
            self.stats.evicted += upkeep.evict(self.folder, self.limit_bytes, self.max_age_s, keep=own)

    def flush(self) -> None:
        """Returns when everything that was put before is committed.

        Raises:
            StoreError: It could not be.
        """
        with self._cond:
            goal = self._handed
            while self._done < goal and self._error is None:
                self._hurry = True
                self._cond.notify_all()
                self._cond.wait(0.2)
            self._check()

    def close(self, *, sync: bool = True) -> None:
        """Commits what was put and ends the thread; a second call does nothing.

        Args:
            sync: Whether it is also forced to the disk, against a machine that goes down. A run that was interrupted
                does without, because a busy disk may take seconds; leaving a ``with`` by an exception does so too.

        Raises:
            StoreError: Something that was put could not be written.
        """
        with self._cond:
            if self._closed:
                return
            self._stopping = True
            self._cond.notify_all()
        while self._thread is not None and self._thread.is_alive():
            self._thread.join(0.2)
        with self._cond:
            self._closed = True
            files, self._files = list(self._files.values()), {}
        _OPEN.discard(self)
        for file in files:
            try:
                file.close(sync=sync)
            except StoreError as error:
                self._error = self._error or error
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Store:  # noqa: PYI034 - Self needs Python 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close(sync=kind is None)
        except StoreError as error:
            if kind is None:
                raise
            # the exception on its way says more about why the run stops
            _log.warning("%s", error)

    def before_fork(self) -> None:
        """Waits for the end of a commit, so that no transaction is cut in two."""
        self._cond.acquire()
        for file in self._files.values():
            file.lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Goes on."""
        for file in self._files.values():
            file.lock.release()
        self._cond.release()

    def after_fork_in_child(self) -> None:
        """Starts with nothing on its way: what was, the parent writes."""
        self._cond = threading.Condition(threading.Lock())
        self._opening = threading.Lock()
        for file in self._files.values():
            file.after_fork()
        closed = self._closed
        self._reset()
        self._closed = closed


_OPEN: weakref.WeakSet[Store] = weakref.WeakSet()
_forking: list[Store] = []


def _close_all() -> None:
    for store in list(_OPEN):
        with contextlib.suppress(StoreError):
            store.close(sync=False)


def _before_fork() -> None:
    _forking[:] = list(_OPEN)
    for store in _forking:
        store.before_fork()


def _after_fork_in_parent() -> None:
    while _forking:
        _forking.pop().after_fork_in_parent()


def _after_fork_in_child() -> None:
    while _forking:
        _forking.pop().after_fork_in_child()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
