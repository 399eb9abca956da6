"""One SQLite file: the answers of one unfinished task, or of one kept model.

The choice of SQLite, of a row for each page and of the rollback journal is measured in benchmarks/STORE.md. What a
process committed survives its end by SIGKILL, because the operating system has it; nothing is forced to the disk before
:meth:`StoreFile.close`. A machine that went down instead is noticed by its boot number, and the file is then checked as
a whole before it is believed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from evalscope_vacc.errors import StoreError

from .index import MAX_SLOTS, SLOT_BITS, KeyIndex, Places, places_of
from .keys import KEY_BYTES
from .layout import (
    APPLICATION_ID,
    LEASE_S,
    PAGE_BYTES,
    SCHEMA,
    SCHEMA_VERSION,
    Block,
    Found,
    Lease,
    boot_number,
    slots_for,
    sound_segment,
)
from .records import intact, record_bytes

_log = logging.getLogger(__name__)

_ROWS_A_STATEMENT = 64

_INHERITED: list[sqlite3.Connection] = []


class StoreFile:
    """An open file; every method may be called from any thread."""

    def __init__(self, path: Path, *, about: dict[str, str] | None = None, create: bool = True) -> None:
        """Opens the file, and makes it where it is missing.

        Args:
            path: The file; its folder is there already.
            about: What a new file says of itself: scope, identity, label, mode.
            create: Whether a missing file is made.

        Raises:
            StoreError: It is not a store's file, of another version, damaged, or cannot be opened.
        """
        self.path = path
        self.lock = threading.RLock()
        self.token = secrets.token_hex(8)
        self.leased = 0.0
        self.damaged = 0
        self._file = (0, 0)
        self._forked = False
        self.closed = False
        self._about = about or {}
        self._open(create)

    def _open(self, create: bool) -> None:
        self._index = KeyIndex()
        self._sizes: dict[int, int] = {}
        self._last = 0
        for _attempt in range(20):
            with self.errors("opened"):
                if create:
                    # made here and not by SQLite, so that nobody else can read it from the first moment on
                    with contextlib.suppress(FileExistsError):
                        os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                before = self._file = self._inode()
                self.db = sqlite3.connect(
                    f"file:{quote(str(self.path.resolve()))}?mode=rw",
                    uri=True,
                    timeout=30,
                    isolation_level=None,
                    check_same_thread=False,
                )
                try:
                    self._prepare()
                    if before == self._inode():
                        return
                except BaseException:
                    self.db.close()
                    raise
                self.db.close()
        raise StoreError(f"{self.path} is removed and made again all the time; is another process clearing its folder?")

    def _inode(self) -> tuple[int, int]:
        seen = self.path.stat()
        return seen.st_dev, seen.st_ino

    def _prepare(self) -> None:
        db = self.db
        for pragma in (
            "trusted_schema=OFF",
            "cell_size_check=ON",
            f"page_size={PAGE_BYTES}",
            "cache_size=-16384",
            "synchronous=OFF",
            "temp_store=MEMORY",
        ):
            db.execute(f"PRAGMA {pragma}")
        db.execute("BEGIN IMMEDIATE")
        schema = dict(db.execute("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall())
        if not schema:
            db.execute(f"PRAGMA application_id={APPLICATION_ID}")
            db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            for sql in SCHEMA.values():
                db.execute(sql)
            about = {"made": repr(time.time()), **self._about}
            db.executemany("INSERT INTO meta VALUES(?,?)", about.items())
            db.execute("COMMIT")
            return
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        db.execute("ROLLBACK")
        if application != APPLICATION_ID:
            raise StoreError(f"{self.path} is an SQLite file of something else; move it away, or name another folder")
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"{self.path} has the layout {version}, this evalscope-vacc writes {SCHEMA_VERSION}; "
                f"remove it with `evalscope-vacc store rm {self.path.stem}`, or use the version that made it"
            )
        if schema != SCHEMA:
            raise StoreError(f"{self.path} does not hold the tables that it should; {self.way_on()}")
        (boot,) = db.execute("SELECT (SELECT value FROM meta WHERE name='boot')").fetchone()
        if boot and boot != boot_number():
            _log.warning("%s was in use when the machine went down: checking it", self.path)
            if (said := self.structure()) != "ok":
                raise StoreError(f"{self.path} was damaged when the machine went down ({said[:200]}); {self.way_on()}")
            with self.transaction():
                self.set("boot", "")

    def way_on(self) -> str:
        """Says what a person does about a file that cannot be used."""
        return (
            f"remove it with `evalscope-vacc store rm {self.path.stem} --folder {self.path.parent}` "
            "(what it held is asked of the server again)"
        )

    @contextlib.contextmanager
    def errors(self, doing: str) -> Iterator[None]:
        """Turns what SQLite and the system say into errors that name the file and the way on."""
        try:
            yield
        except sqlite3.Error as error:
            said = str(error)
            if isinstance(error, sqlite3.OperationalError) and ("locked" in said or "busy" in said):
                way = "another process holds it for over 30 s; stop that, or set `store: off`"
            elif "full" in said or "disk I/O" in said:
                way = "make room on its disk, or name another folder with `store:` or VACC_HOME"
            elif "readonly" in said or "unable to open" in said:
                way = "make its folder writable, or name another with `store:` or VACC_HOME"
            else:
                way = self.way_on()
            raise StoreError(f"{self.path} could not be {doing}: {said}; {way}") from error
        except OSError as error:
            raise StoreError(
                f"{self.path} could not be {doing}: {error.strerror or error}; "
                "make its folder writable, or name another with `store:` or VACC_HOME"
            ) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """A writing transaction on the file that lies at the path now, not on one that was removed meanwhile."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise

    def follow(self) -> None:
        """Opens the path anew where its file was removed or replaced by another process, or in a forked process."""
        if self.closed:
            raise StoreError(f"{self.path} was dropped or closed; open the scope again")
        if self._forked:
            self._forked = False
            self._open(create=True)
            return
        if not self.current():
            self.db.close()
            self.leased = 0.0
            self._open(create=True)

    def current(self) -> bool:
        """Says whether the open file is still the one at the path."""
        try:
            return self._inode() == self._file
        except FileNotFoundError:
            return False

    def set(self, name: str, value: str) -> None:
        """Writes a line of what the file says of itself; inside a transaction."""
        self.db.execute("INSERT OR REPLACE INTO meta VALUES(?,?)", (name, value))

    def meta(self) -> dict[str, str]:
        """Returns what the file says of itself."""
        with self.lock, self.errors("read"):
            self.follow()
            return dict(self.db.execute("SELECT name, value FROM meta").fetchall())

    def write(self, blocks: Sequence[Block]) -> None:
        """Writes blocks in one transaction; what returns has survived the end of this process.

        Raises:
            StoreError: The disk is full, the file is damaged, or another process holds it.
        """
        rows: list[tuple[int, bytes, memoryview]] = []
        for block in blocks:
            slots = slots_for(block.records.shape[1])
            for at in range(0, len(block.records), slots):
                keys = block.keys[KEY_BYTES * at : KEY_BYTES * (at + slots)]
                rows.append((block.value_bytes, keys, block.records[at : at + slots].data.cast("B")))
        with self.lock, self.errors("written"):
            while True:
                self.follow()
                with self.transaction():
                    # looked at again inside the transaction: a removal holds the lock that this one has now
                    if self.current():
                        self._insert(rows)
                        return

    def _insert(self, rows: Sequence[tuple[int, bytes, memoryview]]) -> None:
        (last, boot) = self.db.execute(
            "SELECT (SELECT seq FROM sqlite_sequence WHERE name='segment'), (SELECT value FROM meta WHERE name='boot')"
        ).fetchone()
        last = last or 0
        if boot != boot_number():
            self.set("boot", boot_number())
        self._renew(time.time())
        for start in range(0, len(rows), _ROWS_A_STATEMENT):
            # one statement for many rows: the interpreter's lock is given up, and waited for, once and not for each
            part = rows[start : start + _ROWS_A_STATEMENT]
            numbers = range(last + 1, last + 1 + len(part))
            segments = [x for number, (size, keys, _) in zip(numbers, part, strict=True) for x in (number, size, keys)]
            pages = [x for number, (_, _, records) in zip(numbers, part, strict=True) for x in (number, records)]
            three, two = ",".join(["(?,?,?)"] * len(part)), ",".join(["(?,?)"] * len(part))
            self.db.execute(f"INSERT INTO segment VALUES {three}", segments)  # noqa: S608 - question marks alone
            self.db.execute(f"INSERT INTO page VALUES {two}", pages)  # noqa: S608 - question marks alone
            last += len(part)

    def _renew(self, now: float) -> None:
        if now - self.leased > LEASE_S / 4:
            self.db.execute(
                "INSERT OR REPLACE INTO user VALUES(?,?,?,?)", (self.token, socket.gethostname(), os.getpid(), now)
            )
            self.leased = now

    def use(self) -> None:
        """Says that this process uses the file, now and every half minute at most."""
        if time.time() - self.leased > LEASE_S / 4:
            with self.lock, self.errors("written"):
                if self.closed:
                    return
                self.follow()
                with self.transaction():
                    self._renew(time.time())

    def leases(self) -> list[Lease]:
        """Returns who else uses the file, as far as can be told."""
        with self.lock, self.errors("read"):
            rows = self.db.execute("SELECT token, host, pid, seen FROM user WHERE token <> ?", (self.token,)).fetchall()
        return [lease for lease in (Lease(*row) for row in rows) if lease.live()]

    def read(self, keys: Sequence[bytes]) -> list[Found]:
        """Returns what is there of ``keys``.

        A record whose checksum is wrong is logged, counted in ``damaged``, and not returned.

        Raises:
            StoreError: The file as a whole cannot be read.
        """
        with self.lock, self.errors("read"):
            self.follow()
            self._refresh()
            places = self._index.find(keys)
            wanted = np.flatnonzero(places >= 0)
            # in the order of the file, so that a page that holds several of them is read once
            wanted = wanted[np.argsort(places[wanted], kind="stable")]
            if not len(wanted):
                return []
            sizes = np.array([self._sizes[n] for n in (places[wanted] >> SLOT_BITS).tolist()], np.int64)
            return [
                found
                for size in np.unique(sizes).tolist()
                if len((found := self._fetch(keys, places, wanted[sizes == size], size)).positions)
            ]

    def _refresh(self) -> None:
        """Learns the keys of what was committed since, by this process or another."""
        rows = self.db.execute("SELECT id, size, keys FROM segment WHERE id > ? ORDER BY id", (self._last,))
        while some := rows.fetchmany(20_000):
            self._last = some[-1][0]
            sound = [row for row in some if sound_segment(row[1], row[2])]
            for number in {row[0] for row in some} - {row[0] for row in sound}:
                self._report(f"the key list of segment {number}")
            if not sound:
                continue
            keys = [row[2] for row in sound]
            numbers = np.array([row[0] for row in sound], np.int64)
            slots = np.array([len(some_keys) // KEY_BYTES for some_keys in keys], np.int64)
            self._index.add(b"".join(keys), places_of(numbers, slots))
            self._sizes.update((row[0], row[1]) for row in sound)

    def _fetch(self, keys: Sequence[bytes], places: Places, wanted: npt.NDArray[np.intp], size: int) -> Found:
        record = record_bytes(size)
        rows = self.db.execute(
            f"SELECT j.key, substr(p.records, (j.value & {MAX_SLOTS - 1}) * ? + 1, ?) FROM json_each(?) j "  # noqa: S608
            f"CROSS JOIN page p ON p.id = j.value >> {SLOT_BITS}",
            (record, record, json.dumps(places[wanted].tolist())),
        ).fetchall()
        whole = [(wanted[at], value) for at, value in rows if isinstance(value, bytes) and len(value) == record]
        positions = np.array([at for at, _ in whole], np.intp)
        raw = b"".join(value for _, value in whole)
        records = np.frombuffer(raw, np.uint8).reshape(-1, record) if raw else np.empty((0, record), np.uint8)
        sound = intact(records, b"".join(keys[at] for at in positions.tolist()), size)
        if len(whole) < len(rows) or not sound.all():
            positions, records = positions[sound], records[sound]
            kept = set(positions.tolist())
            for at, _ in rows:
                if (position := int(wanted[at])) not in kept:
                    self._report(f"the record of key {keys[position].hex()}")
        return Found(positions, records[:, :size])

    def _report(self, what: str) -> None:
        self.damaged += 1
        if self.damaged <= 10:
            _log.warning(
                "%s: %s is damaged and is taken as missing; `evalscope-vacc store verify` checks all", self.path, what
            )

    def after_fork(self) -> None:
        """Makes the copy of a forked process independent; the caller held ``lock`` while it forked."""
        # SQLite's connection belongs to the parent: never used, never closed on purpose; no transaction was open
        _INHERITED.append(self.db)
        self.lock = threading.RLock()
        self.token = secrets.token_hex(8)
        self.leased = 0.0
        self._forked = True

    def forget(self) -> None:
        """Deletes every entry; inside a transaction."""
        self.db.execute("DELETE FROM page")
        self.db.execute("DELETE FROM segment")
        self.db.execute("DELETE FROM probe")
        self._index = KeyIndex()
        self._sizes = {}

    def close(self, *, sync: bool = True) -> None:
        """Says that this process no longer uses the file, and closes it.

        Args:
            sync: Whether it is forced to the disk first, which takes as long as the disk takes. Where it is not, the
                file is checked as a whole should the machine have been started anew before the next use.
        """
        with self.lock:
            if self._forked or self.closed:
                return
            self.closed = True
            try:
                with self.errors("closed"):
                    if self.leased and self.current():
                        if sync:
                            self.db.execute("PRAGMA synchronous=FULL")
                        with self.transaction():
                            self.db.execute("DELETE FROM user WHERE token = ?", (self.token,))
                            if sync:
                                self.set("boot", "")
            finally:
                self.db.close()

    def structure(self) -> str:
        """Returns "ok", or SQLite's first complaint about the file's structure; reads all of it."""
        with self.lock, self.errors("read"):
            try:
                said = str(self.db.execute("PRAGMA quick_check(1)").fetchone()[0])
                return " ".join(said.split())
            except sqlite3.DatabaseError as error:
                return str(error)
