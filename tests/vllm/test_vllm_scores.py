"""Scores through a real vLLM 0.32: those of the same weights in process, and those that it gives when asked by hand."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import minilm_runs
import numpy as np
import pytest
import requests

from evalscope_vacc import VaccCrossEncoder
from evalscope_vacc.text.templates import get_template

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(1800)]

PAIRS = [
    ("what is a reranker", "A reranker orders documents by how well they answer a query."),
    ("what is a reranker", "Granite is an igneous rock."),
    ("检索与查询语义相似的文本", "一段中文文本。"),
]


def test_stsbenchmark_is_that_of_the_weights_and_compares_with_the_published_score(
    serve, hub: str, shared: Path, tmp_path: Path
) -> None:
    reference = json.loads((shared / "data" / "reference_minilm.json").read_text())["tasks"]["STSBenchmark"][0]
    folders = {"whole": tmp_path / "whole", "cut": tmp_path / "cut"}
    with serve("minilm") as url:
        for folder, keys in zip(folders.values(), ({}, {"max_tokens": 16}), strict=True):
            folder.mkdir()
            minilm_runs.evaluate(folder, [minilm_runs.encoder(url, **keys)], ["STSBenchmark"])
    found = {}
    for name, folder in folders.items():
        (result,) = (folder / "outputs").rglob("results/**/STSBenchmark.json")
        found[name] = json.loads(result.read_text())["scores"]["test"][0]["main_score"]
    assert found["whole"] == pytest.approx(reference["in_process_score"], abs=1e-4)
    compared = {name: _compare(folder, "sentence-transformers/all-MiniLM-L6-v2") for name, folder in folders.items()}
    assert compared["whole"].returncode == 0, compared["whole"].stdout
    assert compared["whole"].stdout.startswith("PASS: 1 of 1 scores")
    assert compared["cut"].returncode == 1, compared["cut"].stdout
    points = 100 * (found["cut"] - reference["published_score"])
    assert f"STSBenchmark (test) {points:+.3f} points" in compared["cut"].stdout.replace("\n", " ")
    assert _compare(folders["whole"], "Qwen/Qwen3-Reranker-8B").returncode == 2


def _compare(folder: Path, against: str) -> subprocess.CompletedProcess[str]:
    command = [str(minilm_runs.BIN / "evalscope-vacc"), "compare", str(folder / "outputs"), "--against", against]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_a_reranker_scores_as_asked_by_hand_and_as_its_weights(serve, installed: tuple[Path, Path]) -> None:
    overrides = {
        "architectures": ["Qwen3ForSequenceClassification"],
        "classifier_from_token": ["no", "yes"],
        "is_original_qwen3_reranker": True,
    }
    template = get_template("qwen3")
    sent = [(template.query(q, template.default_instruction), template.document(d)) for q, d in PAIRS]
    queries, documents = zip(*PAIRS, strict=True)
    with serve("qwen3-reranker", "--hf-overrides", json.dumps(overrides)) as url:
        raw = VaccCrossEncoder("qwen3-reranker", api_base=url, rerank_template="none", store="off")
        ours = VaccCrossEncoder("qwen3-reranker", api_base=url, rerank_template="qwen3", store="off")
        plain, templated = raw.predict(queries, documents), ours.predict(queries, documents)
        by_hand = [_asked(url, q, d) for q, d in PAIRS], [_asked(url, q, d) for q, d in sent]
    np.testing.assert_allclose(plain, by_hand[0], atol=1e-6)
    np.testing.assert_allclose(templated, by_hand[1], atol=1e-6)
    np.testing.assert_allclose(templated, _by_transformers(installed[1] / "qwen3-reranker", sent), atol=1e-6)


def _asked(url: str, query: str, document: str) -> float:
    body = {"model": "qwen3-reranker", "text_1": query, "text_2": document}
    answer = requests.post(f"{url}/v1/score", json=body, timeout=60, proxies={"http": ""})
    return answer.json()["data"][0]["score"]


def _by_transformers(weights: Path, pairs: list[tuple[str, str]]) -> list[float]:
    """The softmax over "no" and "yes" after the official text, float32."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(weights)
    model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32).eval()
    words = [tokenizer.convert_tokens_to_ids(word) for word in ("no", "yes")]
    with torch.no_grad():
        logits = [model(**tokenizer(q + d, return_tensors="pt")).logits[0, -1, words] for q, d in pairs]
    return [float(torch.softmax(two, 0)[1]) for two in logits]
