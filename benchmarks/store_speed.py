"""What the store costs, how fast it gives back, what a crash or two writers lose.

* cost: a client takes 2,000 texts a second of 1024 dimensions in batches of 32 (waits for an answer, decodes its
  base64, makes the keys, hands the vectors over), with the store and without, 25 times in turn;
* second pass: the same texts looked up in random order, 1,000 at a time, by a new process;
* two writers: two processes that write into one file at full speed, everything looked up afterwards;
* crash: a process that takes in texts, ended by SIGKILL at random moments; the oldest vector that was not there
  afterwards, damaged values;
* end: how long it takes to remove the file, and how long deleting its rows would take.

Run it with ``python benchmarks/store_speed.py [--rate 2000] [--texts 50000] [--kills 20] [--folder FOLDER]``.
"""

from __future__ import annotations

import argparse
import base64
import json
import multiprocessing as mp
import random
import shutil
import statistics
import tempfile
import time
from multiprocessing.sharedctypes import Array
from pathlib import Path
from typing import Any

import numpy as np

from evalscope_vacc.store import Scope, Store, make_identity, text_keys, verify

DIM, BATCH, TURNS = 1024, 32, 25
IDENTITY = make_identity("model", kind="embedding", max_tokens=512)
WORDS = " ".join(["words"] * 60)


def text(number: int) -> str:
    return f"{number} {WORDS}"


def answers(count: int = 64) -> list[bytes]:
    """Bodies as an OpenAI-style server sends them."""
    rng = np.random.default_rng(0)
    bodies = []
    for _ in range(count):
        rows = rng.standard_normal((BATCH, DIM), dtype=np.float32)
        items = [{"embedding": base64.b64encode(row.tobytes()).decode()} for row in rows]
        bodies.append(json.dumps({"data": items}).encode())
    return bodies


def client(
    texts: int, bodies: list[bytes], scope: Scope | None, first: int, pause: float
) -> tuple[float, float, float]:
    """Returns (seconds in all, seconds for the keys, seconds for the hand-over), the last two of processor time."""
    keys_s = put_s = 0.0
    start = time.perf_counter()
    for at in range(0, texts, BATCH):
        due = time.perf_counter() + pause
        out = np.empty((BATCH, DIM), np.float32)
        for row, item in enumerate(json.loads(bodies[at // BATCH % len(bodies)])["data"]):
            out[row] = np.frombuffer(base64.b64decode(item["embedding"]), "<f4")
        if scope is not None:
            sent = [text(n) for n in range(first + at, first + at + BATCH)]
            times = [time.thread_time()]
            keys = text_keys(IDENTITY, sent)
            times.append(time.thread_time())
            scope.put(keys, out)
            times.append(time.thread_time())
            keys_s += times[1] - times[0]
            put_s += times[2] - times[1]
        # the answer to the next request arrives when it is due, however long this one took
        if (left := due - time.perf_counter()) > 0:
            time.sleep(left)
    return time.perf_counter() - start, keys_s, put_s


def cost(folder: Path, texts: int, rate: float) -> dict[str, str]:
    bodies = answers()
    # many short turns: what else the machine does then disturbs some of them, and not their median
    part, first, keys_s, put_s = texts // TURNS, 0, 0.0, 0.0
    extra, rates, lags = [], [], []
    with Store.open(folder) as store:
        scope = store.scope("speed", IDENTITY)
        beside = 0.0
        for _ in range(TURNS):
            alone, *_none = client(part, bodies, None, 0, BATCH / rate)
            before = time.process_time() - time.thread_time()
            seconds, keys, put = client(part, bodies, scope, first, BATCH / rate)
            beside += time.process_time() - time.thread_time() - before
            extra.append(seconds / alone - 1)
            rates.append(part / seconds)
            keys_s += keys
            put_s += put
            first += part
            store.flush()
            lags.append(store.lag_s)
            store.lag_s = 0.0
    at_rate = first / rate
    lower, _, upper = statistics.quantiles(extra, n=4)
    return {
        "texts a second taken in, median": f"{statistics.median(rates):,.0f}",
        f"how much longer with the store, median of {TURNS}": f"{100 * statistics.median(extra):.1f} %",
        "the middle half of them": f"{100 * lower:.1f} … {100 * upper:.1f} %",
        "client's thread, keys": f"{100 * keys_s / at_rate:.1f} % of the time",
        "client's thread, hand-over": f"{100 * put_s / at_rate:.1f} % of the time",
        "writing thread, beside it": f"{100 * beside / at_rate:.1f} % of one core",
        "longest from arrival to commit, median of the turns": f"{1000 * statistics.median(lags):.0f} ms",
        "longest from arrival to commit": f"{1000 * max(lags):.0f} ms",
    }


def find(scope: Scope, numbers: list[int]) -> int:
    """Looks up texts, 1,000 at a time, and returns how many were there."""
    found = 0
    for at in range(0, len(numbers), 1000):
        positions, _vectors = scope.get(text_keys(IDENTITY, [text(n) for n in numbers[at : at + 1000]]), "<f4")
        found += len(positions)
    return found


def second_pass(folder: Path, texts: int) -> dict[str, str]:
    numbers = list(range(texts))
    random.Random(0).shuffle(numbers)
    with Store.open(folder) as store:
        start, cpu = time.perf_counter(), time.process_time()
        scope = store.scope("speed", IDENTITY)
        found = find(scope, numbers)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        size = scope.path.stat().st_size
        start = time.perf_counter()
        scope._table.clear()  # noqa: SLF001 -- what the store would do with one file for all
        deleted = time.perf_counter() - start
        start = time.perf_counter()
        store.drop("speed")
        gone = time.perf_counter() - start
    if found != texts:
        raise RuntimeError(f"{found} of {texts} found")
    return {
        "second pass, opening and keys included": f"{texts / seconds:,.0f} texts a second",
        "the same for each second of processor time": f"{texts / cpu:,.0f} texts",
        "size": f"{size / (texts * DIM * 4):.3f} bytes for each byte of vector",
        "removing it at the end of the run": f"{1000 * gone:.0f} ms",
        "deleting its rows would take": f"{1000 * deleted:.0f} ms",
    }


def writer(folder: Path, arrived: Any, first: int, rate: float) -> None:
    with Store.open(folder) as store:
        scope = store.scope("speed", IDENTITY)
        rows = np.ones((BATCH, DIM), np.float32)
        start = time.monotonic()
        for at in range(len(arrived)):
            keys = text_keys(IDENTITY, [text(n) for n in range(first + at * BATCH, first + at * BATCH + BATCH)])
            while time.monotonic() - start < at * BATCH / rate:
                time.sleep(0.0005)
            scope.put(keys, rows)
            arrived[at] = time.monotonic()


def two_writers(folder: Path, texts: int) -> dict[str, str]:
    count = texts // BATCH
    start = time.perf_counter()
    children = [
        mp.Process(target=writer, args=(folder, Array("d", count, lock=False), first, float("inf")))
        for first in (0, count * BATCH)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    seconds = time.perf_counter() - start
    wanted = 2 * count * BATCH
    with Store.open(folder) as store:
        scope = store.scope("speed", IDENTITY)
        found = find(scope, list(range(wanted)))
    return {
        "two writers at once, starting them included": f"{wanted / seconds:,.0f} texts a second",
        "lost by them": f"{wanted - found} of {wanted:,}, {verify(scope.path).damaged} damaged",
    }


def crash(folder: Path, kills: int, rate: float) -> dict[str, str]:
    ages, damaged, taken = [], 0, 0
    for turn in range(kills):
        arrived = Array("d", 20_000, lock=False)
        child = mp.Process(target=writer, args=(folder / str(turn), arrived, 0, rate))
        child.start()
        while not arrived[0]:
            time.sleep(0.001)
        time.sleep(random.Random(turn).uniform(0.05, 2))
        child.kill()
        killed = time.monotonic()
        child.join()
        times = np.array([at for at in arrived if at])
        taken += len(times) * BATCH
        with Store.open(folder / str(turn)) as store:
            scope = store.scope("speed", IDENTITY)
            there = np.zeros(len(times) * BATCH, bool)
            positions, _ = scope.get(text_keys(IDENTITY, [text(n) for n in range(len(there))]), "<f4")
            there[positions] = True
        damaged += verify(scope.path).damaged
        ages.append(max(killed - np.repeat(times, BATCH)[~there], default=0.0))
    ages.sort()
    return {
        f"{kills} × SIGKILL of the writer, texts taken in": f"{taken:,}",
        "oldest vector that was lost, median": f"{1000 * ages[len(ages) // 2]:.0f} ms",
        "oldest vector that was lost, worst": f"{1000 * ages[-1]:.0f} ms",
        "damaged values": str(damaged),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=2000, help="texts a second that the client takes in")
    parser.add_argument("--texts", type=int, default=50_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=None, help="where the stores are made")
    args = parser.parse_args()
    texts = args.texts // (TURNS * BATCH) * TURNS * BATCH
    folder = Path(tempfile.mkdtemp(prefix="store", dir=args.folder))
    try:
        table = {
            **cost(folder / "s", texts, args.rate),
            **second_pass(folder / "s", texts),
            **two_writers(folder / "w", texts // 2),
            **crash(folder / "k", args.kills, args.rate),
        }
    finally:
        shutil.rmtree(folder)
    print("| | |\n|---|---|")
    for name, value in table.items():
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    mp.set_start_method("spawn")
    main()
