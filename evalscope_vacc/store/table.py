"""One file of the store: an SQLite table, key to value, a row for each answer.

Each task of an unfinished run, and each kept model, has a file of its own, because a file is removed in no time, while
deleting its rows takes a minute for 20 GiB and gives no room back.

SQLite's write-ahead log makes a commit cheap and safe: what was committed survives the end of the process at once, and
the file is whole after the machine went down. It also says who uses a file: an open connection holds a shared lock, so
a file that can be locked exclusively is used by nobody, and may be removed. benchmarks/STORE.md has the measurements.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from evalscope_vacc.errors import StoreError

_log = logging.getLogger(__name__)

KEY_BYTES = 16
"""Length of an answer's key; other keys are the store's own."""
APPLICATION_ID = 0x76616363  # "vacc"
VERSION = 2
_SCHEMA = {
    "about": "CREATE TABLE about(name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "answer": "CREATE TABLE answer(key BLOB PRIMARY KEY, crc INTEGER NOT NULL, value BLOB NOT NULL)",
}
_LOCKED_S = 30.0
_REPORTED = 10


class Table:
    """An open file; every method may be called from any thread."""

    def __init__(self, path: Path, about: Mapping[str, object] | None = None) -> None:
        """Opens the file.

        Args:
            path: The file; its folder is there already.
            about: What a new file says of itself (model, kind, label …). None: the file must be there.

        Raises:
            StoreError: It is not a store's file, of another version, damaged, or cannot be opened.
        """
        self.path = path
        self.damaged = 0
        self._lock = threading.RLock()
        until = time.monotonic() + _LOCKED_S
        with self.errors("opened"):
            while not self._open(about):
                if time.monotonic() > until:
                    raise sqlite3.OperationalError("database is locked")
                time.sleep(0.005)

    def _open(self, about: Mapping[str, object] | None) -> bool:
        """Connects; False where another process makes or removes the file at this moment."""
        if about is not None:
            # made here and not by SQLite, so that nobody else can read it from the first moment on
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        before = self.path.stat().st_ino
        uri = f"file:{quote(str(self.path.resolve()))}?mode=rw"
        self._db = sqlite3.connect(uri, uri=True, timeout=_LOCKED_S, isolation_level=None, check_same_thread=False)
        ready = False
        try:
            self._prepare(about or {})
            # a file that is open and still in its place can be removed by nobody else from now on
            ready = self.path.exists() and self.path.stat().st_ino == before
        except sqlite3.OperationalError as error:
            # SQLite does not wait by itself for the switch to the write-ahead log
            if "locked" not in str(error):
                raise
        finally:
            if not ready:
                self._db.close()
        return ready

    def _prepare(self, about: Mapping[str, object]) -> None:
        """Looks whether the file is ours before anything is written into it."""
        db = self._db
        db.execute("PRAGMA trusted_schema=OFF")
        db.execute("PRAGMA cell_size_check=ON")
        schema = self._schema()
        if schema:
            (application,) = db.execute("PRAGMA application_id").fetchone()
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if application != APPLICATION_ID:
                raise StoreError(f"{self.path} is an SQLite file of something else; move it away")
            if version != VERSION:
                raise StoreError(
                    f"{self.path} has the layout {version} of another evalscope-vacc, this one has {VERSION}; "
                    f"{self.way_out()}"
                )
            if schema != _SCHEMA:
                raise StoreError(f"{self.path} does not hold the tables that it should; {self.way_out()}")
        (mode,) = db.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise StoreError(
                f"the file system of {self.path.parent} cannot hold SQLite's write-ahead log; name another folder with "
                "`store:` or VACC_HOME"
            )
        db.execute("PRAGMA synchronous=NORMAL")
        if schema:
            return
        with self.transaction():
            # two processes may make it at once
            if not self._schema():
                db.execute(f"PRAGMA application_id={APPLICATION_ID}")
                db.execute(f"PRAGMA user_version={VERSION}")
                for sql in _SCHEMA.values():
                    db.execute(sql)
                db.executemany("INSERT INTO about VALUES(?,?)", [(name, str(value)) for name, value in about.items()])

    def _schema(self) -> dict[str, str]:
        return dict(self._db.execute("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall())

    def way_out(self) -> str:
        """Says what a user can do about a file that cannot be used."""
        return (
            f"remove it with `evalscope-vacc store rm {self.path.stem} --folder {self.path.parent}` "
            "(what it held is requested again)"
        )

    @contextlib.contextmanager
    def errors(self, doing: str) -> Iterator[None]:
        """Turns what SQLite and the system say into errors that name the file and the way out."""
        elsewhere = "or name another folder with `store:` or VACC_HOME"
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:
            # the latter where SQLite's own message repeats damaged bytes
            said = str(error)
            if "locked" in said or "busy" in said:
                way = f"another process holds it for over {_LOCKED_S:.0f} s; stop that, or set `store: off`"
            elif "full" in said or "disk I/O" in said:
                way = f"make room on its disk, {elsewhere}"
            elif "readonly" in said or "unable to open" in said:
                way = f"make its folder writable, {elsewhere}"
            else:
                way = self.way_out()
            raise StoreError(f"{self.path} could not be {doing}: {said}; {way}") from error
        except OSError as error:
            said = error.strerror or str(error)
            raise StoreError(f"{self.path} could not be {doing}: {said}; make it writable, {elsewhere}") from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Makes all that is read and written inside one step for everybody else; inside another one, a part of it.

        Raises:
            StoreError: It could not be written; then nothing of it is.
        """
        with self._lock, self.errors("written"):
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def put(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Commits keys and values, all or none; the newest value of a key holds.

        Raises:
            StoreError: They could not be written.
        """
        sealed = [(key, _checksum(key, value), value) for key, value in rows]
        with self.transaction():
            self._db.executemany("INSERT OR REPLACE INTO answer VALUES(?,?,?)", sealed)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Returns the values of those keys that are there and undamaged.

        Raises:
            StoreError: The file cannot be read.
        """
        found: dict[bytes, bytes] = {}
        with self.errors("read"):
            for key in keys:
                # a commit may come in between: nobody waits for a long look-up
                with self._lock:
                    row = self._db.execute("SELECT crc, value FROM answer WHERE key = ?", (key,)).fetchone()
                if row is None:
                    continue
                if _sound(key, *row):
                    found[key] = row[1]
                else:
                    self._report(key)
        return found

    def _report(self, key: bytes) -> None:
        self.damaged += 1
        if self.damaged <= _REPORTED:
            _log.warning(
                "%s: the answer of key %s is damaged and is taken as missing; `evalscope-vacc store verify` checks all",
                self.path,
                key.hex(),
            )

    def about(self) -> dict[str, str]:
        """Returns what the file says of itself."""
        with self._lock, self.errors("read"):
            return {str(name): str(value) for name, value in self._db.execute("SELECT name, value FROM about")}

    def count(self) -> int:
        """Returns how many answers it holds."""
        with self._lock, self.errors("read"):
            (count,) = self._db.execute("SELECT count(*) FROM answer WHERE length(key) = ?", (KEY_BYTES,)).fetchone()
        return int(count)

    def clear(self) -> None:
        """Removes every row.

        Raises:
            StoreError: The file cannot be written.
        """
        with self.transaction():
            self._db.execute("DELETE FROM answer")

    def verify(self) -> tuple[int, int]:
        """Reads everything; returns how many answers are sound and how many are damaged.

        Raises:
            StoreError: The file as a whole is damaged.
        """
        sound = damaged = 0
        with self._lock, self.errors("read"):
            (said,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
            if said != "ok":
                raise StoreError(f"{self.path} is damaged: {' '.join(str(said).split())[:200]}; {self.way_out()}")
            for key, crc, value in self._db.execute("SELECT key, crc, value FROM answer"):
                if not _sound(key, crc, value):
                    damaged += 1
                elif len(key) == KEY_BYTES:
                    sound += 1
        return sound, damaged

    def remove(self) -> bool:
        """Removes the file, unless somebody else uses it; says whether it is gone. Only a file that stays is open after.

        Raises:
            StoreError: The folder cannot be written.
        """
        with self._lock, self.errors("removed"), contextlib.ExitStack() as end:
            # also after an error: no lock may stay with a connection that nobody uses
            end.callback(self._db.close)
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE").fetchone()
            try:
                # leaving the write-ahead log needs, and keeps, a lock that nobody else can have beside us
                self._db.execute("PRAGMA journal_mode=DELETE").fetchone()
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
                self._db.execute("PRAGMA locking_mode=NORMAL").fetchone()
                end.pop_all()
                return False
            if os.name == "nt":
                # it removes no open file
                self._db.close()
            unlink(self.path)
        return True

    def close(self) -> None:
        """Closes the file; a second call does nothing.

        Raises:
            StoreError: What is in the write-ahead log could not be moved into the file; it stays in the log.
        """
        with self._lock, self.errors("closed"):
            self._db.close()


def unlink(path: Path) -> None:
    """Removes a file, and what SQLite may have left beside it."""
    for end in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)


def _checksum(key: bytes, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(key))


def _sound(key: object, crc: object, value: object) -> bool:
    # a damaged row may hold a value of any type
    return isinstance(key, bytes) and isinstance(value, bytes) and crc == _checksum(key, value)
