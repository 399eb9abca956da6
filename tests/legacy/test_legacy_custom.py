"""Custom data and local copies on the older line: the same folder, the same texts as on the newer one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from legacy_runs import main_scores, rageval
from served_model import ServedModel

import evalscope_vacc
from evalscope_vacc.errors import ConfigError

pytestmark = [pytest.mark.usefixtures("legacy_host"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def entry(server: ServedModel) -> dict[str, Any]:
    return {
        "model_type": "vacc_api",
        "model_name": server.name,
        "api_base": server.base,
        "store": "off",
        "instruction_profile": "none",
    }


def write(folder: Path, word: str = "document", **first: Any) -> Path:
    folder.mkdir(parents=True)
    rows = {
        "corpus": [{"_id": f"d{i}", "title": "Wings" if i == 1 else "", "text": f"{word} {i}"} for i in range(9)],
        "queries": [{"_id": f"q{i}", "text": f"query {i}"} for i in range(4)],
        "qrels": [{"query-id": f"q{i}", "corpus-id": f"d{i}", "score": 1} for i in range(3)],
    }
    rows["corpus"][0] |= first
    for name, listed in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))
    return folder


def test_a_folder_of_the_newer_line_is_read_with_the_same_texts(encoder: ServedModel, tmp_path: Path) -> None:
    folder = write(tmp_path / "mine")
    config = rageval([entry(encoder)], tmp_path, tasks=["CustomRetrieval"], dataset_path=str(folder))
    result = evalscope_vacc.run(config)
    documents = ["document 0", "Wings document 1", *(f"document {i}" for i in range(2, 9))]
    assert sorted(encoder.texts()) == sorted([*documents, *(f"query {i}" for i in range(3))])
    (scores,) = result.task_results[0].scores["test"]
    assert scores["main_score"] == scores["recall_at_5"]


def test_several_custom_tasks_and_languages_run(encoder: ServedModel, tmp_path: Path) -> None:
    write(tmp_path / "several" / "en", "english")
    write(tmp_path / "several" / "zh", "chinese")
    tasks = [
        {"name": "Mine", "data_path": str(write(tmp_path / "mine"))},
        {"name": "Several", "data_path": str(tmp_path / "several")},
    ]
    result = evalscope_vacc.run(rageval([entry(encoder)], tmp_path, custom_tasks=tasks, limits=2))
    assert {(row["task"], row["subset"]) for row in result.rows()} == {
        ("Mine", "default"),
        ("Several", "en"),
        ("Several", "zh"),
    }
    assert {text for text in encoder.texts() if text.startswith("query")} == {"query 0", "query 1"}


def test_a_row_that_cannot_be_used_stops_the_run_before_anything_is_sent(encoder: ServedModel, tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", text=None)
    config = rageval([entry(encoder)], tmp_path, tasks=["CustomRetrieval"], dataset_path=str(folder))
    with pytest.raises(ConfigError, match=r"corpus.jsonl, line 1, _id 'd0': the text is null"):
        evalscope_vacc.run(config)
    config = rageval([entry(encoder)], tmp_path, tasks=["SciFact"], dataset_path=str(folder))
    with pytest.raises(ConfigError, match=r"not a copy of SciFact: .*eval.dataset_paths"):
        evalscope_vacc.run(config)
    assert encoder.requests == []


def test_a_local_copy_as_the_hub_has_it_is_read(encoder: ServedModel, shared: Path, tmp_path: Path) -> None:
    for name in ("stsbenchmark-sts", "scifact"):
        shutil.copytree(shared / "data" / "hub" / "mteb" / name, tmp_path / name)
    paths = {"STSBenchmark": str(tmp_path / "stsbenchmark-sts"), "SciFact": str(tmp_path / "scifact")}
    result = evalscope_vacc.run(
        rageval([entry(encoder)], tmp_path, tasks=list(paths), dataset_paths=paths, limits=3, hub="modelscope")
    )
    assert set(main_scores(result)) == {("STSBenchmark", "test"), ("SciFact", "test")}
    assert result.task_results[0].dataset_revision.startswith("local-")
    with pytest.raises(ConfigError, match="needs the README.md"):
        evalscope_vacc.run(
            rageval(
                [entry(encoder)], tmp_path, tasks=["SciFact"], dataset_paths={"SciFact": str(write(tmp_path / "b"))}
            )
        )
