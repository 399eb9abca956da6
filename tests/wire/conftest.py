"""Servers for the tests of the wire: all real, all on the loopback address."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "servers"))

from embedding_answers import embeddings, rerank, scores
from loopback_server import Answering, Got, LoopbackServer, Reply

from evalscope_vacc.wire.engine import Connection, Engine


def answer_well(got: Got, sock: Any = None) -> Reply:
    """What a well-behaved server answers."""
    if got.path == "/health":
        return Reply(content_type="")
    if got.path == "/v1/embeddings":
        return Reply.of(embeddings(got.json()))
    if got.path == "/v1/score":
        return Reply.of(scores(got.json()))
    if got.path == "/v1/rerank":
        return Reply.of(rerank(got.json()))
    return Reply.of({"detail": "Not Found"}, 404)


@pytest.fixture
def well() -> Callable[..., Reply]:
    """The answering function of a well-behaved server."""
    return answer_well


@pytest.fixture
def serve() -> Iterator[Callable[..., LoopbackServer]]:
    """Starts servers that are stopped after the test."""
    with ExitStack() as stack:

        def start(answer: Answering = answer_well, **options: Any) -> LoopbackServer:
            return stack.enter_context(LoopbackServer(answer, **options))

        yield start


@pytest.fixture
def connect() -> Iterator[Callable[..., Engine]]:
    """Makes transports with short patience that are closed after the test."""
    with ExitStack() as stack:

        def make(*servers: LoopbackServer | str, backoff_s: float = 0.005, **options: Any) -> Engine:
            bases = tuple(server if isinstance(server, str) else server.base for server in servers)
            settings = {"timeout_s": 10, "retries": 3, "wait_for_server_s": 0, **options}
            return stack.enter_context(Engine(Connection(bases, **settings), backoff_s=backoff_s))

        yield make
