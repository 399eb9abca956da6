"""Means of benchmarks: of what is there, with how much that is beside them."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from evalscope_vacc.results import published
from evalscope_vacc.results.benchmarks import benchmark, benchmarks, main_metric
from evalscope_vacc.results.judge import compare
from evalscope_vacc.results.load import load_results
from evalscope_vacc.results.model import Comparison, Conditions, MeanRow, Results, Row, Run, Verdict
from evalscope_vacc.view.comparison import headline
from evalscope_vacc.view.words import Words

QWEN = "Qwen/Qwen3-Embedding-0.6B"
RERANKER = "Qwen/Qwen3-Reranker-4B"


def status(comparison: Comparison) -> int:
    return Verdict((comparison,)).exit_status


def own_rows(model: str = QWEN) -> list[Row]:
    run = Run("vacc/served", "served-1", "", "encoder")
    rows = published.get(model).reference().rows
    return [replace(r, run=run) for r in rows if r.conditions.profile == "qwen-official"]


@lru_cache(maxsize=4)
def whole(model: str) -> Comparison:
    return compare(Results(tuple(own_rows(model))), published.get(model).reference())


def mean(comparison: Comparison, name: str, measure: str = "Mean(Task)") -> MeanRow:
    (found,) = [m for m in comparison.means if (m.benchmark, m.measure) == (name, measure)]
    return found


@pytest.mark.parametrize(
    ("model", "name", "measure", "points", "apart"),
    [
        (QWEN, "MTEB(eng, v2)", "Mean(Task)", 70.70, 0.006),
        (QWEN, "MTEB(eng, v2)", "Mean(Type)", 64.88, 0.006),
        ("Qwen/Qwen3-Embedding-4B", "MTEB(eng, v2)", "Mean(Task)", 74.60, 0.006),
        ("Qwen/Qwen3-Embedding-8B", "MTEB(eng, v2)", "Mean(Task)", 75.22, 0.006),
        (QWEN, "MTEB(Code, v1)", "Mean(Task)", 75.41, 0.01),
        ("Qwen/Qwen3-Embedding-8B", "MTEB(Code, v1)", "Mean(Task)", 80.68, 0.01),
        # mteb 2.26 takes two splits of MultilingualSentiment where the published mean has one
        (QWEN, "MTEB(cmn, v1)", "Mean(Task)", 66.33, 0.03),
        (QWEN, "MTEB(cmn, v1)", "Mean(Type)", 67.45, 0.03),
    ],
)
def test_means_recomputed_from_the_published_scores_are_the_model_cards(
    model: str, name: str, measure: str, points: float, apart: float
) -> None:
    found = mean(whole(model), name, measure)
    assert 100 * found.ours == pytest.approx(points, abs=apart)
    assert found.published == pytest.approx(points / 100)
    assert found.tasks == found.of
    assert found.verdict == "pass"


@pytest.mark.parametrize(("size", "task", "kind"), [("0.6B", 66.33, 67.45), ("4B", 72.27, 73.51), ("8B", 73.84, 75.00)])
def test_the_chinese_means_are_the_model_cards_with_one_split_of_multilingualsentiment(
    size: str, task: float, kind: float
) -> None:
    bench = benchmark("MTEB(cmn, v1)")
    assert bench is not None
    splits = {t.name: t.splits if t.name != "MultilingualSentiment" else ("validation",) for t in bench.tasks}
    scores: dict[str, list[float]] = {}
    for row in published.get(f"Qwen/Qwen3-Embedding-{size}").reference().rows:
        if row.split in splits.get(row.task, ()) and row.score is not None:
            scores.setdefault(row.task, []).append(row.score)
    means = {name: 100 * fmean(values) for name, values in scores.items()}
    assert means.keys() == splits.keys()
    types: dict[str, list[float]] = {}
    for entry in bench.tasks:
        types.setdefault(entry.type, []).append(means[entry.name])
    assert fmean(means.values()) == pytest.approx(task, abs=0.006)
    assert fmean(map(fmean, types.values())) == pytest.approx(kind, abs=0.006)


def test_a_benchmark_of_which_a_task_is_missing_is_not_judged_and_says_so() -> None:
    found = mean(whole(QWEN), "MTEB(Multilingual, v2)")
    assert (found.tasks, found.of, found.verdict) == (130, 131, "not judged")


def test_a_task_of_which_a_subset_is_missing_does_not_count() -> None:
    rows = [r for r in own_rows() if not (r.task == "AmazonCounterfactualClassification" and r.subset == "en")]
    found = mean(compare(Results(tuple(rows)), published.get(QWEN).reference()), "MTEB(eng, v2)")
    assert (found.tasks, found.of) == (40, 41)


def test_ours_and_the_reference_are_means_over_the_same_tasks() -> None:
    rows = [replace(r, score=(r.score or 0) - 0.01) for r in own_rows() if r.task in {"STS12", "SICK-R"}]
    found = mean(compare(Results(tuple(rows)), published.get(QWEN).reference()), "MTEB(eng, v2)")
    assert found.tasks == 2
    assert found.difference == pytest.approx(-0.01)
    assert found.verdict == "not judged"  # 2 of 41 tasks say nothing of the mean


def test_rows_that_are_not_judged_do_not_enter_a_mean() -> None:
    rows = [replace(r, conditions=Conditions(profile="mteb")) for r in own_rows()]
    comparison = compare(Results(tuple(rows)), published.get(QWEN).reference())
    assert [m for m in comparison.means if m.reference is not None and m.verdict != "not judged"] == []
    assert status(comparison) == 2 or all(r.task == "STS12" for r in comparison.rows if r.judged)


def rerank_rows(score: float, conditions: Conditions | None = None) -> list[Row]:
    run = Run("vacc/reranker", "served-1", "", "cross-encoder")
    bench = benchmark("MTEB-R")
    assert bench is not None
    return [
        Row(run, t.name, split, subset, t.metric, score, "Retrieval", conditions=conditions or Conditions())
        for t in bench.tasks
        for split in t.splits
        for subset in t.subsets
    ]


def test_a_reranker_that_is_known_by_its_mean_is_judged_by_it_when_all_is_there() -> None:
    reference = published.get(RERANKER).reference()
    comparison = compare(Results(tuple(rerank_rows(0.6976))), reference)
    found = mean(comparison, "MTEB-R")
    assert (found.tasks, found.of, found.verdict, found.reference) == (10, 10, "pass", 0.6976)
    assert status(comparison) == 0
    assert status(compare(Results(tuple(rerank_rows(0.65))), reference)) == 1


def test_scores_in_percent_do_not_enter_a_mean() -> None:
    comparison = compare(Results(tuple(rerank_rows(69.76))), published.get(RERANKER).reference())
    assert comparison.means == ()
    assert status(comparison) == 2
    rows = [replace(r, score=100 * (r.score or 0)) if r.task == "STS12" else r for r in own_rows()]
    found = mean(compare(Results(tuple(rows)), published.get(QWEN).reference()), "MTEB(eng, v2)")
    assert (found.tasks, found.of, found.verdict) == (40, 41, "not judged")


def test_a_reranker_with_a_task_missing_has_no_reference_to_its_mean() -> None:
    rows = rerank_rows(0.6976)[1:]
    comparison = compare(Results(tuple(rows)), published.get(RERANKER).reference())
    found = mean(comparison, "MTEB-R")
    assert (found.verdict, found.reference, found.difference) == ("not judged", None, None)
    assert found.published == 0.6976
    assert status(comparison) == 2


def test_a_reranker_with_other_candidates_is_not_held_against_the_mean() -> None:
    rows = rerank_rows(0.6976, Conditions(top_k=10))
    comparison = compare(Results(tuple(rows)), published.get(RERANKER).reference())
    assert comparison.means == ()
    assert status(comparison) == 2


def reranked(write_run: Any, *encoders: str) -> Path:
    """A run of the tasks of MTEB-R as it lies on the disk: each task in an experiment folder of its own."""
    bench = benchmark("MTEB-R")
    assert bench is not None
    root = Path()
    for number, task in enumerate(bench.tasks):
        digest = f"{number:08x}"
        splits = {split: dict.fromkeys(task.subsets, 0.6976) for split in task.splits}
        kwargs = {"first": digest, "top_k": 100, "template": "qwen3-evaluation"}
        root = write_run(
            {task.name: splits}, model="vacc/Qwen3-Reranker-4B", kwargs=kwargs, cross_encoder=True, metric=task.metric
        )
        folder = root / "candidates" / digest
        folder.mkdir(parents=True)
        meta = {"mteb_model_meta": {"model_name": encoders[number % len(encoders)]}}
        (folder / f"{task.name}_predictions.json").write_text(json.dumps(meta))
    return root


def test_a_column_of_the_reranking_table_is_judged_from_the_files_of_a_run(write_run: Any) -> None:
    results = load_results([reranked(write_run, "vacc/Qwen3-Embedding-0.6B")])
    comparison = compare(results, published.get(RERANKER).reference())
    found = mean(comparison, "MTEB-R")
    assert (found.tasks, found.of, found.verdict, found.reference) == (10, 10, "pass", 0.6976)
    assert headline(comparison, Verdict((comparison,)), Words()).startswith(
        f"PASS: MTEB-R Mean(Task) 69.76 is as accurate as {RERANKER}"
    )


def test_the_candidates_of_another_encoder_are_another_measurement(write_run: Any) -> None:
    results = load_results([reranked(write_run, "vacc/bge-m3")])
    comparison = compare(results, published.get(RERANKER).reference())
    assert comparison.means == ()
    assert status(comparison) == 2


def test_a_tasks_own_candidates_are_another_measurement(write_run: Any) -> None:
    bench = benchmark("FollowIR")
    assert bench is not None
    scores = {t.name: {split: dict.fromkeys(t.subsets, 0.0541) for split in t.splits} for t in bench.tasks}
    own = write_run(scores, model="vacc/Qwen3-Reranker-0.6B", cross_encoder=True, metric="p-MRR")
    reference = published.get("Qwen/Qwen3-Reranker-0.6B").reference()
    comparison = compare(load_results([own]), reference)
    assert comparison.means == ()
    assert status(comparison) == 2
    # what the commands of benchmarks/reproduce leave: the first 100 of the encoder
    for number, name in enumerate(scores):
        kwargs = {"first": f"{number:08x}", "top_k": 100, "template": "qwen3-evaluation"}
        root = write_run(
            {name: scores[name]}, model="vacc/Qwen3-Reranker-0.6B", kwargs=kwargs, cross_encoder=True, metric="p-MRR",
            folder="first",
        )  # fmt: skip
    found = mean(compare(load_results([root]), reference), "FollowIR")
    assert (found.tasks, found.of, found.verdict) == (3, 3, "pass")


def test_the_candidates_of_two_encoders_have_no_mean_in_common(write_run: Any) -> None:
    results = load_results([reranked(write_run, "vacc/Qwen3-Embedding-0.6B", "vacc/Qwen3-Embedding-4B")])
    found = mean(compare(results, published.get(RERANKER).reference()), "MTEB-R")
    assert (found.tasks, found.verdict) == (5, "not judged")


def test_a_mean_of_subsets_is_made_only_of_all_of_them() -> None:
    bench = benchmark("MTEB(Code, v1)")
    assert bench is not None
    task = next(t for t in bench.tasks if t.name == "CodeSearchNetRetrieval")
    run = Run("vacc/reranker", "served-1", "", "cross-encoder")
    rows = [Row(run, task.name, "test", s, task.metric, 0.9, "Retrieval") for s in task.subsets]
    reference = published.get("Qwen/Qwen3-Reranker-0.6B").reference()
    judged = [r for r in compare(Results(tuple(rows)), reference).rows if r.judged]
    assert [(r.subset, r.ours, r.reference) for r in judged] == [("mean of subsets", pytest.approx(0.9), 0.888)]
    assert not [r for r in compare(Results(tuple(rows[1:])), reference).rows if r.judged]


def test_the_benchmarks_are_those_of_mteb() -> None:
    sizes = {b.name: len(b.tasks) for b in benchmarks()}
    assert sizes == {
        "MTEB(eng, v2)": 41, "MTEB(cmn, v1)": 31, "MTEB(Multilingual, v2)": 131, "MTEB(Code, v1)": 12,
        "MTEB-R": 10, "CMTEB-R": 8, "MMTEB-R": 18, "MLDR": 1, "MTEB-Code": 12, "FollowIR": 3,
    }  # fmt: skip


def test_the_main_metric_is_named_by_mtebs_table_where_the_file_agrees() -> None:
    assert main_metric("SciFact", 0.5, {"ndcg_at_10": 0.5, "map_at_10": 0.5}) == ("Retrieval", "ndcg_at_10")
    # another version's main score: the file is believed
    assert main_metric("SciFact", 0.4, {"ndcg_at_10": 0.5, "map": 0.4})[1] == "map"
    assert main_metric("NoSuchTask", 0.4, {"x": 0.1}) == ("", "main_score")


def test_a_main_metric_that_was_called_otherwise_in_mteb_1_is_compared_under_its_new_name() -> None:
    older = {"map": 0.6, "mrr": 0.7}
    assert main_metric("AskUbuntuDupQuestions", 0.6, older) == ("Reranking", "map_at_1000")
    assert main_metric("WebLINXCandidatesReranking", 0.7, older) == ("Reranking", "mrr_at_10")
    # another main score than the older name's value is not that measure
    assert main_metric("AskUbuntuDupQuestions", 0.7, older)[1] == "mrr"
    assert main_metric("AskUbuntuDupQuestions", 0.6, {**older, "map_at_1000": 0.5})[1] == "map"
