"""Published scores: the facts that were collected, found by any spelling of a model's name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evalscope_vacc.errors import ConfigError, ResultError
from evalscope_vacc.results import published
from evalscope_vacc.results.files import own_folder, packaged_folder, read_compressed

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "published"))

from collect import collect, main, write_compressed

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
ENCODERS = [
    "Qwen__Qwen3-Embedding-0.6B", "Qwen__Qwen3-Embedding-4B", "Qwen__Qwen3-Embedding-8B", "BAAI__bge-m3",
    "BAAI__bge-base-en-v1.5", "BAAI__bge-large-en-v1.5", "BAAI__bge-small-en-v1.5", "BAAI__bge-base-zh-v1.5",
    "BAAI__bge-large-zh-v1.5", "BAAI__bge-small-zh-v1.5",
]  # fmt: skip


@pytest.mark.parametrize("name", ENCODERS)
def test_every_published_score_is_there_unchanged_with_its_source(shared: Path, name: str) -> None:
    facts = json.loads((shared / "published" / f"{name}.json").read_text(encoding="utf-8"))
    entry = published.get(facts["model"])
    assert entry.source == facts["source"]
    rows = {(*r.key, r.metric): r for r in entry.reference().rows if r.source == entry.source}
    expected = {
        (task, split, subset, fact["metric"]): (score, fact["mteb_version"], fact["dataset_revision"])
        for task, fact in facts["tasks"].items()
        if fact["metric"]
        for split, subsets in fact["scores"].items()
        for subset, score in subsets.items()
    }
    found = {key: (rows[key].score, rows[key].mteb_version, rows[key].dataset_revision) for key in expected}
    assert found == expected


def test_minilm_has_the_scores_that_the_reference_file_names(shared: Path) -> None:
    tasks = json.loads((shared / "data" / "reference_minilm.json").read_text(encoding="utf-8"))["tasks"]
    rows = {(*r.key, r.metric): r for r in published.get(MINILM).reference().rows}
    named = {(t, e["split"], e["subset"], e["metric"]): e["published_score"] for t, es in tasks.items() for e in es}
    assert {k: rows[k].score for k, v in named.items() if v is not None} == {
        k: v for k, v in named.items() if v is not None
    }
    assert {r.mteb_version for r in rows.values()} == {"1.12.75"}
    assert all(r.dataset_revision for r in rows.values())


def test_means_aggregates_and_constants_are_there(shared: Path) -> None:
    means = json.loads((shared / "published" / "benchmark_means.json").read_text(encoding="utf-8"))
    for name, by_model in means.items():
        if name.startswith("MTEB("):
            for model, values in by_model.items():
                aggregates = published.get(model).reference().aggregates
                found = {a.measure: a.value for a in aggregates if a.benchmark == name}
                assert found == pytest.approx({k: v / 100 for k, v in values.items()})
    constants = json.loads((shared / "published" / "vllm_ci_scores.json").read_text(encoding="utf-8"))
    for part in ("embed", "rerank"):
        for name, score in constants[part]["scores"].items():
            rows = published.get(name.split(" (")[0]).reference().rows
            assert any(r.task == constants[part]["task"] and r.score == score and "vllm" in r.source for r in rows)
    for name in ("Qwen__Qwen3-Reranker-8B", "BAAI__bge-reranker-v2-m3"):
        facts = json.loads((shared / "published" / f"{name}.json").read_text(encoding="utf-8"))
        aggregates = published.get(facts["model"]).reference().aggregates
        assert {a.benchmark: pytest.approx(100 * a.value) for a in aggregates if a.judged_by} == facts["aggregates"][
            "values"
        ]


def test_the_vendors_own_measurements_are_listed_and_never_a_reference() -> None:
    entry = published.get("BAAI/bge-m3")
    assert any("vacc-int8" in fact["what"] for fact in entry.data["listed"])
    assert not any(r.score == 0.7881945236136848 for r in entry.reference().rows)


def test_qwens_runs_state_their_conditions() -> None:
    conditions = published.get("Qwen3-Embedding-8B").reference().conditions
    assert (conditions.profile, conditions.max_tokens, conditions.dtype) == ("qwen-official", 8192, "float16")
    assert published.get(MINILM).reference().conditions.profile is None  # its authors did not say


@pytest.mark.parametrize(("score", "marked"), [(0.01663, True), (0.85, False)])
def test_a_known_outlier_of_the_source_is_marked_until_it_is_corrected(
    tmp_path: Path, score: float, marked: bool
) -> None:
    task = _task("XQuADRetrieval", score)
    task["scores"] = {"validation": [{"hf_subset": s, "main_score": score, "ndcg_at_10": score} for s in ("th", "en")]}
    _checkout(tmp_path, {"Qwen__Qwen3-Embedding-8B/r/XQuADRetrieval.json": task})
    data, _ = collect(tmp_path, "Qwen/Qwen3-Embedding-8B")
    write_compressed(own_folder() / "Qwen__Qwen3-Embedding-8B.json.gz", data)
    suspects = [r.subset for r in published.get("Qwen3-Embedding-8B").reference().rows if r.suspect]
    assert suspects == (["th"] if marked else [])


@pytest.mark.parametrize(
    "name",
    [
        "Qwen/Qwen3-Embedding-0.6B",
        "qwen3-embedding-0.6b",
        "QWEN/qwen3-embedding-0.6B",
        "vacc/Qwen3-Embedding-0.6B",
        "/weights/Qwen3-Embedding-0.6B/",
    ],
)
def test_a_model_is_found_by_any_spelling(name: str) -> None:
    found = published.find(name)
    assert found is not None
    assert found.name == "Qwen/Qwen3-Embedding-0.6B"


def test_an_unknown_model_is_refused_with_the_nearest() -> None:
    assert published.find("minilm") is None
    assert published.find("") is None
    with pytest.raises(ConfigError, match=r"Qwen/Qwen3-Embedding-0\.6B"):
        published.get("Qwen3-Embeding-0.6B")


def test_the_data_stay_below_a_megabyte() -> None:
    assert sum(f.stat().st_size for f in packaged_folder().iterdir()) < 1_000_000


def _checkout(folder: Path, files: dict[str, Any]) -> str:
    for name, content in files.items():
        path = folder / "results" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    git = [
        "git",
        "-C",
        str(folder),
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.org",
        "-c",
        "commit.gpgsign=false",
    ]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *command], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def _task(name: str, score: float) -> dict[str, Any]:
    entry = {"hf_subset": "default", "main_score": score, "cosine_spearman": score, "languages": []}
    return {"task_name": name, "mteb_version": "2.1.0", "dataset_revision": "abc", "scores": {"test": [entry]}}


def test_scores_are_collected_from_a_checkout_with_its_commit(tmp_path: Path) -> None:
    commit = _checkout(
        tmp_path,
        {
            "org__m/old/STS12.json": _task("STS12", 0.1),
            "org__m/new/STS12.json": _task("STS12", 0.7),
            "org__m/new/STS13.json": _task("STS13", 0.8),
            "org__m/new/Broken.json": "{",
        },
    )
    data, problems = collect(tmp_path, "org/m")
    assert data["source"].startswith(f"github:embeddings-benchmark/results@{commit} results/org__m/new/")
    assert data["tasks"]["STS12"] == ["STS", "cosine_spearman", "2.1.0", "abc", {"test": {"default": 0.7}}]
    assert len(problems) == 1
    assert "Broken.json" in problems[0]
    data, _ = collect(tmp_path, "org/m", revision="old")
    assert data["tasks"]["STS12"][4] == {"test": {"default": 0.1}}
    main(["org/m", str(tmp_path)])
    assert [row.task for row in published.get("org/m").reference().rows] == ["STS12", "STS13"]


def test_what_the_user_collected_hides_what_the_package_brings(tmp_path: Path) -> None:
    _checkout(tmp_path, {"Qwen__Qwen3-Embedding-0.6B/r/STS12.json": _task("STS12", 0.123)})
    data, _ = collect(tmp_path, "Qwen/Qwen3-Embedding-0.6B")
    write_compressed(own_folder() / "Qwen__Qwen3-Embedding-0.6B.json.gz", data)
    assert [r.score for r in published.get("qwen3-embedding-0.6b").reference().rows] == [0.123]


@pytest.mark.parametrize("model", ["org/none", "../../etc"])
def test_a_model_that_the_checkout_lacks_is_refused(tmp_path: Path, model: str) -> None:
    _checkout(tmp_path, {"org__m/r/STS12.json": _task("STS12", 0.1)})
    with pytest.raises(ConfigError, match="not in this checkout"):
        collect(tmp_path, model)


def test_a_folder_without_a_commit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="git checkout"):
        collect(tmp_path / "nothing", "org/m")


def test_a_broken_stored_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    bad = tmp_path / "x.json.gz"
    bad.write_bytes(b"\x1f\x8b nonsense")
    with pytest.raises(ResultError, match=r"x\.json\.gz"):
        read_compressed(bad)


def test_the_same_facts_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_compressed(tmp_path / f"{name}.json.gz", {"x": [0.1, "é"]})
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()
