"""Killed, forked, shared and full: what the store promises when something ends badly."""

from __future__ import annotations

import logging
import multiprocessing as mp
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from evalscope_vacc.errors import StoreError
from evalscope_vacc.store import Store, files, listing, make_identity, remove, text_keys, verify
from evalscope_vacc.store import core as core_module

IDENTITY = make_identity("m", kind="embedding")
# children that have everything imported already: a new interpreter takes a second
SPAWN = mp.get_context("forkserver")
SPAWN.set_forkserver_preload(["numpy", "evalscope_vacc.store"])

WRITER = """
import sys, time
import numpy as np
from evalscope_vacc.store import Store, files, listing, make_identity, remove, text_keys, verify
identity = make_identity("m", kind="embedding")
store = Store.open(__import__("pathlib").Path(sys.argv[1]))
scope = store.scope("run", identity)
start, rate, at = time.monotonic(), float(sys.argv[2]), 0
print("ready", flush=True)
while True:
    keys = text_keys(identity, [f"text {n}" for n in range(at, at + 32)])
    rows = np.repeat(np.arange(at, at + 32, dtype=np.float32)[:, None], 256, axis=1)
    while time.monotonic() - start < at / rate:
        time.sleep(0.0005)
    scope.put(keys, rows)
    # the clock that every process shares: when this batch had come in
    sys.stdout.write(f"{time.monotonic()}\\n")
    sys.stdout.flush()
    at += 32
"""


def vectors_of(numbers: range) -> np.ndarray:
    return np.repeat(np.array(numbers, dtype=np.float32)[:, None], 256, axis=1)


def keys_of(numbers: range) -> list[bytes]:
    return text_keys(IDENTITY, [f"text {n}" for n in numbers])


def write_until_killed(folder: Path, ready: object, arrived: object) -> None:
    with Store.open(folder) as store:
        scope = store.scope("run", IDENTITY)
        ready.set()
        start = time.monotonic()
        for at in range(0, 32 * len(arrived), 32):
            keys, rows = keys_of(range(at, at + 32)), vectors_of(range(at, at + 32))
            while time.monotonic() - start < at / 3000:
                time.sleep(0.0005)
            scope.put(keys, rows)
            # the clock that every process shares: when this batch had come in
            arrived[at // 32] = time.monotonic()


@pytest.mark.slow
def test_killed_at_random_moments_only_the_last_100_ms_are_missing_and_nothing_is_damaged(tmp_path: Path) -> None:
    lost = []
    pause = 0.0
    for turn in range(20):
        folder = tmp_path / str(turn)
        ready, arrived = SPAWN.Event(), SPAWN.Array("d", 5000, lock=False)
        child = SPAWN.Process(target=write_until_killed, args=(folder, ready, arrived))
        child.start()
        assert ready.wait(60)
        pause = max(pause, sleep_watching(random.Random(turn).uniform(0.02, 0.5)))
        child.kill()
        killed = time.monotonic()
        child.join()
        times = [at for at in arrived if at]
        with Store.open(folder) as store:
            scope = store.scope("run", IDENTITY)
            positions, values = scope.get(keys_of(range(32 * len(times))), "<f4")
            assert values.tobytes() == vectors_of(range(32 * len(times)))[positions].tobytes()
            assert scope._table.damaged == 0
        assert verify(scope.path).ok
        lost += [killed - times[n // 32] for n in set(range(32 * len(times))) - set(positions.tolist())]
    # 100 ms are promised; a busy machine suspends the writing process itself for some more, as it did this one
    assert max(lost, default=0) < 1 + 2 * pause
    assert sorted(lost or [0])[len(lost) // 2] < 0.1 + 2 * pause


def sleep_watching(seconds: float) -> float:
    """Sleeps and returns the longest time that this process was not given the processor meanwhile."""
    pause, end = 0.0, time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        time.sleep(0.005)
        pause = max(pause, time.monotonic() - now - 0.005)
    return pause


def environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}


def test_a_program_that_ends_without_closing_loses_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, numpy as np\n"
        "from evalscope_vacc.store import Store\n"
        "scope = Store.open(pathlib.Path(sys.argv[1])).scope('run', '{}')\n"
        "scope.put([bytes([n]) * 16 for n in range(100)], np.ones((100, 8), np.float32))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment(), timeout=60)
    code = code.replace("range(100)]", "range(100, 200)]") + "raise SystemExit('an error')\n"
    with Store.open(tmp_path) as store:
        scope = store.scope("run", "{}")
        assert len(scope) == 100
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment(), timeout=60, check=False)
    assert done.returncode == 1
    with Store.open(tmp_path) as store:
        assert len(store.scope("run", "{}")) == 200


def test_control_c_keeps_what_came_in_and_ends_the_thread(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path), "5000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    start = time.monotonic()
    # not communicate(), which would lose what readline() has already taken into its buffer
    out, error = child.stdout.read(), child.stderr.read()
    child.wait(20)
    # two seconds are allowed for stopping; the rest is for the end of a Python process on a busy machine
    assert time.monotonic() - start < 8
    assert "KeyboardInterrupt" in error
    with Store.open(tmp_path) as store:
        # the last batch may have been put without its line being printed
        assert len(store.scope("run", IDENTITY)) - 32 * len(out.splitlines()) in (0, 32)


def put_range(folder: Path, first: int, count: int) -> None:
    with Store.open(folder) as store:
        scope = store.scope("run", IDENTITY)
        for at in range(first, first + count, 16):
            scope.put(keys_of(range(at, at + 16)), vectors_of(range(at, at + 16)))
            time.sleep(0.001)


def test_several_processes_share_a_scope_and_see_each_others_entries(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        scope = store.scope("run", IDENTITY)
        children = [SPAWN.Process(target=put_range, args=(tmp_path, first, 800)) for first in (0, 800, 1600)]
        for child in children:
            child.start()
        deadline = time.monotonic() + 60
        while len(scope.get(keys_of(range(2400)), "<f4")[0]) < 2400:
            assert time.monotonic() < deadline
            scope.put(keys_of(range(3000, 3032)), vectors_of(range(3000, 3032)))
        for child in children:
            child.join()
            assert child.exitcode == 0
        positions, values = scope.get(keys_of(range(2400)), "<f4")
        assert values.tobytes() == vectors_of(range(2400))[positions].tobytes()
    assert verify(scope.path).ok


def begin(folder: Path, first: int, together: object) -> None:
    for turn in range(20):
        together.wait(60)
        with Store.open(folder / str(turn)) as store:
            scope = store.scope("run", IDENTITY)
            assert scope.admit_probe(np.ones((2, 3, 4))).state in ("new", "ok")
            scope.put(keys_of(range(first, first + 16)), vectors_of(range(first, first + 16)))


def test_processes_that_begin_at_the_same_moment_do_not_refuse_each_others_answers(tmp_path: Path) -> None:
    together = SPAWN.Barrier(3)
    children = [SPAWN.Process(target=begin, args=(tmp_path, first, together)) for first in (0, 16, 32)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    for turn in range(20):
        with Store.open(tmp_path / str(turn)) as store:
            assert len(store.scope("run", IDENTITY)) == 48


def hold(folder: Path, ready: object, go: object) -> None:
    with Store.open(folder) as store:
        scope = store.scope("run", IDENTITY)
        scope.put(keys_of(range(100, 132)), vectors_of(range(100, 132)))
        store.flush()
        ready.set()
        go.wait(60)
        scope.put(keys_of(range(200, 232)), vectors_of(range(200, 232)))
        store.flush()
        assert len(scope.get(keys_of(range(100, 132)), "<f4")[0]) == 32 or go.is_set()


@pytest.fixture
def other(tmp_path: Path) -> object:
    """Another process that uses the scope "run" until told to end; its entries are 100 to 131, later 200 to 231."""
    ready, go = SPAWN.Event(), SPAWN.Event()
    child = SPAWN.Process(target=hold, args=(tmp_path, ready, go))
    child.start()
    assert ready.wait(60)

    def end() -> None:
        go.set()
        child.join(60)
        assert child.exitcode == 0

    yield end
    end()


def test_a_task_that_another_process_still_works_on_is_dropped_by_the_last(tmp_path: Path, other: object) -> None:
    with Store.open(tmp_path) as store:
        scope = store.scope("run", IDENTITY)
        store.drop("run")
        assert scope.path.exists()
        other()
        scope = store.scope("run", IDENTITY)
        assert len(scope.get(keys_of(range(200, 232)), "<f4")[0]) == 32
        store.drop("run")
        assert not scope.path.exists()


def test_a_killed_processes_claim_on_a_file_does_not_last(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path), "500"], stdout=subprocess.PIPE, text=True, env=environment()
    )
    child.stdout.readline()
    child.stdout.readline()
    time.sleep(0.3)
    (path,) = files(tmp_path)
    assert not remove(path)
    child.kill()
    child.wait()
    child.stdout.close()
    assert remove(path)


def test_rm_leaves_what_is_in_use_and_force_does_not_stop_the_user(tmp_path: Path, other: object) -> None:
    (path,) = files(tmp_path)
    assert [line.in_use for line in listing(tmp_path)] == [True]
    assert not remove(path)
    assert path.exists()
    assert remove(path, force=True)
    assert not path.exists()
    other()  # goes on to its end
    with Store.open(tmp_path) as store:
        assert not len(store.scope("run", IDENTITY))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork_the_parent_goes_on_and_the_child_does_without(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        scope = store.scope("run", IDENTITY)
        for turn in range(5):
            scope.put(keys_of(range(turn * 32, turn * 32 + 32)), vectors_of(range(turn * 32, turn * 32 + 32)))
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    mine = range(1000, 1032)
                    scope.put(keys_of(mine), vectors_of(mine))
                    store.flush()
                    assert not len(scope.get(keys_of(range(32)), "<f4")[0])
                    with pytest.raises(StoreError, match="fork"):
                        store.scope("run", IDENTITY)
                    store.close()
                    status = 0
                finally:
                    os._exit(status)
            assert os.waitpid(child, 0)[1] == 0
        positions, values = scope.get(keys_of(range(160)), "<f4")
        assert values.tobytes() == vectors_of(range(160))[positions].tobytes()
        assert len(scope) == len(positions) == 160
    assert verify(scope.path).ok


def write_with_limit(folder: Path, limit: int, answers: object) -> None:
    # a write beyond the limit fails as it does on a full disk: EFBIG instead of ENOSPC
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    said: list[str] = []
    logging.getLogger("evalscope_vacc").addHandler(handler := logging.Handler())
    handler.emit = lambda record: said.append(record.getMessage())
    with Store.open(folder) as store:
        scope = store.scope("run", IDENTITY)
        for at in range(0, 32_000, 32):
            scope.put(keys_of(range(at, at + 32)), vectors_of(range(at, at + 32)))
            time.sleep(0.001)
        # what it has is still found
        found = len(scope.get(keys_of(range(32_000)), "<f4")[0])
    answers.put((said, found, store.not_kept))


def test_a_full_disk_is_said_once_and_what_was_written_is_kept(tmp_path: Path) -> None:
    answers = SPAWN.Queue()
    child = SPAWN.Process(target=write_with_limit, args=(tmp_path, 4 * 2**20, answers))
    child.start()
    said, found, not_kept = answers.get(timeout=60)
    child.join()
    assert len(said) == 2, said
    assert "make room on its disk" in said[0]
    assert str(tmp_path) in said[0]
    assert "The run continues" in said[0]
    assert f"{not_kept} answers were not kept" in said[1]
    assert found > 500
    assert found + not_kept >= 32_000
    with Store.open(tmp_path) as store:
        scope = store.scope("run", IDENTITY)
        positions, values = scope.get(keys_of(range(32_000)), "<f4")
        assert len(positions) == found
        assert values.tobytes() == vectors_of(range(32_000))[positions].tobytes()
    assert verify(scope.path).ok


def test_a_slow_disk_holds_the_caller_up_and_bounds_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_module, "_MAX_WAITING", 200_000)
    with Store.open(tmp_path) as store:
        scope = store.scope("run", IDENTITY)
        put = scope._table.put

        def slow(rows: object) -> None:
            time.sleep(0.2)
            put(rows)

        monkeypatch.setattr(scope._table, "put", slow)
        start = time.monotonic()
        for at in range(0, 1600, 32):
            scope.put(keys_of(range(at, at + 32)), vectors_of(range(at, at + 32)))
            assert store._bytes <= 200_000 + 32 * 1024
        assert time.monotonic() - start > 0.4
        assert len(scope.get(keys_of(range(1600)), "<f4")[0]) == 1600


def test_a_writer_that_fails_of_something_unforeseen_is_reported_and_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Store.open(tmp_path) as store:
        scope = store.scope("run", IDENTITY)

        def broken(rows: object) -> None:
            raise RuntimeError("nobody thought of this")

        monkeypatch.setattr(scope._table, "put", broken)
        for _ in range(3):
            scope.put(keys_of(range(5)), vectors_of(range(5)))
            store.flush()
        assert store.not_kept == 15
    assert caplog.text.count("nobody thought of this") == 1
