"""Worker processes: the same scores and files with one and with two, and what dies takes only its own task with it."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any

import pytest
from loopback_server import Close, Got, Reply
from served_model import ServedModel
from warm_process import Started, WarmProcess

from evalscope_vacc.checks.texts import PREFLIGHT_TEXTS
from evalscope_vacc.errors import ConfigError, HostError
from evalscope_vacc.hosts import cluster, collector, workers
from evalscope_vacc.hosts.spelling import newer_eval, read_count

pytestmark = pytest.mark.host
pytest.importorskip("mteb", minversion="2.7", reason="the newer line's tests; tests/legacy has no workers")

TASKS = ["VaccDemoSTS", "VaccDemoRetrieval", "VaccDemoClassification"]
SLOTS = 4


class Holding(ServedModel):
    """Answers some requests for vectors, and the others when it is told to."""

    def __init__(self, name: str = "enc", *, requests: int = 10**6, **options: Any) -> None:
        super().__init__(name, **options)
        self.left = requests
        self.go_on = threading.Event()

    def _answer(self, got: Got, sock: socket.socket) -> Reply | None:
        if got.path == "/v1/embeddings" and got.json()["input"][0] not in self._probes():
            self.left -= 1
            if self.left < 0 and not self.go_on.wait(120):
                raise Close
        return super()._answer(got, sock)


@pytest.fixture
def encoder() -> Iterator[Holding]:
    with Holding(requests=8) as server:
        yield server
        server.go_on.set()


def begin(warm: WarmProcess, folder: Path, *servers: ServedModel, count: int = 2, tasks: list[str] = TASKS) -> Started:
    entries = [
        {
            "model_type": "vacc_api", "model_name": server.name, "api_base": server.base, "max_concurrency": SLOTS,
            "is_cross_encoder": server.kind == "cross-encoder", "encode_kwargs": {"batch_size": 4}, "revision": "1",
        }
        for server in servers
    ]  # fmt: skip
    config = {"tool": "MTEB", "models": entries, "eval": {"task_names": tasks, "hub": "huggingface"}}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    command = ["evalscope-vacc", "eval", "config.json", "--json", "--workers", str(count)]
    return warm.start(command, folder, environment={"VACC_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"})


def workers_of(pid: int) -> list[int]:
    """Process numbers of the workers that a process's launcher forked."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if b"evalscope_vacc.hosts.worker" in command:
            children.setdefault(parent, []).append(int(stat.parent.name))
    return [worker for launcher in children.get(pid, ()) for worker in children.get(launcher, ())]


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return condition()


def printed(run: Started) -> dict[str, Any]:
    return json.loads(run.output()[run.output().rindex('{"output_folder"') :].splitlines()[0])


# -- without MTEB ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "two", "0", []])
def test_a_number_of_workers_that_is_none_is_an_error(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"eval\.workers is .*above 0, or auto"):
        newer_eval({"workers": value})
    assert read_count("3", "--workers") == 3


def test_two_workers_where_there_is_memory_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert workers.count_for(None, 9) == 1, "a call from Python has none unless it asks for some"
    assert workers.count_for(3, 2) == 2, "no more than there are items"
    for available, expected in ((workers.MANY * workers.WORKER_BYTES, 2), (workers.WORKER_BYTES, 1)):
        monkeypatch.setattr(workers, "_available_bytes", lambda available=available: available)
        assert workers.count_for("auto", 9) == expected
    assert workers.count_for(4, 9) == 4, "who asks for more gets them"


@pytest.mark.parametrize(
    ("evaluation", "started"),
    [
        ({"custom_tasks": [{"name": "Mine"}]}, []),
        ({"task_names": ["A"], "custom_tasks": [{"name": "Mine"}], "hub": "huggingface"}, ["mteb"]),
        ({"task_names": ["A"]}, []),
        ({"benchmarks": ["MTEB(eng, v2)"]}, [workers.TEMPLATE]),
    ],
)
def test_mteb_is_imported_for_workers_only_where_there_will_be_several_tasks(
    evaluation: dict[str, Any], started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    class Launcher:
        def __init__(self, imports: str) -> None:
            begun.append(imports)

        def close(self) -> None:
            begun.remove(begun[-1])

    monkeypatch.setattr(workers, "Launcher", Launcher)
    monkeypatch.setattr(workers, "_available_bytes", lambda: workers.MANY * workers.WORKER_BYTES)
    config = {"models": [{"model_type": "vacc_api"}], "eval": {**evaluation, "workers": "auto"}}
    with workers.started_ahead(config):
        with workers.started_ahead(config):
            assert begun == started
        assert begun == started
    assert not begun


OURS = {"models": [{"model_type": "vacc_api"}]}


def test_the_collector_is_paused_in_a_command_until_its_run_begins() -> None:
    with collector.paused(OURS):
        assert not gc.isenabled()
        collector.resume()
        assert gc.isenabled()
    with pytest.raises(ConfigError), collector.paused(OURS):
        raise ConfigError
    with collector.paused():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_the_collector_is_not_paused_where_no_run_of_ours_begins() -> None:
    with collector.paused({"tool": "RAGAS", "eval": {"embeddings": {"model_type": "vacc_api"}}}):
        assert gc.isenabled()
    gc.disable()
    try:
        with collector.paused(OURS):
            collector.resume()
        assert not gc.isenabled(), "who switched it off keeps it off"
    finally:
        gc.enable()


@pytest.mark.slow
def test_one_import_serves_every_worker_and_who_dies_is_replaced() -> None:
    launcher = workers.Launcher("json")
    try:
        first, second = launcher.worker(), launcher.worker()
        for worker, status in ((first, -signal.SIGKILL), (second, 0)):
            messages = worker.messages()
            thread = threading.Thread(target=lambda messages=messages: list(messages))
            thread.start()
            assert eventually(lambda worker=worker: worker.pid is not None, 60)
            if status:
                os.kill(worker.pid, signal.SIGKILL)
            else:
                worker.send("anything but a setup")
            thread.join(20)
            assert worker.status(20) == status
        assert "was killed (SIGKILL)" in first.ending()
        third = launcher.worker()
        third.send("anything but a setup")
        assert list(third.messages()) == []
        assert third.status(20) == 0
        assert len({first.pid, second.pid, third.pid}) == 3
    finally:
        launcher.close()


def test_a_launcher_that_is_gone_takes_its_workers_with_it() -> None:
    launcher = workers.Launcher("json")
    worker = launcher.worker()
    launcher.process.kill()
    assert list(worker.messages()) == []
    assert "was killed (SIGKILL)" in worker.ending()
    assert launcher.gone
    launcher.close()


@pytest.mark.slow
def test_a_launcher_whose_parent_is_gone_ends() -> None:
    launcher = workers.Launcher("json")
    worker = launcher.worker()
    launcher._socket.shutdown(socket.SHUT_RDWR)
    worker.connection.close()
    assert launcher.process.wait(60) == 0


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n", (5).to_bytes(4, "big") + b"right", None])
def test_who_does_not_know_the_key_of_a_run_is_turned_away_and_a_worker_is_taken(
    said: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "HANDSHAKE_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as threads:
        stranger = socket.create_connection(server.getsockname())
        if said is None:
            stranger.close()
        elif said:
            stranger.sendall(said)
        accepted = threads.submit(cluster.accepted, server, b"key", 30)
        if said is not None:
            with stranger, suppress(ConnectionResetError):
                while stranger.recv(4096):
                    pass  # what it was asked; then the other side hangs up
        ours = Connection(socket.create_connection(server.getsockname()).detach())
        answer_challenge(ours, b"key")
        deliver_challenge(ours, b"key")
        with ours, accepted.result(30) as theirs:
            theirs.send("setup")
            assert ours.recv() == "setup"


def test_a_cluster_without_room_is_an_error_in_time_however_many_strangers_connect() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as threads:
        accepted = threads.submit(cluster.accepted, server, b"key", 1)
        while not accepted.done():
            socket.create_connection(server.getsockname()).close()
        with pytest.raises(HostError, match="started no worker within 1 s"):
            accepted.result()


def test_what_a_worker_sent_before_its_end_is_read() -> None:
    ours, theirs = socket.socketpair()

    class Ended(workers.Worker):
        def has_ended(self) -> bool:
            return True

        def end(self, timeout: float) -> None:
            pass

    other_end = Connection(theirs.detach())
    other_end.send(("done", 1))
    worker = Ended(Connection(ours.detach()))
    # a child of the worker holds the connection open
    assert list(worker.messages()) == [("done", 1)]
    assert worker.connection.closed
    other_end.close()


def test_a_task_draws_as_a_new_one_whatever_was_evaluated_before() -> None:
    import random

    import numpy as np
    import torch

    from evalscope_vacc.demo.tasks import VaccDemoClassification
    from evalscope_vacc.hosts.data import seed

    def drawn(task: Any) -> list[float]:
        everywhere = [random.random(), float(np.random.rand()), float(torch.rand(1))]
        return [*everywhere, task.rng_state.random(), float(task.np_rng.random())]

    task = VaccDemoClassification()
    as_new = drawn(task)
    assert drawn(task) != as_new
    seed(task)
    assert drawn(task) == as_new


# -- whole runs --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_workers_leave_what_one_leaves(warm: WarmProcess, tmp_path: Path) -> None:
    found, files, evidence, checks, warned = [], [], [], [], []
    with Holding() as encoder, ServedModel("rank", kind="cross-encoder") as reranker:
        for count in (1, 2):
            run = begin(warm, tmp_path / str(count), encoder, reranker, count=count)
            assert run.wait() == 0, run.output()[-5000:]
            assert ("[4/4] VaccDemoRetrieval (stage2)") in run.output()
            printed_here = printed(run)
            folder = Path(printed_here["output_folder"])
            found.append(printed_here["results"])
            files.append(sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()))
            rows = json.loads((folder / "vacc" / "usage.json").read_text())["tasks"]
            for row in rows:
                del row["seconds"], row["busy"]
            samples = (folder / "vacc" / "sent_samples.jsonl").read_text().splitlines()
            servers, configs = (
                json.loads((folder / "vacc" / name).read_text()) for name in ("server.json", "config.json")
            )
            evidence.append((sorted(rows, key=str), sorted(samples), servers, configs))
            assert "console.log" in str(files[-1])
            assert "VaccDemoSTS" in (folder / "logs" / "eval_log.log").read_text()
            assert not list((tmp_path / str(count) / "home" / "store").glob("*.sqlite")), "the run is done"
            log = (folder / "logs" / "eval_log.log").read_text().splitlines()
            warned.append(
                sorted(line.partition(" - ")[2] for line in log if "evalscope_vacc" in line and "WARNING" in line)
            )
            asked = [got.json()["input"] for got in encoder.requests if got.path == "/v1/embeddings"]
            checks.append(asked.count([PREFLIGHT_TEXTS[1]]) - sum(checks))
        assert encoder.most_in_flight <= SLOTS
    assert found[0] == found[1]
    assert files[0] == files[1]
    assert evidence[0] == evidence[1]
    assert warned[0] == warned[1] != [], "what both workers find out about a server is said once"
    assert checks[0] == checks[1] > 0, "one of the workers makes the short check"


@pytest.mark.slow
def test_a_killed_worker_is_one_failed_task_and_the_others_go_on(
    warm: WarmProcess, encoder: Holding, tmp_path: Path
) -> None:
    run = begin(warm, tmp_path, encoder)
    run.wait_until(lambda: encoder.left <= -SLOTS)
    first, _ = workers_of(run.pid)
    assert encoder.most_in_flight <= SLOTS
    os.kill(first, signal.SIGKILL)
    assert eventually(lambda: not is_there(first))
    encoder.go_on.set()
    assert run.wait() == 1, run.output()[-5000:]
    failed = printed(run)["failed"]
    assert len(failed) == 1
    assert "its worker process was killed (SIGKILL)" in next(iter(failed.values()))
    assert {row["task"] for row in printed(run)["results"]} == set(TASKS) - set(failed)


@pytest.mark.slow
def test_ctrl_c_ends_the_run_in_two_seconds_and_leaves_no_worker(
    warm: WarmProcess, encoder: Holding, tmp_path: Path
) -> None:
    run = begin(warm, tmp_path, encoder)
    run.wait_until(lambda: encoder.left <= -SLOTS)
    time.sleep(0.5)  # what came in is kept within 100 ms of its answer
    pids = workers_of(run.pid)
    assert len(pids) == 2
    began = run.send(signal.SIGINT)
    assert run.wait(60) == 130, run.output()[-5000:]
    took = time.monotonic() - began
    assert took < 2 or took < 8 * idle_seconds(), took
    assert not any(map(is_there, pids))
    assert "Traceback" not in run.output()
    assert "Run the same command again to continue" in run.output().strip().splitlines()[-1]
    answered = set(encoder.texts()[: 4 * 4])
    encoder.requests.clear()
    encoder.go_on.set()
    again = begin(warm, tmp_path, encoder)
    assert again.wait() == 0, again.output()[-5000:]
    assert not answered & set(encoder.texts()), "what was answered is not asked again"


@pytest.mark.slow
def test_no_worker_survives_a_parent_that_is_killed(warm: WarmProcess, encoder: Holding, tmp_path: Path) -> None:
    run = begin(warm, tmp_path, encoder)
    run.wait_until(lambda: encoder.left <= -SLOTS)
    pids = workers_of(run.pid)
    assert len(pids) == 2
    run.kill()
    assert eventually(lambda: not any(map(is_there, pids)), 10)


def idle_seconds() -> float:
    """Seconds that a little work takes, which is more on a busy machine."""
    began = time.monotonic()
    sum(range(10**7))
    return max(0.25, time.monotonic() - began)
