"""The full check of a reranker: templates on every side, and each fault of scores."""

from __future__ import annotations

import re

import pytest
from sound_server import SoundServer

from evalscope_vacc.checks.findings import Report
from evalscope_vacc.checks.run import check_model
from evalscope_vacc.config import configure


def reranker(name: str = "some-reranker", **options: object) -> SoundServer:
    return SoundServer(name, kind="cross-encoder", **options)


def report_of(server: SoundServer, **keys: object) -> Report:
    entry = {"model_name": server.name, "api_base": server.base, "is_cross_encoder": True, **keys}
    return check_model(configure(entry))


def test_a_reranker_in_order_has_nothing_but_ok() -> None:
    with reranker() as server:
        report = report_of(server)
    assert {f.check: f.state for f in report.findings if f.state != "ok"} == {}
    wanted = {"kind", "template", "instruction", "repeat", "order", "batch", "spread", "grain", "sanity", "speed"}
    assert wanted <= {f.check for f in report.findings}


@pytest.mark.parametrize(
    ("fault", "check", "state", "says"),
    [
        ("half", "spread", "wrong", "all 514 pairs score 0.5"),
        ("grainy", "grain", "warning", "grid of bfloat16"),
        ("two digits", "grain", "wrong", "rounded to 2 decimals"),
        ("long ones alike", "whole-texts", "wrong", "all score 0"),
        ("cuts queries", "whole-texts", "wrong", "long queries are cut silently"),
        ("ten, then the tenth", "batch", "wrong", "in a request of 32 texts, as a run sends them"),
        ("wrong order", "order", "wrong", "same order, whatever the order of the documents"),
        ("second differs", "repeat", "wrong", "prefix cache"),
        ("depends on neighbours", "batch", "wrong", "depends on the other texts in its batch"),
        ("nan", "finite", "wrong", "not a finite number"),
        ("worst first", "sanity", "wrong", "English: 0 of 17"),
        ("refuses truncation", "long-texts", "wrong", "may be cut"),
        ("no counts", "template", "warning", "no token counts"),
    ],
)
def test_each_fault_is_found_and_said(fault: str, check: str, state: str, says: str) -> None:
    # long enough for the pairs, which a server that refuses to cut is sent whole
    with reranker(faults=(fault,)) as server:
        report = report_of(server)
    found = report.of(check)
    if fault == "refuses truncation":
        found = report.of("repeat")
        check, says = "repeat", "not supported"
    assert found is not None
    assert found.state == state
    assert re.search(says, f"{found.seen} {found.meaning}"), found
    assert report.exit_status == int(state == "wrong")


@pytest.mark.parametrize(
    ("on_server", "configured", "state", "says"),
    [
        ("none", "auto", "ok", "qwen3, applied here"),
        ("none", "qwen3", "ok", "qwen3, applied here"),
        ("none", "none", "wrong", "close to random"),
        ("instruction", "auto", "ok", "applied by the server"),
        ("instruction", "none", "ok", "applied by the server"),
        ("instruction", "qwen3", "wrong", "do it again"),
        ("fixed", "auto", "wrong", "takes no instruction"),
        ("fixed", "none", "ok", "applied by the server"),
        ("fixed", "qwen3-evaluation", "wrong", "do it again"),
    ],
)
def test_a_template_is_applied_exactly_once(on_server: str, configured: str, state: str, says: str) -> None:
    with reranker("Qwen3-Reranker-0.6B", template=on_server, max_model_len=8192) as server:
        report = report_of(server, rerank_template=configured)
        sent = [got.json() for got in server.requests if got.path == "/v1/score"]
    found = report.of("template")
    assert (found.state, says in f"{found.seen} {found.meaning}") == (state, True), found
    assert report.exit_status == int(state == "wrong")
    here = [body for body in sent if body["text_1"].startswith("<|im_start|>")]
    assert bool(here) == (on_server == "none" and configured != "none")
    with_instruction = [body for body in sent if "instruction" in body and len(body["text_2"]) > 1]
    assert bool(with_instruction) == (on_server == "instruction" and configured == "auto")


def test_an_instruction_that_is_counted_and_not_read_is_wrong() -> None:
    with reranker("Qwen3-Reranker-0.6B", template="instruction", max_model_len=4096, faults=("deaf",)) as server:
        found = report_of(server, rerank_template="auto").of("instruction")
    assert (found.code, found.state) == ("instruction.unread", "wrong")


@pytest.mark.parametrize(("on_server", "state"), [("fixed", "warning"), ("instruction", "ok"), ("none", "ok")])
def test_whether_an_instruction_arrives(on_server: str, state: str) -> None:
    with reranker(template=on_server, max_model_len=4096) as server:
        assert report_of(server).of("instruction").state == state


def test_a_name_that_the_catalog_lacks_still_tells_the_family() -> None:
    with reranker("my-qwen3-reranker-finetuned") as server:
        assert report_of(server).of("template").state == "wrong"
    with reranker("bge-reranker-mine") as server:
        assert report_of(server).of("template").state == "ok"


@pytest.mark.parametrize("template", ["none", "auto", "qwen3"])
def test_an_embedding_server_behind_a_cross_encoder_is_wrong(template: str) -> None:
    with SoundServer() as server:
        report = report_of(server, rerank_template=template)
    assert report.of("kind").state == "wrong"
    assert "cosine of two vectors" in report.of("kind").seen
    assert report.exit_status == 1


def test_an_embedding_server_without_scores_is_wrong_too() -> None:
    with SoundServer(faults=("no score",)) as server:
        found = report_of(server).of("kind")
    assert (found.state, found.action) == ("wrong", "write is_cross_encoder: false")


def test_the_last_layer_in_bfloat16_of_old_servers_is_a_warning() -> None:
    with reranker(version="0.9.2") as server:
        assert report_of(server).of("version").state == "warning"
    with reranker(version="0.17.0") as server:
        assert report_of(server).of("version").state == "ok"
    with reranker(version=None) as server:
        assert report_of(server).of("version").state == "warning"
    with SoundServer(version="0.8.5") as server:
        found = check_model(configure({"model_name": server.name, "api_base": server.base})).of("version")
        assert found.state == "warning"


def test_a_server_that_cuts_outside_of_its_template_is_a_warning() -> None:
    with reranker(template="instruction", max_model_len=4096) as server:
        assert report_of(server).of("long-texts").state == "warning"


def test_a_template_here_needs_token_counts_for_long_documents() -> None:
    with reranker(faults=("no tokenize",)) as server:
        assert report_of(server, rerank_template="qwen3").of("long-texts").state == "warning"
        assert report_of(server, rerank_template="qwen3").of("token-counts").state == "warning"
    with reranker() as server:
        assert report_of(server, rerank_template="qwen3").of("long-texts").state == "ok"


def test_two_rerankers_with_other_weights_are_wrong_together() -> None:
    with reranker() as one, reranker(faults=("worst first",)) as two:
        entry = {"model_name": one.name, "api_base": [one.base, two.base], "is_cross_encoder": True}
        assert check_model(configure(entry)).of("servers-agree").state == "wrong"


def test_two_rerankers_whose_large_scores_differ_by_rounding_are_alike() -> None:
    with reranker(faults=("logits",)) as one, reranker(faults=("logits", "other kernel")) as two:
        entry = {"model_name": one.name, "api_base": [one.base, two.base], "is_cross_encoder": True}
        assert check_model(configure(entry)).of("servers-agree").state == "ok"
