"""The short form before a run: what stops it, what is a warning, what it costs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loopback_server import Reply
from sound_server import SoundServer

from evalscope_vacc.checks import PREFLIGHT_TEXTS, Report
from evalscope_vacc.checks.run import check_model
from evalscope_vacc.config import configure
from evalscope_vacc.errors import (
    AuthenticationError,
    BadAnswerError,
    ConfigError,
    ModelNotServedError,
    ServerUnreachableError,
)
from evalscope_vacc.models.served import Served
from evalscope_vacc.models.session import Session, open_session
from evalscope_vacc.wire.trial import FIRST, QUERY, SECOND


@pytest.fixture
def look(tmp_path: Path) -> Iterator[Callable[..., Report]]:
    """Opens sessions with servers, and returns what the preflight found."""
    opened: list[Session] = []

    def opened_with(*servers: SoundServer, **keys: object) -> Report:
        bases = [server.base for server in servers]
        entry = {"model_name": servers[0].name, "api_base": bases, "retries": 0, "wait_for_server_s": 0, **keys}
        opened.append(open_session(Served(configure(entry), folder=tmp_path)))
        assert opened[-1].report is not None
        return opened[-1].report

    yield opened_with
    for session in opened:
        session.close()


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
def test_a_server_in_order_costs_some_forty_requests_of_two_or_three_texts(kind: str, look) -> None:
    with SoundServer(kind=kind) as server:
        start = time.monotonic()
        report = look(server, is_cross_encoder=kind == "cross-encoder")
        seconds = time.monotonic() - start
    assert report.state == "ok"
    assert report.kind == kind
    assert len(server.requests) <= 45
    assert seconds < 10


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["encoder", "cross-encoder"])
def test_a_slow_server_is_asked_less_often(kind: str, look) -> None:
    with SoundServer(kind=kind, delay_s=0.4) as server:
        report = look(server, is_cross_encoder=kind == "cross-encoder")
    assert report.state == "ok"
    assert len(server.requests) <= 28
    assert report.of("order").args["batches"] < 24


@pytest.mark.parametrize("kind", ["encoder", "cross-encoder"])
def test_its_texts_can_be_recognised(kind: str, look) -> None:
    with SoundServer(kind=kind) as server:
        look(server, is_cross_encoder=kind == "cross-encoder", rerank_template="auto")
        assert sent(server) - {"a", "b", FIRST, SECOND, QUERY, "reproducibility"} <= set(PREFLIGHT_TEXTS)


def test_an_unreachable_server_stops_the_run(look) -> None:
    with SoundServer() as server:
        pass
    with pytest.raises(ServerUnreachableError):
        look(server)


def test_a_refused_key_stops_the_run(look) -> None:
    with SoundServer(key="right") as server, pytest.raises(AuthenticationError):
        look(server, api_key="wrong")


def test_a_name_that_is_not_served_stops_the_run(look) -> None:
    with SoundServer("this") as server, pytest.raises(ModelNotServedError, match="it serves 'this'"):
        look(server, model_name="that")
    with SoundServer("this", faults=("no list",)) as server, pytest.raises(ModelNotServedError):
        look(server, model_name="that")


@pytest.mark.parametrize("kind", ["encoder", "cross-encoder"])
def test_a_number_that_is_not_finite_stops_the_run(kind: str, look) -> None:
    with SoundServer(kind=kind, faults=("nan",)) as server, pytest.raises(BadAnswerError, match="not a finite number"):
        look(server, is_cross_encoder=kind == "cross-encoder")


def test_vectors_smaller_than_dimensions_stop_the_run(look) -> None:
    with SoundServer(size=64) as server, pytest.raises(ConfigError, match="64 numbers, `dimensions` asks for 65"):
        look(server, dimensions=65)
    with SoundServer(size=64) as server:
        assert look(server, dimensions=64).state == "ok"


def test_another_size_than_the_catalogs_stops_the_run(look) -> None:
    with (
        SoundServer("Qwen3-Embedding-0.6B", size=64) as server,
        pytest.raises(ConfigError, match=r"gives 1024.*preflight: off"),
    ):
        look(server, instruction_profile="none")


@pytest.mark.parametrize("template", ["fixed", "instruction"])
def test_a_template_on_both_sides_stops_the_run(template: str, look) -> None:
    with (
        SoundServer(kind="cross-encoder", template=template) as server,
        pytest.raises(ConfigError, match="applied twice"),
    ):
        look(server, is_cross_encoder=True, rerank_template="qwen3")


@pytest.mark.parametrize(
    ("kind", "fault", "check"),
    [
        ("encoder", "long vectors", "norm"),
        ("encoder", "second differs", "repeat"),
        ("encoder", "depends on neighbours", "batch"),
        ("encoder", "two swapped in eight", "order"),
        ("encoder", "all alike", "sanity"),
        ("encoder", "one too few", "answers"),
        ("cross-encoder", "half", "spread"),
        ("cross-encoder", "no counts", "template"),
    ],
)
def test_everything_else_is_a_warning(
    kind: str, fault: str, check: str, look, caplog: pytest.LogCaptureFixture
) -> None:
    with SoundServer(kind=kind, faults=(fault,)) as server, caplog.at_level(logging.WARNING):
        report = look(server, is_cross_encoder=kind == "cross-encoder")
    assert report.state == "warning"
    assert report.of(check).state == "warning"
    assert f"some-model: {check}: " in caplog.text


def test_its_warnings_are_kept_in_both_languages(tmp_path: Path) -> None:
    with SoundServer(faults=("long vectors",)) as server:
        served = Served(configure({"model_name": server.name, "api_base": server.base}), folder=tmp_path)
        open_session(served).close()
    assert any(line.startswith("norm: ") for line in served.record["preflight"])
    assert any(line.startswith("norm：") for line in served.record["preflight_zh"])


@pytest.mark.parametrize("template", ["none", "auto", "qwen3"])
def test_an_embedding_server_behind_a_cross_encoder_is_a_warning(template: str, look) -> None:
    with SoundServer() as server:
        report = look(server, is_cross_encoder=True, rerank_template=template)
    assert report.of("kind").state == "warning"


def test_a_known_reranker_without_its_template_is_a_warning(look) -> None:
    with SoundServer("Qwen3-Reranker-0.6B", kind="cross-encoder", max_model_len=8192) as server:
        assert look(server, rerank_template="none").of("template").state == "warning"


def test_two_servers_with_other_weights_are_a_warning(look) -> None:
    with SoundServer() as one, SoundServer(seed="other") as two:
        report = look(one, two)
    assert report.of("servers-agree").state == "warning"


def test_a_server_that_cannot_cut_is_sent_only_what_it_surely_takes(look) -> None:
    with SoundServer(max_model_len=90) as server:
        assert look(server, dialect="openai").of("kind") is None
        assert PREFLIGHT_TEXTS[-1] not in sent(server)
    with SoundServer(max_model_len=90) as server:
        assert look(server).state == "ok"
        assert PREFLIGHT_TEXTS[-1] in sent(server)


def test_rounded_scores_are_told_before_a_run(look, caplog: pytest.LogCaptureFixture) -> None:
    with SoundServer(kind="cross-encoder", faults=("rounded",)) as server, caplog.at_level(logging.WARNING):
        report = look(server, is_cross_encoder=True)
    assert report.of("grain").state == "warning"
    assert "all are rounded to 3 decimals" in caplog.text
    assert "write raw_scores: true" in caplog.text


def test_raw_scores_that_a_server_ignores_are_told(look) -> None:
    with SoundServer(kind="cross-encoder") as server:
        assert "use_activation" not in str([got.json() for got in server.requests if got.path == "/v1/score"])
        report = look(server, is_cross_encoder=True, raw_scores=True)
        asked = [got.json().get("use_activation") for got in server.requests if got.path == "/v1/score"]
    assert report.of("grain").seen == "raw_scores is true, and all of 6 scores lie between 0 and 1"
    assert False in asked


@pytest.mark.parametrize("counted", ["with /tokenize", "by itself"])
@pytest.mark.parametrize("keys", [{}, {"prompt": "query: "}])
def test_a_prefix_of_the_server_is_found_by_its_tokens(keys: dict[str, str], counted: str, look) -> None:
    class Prefixed(SoundServer):
        def tokens(self, text: str, keep: int | None = None) -> list[str]:
            return super().tokens(f"search query for {text}", keep)

        def _answer(self, got, sock):
            if got.path == "/tokenize":
                return Reply.of({"count": 2}) if counted == "with /tokenize" else Reply.of({"detail": "x"}, 404)
            return super()._answer(got, sock)

    with Prefixed() as server:
        before = look(server, **keys).of("prefix")
        checked = check_model(configure({"model_name": server.name, "api_base": server.base, **keys})).of("prefix")
    assert before.state == "warning"
    assert checked.state == ("wrong" if keys else "warning")
    assert "before every text" in checked.seen
    assert ("applied twice" in checked.meaning) == bool(keys)


def test_what_contradicts_the_catalog_is_a_warning_of_the_check() -> None:
    with SoundServer("all-MiniLM-L6-v2", size=384) as server:
        found = check_model(configure({"model_name": server.name, "api_base": server.base, "max_seq_length": 128}))
    assert found.of("catalog").state == "warning"
    assert "write max_tokens: 256" in found.of("catalog").seen
