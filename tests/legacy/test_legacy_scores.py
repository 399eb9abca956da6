"""The same weights, served and in process, under the same mteb 1.38: the same scores."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from legacy_runs import AskedFor, Cosine, InProcess, evalscope_version, main_scores, rageval, reference

import evalscope_vacc

pytestmark = [
    pytest.mark.usefixtures("legacy_host", "hub"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.slow,
    pytest.mark.timeout(3000),
]
TOLERANCE = 1e-4
IN_CI_ON_ONE_RELEASE = pytest.mark.full if evalscope_version() >= (1, 8) else pytest.mark.slow


def task(name: str) -> Any:
    """MTEB's own task; QBQTC with the range of its labels, which mteb 1.38 forgot."""
    import mteb

    found = mteb.get_task(name)
    if name == "QBQTC":
        kind = type(found)
        found.__class__ = type("QBQTCWithRange", (kind,), {"min_score": 0, "max_score": 2})
    return found


def entry(url: str, **keys: Any) -> dict[str, Any]:
    return {
        "model_type": "vacc_api",
        "model_name": "minilm",
        "api_base": f"{url}/v1",
        "api_key": "EMPTY",
        "encode_kwargs": {"batch_size": 64},
        **keys,
    }


def compare(url: str, names: list[str], work_dir: Path) -> None:
    served = main_scores(evalscope_vacc.run(rageval([entry(url)], work_dir, tasks=names)))
    for name in names:
        expected = reference(InProcess(), task(name))
        assert expected == pytest.approx({s: v for (t, s), v in served.items() if t == name}, abs=TOLERANCE), name


@pytest.mark.shows("same-scores")
def test_similarity_tasks_score_what_the_weights_score(demo_server: str, tmp_path: Path) -> None:
    compare(demo_server, ["STSBenchmark", "QBQTC"], tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("name", ["STSB", "SciFact"])
def test_the_other_tasks_of_the_mirror_score_what_the_weights_score(
    demo_server: str, tmp_path: Path, name: str
) -> None:
    compare(demo_server, [name], tmp_path)


@pytest.mark.shows("stored")
@IN_CI_ON_ONE_RELEASE
def test_an_embedding_run_then_a_reranker_run_from_its_saved_predictions(demo_server: str, tmp_path: Path) -> None:
    # a first stage of 64 dimensions ranks otherwise than the whole vectors, so that reranking shows
    first = evalscope_vacc.run(
        rageval([entry(demo_server, dimensions=64)], tmp_path / "embedding", tasks=["SciFact"], top_k=100)
    )
    saved = first.output_folder / "SciFact_default_predictions.json"
    assert len(json.loads(saved.read_text())) == 300
    in_full = os.environ.get("VACC_TEST_FULL") == "1"
    whole, short = (InProcess(size) if in_full else AskedFor(demo_server, size) for size in (None, 64))
    expected_first = reference(short, task("SciFact"))
    assert {"test": main_scores(first)["SciFact", "test"]} == pytest.approx(expected_first, abs=TOLERANCE)

    second = evalscope_vacc.run(
        rageval(
            [
                entry(
                    demo_server,
                    model_name="cosine-reranker",
                    api_base=f"{demo_server}/v1/rerank",
                    is_cross_encoder=True,
                    model_kwargs={"task_name": ["SciFact"], "embed_results": [str(saved)]},
                    encode_kwargs={"batch_size": 50},
                )
            ],
            tmp_path / "reranker",
            tasks=["SciFact"],
            top_k=100,
        )
    )
    expected = reference(Cosine(whole), task("SciFact"), previous_results=str(saved), top_k=100)
    assert {"test": main_scores(second)["SciFact", "test"]} == pytest.approx(expected, abs=TOLERANCE)
    assert expected["test"] > expected_first["test"] + 0.01
    usage = json.loads((second.output_folder / "vacc" / "usage.json").read_text())["tasks"]
    assert [(u["task"], u["split"], u["subset"], u["texts"]) for u in usage] == [("SciFact", "test", "default", 30_000)]
