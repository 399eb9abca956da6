"""Custom tasks, local copies of MTEB's data sets, and a hub that cannot be reached, in an unmodified EvalScope."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from served_model import ServedModel

from evalscope_vacc.errors import ConfigError, RunFailed

pytestmark = pytest.mark.host
pytest.importorskip("mteb", minversion="2.7", reason="the newer line's tests; tests/legacy has the older one's")


@pytest.fixture
def encoder() -> Iterator[ServedModel]:
    with ServedModel("enc") as server:
        yield server


def entry(server: ServedModel) -> dict[str, Any]:
    return {"model_name": server.name, "api_base": server.base, "instruction_profile": "none"}


def write(folder: Path, word: str = "document", documents: int = 12, queries: int = 5) -> Path:
    folder.mkdir(parents=True)
    rows = {
        "corpus": [{"_id": f"d{i}", "text": f"{word} {i}"} for i in range(documents)],
        "queries": [{"_id": f"q{i}", "text": f"query {i}"} for i in range(queries)],
        "qrels": [{"query-id": f"q{i}", "corpus-id": f"d{i}", "score": 1} for i in range(queries)],
    }
    for name, listed in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))
    return folder


def scored(result: Any) -> set[tuple[str, str]]:
    return {(row["task"], row["subset"]) for row in result.rows()}


def test_several_custom_tasks_and_languages_run(evaluate: Callable, encoder: ServedModel, tmp_path: Path) -> None:
    write(tmp_path / "several" / "en", "english")
    write(tmp_path / "several" / "zh", "中文")
    tasks = [
        {"name": "Mine", "data_path": str(write(tmp_path / "mine"))},
        {"name": "Several", "data_path": str(tmp_path / "several")},
    ]
    result = evaluate([entry(encoder)], None, custom_tasks=tasks)
    assert scored(result) == {("Mine", "default"), ("Several", "en"), ("Several", "zh")}
    assert {text.split()[0] for text in encoder.texts()} == {"document", "english", "中文", "query"}


def test_limits_hold_for_a_custom_task(evaluate: Callable, encoder: ServedModel, tmp_path: Path) -> None:
    task = {"name": "Mine", "data_path": str(write(tmp_path / "mine"))}
    evaluate([entry(encoder)], None, custom_tasks=[task], limits=2)
    texts = encoder.texts()
    assert {text for text in texts if text.startswith("query")} == {"query 0", "query 1"}
    assert len({text for text in texts if text.startswith("document")}) == 12, "the whole corpus"


def test_nothing_is_sent_before_the_data_are_in_order(evaluate: Callable, encoder: ServedModel, tmp_path: Path) -> None:
    good, bad = write(tmp_path / "good"), write(tmp_path / "bad")
    (bad / "qrels.jsonl").write_text('{"query-id": "q0", "corpus-id": "nowhere", "score": 1}\n')
    tasks = [{"name": "Good", "data_path": str(good)}, {"name": "Bad", "data_path": str(bad)}]
    with pytest.raises(ConfigError, match=r"Bad: .*qrels.jsonl, line 1, _id 'q0'.*not in the corpus: nowhere"):
        evaluate([entry(encoder)], None, custom_tasks=tasks)
    with pytest.raises(ConfigError, match="SciFact is a task of MTEB"):
        evaluate([entry(encoder)], None, custom_tasks=[{"name": "SciFact", "data_path": str(good)}])
    assert encoder.requests == []


def test_dataset_path_is_for_the_custom_task_alone(evaluate: Callable, encoder: ServedModel, tmp_path: Path) -> None:
    folder = str(write(tmp_path / "mine"))
    with pytest.raises(ConfigError, match=r"not a copy of SciFact: .* eval.dataset_paths: \{SciFact: "):
        evaluate([entry(encoder)], ["SciFact"], dataset_path=folder)
    with pytest.raises(ConfigError, match="both dataset_path and custom_tasks"):
        evaluate([entry(encoder)], None, dataset_path=folder, custom_tasks=[{"name": "M", "data_path": folder}])
    result = evaluate([entry(encoder)], ["CustomRetrieval"], dataset_path=folder)
    assert scored(result) == {("CustomRetrieval", "default")}


# -- local copies -------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing answers for the hub, and whoever asks has to notice it at once."""
    from huggingface_hub import constants

    from evalscope_vacc.hosts import hub

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # never listens: connections are refused
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        hub.forget()
        yield
    hub.forget()


@pytest.mark.usefixtures("no_hub")
def test_a_beir_folder_is_a_local_copy(evaluate: Callable, encoder: ServedModel, tmp_path: Path) -> None:
    folder = write(tmp_path / "nfcorpus")
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td0\t2\nq1\td3\t1\n")
    (folder / "qrels.jsonl").unlink()
    result = evaluate([entry(encoder)], ["NFCorpus"], dataset_paths={"NFCorpus": str(folder)})
    assert scored(result) == {("NFCorpus", "default")}
    (found,) = result.task_results
    assert found.dataset_revision.startswith("local-"), "it is not the revision that published scores are of"
    assert {text for text in encoder.texts() if text.startswith("query")} == {"query 0", "query 1"}


@pytest.mark.usefixtures("no_hub")
def test_a_copy_as_the_hub_has_it_gives_the_same_texts(
    evaluate: Callable, encoder: ServedModel, shared: Path, tmp_path: Path
) -> None:
    for name in ("stsbenchmark-sts", "XQuADRetrieval"):
        shutil.copytree(shared / "data" / "hub" / "mteb" / name, tmp_path / name)
    paths = {"STSBenchmark": str(tmp_path / "stsbenchmark-sts"), "XQuADRetrieval": str(tmp_path / "XQuADRetrieval")}
    result = evaluate([entry(encoder)], list(paths), dataset_paths=paths, languages=["eng"], limits=5)
    assert scored(result) == {("STSBenchmark", "default"), ("XQuADRetrieval", "en")}
    assert "A girl is styling her hair." in encoder.texts()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"SciFact": "absent"}, "eval.dataset_paths: SciFact: there is no folder"),
        ({"NFCorpus": "."}, "NFCorpus, which eval.task_names does not: add it there"),
        ({"SciFact": "empty"}, "holds no data"),
        ({"SciFact": "cut"}, "needs the README.md"),
        (["SciFact"], "expected a mapping of task to folder"),
    ],
)
def test_a_local_copy_that_cannot_be_meant_is_refused(
    change: Any, said: str, evaluate: Callable, encoder: ServedModel, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "queries.jsonl").write_text("{}\n")
    paths = {task: str(tmp_path / path) for task, path in change.items()} if isinstance(change, dict) else change
    with pytest.raises(ConfigError, match=said):
        evaluate([entry(encoder)], ["SciFact"], dataset_paths=paths)
    assert encoder.requests == []


def test_evalscope_s_own_models_do_not_pass_over_a_local_copy_in_silence(tmp_path: Path) -> None:
    from evalscope_vacc import run

    evaluation = {"task_names": ["SciFact"], "dataset_paths": {"SciFact": str(tmp_path)}}
    config = {"tool": "MTEB", "models": [{"model_name_or_path": "own"}], "eval": evaluation}
    with pytest.raises(ConfigError, match="dataset_paths is for runs with a model of model_type: vacc_api"):
        run({"eval_backend": "RAGEval", "eval_config": config, "work_dir": str(tmp_path / "run")})


# -- a hub that cannot be reached ---------------------------------------------------------------------------------------


def tasks_of(names: list[str], **keys: Any) -> list[Any]:
    from importlib import import_module

    from evalscope_vacc.hosts.data import resolve_tasks
    from evalscope_vacc.hosts.spelling import EVAL_KEYS

    template = import_module("evalscope.backend.rag_eval.mteb.task_template")
    given = {**dict.fromkeys(EVAL_KEYS), "hub": "huggingface", "task_names": names, **keys}
    return resolve_tasks(SimpleNamespace(**given), template)


@pytest.fixture
def filled(hub: str) -> None:
    """A cache with a similarity task, and one language of a retrieval task."""
    from evalscope_vacc.hosts import hub as ours

    ours.forget()
    for task in tasks_of(["STSBenchmark", "XQuADRetrieval"], languages=["eng"]):
        task.load_data()


def test_cached_data_are_loaded_where_the_hub_is_gone(
    filled: None, no_hub: None, caplog: pytest.LogCaptureFixture
) -> None:
    import datasets

    tasks = tasks_of(["STSBenchmark", "XQuADRetrieval"], languages=["eng"])
    for task in tasks:
        task.load_data()
        assert task.data_loaded
    lines = [record.getMessage() for record in caplog.records if "cannot be reached" in record.getMessage()]
    assert len(lines) == 1, "asked once, said once"
    assert not datasets.config.HF_HUB_OFFLINE, "as it was before"


def test_what_the_cache_lacks_is_named_at_once(filled: None, no_hub: None) -> None:
    from evalscope_vacc.hosts import hub as ours

    tasks = tasks_of(["STSBenchmark", "NFCorpus", "XQuADRetrieval", "ArguAna"])
    gone = f", and the hub {ours.endpoint()} cannot be reached"
    found = ours.lacking(tasks, "huggingface")
    assert {name: why.removesuffix(gone) for name, why in found.items()} == {
        "NFCorpus": "its data set mteb/nfcorpus is not in the cache",
        "XQuADRetrieval": "the cache of its data set mteb/XQuADRetrieval is incomplete: ar-corpus is missing",
        "ArguAna": "its data set mteb/arguana is not in the cache",
    }
    assert all(why.endswith(gone) for why in found.values())
    assert not ours.lacking(tasks, "modelscope")
    assert "NFCorpus" not in ours.lacking(tasks, "huggingface", copies={"NFCorpus"})
    from evalscope_vacc.errors import DataError

    with pytest.raises(
        DataError, match=r"mteb/nfcorpus is not in the cache, and the hub http://127.0.0.1:\d+ cannot be"
    ):
        tasks[1].load_data()


def test_another_revision_in_the_cache_is_not_taken_for_the_task_s(filled: None, no_hub: None) -> None:
    from evalscope_vacc.hosts import hub as ours

    (task,) = tasks_of(["STSBenchmark"])
    dataset = {**task.metadata.dataset, "revision": "f" * 40}
    task.metadata = task.metadata.model_copy(update={"dataset": dataset})
    assert "is in the cache at b0fddb56, and the task is of ffffffff" in ours.missing_one(task)


def test_a_task_gets_its_own_revision_where_another_one_was_cached_after_it(filled: None, no_hub: None) -> None:
    from evalscope_vacc.hosts.hub import prepared

    (own,) = prepared("mteb/stsbenchmark-sts")
    other = own.with_name("f" * 40)
    shutil.copytree(own, other)
    os.utime(other)  # `datasets` takes the folder that was changed last
    try:
        (task,) = tasks_of(["STSBenchmark"])
        task.load_data()
        (read,) = task.dataset["test"].cache_files
        assert own.name in read["filename"]
    finally:
        shutil.rmtree(other)


def test_a_hub_that_never_answers_is_given_up_and_a_task_without_data_does_not_stop_the_others(
    filled: None, evaluate: Callable, encoder: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    from evalscope_vacc.hosts import hub as ours

    monkeypatch.setattr(ours, "WAIT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        ours.forget()
        assert not ours.reachable()
        with pytest.raises(RunFailed, match=r"1 of 2 tasks failed:\s+NFCorpus: its data set mteb/nfcorpus is not in"):
            evaluate([entry(encoder)], ["NFCorpus", "STSBenchmark"], limits=3)
    ours.forget()
    assert encoder.texts()
    logging.getLogger("mteb").setLevel(logging.NOTSET)


@pytest.mark.parametrize("status", [200, 401, 404, 500, 502, 504])
def test_a_gateway_s_word_that_the_hub_is_gone_is_believed(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants
    from loopback_server import LoopbackServer, Reply

    from evalscope_vacc.hosts import hub as ours

    with LoopbackServer(lambda *_: Reply(status)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.base)
        ours.forget()
        assert ours.reachable() is (status not in (502, 504))
    ours.forget()
