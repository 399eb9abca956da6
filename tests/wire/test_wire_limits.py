"""Failures by their kind: busy servers, batches that are too large, texts that a server fails at or dies of."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from draining import drain
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loopback_server import Got, LoopbackServer, Reply, Reset

from evalscope_vacc.errors import (
    BadAnswerError,
    EngineDeadError,
    InputTooLongError,
    NotFiniteError,
    RequestRefusedError,
    ServerError,
    ServerFaultError,
    ServerUnreachableError,
)
from evalscope_vacc.wire.engine import Answer, Engine, Request
from evalscope_vacc.wire.refusals import batch_limit, seconds_asked_for, token_limit

Serve = Callable[..., LoopbackServer]
Connect = Callable[..., Engine]


def batch(items: Sequence[str]) -> Request:
    """A request for some items, which can be divided."""

    def split() -> list[Request]:
        middle = (len(items) + 1) // 2
        return [batch(items[:middle]), batch(items[middle:])]

    return Request(
        "/v1/embeddings",
        {"input": list(items)},
        len(items),
        tag=tuple(items),
        split=split if len(items) > 1 else None,
        describe=lambda: f"item {items[0]}",
    )


def batches(count: int, size: int = 32) -> Iterator[Request]:
    items = [str(n) for n in range(count)]
    return (batch(items[start : start + size]) for start in range(0, count, size))


def echo(got: Got, sock: Any = None) -> Reply:
    return Reply(200, got.body)


def items_of(got: Got) -> list[str]:
    """The items of a request; none of a look at the server's health, which is therefore good."""
    return got.json()["input"] if got.body else []


def answered(engine: Engine, requests: Iterator[Request]) -> list[str]:
    """Runs the requests and returns the items whose answers came, each checked to be its own."""
    found: list[str] = []

    def handle(request: Request, answer: Answer) -> None:
        assert Got("POST", "", {}, answer.body).json()["input"] == list(request.tag)
        found.extend(request.tag)

    drain(engine, requests, handle)
    return found


def asked(server: LoopbackServer) -> list[list[str]]:
    return [got.json()["input"] for got in server.requests if got.path == "/v1/embeddings"]


# -- busy -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 502, 503, 504])
@pytest.mark.parametrize("calls", ["a stream", "a single call"])
def test_a_busy_server_is_waited_for_longer_than_the_retries_last(
    status: int, calls: str, serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    free_at = time.monotonic() + 1.0

    def answer(got: Got, sock: Any) -> Reply:
        return Reply.of({"error": {"message": "busy"}}, status) if time.monotonic() < free_at else echo(got)

    server = serve(answer)
    engine = connect(server, retries=1, wait_for_server_s=30, backoff_s=0.01)
    with caplog.at_level(logging.WARNING, "evalscope_vacc"):
        if calls == "a stream":
            assert sorted(answered(engine, batches(320)), key=int) == [str(n) for n in range(320)]
            assert "takes requests again after" in caplog.text
        else:
            engine.call("POST", "/v1/embeddings", {"input": ["a"]})
    assert "of at most 30 s" in caplog.text
    assert engine.usage.waited_seconds > 0.5
    assert len(asked(server)) < 70, "all wait together, ever longer"


@pytest.mark.parametrize("status", [502, 503, 504])
def test_answers_to_requests_sent_before_a_refusal_do_not_shorten_the_wait(
    status: int, serve: Serve, connect: Connect
) -> None:
    refused, busy_until = threading.Event(), 0.0

    def answer(got: Got, sock: Any) -> Reply:
        nonlocal busy_until
        items = items_of(got)
        if "32" in items:  # the first batch is sent alone, the second with the third
            refused.wait(20)
            time.sleep(0.1)  # so that the refusal is known before this answer
        elif "64" in items and not refused.is_set():
            busy_until = time.monotonic() + 1.0
            refused.set()
        if items and "32" not in items and time.monotonic() < busy_until:
            return Reply.of({"error": {"message": "upstream connect error"}}, status)
        return echo(got)

    engine = connect(serve(answer), retries=1, wait_for_server_s=30, backoff_s=0.01)
    assert sorted(answered(engine, batches(320)), key=int) == [str(n) for n in range(320)]


@pytest.mark.parametrize("status", [502, 503, 504])
def test_answers_of_another_endpoint_do_not_shorten_the_wait(status: int, serve: Serve, connect: Connect) -> None:
    free_at = time.monotonic() + 1.0

    def answer(got: Got, sock: Any) -> Reply:
        if got.path == "/v1/embeddings" and time.monotonic() < free_at:
            return Reply.of({"error": {"message": "busy"}}, status)
        return echo(got)

    engine = connect(serve(answer), retries=1, wait_for_server_s=30, backoff_s=0.01)
    over = threading.Event()

    def ask_the_other() -> None:
        while not over.wait(0.01):
            engine.call("POST", "/tokenize", {"input": ["a"]})

    beside = threading.Thread(target=ask_the_other)
    beside.start()
    try:
        assert sorted(answered(engine, batches(320)), key=int) == [str(n) for n in range(320)]
    finally:
        over.set()
        beside.join()


def test_a_server_that_stays_busy_is_given_up_after_the_wait(serve: Serve, connect: Connect) -> None:
    engine = connect(serve(lambda got, sock: Reply(429, b"{}")), wait_for_server_s=0.5, retries=5, backoff_s=0.05)
    start = time.monotonic()
    with pytest.raises(ServerFaultError, match=r"taken no requests for 0 s|taken no requests for 1 s") as caught:
        answered(engine, batches(320))
    assert 0.4 < time.monotonic() - start < 20
    assert caught.value.status == 429


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Retry-After": "1"}, "slow down"),
        ({"retry-after-ms": "1000"}, "slow down"),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1s"}, "slow down"),
        ({}, "Quota exceeded. Please retry in 1.0s."),
    ],
)
def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(
    headers: dict[str, str], words: str, serve: Serve, connect: Connect
) -> None:
    times: list[float] = []

    def answer(got: Got, sock: Any) -> Reply:
        times.append(time.monotonic())
        return Reply.of({"error": {"message": words}}, 429, **headers) if len(times) == 1 else echo(got)

    answered(connect(serve(answer), wait_for_server_s=30, backoff_s=0.01), batches(320))
    assert times[1] - times[0] >= 0.95


def test_an_account_without_money_is_not_waited_for(serve: Serve, connect: Connect) -> None:
    words = "You exceeded your current quota, please check your plan and billing details."
    server = serve(lambda got, sock: Reply.of({"error": {"message": words, "code": "insufficient_quota"}}, 429))
    with pytest.raises(ServerFaultError, match="exceeded your current quota"):
        answered(connect(server, wait_for_server_s=600), batches(32))
    assert len(asked(server)) == 1


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("Rate limit exceeded, retry after 20 seconds", 20),
        ("Please retry in 12.5s.", 12.5),
        ("Please try again in 6m0s", 360),
        ("try again in 20ms", 0.02),
        ("Try again later", None),
    ],
)
def test_the_wait_is_read_out_of_the_words(words: str, seconds: float | None) -> None:
    assert seconds_asked_for(words) == (None if seconds is None else pytest.approx(seconds))


# -- batches that are too large ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "batch size is invalid, it should not be larger than {}.: input.contents",
        "input batch size 83 > maximum allowed batch size {}",
        "BatchEmbedContentsRequest.requests: at most {} requests can be in one batch",
        "nothing that helps",
        "the request has too many tokens",
    ],
)
@pytest.mark.parametrize("most", [5, 10, 20, 25])
def test_a_batch_limit_is_learnt_at_once_and_kept(
    words: str, most: int, serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    refused = 0

    def answer(got: Got, sock: Any) -> Reply:
        nonlocal refused
        if len(items_of(got)) > most:
            refused += 1
            return Reply.of({"error": {"message": words.format(most)}}, 400)
        return echo(got)

    server = serve(answer)
    engine = connect(server)
    with caplog.at_level(logging.WARNING, "evalscope_vacc"):
        assert sorted(answered(engine, batches(960)), key=int) == [str(n) for n in range(960)]
        assert refused <= (1 if "{}" in words else 2 if most >= 8 else 3)
        first = refused
        assert len(answered(engine, batches(960))) == 960
    assert refused == first, "kept for the next task"
    assert engine.limits.items <= most or "tokens" in words
    assert caplog.text.count("items in a request") <= 1


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(most=st.integers(1, 40), size=st.integers(1, 40), count=st.integers(0, 150), slots=st.integers(1, 5))
def test_every_item_is_answered_once_whatever_the_server_takes(most: int, size: int, count: int, slots: int) -> None:
    def answer(got: Got, sock: Any) -> Reply:
        return Reply(413, b"") if len(items_of(got)) > most else echo(got)

    from evalscope_vacc.wire.engine import Connection

    with LoopbackServer(answer) as server, Engine(Connection((server.base,), max_concurrency=slots)) as engine:
        assert sorted(answered(engine, batches(count, size)), key=int) == [str(n) for n in range(count)]
        sent = [item for items in asked(server) if len(items) <= most for item in items]
        assert sorted(sent, key=int) == [str(n) for n in range(count)], "nothing is asked twice"


def test_a_request_that_is_refused_for_its_form_costs_two_requests(serve: Serve, connect: Connect) -> None:
    server = serve(lambda got, sock: Reply.of({"error": {"message": "dimensions is not supported"}}, 400))
    with pytest.raises(RequestRefusedError, match="No request of this run has succeeded yet"):
        answered(connect(server), batches(960))
    assert [len(items) for items in asked(server)] == [32, 1]


def test_a_refused_item_does_not_change_what_the_server_takes(serve: Serve, connect: Connect) -> None:
    def answer(got: Got, sock: Any) -> Reply:
        return Reply.of({"error": {"message": "bad text"}}, 400) if "77" in items_of(got) else echo(got)

    server = serve(answer)
    engine = connect(server)
    with pytest.raises(RequestRefusedError, match="item 77"):
        answered(engine, batches(320))
    assert engine.limits.items == float("inf")


@pytest.mark.parametrize(
    ("words", "limit"),
    [
        ("batch_size 33 exceeds limit 32", 32),
        ("List should have at most 2048 items after validation, not 3000", 2048),
        ("This model's maximum context length is 512 tokens", None),
    ],
)
def test_the_batch_limit_is_read_out_of_the_words(words: str, limit: int | None) -> None:
    assert batch_limit(ServerError("", server_message=words)) == limit


@pytest.mark.parametrize(
    ("words", "limit"),
    [
        ("This model's maximum context length is 512 tokens. However, you requested 900 tokens", 512),
        ("truncate_prompt_tokens value (8192) is greater than max_model_len (4096).", 4096),
        ("input (542 tokens) is too large to process. increase the physical batch size (current batch size: 512)", 512),
        ("input (782 tokens) is larger than the max context size (512 tokens). skipping", 512),
        ("`inputs` must have less than 512 tokens. Given: 700", 512),
        ("bad text", None),
    ],
)
def test_the_token_limit_is_read_out_of_the_words(words: str, limit: int | None) -> None:
    assert token_limit(words) == limit


def test_a_long_text_that_a_server_refuses_with_500_is_no_passing_fault(serve: Serve, connect: Connect) -> None:
    words = "input (542 tokens) is too large to process. increase the physical batch size (current batch size: 512)"
    server = serve(lambda got, sock: Reply.of({"error": {"code": 500, "message": words}}, 500))
    with pytest.raises(InputTooLongError, match="max_tokens: 512"):
        answered(connect(server), batches(1))
    assert len(asked(server)) == 1


# -- one item is the reason -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [424, 500])
@pytest.mark.parametrize("bad", ["0", "77", "319"])
def test_a_text_at_which_the_server_fails_is_named_and_the_others_are_answered(
    status: int, bad: str, serve: Serve, connect: Connect
) -> None:
    def answer(got: Got, sock: Any) -> Reply:
        return Reply.of({"error": {"message": "oh"}}, status) if bad in items_of(got) else echo(got)

    server = serve(answer)
    engine = connect(server, retries=2, wait_for_server_s=5)
    found: list[str] = []
    with pytest.raises(ServerFaultError, match=f"for item {bad} ") as caught:
        drain(engine, batches(320), lambda request, answer: found.extend(request.tag))
    assert caught.value.status == status
    assert len(found) == 319 or bad == "0"
    assert len(found) == len(set(found))


def test_a_server_that_fails_at_everything_is_asked_a_few_times_only(serve: Serve, connect: Connect) -> None:
    server = serve(lambda got, sock: Reply.of({"error": {"message": "oh"}}, 500))
    with pytest.raises(ServerFaultError, match="oh"):
        answered(connect(server, retries=3), batches(960))
    assert len(asked(server)) <= 7


@pytest.mark.parametrize("how", ["its engine dies", "the process dies"])
@pytest.mark.parametrize("bad", ["0", "40", "63"])
def test_a_text_that_kills_the_server_is_named_after_the_second_time(
    how: str, bad: str, serve: Serve, connect: Connect
) -> None:
    dead_until = 0.0
    deaths = 0
    lock = threading.Lock()

    def answer(got: Got, sock: Any) -> Reply:
        nonlocal dead_until, deaths
        dead = time.monotonic() < dead_until
        if got.path == "/health":
            return Reply(503 if dead else 200, b"")
        if not dead and bad in items_of(got):
            with lock:
                deaths += 1
                dead_until, dead = time.monotonic() + 0.3, True
        if not dead:
            time.sleep(0.01)
            return echo(got)
        if how == "the process dies":
            raise Reset
        return Reply.of({"error": {"message": "EngineCore encountered an issue."}}, 500)

    server = serve(answer)
    engine = connect(server, wait_for_server_s=20, retries=0, backoff_s=0.05)
    with pytest.raises((EngineDeadError, ServerUnreachableError), match=f"went away twice at item {bad},"):
        answered(engine, batches(640))
    assert deaths <= (2 if bad != "0" else 3)


def test_the_text_that_killed_is_alone_the_second_time_though_its_failure_came_last(
    serve: Serve, connect: Connect
) -> None:
    """The others in flight fail first, and are the ones by which the death is noticed."""
    dead_until = 0.0
    deaths: list[int] = []

    def answer(got: Got, sock: Any) -> Reply:
        nonlocal dead_until
        dead = time.monotonic() < dead_until
        if got.path == "/health":
            return Reply(503 if dead else 200, b"")
        gone = Reply.of({"error": {"message": "EngineCore encountered an issue."}}, 500)
        if "40" in items_of(got) and not dead:
            deaths.append(len(items_of(got)))
            dead_until = time.monotonic() + 0.5
            time.sleep(0.25)
            return gone
        time.sleep(0.01)
        return gone if time.monotonic() < dead_until else echo(got)

    engine = connect(serve(answer), wait_for_server_s=20, retries=0, backoff_s=0.05)
    with pytest.raises(EngineDeadError, match="went away twice at item 40,"):
        answered(engine, batches(640))
    assert deaths == [32, 1]


def test_a_server_that_dies_once_is_no_fault_of_its_texts(serve: Serve, connect: Connect) -> None:
    died = threading.Event()
    dead_until = 0.0

    def answer(got: Got, sock: Any) -> Reply:
        nonlocal dead_until
        if got.path != "/health" and "40" in items_of(got) and not died.is_set():
            died.set()
            dead_until = time.monotonic() + 0.3
        if time.monotonic() < dead_until:
            if got.path == "/health":
                return Reply(503, b"")
            raise Reset
        return echo(got)

    server = serve(answer)
    engine = connect(server, wait_for_server_s=20, backoff_s=0.05)
    assert sorted(answered(engine, batches(640)), key=int) == [str(n) for n in range(640)]
    assert server.most_in_flight <= 4


# -- NaN --------------------------------------------------------------------------------------------------------------


def test_an_answer_that_is_not_finite_is_asked_for_once_more(serve: Serve, connect: Connect) -> None:
    server = serve(echo)
    met: list[tuple[str, ...]] = []

    def once(request: Request, answer: Answer) -> None:
        if "40" in request.tag and request.tag not in met:
            met.append(request.tag)
            raise NotFiniteError("vector 8 holds nan", item=8)

    drain(connect(server), batches(320), once)
    assert len(asked(server)) == 11

    def always(request: Request, answer: Answer) -> None:
        raise NotFiniteError("vector 8 holds nan", item=8)

    server.requests.clear()
    with pytest.raises(BadAnswerError, match="vector 8 holds nan"):
        drain(connect(server), batches(32), always)
    assert len(asked(server)) == 2
