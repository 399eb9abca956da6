"""Nothing lost, nothing silently wrong: under every fault the numbers are right to the bit, or an error says why."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from draining import drain
from embedding_answers import score, vectors
from fault_server import ALL, HARMLESS, TRANSIENT, WRONG, FaultServer

from evalscope_vacc.errors import BadAnswerError, ServerError, VaccError
from evalscope_vacc.wire.dialects import get_dialect
from evalscope_vacc.wire.engine import Connection, Engine, Request

DIALECT = get_dialect("vllm")
QUICK = tuple(name for name in ALL if name not in {"hang", "drip"})


def encode(engine: Engine, texts: list[str], batch: int = 32) -> np.ndarray:
    """All texts through the engine, put back in order; rows that never came stay NaN."""
    out = np.full((len(texts), 16), np.nan, dtype=np.float32)

    def make(first: int, last: int) -> Request:
        path, body = DIALECT.embeddings("m", texts[first:last], truncate_to=None)
        middle = (first + last) // 2
        split = (lambda: [make(first, middle), make(middle, last)]) if last - first > 1 else None
        return Request(path, body, last - first, tag=(first, last), split=split, describe=f"text {first}")

    def handle(request: Request, answer: Any) -> None:
        first, last = request.tag
        got = DIALECT.read_embeddings(answer.body, last - first)
        assert np.isnan(out[first:last]).all(), "an answer was handed on twice"
        if got.values.shape[1] != out.shape[1]:  # as the encoder does, which knows the width of earlier answers
            raise BadAnswerError(f"a vector has {got.values.shape[1]} dimensions, others {out.shape[1]}")
        out[first:last] = got.values

    drain(engine, (make(i, min(i + batch, len(texts))) for i in range(0, len(texts), batch)), handle)
    return out


def rank(engine: Engine, queries: list[str], documents: list[str]) -> np.ndarray:
    """All pairs, one query per request."""
    out = np.full((len(queries), len(documents)), np.nan)

    def requests() -> Iterator[Request]:
        for i, query in enumerate(queries):
            path, body = DIALECT.scores("m", query, documents)
            yield Request(path, body, len(documents), tag=i, describe=f"query {i}")

    def handle(request: Request, answer: Any) -> None:
        out[request.tag] = DIALECT.read_scores(answer.body, len(documents)).values

    drain(engine, requests(), handle)
    return out


@pytest.fixture
def faulty() -> Iterator[FaultServer]:
    with FaultServer(()) as server:
        yield server


@pytest.fixture
def patient(faulty: FaultServer) -> Iterator[Engine]:
    connection = Connection((faulty.base,), timeout_s=0.4, retries=4, wait_for_server_s=20)
    with Engine(connection, backoff_s=0.002) as engine:
        yield engine


TEXTS = [f"text {i}" for i in range(40)]


@pytest.mark.parametrize("name", [*TRANSIENT, *HARMLESS])
def test_a_passing_fault_changes_nothing(name: str, faulty: FaultServer, patient: Engine) -> None:
    faulty.script((name,), rate=1.0, seed=1)
    assert encode(patient, TEXTS, 8).tobytes() == vectors(TEXTS).tobytes()
    assert faulty.met[name] >= 1
    if name in TRANSIENT:
        assert patient.usage.retries >= 1
    queries, documents = TEXTS[:4], TEXTS[4:9]
    assert rank(patient, queries, documents).tolist() == [[score(q, d) for d in documents] for q in queries]
    assert not [t for t in threading.enumerate() if t.name.startswith("vacc-wire")]


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("kind", ["vectors", "scores"])
def test_a_wrong_answer_stops_the_run_and_is_named(name: str, kind: str, faulty: FaultServer, patient: Engine) -> None:
    faulty.script((name,), rate=1.0, seed=1, most=99)
    ask: Callable[[], object] = (
        (lambda: encode(patient, TEXTS, 8)) if kind == "vectors" else (lambda: rank(patient, TEXTS[:4], TEXTS[4:9]))
    )
    with pytest.raises(ServerError, match=WRONG[name][1]) as caught:
        ask()
    assert faulty.base in str(caught.value)
    assert caught.value.server == faulty.base
    assert not [t for t in threading.enumerate() if t.name.startswith("vacc-wire")]


@pytest.mark.parametrize("name", [n for n in TRANSIENT if not n.startswith("engine")])
def test_a_fault_that_stays_is_an_error_that_names_it(name: str, faulty: FaultServer) -> None:
    faulty.script((name,), rate=1.0, seed=1, most=99)
    connection = Connection((faulty.base,), timeout_s=0.2, retries=2, wait_for_server_s=0.5)
    with Engine(connection, backoff_s=0.05) as engine, pytest.raises(ServerError) as caught:
        encode(engine, TEXTS[:1], 1)
    words = {
        "hang": "within 0.2 s",
        "drip": "within 0.2 s",
        "cut json": "not JSON",
        "200 page": "502 Bad Gateway",
        "200 empty": "not JSON",
        "200 busy": "overloaded",
        "503 nonsense": "scripted 503",
        "502 page": "502 Bad Gateway",
        "504": "gateway",
        "429 without words": "429",
        **{status: f"scripted {status}" for status in ("408", "429", "500", "503")},
    }
    assert words.get(name, "the connection broke") in str(caught.value)
    asked = len([got for got in faulty.requests if got.path == "/v1/embeddings"])
    if name[:3] in {"429", "502", "503", "504"}:
        assert "taken no requests for" in str(caught.value)
        assert asked > 3, "as long as wait_for_server_s allows"
    else:
        assert asked == 3


def test_twenty_thousand_texts_with_passing_faults_come_out_to_the_bit(faulty: FaultServer, patient: Engine) -> None:
    texts = [f"text number {i} of many" for i in range(20_000)]
    faulty.hang_s = 0.8
    faulty.script((*TRANSIENT, *HARMLESS), rate=0.05, seed=20)
    assert encode(patient, texts).tobytes() == vectors(texts).tobytes()
    assert faulty.met.total() > 15


def outcome(engine: Engine, texts: list[str], expected: bytes) -> str:
    """What came of a run: "right", or the error's words; there is no third outcome."""
    try:
        got = encode(engine, texts, 5)
    except VaccError as error:
        return str(error)
    assert got.tobytes() == expected
    return "right"


@pytest.mark.parametrize("seeds", [range(40), pytest.param(range(40, 200), marks=pytest.mark.slow)], ids=["40", "160"])
def test_two_hundred_mixtures_of_faults_have_no_third_outcome(faulty: FaultServer, seeds: range) -> None:
    """Half of them with faults that pass (the run must be right), half with all faults (right, or a named cause)."""
    texts = [f"text {i}" for i in range(60)]
    expected = vectors(texts).tobytes()
    causes = "|".join(words for _, words in WRONG.values())
    connection = Connection((faulty.base,), timeout_s=5, retries=4, wait_for_server_s=20)
    stopped = 0
    with Engine(connection, backoff_s=0.001) as engine:
        for seed in seeds:
            rng = random.Random(seed)
            passing = tuple(name for name in QUICK if name in TRANSIENT or name in HARMLESS)
            fatal = seed % 2 == 1
            faulty.engine_s = 0.01
            faulty.script(QUICK if fatal else passing, rate=rng.uniform(0.05, 0.5), seed=seed, most=rng.randint(1, 3))
            said = outcome(engine, texts, expected)
            if not fatal:
                assert said == "right", (seed, said)
            elif said != "right":
                stopped += 1
                assert re.search(causes, said), (seed, said)
                assert faulty.base in said
    assert len(seeds) / 10 < stopped < len(seeds) / 2


def test_a_run_after_a_failed_one_is_clean(faulty: FaultServer, patient: Engine) -> None:
    faulty.script(("NaN",), rate=1.0, seed=1, most=99)
    with pytest.raises(VaccError):
        encode(patient, TEXTS, 4)
    faulty.script((), rate=0, seed=1)
    assert encode(patient, TEXTS, 4).tobytes() == vectors(TEXTS).tobytes()


def test_a_batch_is_divided_until_the_refused_text_is_named(
    serve: Callable[..., Any], connect: Callable[..., Engine], well: Callable[..., Any]
) -> None:
    from loopback_server import Got, Reply

    texts = [f"text {i}" for i in range(64)]
    texts[37] = "the one that is too long"

    def answer(got: Got, sock: Any) -> Reply:
        if got.path == "/v1/embeddings" and texts[37] in got.json()["input"]:
            message = "This model's maximum context length is 2048 tokens. However, you requested 9999 tokens."
            return Reply.of({"error": {"message": message, "code": 400}}, 400)
        return well(got)

    server = serve(answer)
    with pytest.raises(VaccError, match=r"text 37 as too long .*9999 tokens") as caught:
        encode(connect(server), texts, 32)
    assert type(caught.value).__name__ == "InputTooLongError"
    refused = [got for got in server.requests if texts[37] in got.json()["input"]]
    assert len(refused) == 6, "32, 16, 8, 4, 2, 1"


def test_a_request_that_is_too_large_is_divided_and_the_run_goes_on(
    serve: Callable[..., Any], connect: Callable[..., Engine], well: Callable[..., Any]
) -> None:
    from loopback_server import Got, Reply

    def answer(got: Got, sock: Any) -> Reply:
        if got.path == "/v1/embeddings" and len(got.json()["input"]) > 5:
            return Reply(413, b"<html><title>413 Request Entity Too Large</title></html>", "text/html")
        return well(got)

    engine = connect(serve(answer))
    texts = [f"text {i}" for i in range(64)]
    assert encode(engine, texts, 32).tobytes() == vectors(texts).tobytes()
    assert engine.usage.splits > 0
