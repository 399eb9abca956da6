"""The files of a store's folder: listed, checked, removed."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Collection, Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from evalscope_vacc.errors import StoreError
from evalscope_vacc.paths import cache_folder
from evalscope_vacc.redact import clean

from .table import Table, unlink

_log = logging.getLogger(__name__)

LEFTOVERS = 20 * 2**30
"""Bytes that other unfinished runs and kept models may hold beside the run under way, once they are a day old."""
RECENT_S = 86400.0
MAX_AGE_S = 30 * 86400.0
"""An unfinished task's entries that were not used for this long are removed."""


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
        entries: Stored answers.
        bytes: On the disk.
        age_s: Seconds since it was last used.
        in_use: Whether a process has it open.
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
    in_use: bool = False
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        """Returns what can be written as JSON."""
        return {**asdict(self), "path": str(self.path)}


@dataclass(frozen=True)
class Verdict:
    """What :func:`verify` saw in one file: sound and damaged answers, and the file's own fault or ""."""

    name: str
    sound: int
    damaged: int
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Nothing is damaged."""
        return not self.damaged and not self.problem


def default_folder() -> Path:
    """Returns ``$VACC_HOME/store``, else ``store`` in the user's cache folder."""
    return cache_folder() / "store"


def files(folder: Path) -> list[Path]:
    """Returns the store's files in a folder, by name."""
    found = [*folder.glob("resume-*.sqlite"), *folder.glob("reuse-*.sqlite")]
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def size_of(path: Path) -> int:
    """Returns the bytes that a file and its write-ahead log have on the disk; 0 where it has gone."""
    return _stat(path)[0] + _stat(path.with_name(path.name + "-wal"))[0]


def _stat(path: Path) -> tuple[int, float]:
    try:
        seen = path.stat()
    except FileNotFoundError:
        return 0, time.time()
    return seen.st_size, seen.st_mtime


def listing(folder: Path) -> list[Listing]:
    """Returns a line for each file of a folder, the last used first; a file that cannot be read has a ``problem``."""
    return sorted((_line(path) for path in files(folder)), key=lambda line: line.age_s)


def _line(path: Path) -> Listing:
    size, changed = size_of(path), _stat(path)[1]
    age = max(0.0, time.time() - changed)
    mode = path.name.split("-")[0]
    try:
        with closing(Table(path)) as table:
            about, entries = table.about(), table.count()
    except StoreError as error:
        return Listing(path.stem, path, mode, "", "", "", 0, size, age, problem=clean(str(error)))
    model, kind, label = (clean(about.get(part, ""), limit=200) for part in ("model", "kind", "label"))
    # the last who closes a file takes the log with him
    in_use = path.with_name(path.name + "-wal").exists()
    return Listing(path.stem, path, mode, model, kind, label, entries, size, age, in_use)


def verify(path: Path) -> Verdict:
    """Reads every answer of a file and compares its checksum."""
    try:
        with closing(Table(path)) as table:
            sound, damaged = table.verify()
    except StoreError as error:
        return Verdict(path.stem, 0, 0, clean(str(error)))
    return Verdict(path.stem, sound, damaged)


def remove(path: Path, *, force: bool = False) -> bool:
    """Removes one file; says whether it is gone. One that a process uses stays, unless ``force``.

    A file that is damaged, of another version, or none of ours, is removed as it is: its name says that it belongs to a
    store. A process that uses a file that was removed by force writes what nobody will find.

    Raises:
        StoreError: The file is locked, or its folder cannot be written.
    """
    try:
        table = Table(path)
        if table.remove():
            return True
        table.close()
    except StoreError as error:
        # an operational error (a lock, a folder that may not be written) says nothing about what the file holds
        if isinstance(error.__cause__, (sqlite3.OperationalError, OSError)):
            raise
        force = True
    if force:
        unlink(path)
    return force


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


def evict(folder: Path, limit_bytes: int, *, keep: Collection[Path]) -> None:
    """Removes what is too old or too much beside the files in ``keep``, those that were used longest ago first.

    Unfinished tasks' files go after ``MAX_AGE_S``, others while all together have more than ``limit_bytes``, or more than
    ``LEFTOVERS`` and were not used for a day. What a process uses and what another version left is never removed.
    """
    sizes = {path: (size_of(path), _stat(path)[1]) for path in files(folder) if path not in keep}
    total = sum(size for size, _ in sizes.values())
    for path, (size, used) in sorted(sizes.items(), key=lambda item: item[1][1]):
        age = time.time() - used
        old = path.name.startswith("resume-") and age > MAX_AGE_S
        if not (old or total > limit_bytes or (total > LEFTOVERS and age > RECENT_S)):
            continue
        try:
            table = Table(path)
            if not table.remove():
                table.close()
                continue
        except StoreError as error:
            _log.debug("not removed: %s", error)
            continue
        total -= size
        _log.info("removed %s (%d bytes): %s", path, size, "too old" if old else "the store is over its size limit")


@lru_cache(maxsize=64)
def warn_of_other_versions(folder: Path) -> None:
    """Says, once, that files of evalscope-vacc 0.1.0 lie in a folder: they are left alone, and not used."""
    old = [path for path in files(folder) if _is_of_0_1(path)]
    if old:
        _log.warning(
            "%d files in %s (%.1f MiB) are of evalscope-vacc 0.1.0 and are not used; `evalscope-vacc store ls` lists "
            "them, `store rm` removes them",
            len(old),
            folder,
            sum(map(size_of, old)) / 2**20,
        )


def _is_of_0_1(path: Path) -> bool:
    # application id and version stand in the header of every SQLite file
    try:
        with path.open("rb") as file:
            header = file.read(72)
    except OSError:
        return False
    return header[60:64] == (1).to_bytes(4, "big") and header[68:72] == b"vacc"
