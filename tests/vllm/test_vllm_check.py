"""check and parity against a real vLLM 0.32 on this CPU (`nox -s vllm`); each server takes two minutes to start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalscope_vacc.checks.findings import Report
from evalscope_vacc.checks.parity import run_parity
from evalscope_vacc.checks.run import check_address, check_model
from evalscope_vacc.config import configure
from evalscope_vacc.text.templates import TEMPLATES
from evalscope_vacc.view.checks import check_mapping, parity_mapping
from evalscope_vacc.view.words import Words

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

RERANKER = {
    "architectures": ["Qwen3ForSequenceClassification"],
    "classifier_from_token": ["no", "yes"],
    "is_original_qwen3_reranker": True,
}
# two tiny models know nothing, and two cores gain nothing from requests side by side
UNSURE = {"sanity", "concurrency", "speed"}


def bad(report: Report) -> dict[str, str]:
    return {f.check: f.state for f in report.findings if f.state != "ok" and f.check not in UNSURE}


def one(url: str, name: str, **keys: object) -> Report:
    return check_model(configure({"model_name": name, "api_base": url, **keys}))


def show(report: Report) -> str:
    return json.dumps(check_mapping([report], Words()), ensure_ascii=False, indent=1)


def test_minilm_is_in_order_and_the_same_as_its_weights(serve, installed: tuple[Path, Path]) -> None:
    with serve("minilm") as url:
        report = check_address(url)
        parity = run_parity(configure({"model_name": "minilm", "api_base": url}), str(installed[1] / "minilm"))
        named = one(url, "minilm-l6")
        crossed = one(url, "minilm", is_cross_encoder=True)
        untouched = one(url, "minilm", instruction_profile="none", dimensions=512)
    assert bad(report) == {}, show(report)
    assert report.kind == "encoder"
    assert report.of("sanity").state in ("ok", "warning")
    assert report.of("max-length").seen.startswith("256 tokens")
    assert "refused beyond 256" in report.of("long-texts").seen
    assert bad(named) == {"model": "wrong"}
    assert named.of("model").action == "set model_name to 'minilm'"
    assert crossed.of("kind").state == "wrong"
    assert untouched.of("dimensions").state == "wrong"
    found = parity_mapping(parity, Words())
    assert found["passed"], found
    assert 1 - found["cosine_least"] < 1e-6


def test_a_guarded_embedding_server(serve) -> None:
    with serve("qwen3-embedding", "--api-key", "sekret") as url:
        report = one(url, "qwen3-embedding", api_key="sekret")
        refused = [one(url, "qwen3-embedding", api_key="wrong"), check_address(url)]
        behind = one(url, "qwen3-embedding", api_key="sekret", is_cross_encoder=True, rerank_template="none")
    assert bad(report) == {}, show(report)
    assert report.of("dimensions").seen == "64"
    assert report.of("end-token").state == "ok"
    for found in refused:
        assert bad(found) == {"key": "wrong"}
        assert "sekret" not in show(found)
    assert behind.of("kind").state == "wrong"
    assert behind.exit_status == 1


def test_a_reranker_without_a_template_on_the_server(serve, installed: tuple[Path, Path]) -> None:
    with serve("qwen3-reranker", "--hf-overrides", json.dumps(RERANKER)) as url:
        report = check_address(url)
        without = one(url, "qwen3-reranker", is_cross_encoder=True, rerank_template="none")
        as_encoder = one(url, "qwen3-reranker", is_cross_encoder=False)
        entry = {"model_name": "qwen3-reranker", "api_base": url, "is_cross_encoder": True, "rerank_template": "auto"}
        parity = run_parity(configure(entry), str(installed[1] / "qwen3-reranker"))
    assert bad(report) == {}, show(report)
    assert report.kind == "cross-encoder"
    assert "qwen3, applied here" in report.of("template").seen
    assert bad(without) == {"template": "wrong"}, show(without)
    assert bad(as_encoder) == {"kind": "wrong"}, show(as_encoder)
    found = parity_mapping(parity, Words())
    assert found["max_absolute_difference"] < 1e-5, found


def test_a_reranker_with_a_template_on_the_server(serve, tmp_path: Path) -> None:
    template = tmp_path / "reranker.jinja"
    template.write_text(jinja(), encoding="utf-8")
    options = ("--hf-overrides", json.dumps(RERANKER), "--chat-template", str(template))
    with serve("qwen3-reranker", *options) as url:
        report = check_address(url)
        twice = one(url, "qwen3-reranker", is_cross_encoder=True, rerank_template="qwen3")
    assert bad(report) == {"long-texts": "warning"}, show(report)
    assert "applied by the server" in report.of("template").seen
    assert report.of("instruction").state == "ok"
    assert twice.of("template").state == "wrong"
    assert twice.exit_status == 1


def jinja() -> str:
    """Our template in the language of vLLM's, with the last newline that Jinja would drop."""
    ours = TEMPLATES["qwen3"]
    marks = {
        "INSTRUCTION": "{{ instruction | default(" + json.dumps(ours.default_instruction) + ") }}",
        "QUERY": '{{ (messages | selectattr("role", "equalto", "query") | first)["content"] }}',
        "DOCUMENT": '{{ (messages | selectattr("role", "equalto", "document") | first)["content"] }}',
    }
    text = ours.query("QUERY", "INSTRUCTION") + ours.document("DOCUMENT")
    for mark, code in marks.items():
        text = text.replace(mark, code, 1)
    return text[:-1] + '{{ "\\n" }}'
