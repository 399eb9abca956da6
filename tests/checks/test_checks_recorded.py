"""The check against what vLLM 0.9.2, 0.11.0, 0.17.0 and 0.32.0 really answered."""

from __future__ import annotations

from pathlib import Path

import pytest
from recorded_model import RecordedModel
from recorded_server import VERSIONS, load

from evalscope_vacc.checks.findings import Report
from evalscope_vacc.checks.run import check_address, check_model
from evalscope_vacc.config import configure

pytestmark = pytest.mark.parametrize("version", VERSIONS)


def report_of(server: RecordedModel, **keys: object) -> Report:
    return check_model(configure({"model_name": server.name, "api_base": server.base, **keys}))


def states(report: Report, *without: str) -> dict[str, str]:
    # how long answers take beside each other is this machine's matter, not the recorded server's
    left_out = {"concurrency", *without}
    return {f.check: f.state for f in report.findings if f.state != "ok" and f.check not in left_out}


@pytest.mark.parametrize("server", ["embedding", "minilm"])
def test_every_version_of_an_embedding_server_is_in_order(shared: Path, version: str, server: str) -> None:
    with RecordedModel(shared, version, server) as replayed:
        report = report_of(replayed)
    assert states(report) == {}
    assert report.of("version").seen == version
    assert report.of("max-length").seen.startswith("256 tokens" if server == "minilm" else "2048 tokens")
    assert report.of("dimensions").seen == ("384" if server == "minilm" else "64")


def test_every_version_of_a_reranker_is_in_order(shared: Path, version: str) -> None:
    with RecordedModel(shared, version, "reranker") as replayed:
        report = report_of(replayed, is_cross_encoder=True, rerank_template="qwen3")
    old = {"version": "warning"} if version == "0.9.2" else {}
    assert states(report) == old
    assert "qwen3, applied here" in report.of("template").seen


def test_a_template_of_the_server_is_seen_where_the_version_applies_it(shared: Path, version: str) -> None:
    expected = {
        "0.9.2": ("ok", "none here and none on the server"),
        "0.11.0": ("ok", "none here and none on the server"),
        "0.17.0": ("ok", "applied by the server"),
        "0.32.0": ("ok", "applied by the server"),
    }
    with RecordedModel(shared, version, "reranker-template") as replayed:
        report = report_of(replayed, is_cross_encoder=True, rerank_template="auto")
        twice = report_of(replayed, is_cross_encoder=True, rerank_template="qwen3")
    state, says = expected[version]
    assert report.of("template").state == state
    assert says in report.of("template").seen
    doubled = "wrong" if version in ("0.17.0", "0.32.0") else "ok"
    assert twice.of("template").state == doubled


def test_the_recorded_counts_of_a_template_are_those_that_are_replayed(shared: Path, version: str) -> None:
    bare = {e["name"]: e["response"].get("json") for e in load(shared, version, "reranker")}
    wrapped = {e["name"]: e["response"].get("json") for e in load(shared, version, "reranker-template")}
    more = wrapped["score-1-1"]["usage"]["prompt_tokens"] - bare["score-1-1"]["usage"]["prompt_tokens"]
    assert (more > 20) == (version in ("0.17.0", "0.32.0"))
    moved = (
        wrapped["score-instruction-60-words"]["usage"]["prompt_tokens"] - wrapped["score-1-N"]["usage"]["prompt_tokens"]
    )
    assert (moved > 20) == (version == "0.32.0")


def test_an_embedding_server_as_a_reranker_is_wrong_in_every_version(shared: Path, version: str) -> None:
    with RecordedModel(shared, version, "embedding") as replayed:
        report = report_of(replayed, is_cross_encoder=True)
    assert report.of("kind").state == "wrong"


def test_a_reranker_as_an_encoder_is_wrong_in_every_version(shared: Path, version: str) -> None:
    # 0.9.2 and 0.11.0 answer 200 with an error in the body
    with RecordedModel(shared, version, "reranker") as replayed:
        report = report_of(replayed, is_cross_encoder=False)
    assert states(report, "version") == {"kind": "wrong"}


def test_the_kind_is_found_from_the_address_alone(shared: Path, version: str) -> None:
    for server, kind in (("embedding", "encoder"), ("reranker", "cross-encoder")):
        with RecordedModel(shared, version, server) as replayed:
            assert check_address(replayed.base).kind == kind


def test_a_wrong_name_and_a_wrong_key(shared: Path, version: str) -> None:
    with RecordedModel(shared, version, "embedding") as replayed:
        named = report_of(replayed, model_name="qwen3-embeding")
    assert states(named) == {"model": "wrong"}
    assert named.of("model").action == "set model_name to 'qwen3-embedding'"
    with RecordedModel(shared, version, "embedding-guarded") as replayed:
        assert states(report_of(replayed, api_key="no")) == {"key": "wrong"}
        assert states(report_of(replayed)) == {"key": "wrong"}
        assert states(report_of(replayed, api_key="sekret")) == {}
