"""The verdict's rules, one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from evalscope_vacc.errors import ResultError
from evalscope_vacc.results.judge import compare, reference_from
from evalscope_vacc.results.load import load_results
from evalscope_vacc.results.model import (
    ComparedRow,
    Comparison,
    Conditions,
    Interval,
    Reference,
    Results,
    Row,
    Run,
    Verdict,
)
from evalscope_vacc.results.noise import Noise
from evalscope_vacc.view.words import Words

RUN = Run("vacc/minilm", "served-1", "", "encoder")
THEIRS = Run("org/minilm", "main", "", "encoder")


def row(score: float | None = 0.8, **changes: Any) -> Row:
    base = Row(RUN, "STS12", "test", "default", "cosine_spearman", score, "STS")
    return replace(base, **changes)


def reference(*rows: Row, **changes: Any) -> Reference:
    return Reference("org/minilm", tuple(replace(r, run=THEIRS) for r in rows), kind="encoder", **changes)


WORDS = Words()


def said(row: ComparedRow) -> str:
    return "; ".join(WORDS.say(reason) for reason in (*row.reasons, *row.notes))


def status(comparison: Comparison, **options: Any) -> int:
    return Verdict((comparison,), **options).exit_status


def judge(ours: Row, *theirs: Row, **options: Any) -> Comparison:
    return compare(Results((ours,)), reference(*theirs), **options)


@pytest.mark.parametrize(
    ("ours", "word", "outcome"),
    [
        (0.8, "pass", "pass"),
        (0.7985, "pass", "pass"),
        (0.7975, "fail", "fail"),
        (0.8015, "pass", "pass"),
        (0.8025, "above", "above"),
        (0.9, "above", "above"),
    ],
)
def test_a_row_matches_only_within_the_tolerance_on_both_sides(ours: float, word: str, outcome: str) -> None:
    comparison = judge(row(ours), row(0.8))
    assert comparison.rows[0].verdict == word
    assert comparison.outcome == outcome
    assert status(comparison) == {"pass": 0, "fail": 1, "above": 1}[outcome]
    assert status(comparison, allow_above=True) == {"pass": 0, "fail": 1, "above": 0}[outcome]


def test_difference_share_and_mark_are_given() -> None:
    (compared,) = judge(row(0.796), row(0.8)).rows
    assert compared.difference == pytest.approx(-0.004)
    assert compared.share == pytest.approx(0.995)
    assert compared.mark == "99 %"
    assert compared.tolerance == 2e-3


@pytest.mark.parametrize(
    "change", [{"task": "STS13"}, {"split": "validation"}, {"subset": "en"}, {"metric": "accuracy"}]
)
def test_unlike_rows_are_never_compared(change: dict[str, str]) -> None:
    comparison = judge(row(), row(**change))
    assert comparison.rows[0].verdict == "no reference"
    assert comparison.rows[0].difference is None
    assert status(comparison) == 2


def test_the_references_metric_is_looked_up_among_ours() -> None:
    ours = row(0.7, metric="similarity_ap", metrics={"max_ap": 0.75, "similarity_ap": 0.7})
    (compared,) = judge(ours, row(0.75, metric="max_ap")).rows
    assert (compared.metric, compared.ours, compared.verdict) == ("max_ap", 0.75, "pass")


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        ({"profile": "qwen-official"}, {"profile": "mteb"}, "profile mteb, this run qwen-official"),
        ({"max_tokens": 16}, {"max_tokens": 8192}, "max_tokens 8192, this run 16"),
        ({"template": "none"}, {"template": "qwen3"}, "rerank template qwen3"),
        ({"top_k": 10}, {"top_k": 100}, "top_k 100"),
        ({"first_stage": "aaaaaaaa"}, {"first_stage": "bbbbbbbb"}, "first stage bbbbbbbb"),
        ({"first_stage": "vacc/one"}, {"first_stage": "vacc/two"}, "first stage vacc/two"),
        ({"limit": 100}, {}, "whole tasks, this run 100 samples"),
    ],
)
def test_other_recorded_conditions_are_said_instead_of_judged(
    ours: dict[str, Any], theirs: dict[str, Any], words: str
) -> None:
    comparison = judge(row(0.1, conditions=Conditions(**ours)), row(0.8, conditions=Conditions(**theirs)))
    assert comparison.rows[0].verdict == "not judged"
    assert words in said(comparison.rows[0])
    assert comparison.rows[0].difference is None
    assert status(comparison) == 2


def test_unrecorded_conditions_are_notes() -> None:
    theirs = row(0.8, conditions=Conditions(profile="qwen-official", max_tokens=8192))
    (compared,) = judge(row(0.8), theirs).rows
    assert compared.verdict == "pass"
    assert "this run did not record profile (the reference: qwen-official)" in said(compared)
    (compared,) = judge(row(0.8, conditions=Conditions(max_tokens=16)), row(0.8)).rows
    assert said(compared) == "max_tokens 16 here, not recorded in the reference"


def test_a_condition_that_is_the_default_is_no_note() -> None:
    (compared,) = judge(row(0.8, conditions=Conditions.of({"raw_scores": "False"})), row(0.8)).rows
    assert "unrecorded_there" not in {note.code for note in compared.notes}
    (compared,) = judge(row(0.8, conditions=Conditions.of({"raw_scores": "True"})), row(0.8)).rows
    assert "unrecorded_there" in {note.code for note in compared.notes}


def test_other_versions_and_revisions_are_notes() -> None:
    ours = row(0.8, mteb_version="2.26.24", dataset_revision="a" * 40)
    (compared,) = judge(ours, row(0.8, mteb_version="1.38.9", dataset_revision="b" * 40)).rows
    assert compared.verdict == "pass"
    assert [note.code for note in compared.notes] == ["other_mteb", "other_data"]
    assert said(compared) == (
        "mteb 2.26.24 here, 1.38.9 in the reference; dataset revision aaaaaaaa here, bbbbbbbb in the reference"
    )


@pytest.mark.parametrize("name", ["1a2b3c4d", "vacc/embedder"])
def test_a_digest_or_a_served_name_cannot_contradict_a_models_name(name: str) -> None:
    ours = row(0.8, conditions=Conditions(first_stage=name))
    (compared,) = judge(ours, row(0.8, conditions=Conditions(first_stage="Qwen/Qwen3-Embedding-0.6B"))).rows
    assert compared.verdict == "pass"
    assert name in said(compared)


def test_cut_vectors_are_judged_with_a_note() -> None:
    (compared,) = judge(row(0.7, conditions=Conditions(dimensions=64)), row(0.8)).rows
    assert compared.verdict == "fail"
    assert "vectors cut to 64 dimensions" in said(compared)


# one rule: identity and conditions refuse, provenance is a note
@pytest.mark.parametrize(
    ("ours", "verdict", "code"),
    [
        ({"split": "dev"}, "no reference", "no_row"),
        ({"subset": "en"}, "no reference", "no_row"),
        ({"metric": "accuracy"}, "no reference", "other_metric"),
        ({"run": replace(RUN, kind="cross-encoder")}, "not judged", "other_kind"),
        ({"conditions": Conditions(profile="mteb", max_tokens=512)}, "not judged", "setting_differs"),
        ({"dataset_revision": "other"}, "pass", "other_data"),
        ({"mteb_version": "1.38.20"}, "pass", "other_mteb"),
        ({"conditions": Conditions(max_tokens=512)}, "pass", "unrecorded_here"),
    ],
)
def test_what_differs_refuses_or_is_a_note_by_one_rule(ours: dict[str, Any], verdict: str, code: str) -> None:
    whole = Conditions(profile="none", max_tokens=512)
    theirs = row(0.8, mteb_version="2.26.24", dataset_revision="rev1", conditions=whole)
    mine = replace(theirs, **ours)
    (compared,) = judge(mine, theirs).rows
    assert compared.verdict == verdict
    assert code in [reason.code for reason in (*compared.reasons, *compared.notes)]


def test_a_missing_score_fails() -> None:
    comparison = judge(row(None), row(0.8))
    assert comparison.rows[0].verdict == "fail"
    assert status(comparison) == 1


def test_a_suspect_reference_is_listed_and_not_judged() -> None:
    comparison = judge(row(0.1), row(0.0166, suspect=True))
    assert comparison.rows[0].verdict == "not judged"
    assert "outlier in its own source" in said(comparison.rows[0])


def test_an_encoder_is_not_held_against_a_cross_encoder() -> None:
    comparison = judge(row(0.8, run=replace(RUN, kind="cross-encoder")), row(0.8))
    assert comparison.rows[0].verdict == "not judged"
    assert "kind cross-encoder, the reference one of kind encoder" in said(comparison.rows[0])


def test_of_several_published_values_the_one_under_the_same_conditions_is_taken() -> None:
    official = row(0.85, conditions=Conditions(profile="qwen-official", max_tokens=8192))
    plain = row(0.77, conditions=Conditions(profile="none"))
    (compared,) = judge(row(0.77, conditions=Conditions(profile="none")), official, plain).rows
    assert (compared.reference, compared.verdict) == (0.77, "pass")
    (compared,) = judge(
        row(0.85, conditions=Conditions(profile="qwen-official", max_tokens=8192)), official, plain
    ).rows
    assert (compared.reference, compared.verdict) == (0.85, "pass")


def test_two_values_that_nothing_tells_apart_are_not_judged() -> None:
    comparison = judge(row(0.8), row(0.8), row(0.7))
    assert comparison.rows[0].verdict == "not judged"
    assert "several values" in said(comparison.rows[0])


def test_copies_of_a_result_count_once_and_different_results_of_one_row_are_both_judged() -> None:
    copies = Results((row(0.8, source="a"), row(0.8, source="b")))
    assert len(compare(copies, reference(row(0.8))).rows) == 1
    different = Results((row(0.8, source="a"), row(0.7, source="b")))
    comparison = compare(different, reference(row(0.8)))
    assert [r.verdict for r in comparison.rows] == ["pass", "fail"]


def test_one_failure_fails_the_whole_and_nothing_judged_is_neither() -> None:
    ours = Results((row(0.8), row(0.1, task="STS13")))
    assert status(compare(ours, reference(row(0.8), row(0.8, task="STS13")))) == 1
    assert status(compare(Results(()), reference(row(0.8)))) == 2


def test_a_difference_within_the_noise_of_the_queries_does_not_fail() -> None:
    noisy = Interval(low=-0.02, high=0.004, p_value=0.3, queries=50)
    (compared,) = judge(row(0.79), row(0.8), paired=lambda *_: noisy).rows
    assert compared.verdict == "pass"
    assert "within the noise of 50 queries" in said(compared)
    high = Interval(low=-0.004, high=0.02, p_value=0.3, queries=50)
    assert judge(row(0.81), row(0.8), paired=lambda *_: high).rows[0].verdict == "pass"
    clear = Interval(low=-0.02, high=-0.004, p_value=0.001, queries=50)
    (compared,) = judge(row(0.79), row(0.8), paired=lambda *_: clear).rows
    assert compared.verdict == "fail"
    assert compared.interval == clear


def test_the_noise_of_few_queries_does_not_excuse_a_large_loss() -> None:
    few = Interval(low=-0.12, high=0.02, p_value=0.2, queries=20)
    (compared,) = judge(row(0.75), row(0.8), paired=lambda *_: few).rows
    assert compared.verdict == "fail"
    assert compared.interval == few


@pytest.mark.parametrize("score", [64.5, -3.0, 1.01])
def test_a_score_in_percent_is_not_a_score_above_the_reference(score: float) -> None:
    comparison = judge(row(score), row(0.645))
    assert status(comparison) == 1
    assert said(comparison.rows[0]) == f"the score {score:g} is not a fraction from -1 to 1"
    assert comparison.rows[0].difference is None
    comparison = judge(row(0.645), row(score))
    assert status(comparison) == 2
    assert said(comparison.rows[0]) == f"the reference's {score:g} is not a fraction from -1 to 1"


def test_a_score_above_the_reference_does_not_reproduce_the_weights() -> None:
    comparison = judge(row(0.9), row(0.8))
    assert status(comparison) == 1
    assert "the same weights cannot exceed their own score by more than the tolerance" in said(comparison.rows[0])


def test_the_tolerance_can_be_given() -> None:
    assert status(judge(row(0.79), row(0.8), noise=Noise(tolerance=0.02))) == 0
    assert status(judge(row(0.7992), row(0.8), noise=Noise(dtype="float32"))) == 1


def test_a_reference_run_recorded_under_another_profile_is_not_a_reference(write_run: Any) -> None:
    scores = {"STS12": {"test": {"default": 0.8}}}
    ours = load_results([write_run(scores, kwargs={"profile": "qwen-official"}, folder="ours")])
    other = load_results([write_run(scores, kwargs={"profile": "mteb"}, folder="other")])
    comparison = compare(ours, reference_from(other, like=ours.runs))
    assert status(comparison) == 2
    assert "the reference used profile mteb, this run qwen-official" in said(comparison.rows[0])


def test_the_run_of_the_same_kind_is_taken_from_a_two_stage_folder(write_run: Any) -> None:
    scores = {"SciFact": {"test": {"default": 0.6}}}
    write_run(scores, model="vacc/encoder", folder="other", metric="ndcg_at_10")
    folder = write_run(scores, model="vacc/reranker", cross_encoder=True, folder="other", metric="ndcg_at_10")
    ours = load_results([write_run(scores, model="vacc/r2", cross_encoder=True, folder="ours", metric="ndcg_at_10")])
    assert reference_from(load_results([folder]), like=ours.runs).name.startswith("vacc/reranker")


def test_several_possible_reference_runs_are_an_error_that_names_them(write_run: Any) -> None:
    scores = {"STS12": {"test": {"default": 0.8}}}
    write_run(scores, model="vacc/a", folder="other")
    folder = write_run(scores, model="vacc/b", folder="other")
    with pytest.raises(ResultError, match=r"vacc/a .*vacc/b"):
        reference_from(load_results([folder]))


def test_an_empty_reference_folder_is_an_error(tmp_path: Any) -> None:
    with pytest.raises(ResultError, match="no result"):
        reference_from(load_results([tmp_path]))
