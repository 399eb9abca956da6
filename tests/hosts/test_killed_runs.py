"""A whole evaluation, ended by SIGKILL again and again: the scores of an undisturbed one, and little is sent twice."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from loopback_server import Close, Got, Reply
from served_model import ServedModel
from warm_process import WarmProcess

pytestmark = pytest.mark.host
pytest.importorskip("mteb", minversion="2.7", reason="the newer line's tests; tests/legacy has the older one's")

TASKS = ["VaccDemoSTS", "VaccDemoRetrieval"]
KILLS = 20
DELAY_S = 0.02
# requests that may be answered after the one that decides about the kill: a busy machine kills late
OVERSHOOT = 8


@dataclass
class Sending:
    """A text, or a pair, that arrived at a server."""

    text: tuple[str, ...]
    attempt: int
    answered: float | None = None


class Book:
    """What arrived at the servers and was answered, in the order of arrival."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sendings: list[Sending] = []
        self.attempt = 0
        self.begun = 0
        self.answered = 0
        self.most: float = float("inf")

    def next_attempt(self, most: float) -> None:
        with self.lock:
            self.attempt += 1
            self.begun = self.answered = 0
            self.most = most


class Recorded(ServedModel):
    """Takes its time over each request, and notes which one was answered when."""

    def __init__(self, book: Book, name: str, **options: str) -> None:
        super().__init__(name, **options)
        self.book = book

    def _answer(self, got: Got, sock: socket.socket) -> Reply | None:
        reply = super()._answer(got, sock)
        texts = self._texts(got)
        if not texts:
            return reply
        with self.book.lock:
            sendings = [Sending(text, self.book.attempt) for text in texts]
            self.book.sendings += sendings
            self.book.begun += 1
            held = self.book.begun > self.book.most
        if held:
            self.stopped.wait(60)
        self.stopped.wait(DELAY_S)
        if self.stopped.is_set():
            raise Close
        sock.sendall(reply.raw())
        with self.book.lock:
            self.book.answered += 1
            for sending in sendings:
                sending.answered = time.monotonic()
        return None

    def _texts(self, got: Got) -> list[tuple[str, ...]]:
        if got.path == "/v1/embeddings":
            return [(text,) for text in got.json()["input"] if text not in self._probes()]
        if got.path == "/v1/score" and not self._is_probe(got.json()["text_1"]):
            return [(got.json()["text_1"], document) for document in got.json()["text_2"]]
        return []


@pytest.fixture(scope="module")
def warm() -> Iterator[WarmProcess]:
    process = WarmProcess()
    yield process
    process.close()


class Attempt:
    """One start of the same evaluation, in an output folder of its own, as EvalScope makes one each time."""

    def __init__(
        self, warm: WarmProcess, folder: Path, encoder: ServedModel, reranker: ServedModel, home: Path
    ) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        entries = [
            {"model_name": encoder.name, "api_base": encoder.base, "encode_kwargs": {"batch_size": 2}},
            {
                "model_name": reranker.name,
                "api_base": reranker.base,
                "encode_kwargs": {"batch_size": 4},
                "is_cross_encoder": True,
            },
        ]
        config = {
            "tool": "MTEB",
            "models": [{"model_type": "vacc_api", "preflight": "off", **entry} for entry in entries],
            "eval": {"task_names": TASKS, "hub": "huggingface", "top_k": 16},
            "work_dir": str(folder / "work"),
        }
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        self.pid = warm.start(
            config=folder / "config.json", result=folder / "result.json", log=folder / "log", home=home
        )
        self.ended = threading.Event()
        self.status: int | None = None
        self._watch = threading.Thread(target=self._wait, args=(warm,))
        self._watch.start()

    def _wait(self, warm: WarmProcess) -> None:
        try:
            self.status = warm.end()
        finally:
            self.ended.set()

    def kill(self) -> float:
        """Ends it; returns when."""
        when = time.monotonic()
        if not self.ended.is_set():
            os.kill(self.pid, signal.SIGKILL)
        self._watch.join()
        return when

    def scores(self) -> list[object]:
        assert self.ended.wait(300)
        self._watch.join()
        assert self.status == 0, self.log()
        return json.loads((self.folder / "result.json").read_text(encoding="utf-8"))

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-5000:]


@pytest.mark.slow
def test_killed_at_twenty_moments_a_run_scores_the_same_and_sends_again_only_what_was_under_way(
    tmp_path: Path, warm: WarmProcess
) -> None:
    undisturbed, book = Book(), Book()
    with Recorded(undisturbed, "enc") as encoder, Recorded(undisturbed, "rank", kind="cross-encoder") as reranker:
        expected = Attempt(warm, tmp_path / "once", encoder, reranker, tmp_path / "home-1").scores()
    wanted = {sending.text for sending in undisturbed.sendings}
    assert len(wanted) == len(undisturbed.sendings) > 1000, "each text once"

    draw = random.Random(4)
    killed: dict[int, float] = {}
    pause = 0.0
    encoder, reranker = Recorded(book, "enc"), Recorded(book, "rank", kind="cross-encoder")
    with encoder, reranker:
        for turn in range(KILLS):
            after = draw.randrange(14)
            book.next_attempt(most=after + OVERSHOOT)
            for server in (encoder, reranker):
                server.stop()
            late = turn % 7 == 6
            if not late:
                for server in (encoder, reranker):
                    server.start()
            run = Attempt(warm, tmp_path / str(turn), encoder, reranker, tmp_path / "home-2")
            try:
                if late:
                    # the server comes back when the run is already waiting for it
                    time.sleep(0.5)
                    for server in (encoder, reranker):
                        server.start()
                if turn % 5 == 0:
                    # at any moment, before the first text too
                    pause = max(pause, sleep_watching(draw.uniform(0, 1)))
                else:
                    until = time.monotonic() + 120
                    while book.answered < after:
                        assert not run.ended.is_set(), run.log()
                        assert time.monotonic() < until, run.log()
                        time.sleep(0.001)
                    pause = max(pause, sleep_watching(draw.uniform(0, 0.06)))
            finally:
                killed[book.attempt] = run.kill()
            assert run.status == -signal.SIGKILL, run.log()
        book.next_attempt(most=float("inf"))
        for server in (encoder, reranker):
            server.stop()
            server.start()
        scores = Attempt(warm, tmp_path / "last", encoder, reranker, tmp_path / "home-2").scores()

    assert scores == expected
    assert {sending.text for sending in book.sendings} == wanted
    ages = sent_again(book, killed)
    # what was in flight has no age; 100 ms are promised of the rest, and a busy machine suspends a process for longer
    late_ones = [age for age in ages if age > 0.1 + 2 * pause]
    assert max(ages, default=0.0) < 1 + 2 * pause, ages
    assert len(late_ones) <= 0.1 * len(wanted), late_ones
    in_flight = len(book.sendings) - len(wanted) - len(ages)
    assert in_flight <= KILLS * 4 * 4, "four requests of at most four texts at each kill"
    assert not list((tmp_path / "home-2" / "store").glob("*.sqlite")), "nothing is kept of a run that is done"


def sent_again(book: Book, killed: dict[int, float]) -> list[float]:
    """Seconds between answer and kill, of every text that was sent again although it had been answered before."""
    last: dict[tuple[str, ...], Sending] = {}
    ages = []
    for sending in book.sendings:
        before = last.get(sending.text)
        if before is not None and before.answered is not None:
            assert before.attempt < sending.attempt, f"{sending.text} was answered and asked again in one run"
            ages.append(killed[before.attempt] - before.answered)
        last[sending.text] = sending
    return ages


def sleep_watching(seconds: float) -> float:
    """Sleeps and returns the longest time that this process was not given the processor meanwhile."""
    pause, end = 0.0, time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        time.sleep(0.002)
        pause = max(pause, time.monotonic() - now - 0.002)
    return pause
