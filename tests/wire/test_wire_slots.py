"""The slots of one server, shared by several processes: never more than the limit, none idle while somebody waits."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from draining import drain
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loopback_server import Got, LoopbackServer, Reply

from evalscope_vacc.errors import RunInterrupted
from evalscope_vacc.wire import slots as slots_module
from evalscope_vacc.wire.engine import Connection, Engine, Request
from evalscope_vacc.wire.slots import Broker, LeasedSlots, Lessee

Serve = Callable[..., LoopbackServer]


class Parties:
    """Engines that lease their slots from one broker, each as if in a process of its own.

    What the broker sends arrives in another thread, a moment later, as it does over a connection.
    """

    def __init__(self, stack: ExitStack) -> None:
        self.broker = Broker()
        self._stack = stack

    def engine(self, server: LoopbackServer, limit: int, process: object) -> Engine:
        leased: list[LeasedSlots] = []
        inbox: queue.SimpleQueue[tuple[str, int] | None] = queue.SimpleQueue()

        def lease(address: str, limit: int) -> LeasedSlots:
            me = Lessee(process, len(leased), lambda kind, _, count: inbox.put((kind, count)))

            def send(kind: str, count: int) -> None:
                if kind == "ask":
                    self.broker.ask(me, address, limit, count)
                else:
                    self.broker.give(me, address, count)

            leased.append(LeasedSlots(limit, lambda kind, count: outbox.put((send, kind, count))))
            return leased[-1]

        outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def carry() -> None:
            for send, kind, count in iter(outbox.get, None):
                send(kind, count)

        def receive() -> None:
            for kind, count in iter(inbox.get, None):
                leased[0].granted(count) if kind == "grant" else leased[0].recall()

        for target in (carry, receive):
            threading.Thread(target=target, daemon=True).start()
        self._stack.callback(inbox.put, None)
        self._stack.callback(outbox.put, None)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(slots_module, "_lessor", lease)
            connection = Connection((server.base,), max_concurrency=limit, wait_for_server_s=0)
            return self._stack.enter_context(Engine(connection))


@pytest.fixture
def parties() -> Iterator[Parties]:
    with ExitStack() as stack:
        yield Parties(stack)


def slowly(got: Got, sock: Any) -> Reply:
    time.sleep(got.json().get("sleep", 0) if got.body else 0)
    return Reply(200, got.body)


def send(engine: Engine, count: int, sleep: float) -> int:
    found: list[int] = []
    some = (Request("/v1/embeddings", {"n": n, "sleep": sleep}, 1) for n in range(count))
    drain(engine, some, lambda request, answer: found.append(1))
    return len(found)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.001)


def consume(stream: Iterator[Any]) -> None:
    with suppress(RunInterrupted):
        list(stream)


def together(*calls: Callable[[], Any]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "somebody waits for ever"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(counts=st.lists(st.integers(0, 30), min_size=1, max_size=4), limit=st.integers(1, 5), seed=st.integers(0, 99))
def test_in_sum_no_more_than_the_limit_and_everybody_is_served(counts: list[int], limit: int, seed: int) -> None:
    rng = random.Random(seed)
    with ExitStack() as stack, LoopbackServer(slowly) as server:
        parties = Parties(stack)
        engines = [parties.engine(server, limit, object()) for _ in counts]
        sent: list[int] = []

        def sending(engine: Engine, count: int) -> Callable[[], None]:
            sleep = rng.random() * 0.004
            return lambda: sent.append(send(engine, count, sleep))

        together(*map(sending, engines, counts))
        assert sorted(sent) == sorted(counts)
        assert server.most_in_flight <= limit


def test_one_alone_has_every_slot_and_two_share_them(serve: Serve, parties: Parties) -> None:
    one_of_the_first = threading.Semaphore(0)
    second_may_end = threading.Event()
    open_requests: Counter[float] = Counter()
    ended: Counter[float] = Counter()
    lock = threading.Lock()

    def answer(got: Got, sock: Any) -> Reply:
        if not got.body:
            return Reply(200, got.body)
        who = got.json()["sleep"]
        with lock:
            open_requests[who] += 1
        if who == 1:
            one_of_the_first.acquire(timeout=60)
        else:
            second_may_end.wait(60)
        with lock:
            open_requests[who] -= 1
            ended[who] += 1
        return Reply(200, got.body)

    server = serve(answer)
    one, two = (parties.engine(server, 4, object()) for _ in range(2))
    sent: list[int] = []
    first, second = (
        threading.Thread(target=lambda engine=engine, who=who: sent.append(send(engine, 400, who)), daemon=True)
        for engine, who in ((one, 1), (two, 2))
    )
    first.start()
    wait_until(lambda: open_requests[1] == 4)
    second.start()
    # each request of the first that ends may leave its slot to the second, which has half of them long before the first's end
    for released in range(300):
        wait_until(lambda released=released: ended[1] == released and open_requests.total() == 4)
        if open_requests[2] == 2:
            break
        one_of_the_first.release()
    assert open_requests == {1: 2, 2: 2}
    one_of_the_first.release(400)
    second_may_end.set()
    for thread in (first, second):
        thread.join(60)
    assert sent == [400, 400]
    assert server.most_in_flight == 4


def test_a_process_that_ends_leaves_its_slots_to_the_others(serve: Serve, parties: Parties) -> None:
    hang = threading.Event()

    def answer(got: Got, sock: Any) -> Reply:
        if not got.body or got.json()["sleep"] < 9:
            return slowly(got, sock)
        hang.wait(60)
        return Reply(200, got.body)

    server = serve(answer)
    process = object()
    dead, alive = parties.engine(server, 2, process), parties.engine(server, 2, object())
    try:
        stream = dead.stream((Request("/v1/embeddings", {"n": n, "sleep": 9}, 1) for n in range(4)), lambda _, a: a)
        threading.Thread(target=consume, args=(stream,), daemon=True).start()
        while server.in_flight < 2:
            time.sleep(0.01)
        sent: list[int] = []
        waits = threading.Thread(target=lambda: sent.append(send(alive, 6, 0.0)))
        waits.start()
        waits.join(0.3)
        assert not sent, "both slots are taken"
        parties.broker.lost(process)
        waits.join(30)
        assert sent == [6]
    finally:
        hang.set()


class Shared:
    """A broker, what it sent and has not been answered yet, and the processes a, b and c of one server."""

    def __init__(self, limit: int) -> None:
        self.broker, self.limit = Broker(), limit
        self.sent: list[tuple[str, str, int]] = []
        self.lessees = {
            name: Lessee(name, 0, lambda kind, _, count, name=name: self.sent.append((name, kind, count)))
            for name in "abc"
        }

    def ask(self, names: str, count: int = 1) -> None:
        for name in names:
            self.broker.ask(self.lessees[name], "s", self.limit, count)

    def give(self, name: str, count: int = 1) -> None:
        self.broker.give(self.lessees[name], "s", count)

    def take_sent(self) -> list[tuple[str, str, int]]:
        sent, self.sent = self.sent, []
        return sent


@pytest.mark.parametrize("limit", [2, 4])
def test_a_request_that_must_be_alone_gets_every_slot(limit: int) -> None:
    """Two processes that each hold half of the slots and want all of them do not wait for each other."""
    shared = Shared(limit)
    for _ in range(limit // 2):
        shared.ask("ab")
    assert shared.take_sent() == [("a", "grant", 1), ("b", "grant", 1)] * (limit // 2)
    shared.ask("ab", limit)
    for _ in range(limit // 2):
        assert shared.take_sent() == [("b", "recall", 1)]
        shared.give("b")
    assert shared.take_sent() == [("a", "grant", limit // 2), ("a", "recall", 1)]
    shared.give("a", limit)
    assert shared.take_sent() == [("b", "grant", limit)]


def test_who_waits_gets_a_fair_share_whoever_asked_first() -> None:
    shared = Shared(4)
    for _ in range(4):
        shared.ask("a")
    shared.take_sent()
    shared.ask("ab")  # the one that has all of them wants more, too
    for _ in range(2):
        assert shared.take_sent() == [("a", "recall", 1)]
        shared.give("a")
        assert shared.sent[0] == ("b", "grant", 1)
        shared.sent = shared.sent[1:]
        shared.ask("b")
    assert shared.take_sent() == [], "two each: nobody has more than their share"


def test_shares_that_cannot_be_equal_are_left_and_nobody_has_none_for_long() -> None:
    uneven = Shared(3)
    for _ in range(2):
        uneven.ask("ab")
    assert uneven.take_sent() == [("a", "grant", 1), ("b", "grant", 1), ("a", "grant", 1)]
    single = Shared(1)
    single.ask("abc")
    for now, then in ("ab", "bc", "ca"):
        assert single.take_sent() == [(now, "grant", 1), (now, "recall", 1)]
        single.give(now)
        single.ask(now)
        assert single.sent[0] == (then, "grant", 1)


def test_a_small_request_has_a_slot_too_and_waits_only_for_its_own_server(serve: Serve) -> None:
    held = threading.Event()

    def answer(got: Got, sock: Any) -> Reply:
        if got.body:
            held.wait(60)
        return Reply(200, b"{}")

    busy, idle = serve(answer), serve(answer)
    connection = Connection((busy.base, idle.base), max_concurrency=1, wait_for_server_s=0)
    with Engine(connection) as engine:
        threads = [
            threading.Thread(target=lambda method=method: engine.call(method, "/x", {"n": 1}, server=busy.base))
            for method in ("POST", "GET")
        ]
        threads[0].start()
        wait_until(lambda: busy.in_flight == 1)
        threads[1].start()
        time.sleep(0.1)
        assert engine.call("GET", "/x", server=idle.base).status == 200
        assert len(busy.requests) == 1
        held.set()
        for thread in threads:
            thread.join(30)
        assert len(busy.requests) == 2
    assert busy.most_in_flight == 1
