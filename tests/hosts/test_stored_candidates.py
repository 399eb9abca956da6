"""A reranking task brings candidates; where predictions are named for it, these are what is reranked."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from served_model import ServedModel

from evalscope_vacc import run

pytestmark = pytest.mark.host
pytest.importorskip("mteb", minversion="2.7", reason="the newer line's tests")
mocks = pytest.importorskip("mteb.mocks", reason="this mteb does not ship its mock tasks")


@pytest.fixture
def encoder() -> Iterator[ServedModel]:
    with ServedModel("enc") as server:
        yield server


@pytest.fixture
def reranker() -> Iterator[ServedModel]:
    with ServedModel("rank", kind="cross-encoder") as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MockRerankingTask", "MockInstructionReranking"])
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "beside an encoder"])
def test_a_reranking_task_takes_the_stored_predictions_that_are_named_for_it(
    name: str,
    alone: bool,
    evaluate: Callable,
    encoder: ServedModel,
    reranker: ServedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = importlib.import_module("mteb.get_tasks")._TASKS_REGISTRY
    task = next(t for t in mocks.MOCK_TASK_TEST_GRID if t.metadata.name == name)
    monkeypatch.setitem(registry, name, type(task))
    first = {"model_name": encoder.name, "api_base": encoder.base}
    # a whole task file that says where the predictions go
    entry = {"model_type": "vacc_api", "store": "off", "preflight": "off", **first}
    config = {"tool": "mteb", "models": [entry], "eval": {"task_names": [name], "hub": "huggingface"}}
    whole = {"eval_backend": "RAGEval", "work_dir": "outputs/first", "no_timestamp": True, "eval_config": config}
    (tmp_path / "first.yaml").write_text(yaml.safe_dump(whole))
    monkeypatch.chdir(tmp_path)
    run(tmp_path / "first.yaml")
    path = Path("outputs/first/predictions") / f"{name}_predictions.json"
    ranked = {q: docs for q, docs in json.loads(path.read_text())["default"]["test"].items()}
    assert all(len(docs) == 2 for docs in ranked.values())
    second = {"model_name": reranker.name, "api_base": reranker.base, "is_cross_encoder": True}
    own = evaluate([second], [name], work_dir=str(tmp_path / "own"))
    assert len(reranker.pairs()) == 4
    reranker.requests.clear()
    second["model_kwargs"] = {"task_name": [name], "embed_results": [str(path)]}
    models = [second] if alone else [first, second]
    stored = evaluate(models, [name], top_k=1, work_dir=str(tmp_path / "stored"))
    assert len(reranker.pairs()) == 2, "the first candidate of each query, not those of the task"
    (file,) = [p for p in stored.output_folder.rglob(f"{name}.json") if "results" in p.parts]
    assert file.parent.name.startswith("first_")
    assert file.parent.name.endswith("__top_k_1")
    assert [p.parent.parent.name for p in own.output_folder.rglob(f"{name}.json") if "results" in p.parts] == [
        "vacc__rank"
    ]
