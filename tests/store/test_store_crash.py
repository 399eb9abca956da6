"""Killed, forked, shared and full: what the store promises when something ends badly."""

from __future__ import annotations

import multiprocessing as mp
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from evalscope_vacc.errors import StoreError
from evalscope_vacc.store import Store, make_identity, text_keys, upkeep
from evalscope_vacc.store import core as core_module

IDENTITY = make_identity("m", kind="embedding")
# children that have everything imported already: a new interpreter takes a second
SPAWN = mp.get_context("forkserver")
SPAWN.set_forkserver_preload(["numpy", "evalscope_vacc.store"])

WRITER = """
import sys, time
import numpy as np
from evalscope_vacc.store import Store, make_identity, text_keys
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
    scope.put_vectors(keys, rows)
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
            scope.put_vectors(keys, rows)
            # the clock that every process shares: when this batch had come in
            arrived[at // 32] = time.monotonic()


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
            positions, values = scope.get_vectors(keys_of(range(32 * len(times))))
            assert values.tobytes() == vectors_of(range(32 * len(times)))[positions].tobytes()
            assert store.stats.damaged == 0
        assert upkeep.verify(scope.path).ok
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
        "scope.put_vectors([bytes([n]) * 16 for n in range(100)], np.ones((100, 8), np.float32))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment(), timeout=60)
    code += "raise SystemExit('an error')\n"
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
            scope.put_vectors(keys_of(range(at, at + 16)), vectors_of(range(at, at + 16)))
            time.sleep(0.001)


def test_several_processes_share_a_scope_and_see_each_others_entries(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        scope = store.scope("run", IDENTITY)
        children = [SPAWN.Process(target=put_range, args=(tmp_path, first, 800)) for first in (0, 800, 1600)]
        for child in children:
            child.start()
        deadline = time.monotonic() + 60
        while len(scope.get_vectors(keys_of(range(2400)))[0]) < 2400:
            assert time.monotonic() < deadline
            scope.put_vectors(keys_of(range(3000, 3032)), vectors_of(range(3000, 3032)))
        for child in children:
            child.join()
            assert child.exitcode == 0
        positions, values = scope.get_vectors(keys_of(range(2400)))
        assert values.tobytes() == vectors_of(range(2400))[positions].tobytes()
    assert upkeep.verify(scope.path).ok


def hold(folder: Path, ready: object, go: object) -> None:
    with Store.open(folder) as store:
        scope = store.scope("run", IDENTITY)
        scope.put_vectors(keys_of(range(100, 132)), vectors_of(range(100, 132)))
        store.flush()
        ready.set()
        go.wait(60)
        scope.put_vectors(keys_of(range(200, 232)), vectors_of(range(200, 232)))
        store.flush()
        assert len(scope.get_vectors(keys_of(range(100, 132)))[0]) == 32 or go.is_set()


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
        scope.drop()
        assert scope.path.exists()
        other()
        scope = store.scope("run", IDENTITY)
        assert len(scope.get_vectors(keys_of(range(200, 232)))[0]) == 32
        scope.drop()
        assert not scope.path.exists()


def test_rm_leaves_what_is_in_use_and_force_does_not_disturb_the_user(tmp_path: Path, other: object) -> None:
    (path,) = upkeep.files(tmp_path)
    assert [line.users for line in upkeep.listing(tmp_path)] == [1]
    assert not upkeep.remove_path(path)
    assert upkeep.remove_path(path, force=True)
    assert not path.exists()
    other()  # goes on, in a new file
    with Store.open(tmp_path) as store:
        scope = store.scope("run", IDENTITY)
        assert len(scope.get_vectors(keys_of(range(200, 232)))[0]) == 32
        assert not len(scope.get_vectors(keys_of(range(100, 132)))[0])
    assert upkeep.verify(path).ok


def test_a_killed_processes_claim_on_a_file_does_not_last(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path), "500"], stdout=subprocess.PIPE, text=True, env=environment()
    )
    child.stdout.readline()
    child.stdout.readline()
    time.sleep(0.3)
    (path,) = upkeep.files(tmp_path)
    assert not upkeep.remove_path(path)
    child.kill()
    child.wait()
    child.stdout.close()
    assert upkeep.remove_path(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork_both_processes_go_on(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        scope = store.scope("run", IDENTITY)
        for turn in range(5):
            scope.put_vectors(keys_of(range(turn * 32, turn * 32 + 32)), vectors_of(range(turn * 32, turn * 32 + 32)))
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    mine = range(1000 + turn * 32, 1032 + turn * 32)
                    scope.put_vectors(keys_of(mine), vectors_of(mine))
                    assert len(scope.get_vectors(keys_of(mine))[0]) == 32
                    store.close()
                    status = 0
                finally:
                    os._exit(status)
            scope.put_vectors(keys_of(range(2000, 2032)), vectors_of(range(2000, 2032)))
            assert os.waitpid(child, 0)[1] == 0
        store.flush()
        everything = [*range(160), *range(1000, 1160), *range(2000, 2032)]
        keys = text_keys(IDENTITY, [f"text {n}" for n in everything])
        positions, values = scope.get_vectors(keys)
        assert sorted(positions.tolist()) == list(range(len(everything)))
        assert values[:, 0].tolist() == [everything[at] for at in positions.tolist()]
    assert upkeep.verify(scope.path).ok


def write_with_limit(folder: Path, limit: int, answers: object) -> None:
    # a write beyond the limit fails as it does on a full disk: EFBIG instead of ENOSPC
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    store = Store.open(folder)
    scope = store.scope("run", IDENTITY)
    said = []
    try:
        for at in range(0, 32_000, 32):
            scope.put_vectors(keys_of(range(at, at + 32)), vectors_of(range(at, at + 32)))
            time.sleep(0.001)
    except StoreError as error:
        said.append(str(error))
    try:
        store.close()
    except StoreError as error:
        said.append(str(error))
    answers.put((said, threading.active_count()))


def test_a_full_disk_is_said_at_the_next_put_and_at_close_and_what_was_written_is_kept(tmp_path: Path) -> None:
    answers = SPAWN.Queue()
    child = SPAWN.Process(target=write_with_limit, args=(tmp_path, 4 * 2**20, answers))
    child.start()
    said, _threads = answers.get(timeout=60)
    child.join()
    assert len(said) == 2
    for message in said:
        assert "make room on its disk" in message
        assert str(tmp_path) in message
    with Store.open(tmp_path) as store:
        scope = store.scope("run", IDENTITY)
        positions, values = scope.get_vectors(keys_of(range(32_000)))
        assert len(positions) > 500
        assert values.tobytes() == vectors_of(range(32_000))[positions].tobytes()
    assert upkeep.verify(scope.path).ok


def test_a_slow_disk_holds_the_caller_up_and_bounds_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_module, "_MAX_PENDING", 200_000)
    with Store.open(tmp_path) as store:
        scope = store.scope("run", IDENTITY)
        write = scope._file.write

        def slow(blocks: object) -> None:
            time.sleep(0.2)
            write(blocks)

        monkeypatch.setattr(scope._file, "write", slow)
        for at in range(0, 1600, 32):
            scope.put_vectors(keys_of(range(at, at + 32)), vectors_of(range(at, at + 32)))
            assert store._pending <= 200_000 + 32 * 1100
        assert store.stats.blocked_s > 0.2
        assert len(scope.get_vectors(keys_of(range(1600)))[0]) == 1600


def test_a_writer_that_dies_of_something_unforeseen_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path)
    scope = store.scope("run", IDENTITY)

    def broken(blocks: object) -> None:
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr(scope._file, "write", broken)
    scope.put_vectors(keys_of(range(5)), vectors_of(range(5)))
    with pytest.raises(StoreError, match="nobody thought of this"):
        store.flush()
    with pytest.raises(StoreError, match="nobody thought of this"):
        scope.put_vectors(keys_of(range(5)), vectors_of(range(5)))
    with pytest.raises(StoreError, match="nobody thought of this"):
        store.close()
