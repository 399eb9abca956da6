"""The short form before a run: what stops it, what is a warning, what it costs."""

from __future__ import annotations

import logging
import time

import pytest
from sound_server import SoundServer

from evalscope_vacc.checks import PREFLIGHT_TEXTS, preflight
from evalscope_vacc.config import configure
from evalscope_vacc.errors import (
    AuthenticationError,
    BadAnswerError,
    ConfigError,
    ModelNotServedError,
    ServerUnreachableError,
)
from evalscope_vacc.models.served import Served
from evalscope_vacc.wire.probe import probe_all


@pytest.fixture
def served():
    """Makes served models, and closes them."""
    made: list[Served] = []

    def make(*servers: SoundServer, **keys: object) -> Served:
        bases = [server.base for server in servers]
        entry = {"model_name": servers[0].name, "api_base": bases, "retries": 0, "wait_for_server_s": 0, **keys}
        made.append(Served(configure(entry)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def sent(server: SoundServer) -> set[str]:
    found: set[str] = set()
    for got in server.requests:
        body = got.json() if got.body else {}
        if "input" in body:
            found |= set(body["input"])
        if "text_2" in body:
            found |= {body["text_1"], *body["text_2"]}
    return found


@pytest.mark.parametrize("kind", ["encoder", "cross-encoder"])
def test_a_server_in_order_costs_a_handful_of_requests(kind: str, served) -> None:
    with SoundServer(kind=kind) as server:
        start = time.monotonic()
        report = preflight(served(server, is_cross_encoder=kind == "cross-encoder"))
        seconds = time.monotonic() - start
    assert report.state == "ok"
    assert report.kind == kind
    assert len(server.requests) <= 8
    assert seconds < 10


@pytest.mark.parametrize("kind", ["encoder", "cross-encoder"])
def test_its_texts_can_be_recognised(kind: str, served) -> None:
    with SoundServer(kind=kind) as server:
        preflight(served(server, is_cross_encoder=kind == "cross-encoder", rerank_template="auto"))
        assert sent(server) - {"a", "b"} == set(PREFLIGHT_TEXTS)


def test_what_was_asked_already_is_not_asked_again(served) -> None:
    with SoundServer() as server:
        model = served(server)
        facts = probe_all(model.engine, server.name)
        before = len(server.requests)
        preflight(model, facts)
        assert [got.path for got in server.requests[before:]] == ["/v1/embeddings", "/v1/embeddings"]


def test_an_unreachable_server_stops_the_run(served) -> None:
    with SoundServer() as server:
        model = served(server)
    with pytest.raises(ServerUnreachableError):
        preflight(model)


def test_a_refused_key_stops_the_run(served) -> None:
    with SoundServer(key="right") as server, pytest.raises(AuthenticationError):
        preflight(served(server, api_key="wrong"))


def test_a_name_that_is_not_served_stops_the_run(served) -> None:
    with SoundServer("this") as server, pytest.raises(ModelNotServedError, match="it serves 'this'"):
        preflight(served(server, model_name="that"))
    with SoundServer("this", faults=("no list",)) as server, pytest.raises(ModelNotServedError):
        preflight(served(server, model_name="that"))


@pytest.mark.parametrize("kind", ["encoder", "cross-encoder"])
def test_a_number_that_is_not_finite_stops_the_run(kind: str, served) -> None:
    with SoundServer(kind=kind, faults=("nan",)) as server, pytest.raises(BadAnswerError, match="not a finite number"):
        preflight(served(server, is_cross_encoder=kind == "cross-encoder"))


def test_vectors_smaller_than_dimensions_stop_the_run(served) -> None:
    with SoundServer(size=64) as server, pytest.raises(ConfigError, match="64 numbers, `dimensions` asks for 65"):
        preflight(served(server, dimensions=65))
    with SoundServer(size=64) as server:
        assert preflight(served(server, dimensions=64)).state == "ok"


def test_another_size_than_the_catalogs_stops_the_run(served) -> None:
    with (
        SoundServer("Qwen3-Embedding-0.6B", size=64) as server,
        pytest.raises(ConfigError, match=r"gives 1024.*preflight: off"),
    ):
        preflight(served(server, instruction_profile="none"))


@pytest.mark.parametrize("template", ["fixed", "instruction"])
def test_a_template_on_both_sides_stops_the_run(template: str, served) -> None:
    with (
        SoundServer(kind="cross-encoder", template=template) as server,
        pytest.raises(ConfigError, match="applied twice"),
    ):
        preflight(served(server, is_cross_encoder=True, rerank_template="qwen3"))


@pytest.mark.parametrize(
    ("kind", "fault", "check"),
    [
        ("encoder", "long vectors", "norm"),
        ("encoder", "second differs", "repeat"),
        ("encoder", "depends on neighbours", "repeat"),
        ("encoder", "all alike", "sanity"),
        ("encoder", "refuses truncation", "kind"),
        ("encoder", "one too few", "answers"),
        ("cross-encoder", "half", "spread"),
        ("cross-encoder", "no counts", "template"),
    ],
)
def test_everything_else_is_a_warning(
    kind: str, fault: str, check: str, served, caplog: pytest.LogCaptureFixture
) -> None:
    with SoundServer(kind=kind, faults=(fault,)) as server, caplog.at_level(logging.WARNING):
        report = preflight(served(server, is_cross_encoder=kind == "cross-encoder"))
    assert report.state == "warning"
    assert report.of(check).state == "warning"
    assert f"some-model: {check}: " in caplog.text


@pytest.mark.parametrize("template", ["none", "auto", "qwen3"])
def test_an_embedding_server_behind_a_cross_encoder_is_a_warning(template: str, served) -> None:
    with SoundServer() as server:
        report = preflight(served(server, is_cross_encoder=True, rerank_template=template))
    assert report.of("kind").state == "warning"


def test_a_known_reranker_without_its_template_is_a_warning(served) -> None:
    with SoundServer("Qwen3-Reranker-0.6B", kind="cross-encoder", max_model_len=8192) as server:
        assert preflight(served(server, rerank_template="none")).of("template").state == "warning"


def test_two_servers_with_other_weights_are_a_warning(served) -> None:
    with SoundServer() as one, SoundServer(seed="other") as two:
        report = preflight(served(one, two))
    assert report.of("servers-agree").state == "warning"


def test_a_server_that_cannot_cut_is_sent_only_what_it_surely_takes(served) -> None:
    with SoundServer(max_model_len=90) as server:
        assert preflight(served(server, dialect="openai")).of("kind") is None
        assert PREFLIGHT_TEXTS[-1] not in sent(server)
    with SoundServer(max_model_len=90) as server:
        assert preflight(served(server)).state == "ok"
        assert PREFLIGHT_TEXTS[-1] in sent(server)
