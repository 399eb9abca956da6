"""Which embedded store holds the vectors: SQLite in several layouts, or LMDB.

Every candidate gets the same load: float32 vectors of 1024 dimensions in batches of 32, 10,000 vectors a second, handed
to a writer thread that collects for 40 ms and commits. Measured are

* fill/s, fill CPU: vectors a second written by one process at full speed, processor time for each,
* bytes: on the disk, for each byte of vector,
* CPU: processor time that the store takes of one core, in all threads, while a client decodes and hands over 10,000
  vectors a second,
* lag: from the hand-over of a batch to the end of its commit,
* read/s, read CPU: vectors a second in look-ups of 1,000 keys in random order, by a new process, processor time for
  each,
* 2 writers/s, reader beside/s: two writing processes at full speed at once, vectors a second in all, and a third one's
  look-ups beside them,
* kills: writers ended by SIGKILL at random moments; batches handed over more than 100 ms before that are missing, and
  damaged values.

Run it with ``python benchmarks/store_choice.py [--seconds 4] [--rows 100000] [--only NAME]``; needs ``lmdb`` installed.
"""

# ruff: noqa: D102

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import multiprocessing as mp
import os
import queue
import random
import shutil
import signal
import sqlite3
import statistics
import struct
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

import numpy as np

DIM = 1024
BATCH = 32
RATE = 10_000
COLLECT_S = 0.04


WEIGHTS = np.frombuffer(hashlib.shake_128(b"weights").digest(8 * (DIM + 4)), "<u8")


def sums(joined: bytes, words: np.ndarray) -> np.ndarray:
    """A checksum of 64 bits for each key and vector, as two words of 32."""
    total = np.einsum("ij,j->i", words, WEIGHTS[:DIM])
    total += np.einsum("ij,j->i", np.frombuffer(joined, "<u4").reshape(-1, 4), WEIGHTS[DIM:])
    return total.view("<u4").reshape(-1, 2)


def key_of(number: int) -> bytes:
    return hashlib.blake2b(number.to_bytes(8, "little"), digest_size=16).digest()


class Rows:
    """SQLite, a row for each vector and an index on the key."""

    page = 4096
    many = True
    journal = "WAL"
    synchronous = "NORMAL"

    def __init__(self, folder: Path) -> None:
        self.db = sqlite3.connect(folder / "s.sqlite", isolation_level=None, timeout=30, check_same_thread=False)
        self.db.execute(f"PRAGMA page_size={self.page}")
        self.db.execute(f"PRAGMA journal_mode={self.journal}")
        self.db.execute(f"PRAGMA synchronous={self.synchronous}")
        self.db.execute("PRAGMA wal_autocheckpoint=0")
        self.db.execute("PRAGMA cache_size=-16384")
        self.folder = folder
        self.written = threading.Event()
        self.settler: threading.Thread | None = None
        self.ended = False
        self.schema()

    def settle(self) -> None:
        """Moves the write-ahead log into the file, beside the commits, until it once caught up with them."""
        db = sqlite3.connect(self.folder / "s.sqlite", isolation_level=None, timeout=30)
        while self.written.wait() and not self.ended:
            self.written.clear()
            busy, log, moved = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            while not busy and moved < log and self.written.wait() and not self.ended:
                self.written.clear()
                busy, log, moved = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        db.close()

    def after_commit(self) -> None:
        if (self.folder / "s.sqlite-wal").stat().st_size > 64 * 2**20:
            if self.settler is None:
                self.settler = threading.Thread(target=self.settle)
                self.settler.start()
            self.written.set()

    def schema(self) -> None:
        self.db.execute("CREATE TABLE IF NOT EXISTS e(id INTEGER PRIMARY KEY, key BLOB NOT NULL, value BLOB NOT NULL)")
        self.db.execute("CREATE UNIQUE INDEX IF NOT EXISTS k ON e(key)")

    def write(self, batches: list[tuple[list[bytes], np.ndarray]]) -> None:
        rows = [
            (key, struct.pack("<I", zlib.crc32(row)) + row)
            for keys, matrix in batches
            for key, row in zip(keys, (r.tobytes() for r in matrix), strict=True)
        ]
        self.db.execute("BEGIN IMMEDIATE")
        if self.many:
            self.db.executemany("INSERT OR REPLACE INTO e(key, value) VALUES(?,?)", rows)
        else:
            for at in range(0, len(rows), 256):
                part = rows[at : at + 256]
                sql = "INSERT OR REPLACE INTO e(key, value) VALUES " + ",".join(["(?,?)"] * len(part))
                self.db.execute(sql, [x for row in part for x in row])
        self.db.execute("COMMIT")
        self.after_commit()

    def read(self, keys: list[bytes]) -> tuple[int, int]:
        marks = ",".join("?" * len(keys))
        found = bad = 0
        out = np.empty((len(keys), DIM), "<f4")
        for _key, value in self.db.execute(f"SELECT key, value FROM e WHERE key IN ({marks})", keys):
            if zlib.crc32(memoryview(value)[4:]) != struct.unpack_from("<I", value)[0]:
                bad += 1
            out[found] = np.frombuffer(value, "<f4", DIM, 4)
            found += 1
        return found, bad

    def close(self) -> None:
        self.ended = True
        self.written.set()
        if self.settler:
            self.settler.join()
        self.db.close()


class RowsOneStatement(Rows):
    """The same, 256 rows a statement: the interpreter lock is given up and fought for once, not 256 times."""

    many = False


class RowsOneStatement16(RowsOneStatement):
    """The same with pages of 16 KiB: vectors lie inside the pages instead of in chains."""

    page = 16384


class Pages(Rows):
    """SQLite, as many vectors in a row as fill one page of 32 KiB; a key's place is learnt from the rows' key lists.

    One statement for all rows of a commit, one for all keys of a look-up.
    """

    page = 32768
    pack = 7

    def schema(self) -> None:
        self.db.execute("CREATE TABLE IF NOT EXISTS s(id INTEGER PRIMARY KEY AUTOINCREMENT, keys BLOB NOT NULL)")
        self.db.execute("CREATE TABLE IF NOT EXISTS v(id INTEGER PRIMARY KEY, vals BLOB NOT NULL)")
        self.where: dict[bytes, int] = {}
        self.last = 0

    def write(self, batches: list[tuple[list[bytes], np.ndarray]]) -> None:
        joined = b"".join(key for keys, _ in batches for key in keys)
        total = len(joined) // 16
        record = np.empty((total, DIM + 2), "<u4")
        at = 0
        for keys, matrix in batches:
            record[at : at + len(keys), :DIM] = matrix.view("<u4")
            at += len(keys)
        record[:, DIM:] = sums(joined, record[:, :DIM])
        starts = range(0, total, self.pack)
        self.db.execute("BEGIN IMMEDIATE")
        (last,) = self.db.execute("SELECT coalesce(max(id), 0) FROM s").fetchone()
        for one in range(0, len(starts), 64):
            part = starts[one : one + 64]
            marks = ",".join(["(?,?)"] * len(part))
            keys_of = [(last + 1 + i, joined[16 * at : 16 * (at + self.pack)]) for i, at in enumerate(part)]
            rows_of = [(last + 1 + i, record[at : at + self.pack].data.cast("B")) for i, at in enumerate(part)]
            self.db.execute(f"INSERT INTO s VALUES {marks}", [x for row in keys_of for x in row])
            self.db.execute(f"INSERT INTO v VALUES {marks}", [x for row in rows_of for x in row])
            last += len(part)
        self.db.execute("COMMIT")
        self.after_commit()

    def read(self, keys: list[bytes]) -> tuple[int, int]:
        for number, joined in self.db.execute("SELECT id, keys FROM s WHERE id > ? ORDER BY id", (self.last,)):
            self.last = number
            for at in range(len(joined) // 16):
                self.where[joined[16 * at : 16 * at + 16]] = number << 8 | at
        size = 4 * (DIM + 2)
        places = sorted((place, key) for key in keys if (place := self.where.get(key)) is not None)
        out = np.empty((len(places), DIM + 2), "<u4")
        sql = (
            f"SELECT substr(v.vals, 1 + (j.value & 255) * {size}, {size}) "
            "FROM json_each(?) j CROSS JOIN v ON v.id = j.value >> 8"
        )
        for at, (value,) in enumerate(self.db.execute(sql, (json.dumps([place for place, _ in places]),))):
            out[at] = np.frombuffer(value, "<u4")
        joined = b"".join(key for _, key in places)
        bad = int((sums(joined, out[:, :DIM]) != out[:, DIM:]).any(axis=1).sum())
        return len(places), bad


class PagesJournal(Pages):
    """The same with a rollback journal: what only grows is written once, not into a log and then into the file."""

    journal = "DELETE"
    synchronous = "OFF"

    def after_commit(self) -> None:
        """Leaves nothing to be moved."""


class Batches(Pages):
    """The same as with pages, with the 32 vectors of a request in a row, which spreads over five pages."""

    pack = BATCH


class Lmdb:
    """LMDB, a value for each vector; data is forced to the disk at each commit, the last meta page is not."""

    options: dict[str, bool] = {"metasync": False}  # noqa: RUF012

    def __init__(self, folder: Path) -> None:
        import lmdb

        self.env = lmdb.open(str(folder / "l"), map_size=64 * 2**30, **self.options)

    def write(self, batches: list[tuple[list[bytes], np.ndarray]]) -> None:
        rows = [
            (key, struct.pack("<I", zlib.crc32(row)) + row)
            for keys, matrix in batches
            for key, row in zip(keys, (r.tobytes() for r in matrix), strict=True)
        ]
        rows.sort()
        with self.env.begin(write=True) as txn:
            txn.cursor().putmulti(rows)

    def read(self, keys: list[bytes]) -> tuple[int, int]:
        found = bad = 0
        out = np.empty((len(keys), DIM), "<f4")
        with self.env.begin(buffers=True) as txn:
            for key in keys:
                value = txn.get(key)
                if value is None:
                    continue
                if zlib.crc32(value[4:]) != struct.unpack_from("<I", value)[0]:
                    bad += 1
                out[found] = np.frombuffer(value, "<f4", DIM, 4)
                found += 1
        return found, bad

    def close(self) -> None:
        self.env.close()


class LmdbNoSync(Lmdb):
    """The same, nothing forced to the disk: survives the process, a power cut may break the file."""

    options = {"sync": False, "metasync": False}  # noqa: RUF012


CANDIDATES = {
    "SQLite, row per vector": Rows,
    "SQLite, row per vector, 256 a statement": RowsOneStatement,
    "SQLite, row per vector, 256 a statement, 16 KiB pages": RowsOneStatement16,
    "SQLite, row per request": Batches,
    "SQLite, row per page": Pages,
    "SQLite, row per page, rollback journal": PagesJournal,
    "LMDB": Lmdb,
    "LMDB without sync": LmdbNoSync,
}


class Writer:
    """The same writer thread for every candidate: takes what has come in, commits, notes how old it was."""

    def __init__(self, candidate: type, folder: Path) -> None:
        self.inbox: queue.SimpleQueue = queue.SimpleQueue()
        self.lags: list[float] = []
        self.thread = threading.Thread(target=self.work, args=(candidate, folder))
        self.thread.start()

    def work(self, candidate: type, folder: Path) -> None:
        store = candidate(folder)
        ended = False
        while not ended:
            items = [self.inbox.get()]
            until = time.perf_counter() + COLLECT_S
            while items[-1] is not None and (left := until - time.perf_counter()) > 0:
                with contextlib.suppress(queue.Empty):
                    items.append(self.inbox.get(timeout=left))
            ended = items[-1] is None
            items = [item for item in items if item is not None]
            if items:
                store.write([(keys, matrix) for _, keys, matrix in items])
                now = time.perf_counter()
                self.lags += [now - item[0] for item in items]
        store.close()

    def close(self) -> None:
        self.inbox.put(None)
        self.thread.join()


def matrices(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).standard_normal((count, BATCH, DIM), dtype="f4"))


def answers_of(data: list[np.ndarray]) -> list[bytes]:
    """Bodies as an OpenAI-style server sends them."""
    return [
        json.dumps({"data": [{"embedding": base64.b64encode(row.tobytes()).decode()} for row in matrix]}).encode()
        for matrix in data
    ]


def decoded(body: bytes) -> np.ndarray:
    out = np.empty((BATCH, DIM), "<f4")
    for at, item in enumerate(json.loads(body)["data"]):
        out[at] = np.frombuffer(base64.b64decode(item["embedding"]), "<f4")
    return out


def client(seconds: float, pause: float, writer: Writer | None, first: int, bodies: list[bytes]) -> float:
    """Waits for an answer, decodes it, hands it over; as many answers as RATE gives in ``seconds``. Returns seconds."""
    start = time.perf_counter()
    for sent in range(int(seconds * RATE / BATCH)):
        time.sleep(pause)
        matrix = decoded(bodies[sent % len(bodies)])
        keys = [key_of(first + sent * BATCH + i) for i in range(BATCH)]
        if writer:
            writer.inbox.put((time.perf_counter(), keys, matrix))
    return time.perf_counter() - start


def cost(candidate: type, folder: Path, seconds: float, data: list[np.ndarray]) -> dict[str, float]:
    lags, cpu = [], []
    first = 0
    bodies = answers_of(data)
    # the pause that makes the client take RATE texts a second when it has no store
    pause = max(0.0, BATCH / RATE - client(1, 0, None, 0, bodies) / int(RATE / BATCH))
    for _ in range(5):
        start = time.process_time()
        client(seconds, pause, None, 0, bodies)
        between = time.process_time()
        writer = Writer(candidate, folder)
        client(seconds, pause, writer, first, bodies)
        writer.close()
        cpu.append((time.process_time() - between - (between - start)) / seconds)
        lags += writer.lags
        first += 10**6
    lags.sort()
    return {
        "CPU %": 100 * statistics.median(cpu),
        "lag p50 ms": 1000 * lags[len(lags) // 2],
        "p99 ms": 1000 * lags[int(len(lags) * 0.99)],
        "max ms": 1000 * lags[-1],
    }


def fill(candidate: type, folder: Path, first: int, rows: int, answers: mp.Queue | None = None) -> tuple[float, float]:
    """Writes at full speed; returns (seconds, seconds of processor time)."""
    data = matrices(64)
    store = candidate(folder)
    start, cpu = time.perf_counter(), time.process_time()
    for at in range(first, first + rows, 1024):
        store.write(
            [
                ([key_of(n) for n in range(b, b + BATCH)], data[b // BATCH % 64])
                for b in range(at, min(at + 1024, first + rows), BATCH)
            ]
        )
    store.close()
    seconds = time.perf_counter() - start, time.process_time() - cpu
    if answers:
        answers.put(seconds[0])
    return seconds


def second_pass(candidate: type, folder: Path, rows: int, answers: mp.Queue) -> None:
    store = candidate(folder)
    numbers = list(range(rows))
    random.Random(1).shuffle(numbers)
    start, cpu = time.perf_counter(), time.process_time()
    found = bad = 0
    for at in range(0, rows, 1000):
        f, b = store.read([key_of(n) for n in numbers[at : at + 1000]])
        found += f
        bad += b
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    store.close()
    answers.put((found, bad, seconds, cpu))


def writes_until_killed(candidate: type, folder: Path, shared: object) -> None:
    data = matrices(64)
    writer = Writer(candidate, folder)
    start = time.perf_counter()
    sent = 0
    while True:
        while sent * BATCH < (time.perf_counter() - start) * RATE:
            writer.inbox.put(
                (time.perf_counter(), [key_of(sent * BATCH + i) for i in range(BATCH)], data[sent % 64].copy())
            )
            sent += 1
            shared[sent % len(shared)] = time.monotonic()  # type: ignore[index]
        time.sleep(0.002)


def kills(candidate: type, times: int) -> dict[str, float]:
    missing = bad = 0
    for turn in range(times):
        with tempfile.TemporaryDirectory(prefix="choice") as name:
            shared = mp.RawArray("d", 100_000)
            child = mp.Process(target=writes_until_killed, args=(candidate, Path(name), shared))
            child.start()
            time.sleep(random.Random(turn).uniform(0.7, 1.6))
            os.kill(child.pid or 0, signal.SIGKILL)
            at = time.monotonic()
            child.join()
            stamps = np.array(shared)
            settled = int(((stamps > 0) & (stamps < at - 0.1)).sum()) * BATCH
            store = candidate(Path(name))
            for b in range(0, settled, BATCH):
                found, wrong = store.read([key_of(n) for n in range(b, b + BATCH)])
                missing += found < BATCH
                bad += wrong
            store.close()
    return {"kills": times, "late batches missing": missing, "damaged": bad}


def size_of(folder: Path) -> int:
    return sum(p.stat().st_blocks * 512 for p in folder.rglob("*") if p.is_file())


def measure(name: str, candidate: type, args: argparse.Namespace) -> dict[str, float]:
    answers: mp.Queue = mp.Queue()
    result: dict[str, float] = {}
    folder = Path(tempfile.mkdtemp(prefix="choice", dir=args.folder))
    try:
        seconds, cpu = fill(candidate, folder, 10**9, args.rows)
        result["fill/s"] = args.rows / seconds
        result["fill CPU µs"] = 1e6 * cpu / args.rows
        result["bytes"] = size_of(folder) / (args.rows * DIM * 4)
        result.update(cost(candidate, folder, args.seconds, matrices(64)))
    finally:
        shutil.rmtree(folder)
    folder = Path(tempfile.mkdtemp(prefix="choice", dir=args.folder))
    try:
        fill(candidate, folder, 0, args.rows)
        reader = mp.Process(target=second_pass, args=(candidate, folder, args.rows, answers))
        reader.start()
        found, bad, seconds, cpu = answers.get()
        reader.join()
        if found != args.rows or bad:
            raise RuntimeError(f"{name}: {found} of {args.rows} found, {bad} damaged")
        result["read/s"] = found / seconds
        result["read CPU µs"] = 1e6 * cpu / found
        times: mp.Queue = mp.Queue()
        writers = [
            mp.Process(target=fill, args=(candidate, folder, (i + 2) * 10**9, args.rows // 2, times)) for i in range(2)
        ]
        for process in writers:
            process.start()
        reader = mp.Process(target=second_pass, args=(candidate, folder, args.rows // 2, answers))
        reader.start()
        found, bad, seconds, cpu = answers.get()
        reader.join()
        for process in writers:
            process.join()
            if process.exitcode:
                raise RuntimeError(f"{name}: a second writer ended with {process.exitcode}")
        result["2 writers/s"] = args.rows // 2 * 2 / max(times.get(), times.get())
        result["reader beside/s"] = found / seconds
    finally:
        shutil.rmtree(folder)
    result.update(kills(candidate, args.kills))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--folder", type=Path, default=None, help="where the stores are made")
    args = parser.parse_args()
    results = {}
    for name, candidate in CANDIDATES.items():
        if args.only in name:
            results[name] = measure(name, candidate, args)
            print(name, {k: round(v, 2) for k, v in results[name].items()}, flush=True)
    if not results:
        sys.exit(f"no candidate's name contains {args.only!r}; there are: {', '.join(CANDIDATES)}")
    columns = list(next(iter(results.values())))
    print("\n| store | " + " | ".join(columns) + " |\n|---|" + "--:|" * len(columns))
    for name, result in results.items():
        cells = [f"{result[c]:,.2f}" if result[c] < 10 else f"{result[c]:,.0f}" for c in columns]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    mp.set_start_method("spawn")
    main()
