"""The test by query: the same scores as MTEB's, an interval that holds, and silence where it cannot speak."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalscope_vacc.errors import ResultError
from evalscope_vacc.results.judge import compare, reference_from
from evalscope_vacc.results.load import load_results
from evalscope_vacc.results.model import Interval, Predictions, Row, Run
from evalscope_vacc.results.paired import QueryTest, interval, qrels_from_files, read_predictions, trec_measure

QUERIES = [f"q{i}" for i in range(60)]
QRELS = {q: {f"d{i}": 1} for i, q in enumerate(QUERIES)}
RELEVANT = {q: next(iter(docs)) for q, docs in QRELS.items()}


def ranking(ranks: list[int]) -> dict[str, dict[str, float]]:
    """Predictions in which the relevant document of each query has the given rank."""
    found = {}
    for query, rank in zip(QUERIES, ranks, strict=True):
        others = [f"x{i}" for i in range(12)]
        others.insert(rank, RELEVANT[query])
        found[query] = {doc: 1.0 - 0.01 * i for i, doc in enumerate(others)}
    return found


def ndcg(ranks: list[int]) -> float:
    return sum(1 / math.log2(rank + 2) if rank < 10 else 0.0 for rank in ranks) / len(ranks)


@pytest.fixture
def two_runs(write_run: Any, tmp_path: Path) -> Any:
    def make(ours: list[int], theirs: list[int], *, version: int = 2) -> tuple[Any, Any]:
        runs = []
        for name, ranks in (("ours", ours), ("theirs", theirs)):
            folder = write_run(
                {"SciFact": {"test": {"default": round(ndcg(ranks), 5)}}}, folder=name, metric="ndcg_at_10"
            )
            predictions = ranking(ranks)
            if version == 2:
                (folder / "predictions").mkdir()
                content = {"mteb_model_meta": {}, "default": {"test": predictions}}
                (folder / "predictions" / "SciFact_predictions.json").write_text(json.dumps(content))
            else:
                (folder / "SciFact_default_predictions.json").write_text(json.dumps(predictions))
            runs.append(load_results([folder]))
        (tmp_path / "qrels").mkdir(exist_ok=True)
        (tmp_path / "qrels" / "SciFact.json").write_text(json.dumps(QRELS))
        return runs[0], runs[1]

    return make


def judged(ours: Any, theirs: Any, qrels: Path) -> Any:
    reference = reference_from(theirs)
    test = QueryTest(ours.predictions, reference.predictions, qrels_from_files(qrels))
    return compare(ours, reference, paired=test).rows[0]


@pytest.mark.parametrize("version", [1, 2])
def test_a_difference_in_a_few_queries_is_noise_and_a_difference_in_all_is_not(
    two_runs: Any, tmp_path: Path, version: int
) -> None:
    base = [0] * 60
    few = [1, 1, *base[2:]]
    row = judged(*two_runs(few, base, version=version), tmp_path / "qrels")
    assert row.difference < -2e-3
    assert row.interval.queries == 60
    assert row.interval.p_value > 0.05
    assert row.verdict == "pass"


def test_a_difference_in_many_queries_fails(two_runs: Any, tmp_path: Path) -> None:
    row = judged(*two_runs([1] * 30 + [0] * 30, [0] * 60), tmp_path / "qrels")
    assert row.verdict == "fail"
    assert row.interval.high < 0
    assert row.interval.low < row.difference < row.interval.high
    assert row.interval.p_value < 0.01


def test_predictions_that_do_not_give_the_recorded_score_are_not_tested(two_runs: Any, tmp_path: Path) -> None:
    ours, theirs = two_runs([1] * 60, [0] * 60)
    ours.predictions[0].path.write_text(json.dumps({"default": {"test": ranking([5] * 60)}}))
    row = judged(ours, theirs, tmp_path / "qrels")
    assert row.interval is None
    assert row.verdict == "fail"
    assert "other_mean" in [note.code for note in row.notes]


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"default": {"val": {}}}',
        '{"default": {"test": {"q0": 1}}}',
        '{"default": {"test": {"q0": {"d0": NaN}}}}',
    ],
)
def test_broken_predictions_are_a_note_and_the_row_is_still_judged(two_runs: Any, tmp_path: Path, content: str) -> None:
    ours, theirs = two_runs([1] * 60, [0] * 60)
    ours.predictions[0].path.write_text(content)
    row = judged(ours, theirs, tmp_path / "qrels")
    assert (row.verdict, row.interval) == ("fail", None)
    assert {"no_query_test", "no_common_query"} & {note.code for note in row.notes}


def test_without_judgements_there_is_a_note(two_runs: Any, tmp_path: Path) -> None:
    ours, theirs = two_runs([1] * 60, [0] * 60)
    (tmp_path / "qrels" / "SciFact.json").unlink()
    row = judged(ours, theirs, tmp_path / "qrels")
    assert "no_judgements" in [note.code for note in row.notes]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SciFact.json", json.dumps({"default": {"test": QRELS}})),
        ("SciFact.json", json.dumps({"test": QRELS})),
        ("SciFact.json", json.dumps(QRELS)),
        ("SciFact.tsv", "query-id\tcorpus-id\tscore\n" + "".join(f"{q}\t{d}\t1\n" for q, d in RELEVANT.items())),
        ("SciFact.qrels", "".join(f"{q} 0 {d} 1\n" for q, d in RELEVANT.items())),
    ],
)
def test_judgements_are_read_in_every_usual_format(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert qrels_from_files(tmp_path)("SciFact", "test", "default") == QRELS
    assert qrels_from_files(tmp_path / name)("SciFact", "test", "default") == QRELS


def test_a_tasks_name_cannot_lead_out_of_the_folder_of_judgements(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text(json.dumps(QRELS))
    inside = tmp_path / "qrels"
    inside.mkdir()
    assert qrels_from_files(inside)("../secret", "test", "default") is None


def test_a_missing_folder_of_judgements_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="judgements"):
        qrels_from_files(tmp_path / "none")


def test_the_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(150):
        found = interval(rng.normal(-0.01, 0.1, 200), seed=1, resamples=300)
        covered += found.low <= -0.01 <= found.high
    assert 0.88 * 150 <= covered <= 0.99 * 150


def test_the_same_seed_gives_the_same_interval_and_no_difference_is_certain() -> None:
    d = np.random.default_rng(3).normal(0, 0.1, 50)
    assert interval(d, seed=5) == interval(d, seed=5)
    assert interval(np.zeros(30)) == Interval(0.0, 0.0, 1.0, 30)


@pytest.mark.slow
def test_ten_thousand_queries_do_not_need_a_gigabyte() -> None:
    import tracemalloc

    d = np.random.default_rng(3).normal(0, 0.1, 10_000)
    tracemalloc.start()
    interval(d, resamples=999)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6  # all resamples at once are 80 MB of numbers, and as much of their places


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("ndcg_at_10", "ndcg_cut.10"),
        ("map_at_1000", "map_cut.1000"),
        ("recall_at_5", "recall.5"),
        ("p-MRR", None),
        ("accuracy", None),
    ],
)
def test_metrics_are_translated(metric: str, name: str | None) -> None:
    assert trec_measure(metric) == name


def test_real_predictions_of_mteb_2_are_read(data: Path) -> None:
    row = Row(Run(), "MockRetrievalTask", "test", "default", "ndcg_at_10", 0.5)
    file = Predictions(data / "predictions" / "MockRetrievalTask_predictions.json", "MockRetrievalTask")
    assert set(read_predictions(file, row)) == {"q1", "q2"}
