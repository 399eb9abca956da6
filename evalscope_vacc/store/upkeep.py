"""Counting, checking, removing: what keeps a store's folder small and sound."""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evalscope_vacc.errors import StoreError
from evalscope_vacc.redact import clean

from .file import StoreFile
from .keys import KEY_BYTES
from .layout import sound_segment
from .records import intact, record_bytes

_log = logging.getLogger(__name__)

_SLICE_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Listing:
    """One file of a store.

    Attributes:
        name: The file's name without ".sqlite"; what ``store rm`` takes.
        path: The file.
        mode: "resume" or "reuse".
        model: The served model's name.
        kind: "embedding" or "score".
        label: What the run that made it called it: task and address.
        entries: Stored values.
        bytes: On the disk.
        age_s: Seconds since it was last used.
        users: Processes that use it now.
        problem: Why it cannot be read, or "".
    """

    name: str
    path: Path
    mode: str
    model: str
    kind: str
    label: str
    entries: int
    bytes: int
    age_s: float
    users: int
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        """Returns what can be written as JSON."""
        return {**asdict(self), "path": str(self.path)}


@dataclass(frozen=True)
class Verdict:
    """What :func:`verify` saw in one file: sound and damaged values, and the file's own fault or ""."""

    name: str
    sound: int
    damaged: int
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Nothing is damaged."""
        return not self.damaged and not self.problem


def files(folder: Path) -> list[Path]:
    """Returns the store's files in a folder, by name."""
    found = [*folder.glob("resume-*.sqlite"), *folder.glob("reuse-*.sqlite")]
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def last_seen(path: Path) -> tuple[int, float]:
    """Returns (bytes on the disk, time of the last change); (0, now) where it has gone."""
    try:
        seen = path.stat()
    except FileNotFoundError:
        return 0, time.time()
    return seen.st_size, seen.st_mtime


def count(file: StoreFile) -> int:
    """Returns how many values a file holds."""
    with file.lock, file.errors("read"):
        file.follow()
        (total,) = file.db.execute("SELECT coalesce(sum(length(keys)), 0) FROM segment").fetchone()
    return int(total) // KEY_BYTES


def listing(folder: Path) -> list[Listing]:
    """Returns a line for each file of a folder, the last used first; a file that cannot be read has a ``problem``."""
    lines = []
    for path in files(folder):
        size, changed = last_seen(path)
        age = max(0.0, time.time() - changed)
        mode = path.name.split("-")[0]
        try:
            file = StoreFile(path, create=False)
        except StoreError as error:
            lines.append(Listing(path.stem, path, mode, "", "", "", 0, size, age, 0, clean(str(error))))
            continue
        try:
            about = file.meta()
            identity = _identity(about.get("identity", ""))
            model, kind = (clean(str(identity.get(part, "")), limit=200) for part in ("model", "kind"))
            label = clean(about.get("label", ""), limit=200)
            users = len(file.leases())
            lines.append(Listing(path.stem, path, mode, model, kind, label, count(file), size, age, users))
        except StoreError as error:
            lines.append(Listing(path.stem, path, mode, "", "", "", 0, size, age, 0, clean(str(error))))
        finally:
            file.close()
    return sorted(lines, key=lambda line: line.age_s)


def _identity(text: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(text)
        if isinstance(found, dict):
            return found
    return {}


def verify(path: Path) -> Verdict:
    """Reads every value of a file and compares its checksum."""
    try:
        file = StoreFile(path, create=False)
    except StoreError as error:
        return Verdict(path.stem, 0, 0, clean(str(error)))
    sound = damaged = 0
    try:
        said = file.structure()
        if said != "ok":
            return Verdict(path.stem, 0, 0, clean(f"{path} is damaged: {said[:200]}; {file.way_on()}"))
        for size, keys, records in _segments(file):
            if not sound_segment(size, keys):
                damaged += 1
                continue
            record = record_bytes(size)
            slots = len(keys) // KEY_BYTES
            if not isinstance(records, bytes) or len(records) != record * slots:
                damaged += slots
                continue
            fine = intact(np.frombuffer(records, np.uint8).reshape(slots, record), keys, size)
            sound += int(fine.sum())
            damaged += slots - int(fine.sum())
    except StoreError as error:
        return Verdict(path.stem, sound, damaged, clean(str(error)))
    finally:
        file.close()
    return Verdict(path.stem, sound, damaged)


def _segments(file: StoreFile) -> Iterator[tuple[Any, Any, Any]]:
    last = 0
    while True:
        # in slices, so that a writing process is not held up by a long look
        with file.lock, file.errors("read"):
            rows = file.db.execute(
                "SELECT s.id, s.size, s.keys, p.records FROM segment s LEFT JOIN page p ON p.id = s.id "
                "WHERE s.id > ? ORDER BY s.id LIMIT 200",
                (last,),
            ).fetchall()
        if not rows:
            return
        last = rows[-1][0]
        yield from (row[1:] for row in rows)


def remove(file: StoreFile, *, force: bool = False) -> bool:
    """Removes an open file; says whether it is gone. One that another process uses stays, unless ``force``.

    The path is freed while the file is locked, and every writer looks at the path after it has the lock: nobody writes
    into a file that has gone, and nobody's journal meets a new file of the same name.
    """
    with file.lock, file.errors("removed"):
        file.db.execute("BEGIN EXCLUSIVE")
        try:
            if file.current():
                if not force and file.leases():
                    return False
                try:
                    file.path.unlink()
                except PermissionError:
                    # a system that does not remove open files: empty it, so that its space is used again
                    file.db.execute("ROLLBACK")
                    with file.transaction():
                        file.forget()
        finally:
            if file.db.in_transaction:
                file.db.execute("ROLLBACK")
        file.closed = True
        file.db.close()
    return True


def clear(file: StoreFile) -> None:
    """Removes every entry of a file and its probe's record."""
    with file.lock, file.errors("written"):
        file.follow()
        with file.transaction():
            file.forget()


def delete_oldest(file: StoreFile, size: int) -> int:
    """Removes the oldest entries until ``size`` bytes are free for new ones; returns how many bytes were freed."""
    freed = 0
    while freed < size:
        with file.lock, file.errors("written"), file.transaction():
            rows = file.db.execute("SELECT id, size, length(keys) FROM segment ORDER BY id LIMIT 2000").fetchall()
            last = slice_bytes = 0
            for number, value, keys in rows:
                last = number
                slice_bytes += record_bytes(int(value)) * (int(keys) // KEY_BYTES)
                if slice_bytes > min(_SLICE_BYTES, size - freed):
                    break
            if not rows:
                return freed
            file.db.execute("DELETE FROM page WHERE id <= ?", (last,))
            file.db.execute("DELETE FROM segment WHERE id <= ?", (last,))
        freed += slice_bytes
    return freed


def evict(folder: Path, limit_bytes: int, max_age_s: float, *, keep: Sequence[StoreFile]) -> int:
    """Keeps a folder within its limits; returns how many bytes went.

    Unfinished tasks' files that were not touched for ``max_age_s`` go, then whole files in the order in which they were
    last used, but none that a process uses; then the oldest entries of the files in ``keep``.
    """
    own = {file.path: file for file in keep}
    sizes = {path: last_seen(path) for path in files(folder)}
    free = sum(_free(file) for file in keep)
    total = sum(size for size, _ in sizes.values()) - free
    gone = 0
    for path, (size, changed) in sorted(sizes.items(), key=lambda item: item[1][1]):
        old = path.name.startswith("resume-") and time.time() - changed > max_age_s
        if path in own or not (old or total > limit_bytes):
            continue
        if _try_remove(path):
            total -= size
            gone += size
            _log.info("removed %s (%d bytes): %s", path, size, "too old" if old else "the store is over its size limit")
    if total > limit_bytes:
        # down to nine tenths, so that not each commit has something to remove
        for file in sorted(keep, key=lambda f: sizes.get(f.path, (0, 0.0))[0], reverse=True):
            excess = total - limit_bytes * 9 // 10
            if excess <= 0:
                break
            freed = delete_oldest(file, excess)
            total -= freed
            gone += freed
    return gone


def _free(file: StoreFile) -> int:
    with file.lock, file.errors("read"):
        file.follow()
        (pages,) = file.db.execute("PRAGMA freelist_count").fetchone()
        (page_size,) = file.db.execute("PRAGMA page_size").fetchone()
    return int(pages) * int(page_size)


def _try_remove(path: Path) -> bool:
    try:
        file = StoreFile(path, create=False)
    except StoreError as error:
        _log.debug("not removed: %s", error)
        return False
    try:
        if remove(file):
            return True
    except StoreError as error:
        _log.debug("not removed: %s", error)
    file.close()
    return False


def remove_path(path: Path, *, force: bool = False) -> bool:
    """Removes one file of a store; says whether it is gone. One that a process uses stays, unless ``force``.

    A file that is damaged, or none of ours, is removed as it is: its name says that it belongs to a store.

    Raises:
        StoreError: The file is locked, or its folder cannot be written.
    """
    try:
        file = StoreFile(path, create=False)
    except StoreError as error:
        return _unlink(path, error)
    try:
        if remove(file, force=force):
            return True
    except StoreError as error:
        return _unlink(path, error)
    finally:
        with contextlib.suppress(StoreError):
            file.close()
    return False


def _unlink(path: Path, why: StoreError) -> bool:
    # an operational error (a lock, a folder that may not be written) says nothing about what the file holds
    if isinstance(why.__cause__, (sqlite3.OperationalError, OSError)):
        raise why
    for part in (path, path.with_name(path.name + "-journal")):
        part.unlink(missing_ok=True)
    return True


def matching(folder: Path, names: Iterable[str]) -> list[Path]:
    """Returns the files whose name, with or without "resume-" or "reuse-", begins with one of ``names``.

    Raises:
        StoreError: A name fits none.
    """
    paths = files(folder)
    chosen: list[Path] = []
    for name in names:
        fitting = [path for path in paths if path.stem.startswith(name) or path.stem.split("-", 1)[1].startswith(name)]
        if not fitting or not name:
            raise StoreError(
                f"no entry of the store in {folder} is called {name!r}; `evalscope-vacc store ls` lists them"
            )
        chosen += [path for path in fitting if path not in chosen]
    return chosen
