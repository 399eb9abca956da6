"""A whole evaluation, ended by SIGKILL again and again: the scores of an undisturbed one, and little is sent twice."""

from __future__ import annotations

import json
import random
import signal
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from loopback_server import Close, Got, Reply
from served_model import ServedModel
from warm_process import Started, WarmProcess

pytestmark = pytest.mark.host
pytest.importorskip("mteb", minversion="2.7", reason="the newer line's tests; tests/legacy has the older one's")

TASKS = ["VaccDemoSTS", "VaccDemoRetrieval"]
KILLS = 20
DELAY_S = 0.03
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


def write_config(folder: Path, encoder: ServedModel, reranker: ServedModel) -> None:
    folder.mkdir()
    entries = [
        {"model_name": encoder.name, "api_base": encoder.base, "encode_kwargs": {"batch_size": 1}},
        {
            "model_name": reranker.name,
            "api_base": reranker.base,
            "encode_kwargs": {"batch_size": 2},
            "is_cross_encoder": True,
        },
    ]
    config = {
        "tool": "MTEB",
        "models": [{"model_type": "vacc_api", "preflight": "off", **entry} for entry in entries],
        "eval": {"task_names": TASKS, "hub": "huggingface", "top_k": 16},
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def begin(warm: WarmProcess, folder: Path) -> Started:
    """Starts the evaluation, in an output folder of its own, as EvalScope makes one each time."""
    number = len(list(folder.glob("attempt-*")))
    command = ["evalscope-vacc", "eval", str(folder / "config.json"), "--json"]
    return warm.start(command, folder / f"attempt-{number}", environment={"VACC_HOME": str(folder / "home")})


def scores(run: Started) -> list[object]:
    assert run.wait() == 0, run.output()[-5000:]
    return json.loads(run.output()[run.output().rindex('{"output_folder"') :].splitlines()[0])["results"]


@pytest.mark.slow
def test_killed_at_twenty_moments_a_run_scores_the_same_and_sends_again_only_what_was_under_way(
    tmp_path: Path, warm: WarmProcess
) -> None:
    undisturbed, book = Book(), Book()
    with Recorded(undisturbed, "enc") as encoder, Recorded(undisturbed, "rank", kind="cross-encoder") as reranker:
        write_config(tmp_path / "once", encoder, reranker)
        expected = scores(begin(warm, tmp_path / "once"))
    wanted = {sending.text for sending in undisturbed.sendings}
    assert len(wanted) == len(undisturbed.sendings) > 1000, "each text once"

    draw = random.Random(4)
    killed: dict[int, float] = {}
    pause = 0.0
    encoder, reranker = Recorded(book, "enc"), Recorded(book, "rank", kind="cross-encoder")
    with encoder, reranker:
        write_config(tmp_path / "killed", encoder, reranker)
        for turn in range(KILLS):
            after = draw.randrange(60)
            book.next_attempt(most=after + OVERSHOOT)
            stop(encoder, reranker)
            late = turn % 7 == 6
            if not late:
                start(encoder, reranker)
            run = begin(warm, tmp_path / "killed")
            try:
                if late:
                    # the servers come back when the run is already waiting for them
                    time.sleep(0.5)
                    start(encoder, reranker)
                if turn % 5 == 0:
                    # at any moment, before the first text too
                    pause = max(pause, sleep_watching(draw.uniform(0, 1)))
                else:
                    run.wait_until(lambda least=after: book.answered >= least)
                    pause = max(pause, sleep_watching(draw.uniform(0, 0.06)))
            finally:
                killed[book.attempt] = run.kill()
            assert run.status == -signal.SIGKILL, run.output()[-5000:]
        book.next_attempt(most=float("inf"))
        stop(encoder, reranker)
        start(encoder, reranker)
        found = scores(begin(warm, tmp_path / "killed"))

    assert found == expected
    assert {sending.text for sending in book.sendings} == wanted
    ages = sent_again(book, killed)
    # what was in flight has no age; 100 ms are promised of the rest, and a busy machine suspends a process for longer
    late_ones = [age for age in ages if age > 0.1 + 2 * pause]
    assert max(ages, default=0.0) < 1 + 2 * pause, ages
    assert len(late_ones) <= 0.05 * len(wanted), late_ones
    in_flight = len(book.sendings) - len(wanted) - len(ages)
    assert in_flight <= KILLS * 4 * 2, "four requests of at most two texts at each kill"
    assert not list((tmp_path / "killed" / "home" / "store").glob("*.sqlite")), "nothing is kept of a run that is done"


def stop(*servers: ServedModel) -> None:
    for server in servers:
        server.stop()


def start(*servers: ServedModel) -> None:
    for server in servers:
        server.start()


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
