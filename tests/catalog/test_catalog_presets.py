"""Presets: whole tasks with published scores, in one order, each preset inside the next."""

from __future__ import annotations

import pytest

from evalscope_vacc.catalog import find
from evalscope_vacc.catalog.presets import Family, families, family_of, limits
from evalscope_vacc.results import published
from evalscope_vacc.results.benchmarks import main_metric, named
from evalscope_vacc.results.estimate import task_parts, texts_of
from evalscope_vacc.results.model import MEAN_OF_SUBSETS
from evalscope_vacc.runner.choose import tasks_of

FAMILIES = families()
ENCODERS = [family for family in FAMILIES if not family.first_stage]
RERANKERS = [family for family in FAMILIES if family.first_stage]
each = pytest.mark.parametrize("family", FAMILIES, ids=[family.name for family in FAMILIES])


@pytest.mark.parametrize("family", ENCODERS, ids=[family.name for family in ENCODERS])
def test_a_preset_has_no_more_texts_than_it_may_and_holds_the_smaller_ones(family: Family) -> None:
    before: tuple[str, ...] = ()
    for preset, most in limits().items():
        tasks, benchmarks = tasks_of(family, preset)
        assert tasks[: len(before)] == before
        assert 0 < sum(texts_of(task) or most + 1 for task in tasks) <= most
        assert benchmarks == ()
        before = tasks
    everything, _ = tasks_of(family, "full")
    assert everything[: len(before)] == before
    assert len(set(everything)) == len(everything)


@each
def test_every_part_of_every_task_has_a_published_score(family: Family) -> None:
    for model in family.models:
        entry = published.find(model)
        assert entry is not None
        rows = entry.reference().rows
        known = {(row.task, row.split, row.subset) for row in rows}
        for task in family.tasks:
            for split, subset in task_parts(task):
                assert {(task, split, subset), (task, split, MEAN_OF_SUBSETS)} & known, (model, task, split, subset)
        means = {mean.benchmark for mean in entry.reference().aggregates if mean.judged_by}
        for benchmark in family.full:
            for task in named(benchmark).tasks:
                assert any(row.task == task.name for row in rows) or benchmark in means, (model, task.name)


@each
def test_a_model_is_found_by_the_name_that_it_is_served_by(family: Family) -> None:
    for model in family.models:
        assert family_of(model) == family
        assert family_of(model.rpartition("/")[2]) == family
        assert find(model) is not None


@pytest.mark.parametrize("family", RERANKERS, ids=[family.name for family in RERANKERS])
def test_a_pair_of_a_reranker_counts_as_a_text(family: Family) -> None:
    before: tuple[str, ...] = ()
    for preset, most in limits().items():
        tasks, _ = tasks_of(family, preset)
        assert tasks[: len(before)] == before
        assert sum(texts_of(task, reranked=True) or most + 1 for task in tasks) <= most
        before = tasks
    assert tasks_of(family, "full")[0] == family.tasks
    assert any(tasks_of(family, "full"))


def test_a_preset_of_a_reranker_is_as_large_as_its_smallest_published_scores_allow() -> None:
    family = family_of("Qwen3-Reranker-4B")
    assert family is not None
    assert [len(tasks_of(family, preset)[0]) for preset in limits()] == [0, 2, 4]
    # 180 queries of 816 documents, of which each query has 100 reranked
    assert texts_of("CodeTransOceanDL", reranked=True) == (texts_of("CodeTransOceanDL") or 0) + 18_000


def test_the_models_of_the_vendor_are_covered_from_the_first_preset_on() -> None:
    family = family_of("Qwen3-Embedding-0.6B")
    assert family is not None
    kinds = {preset: {main_metric(task, None, {})[0] for task in tasks_of(family, preset)[0]} for preset in limits()}
    assert {"Retrieval", "STS", "PairClassification", "Classification", "Clustering"} <= kinds["smoke"]
    assert "Reranking" in kinds["quick"]


def test_a_model_without_published_scores_has_no_presets() -> None:
    assert family_of("my-own-model") is None
