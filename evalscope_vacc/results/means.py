"""Means of benchmarks over the tasks that are there, never as if they were all."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from evalscope_vacc.results.benchmarks import Benchmark, BenchmarkTask, benchmarks
from evalscope_vacc.results.model import MEAN_OF_SUBSETS, Aggregate, ComparedRow, MeanRow, Reference, Row
from evalscope_vacc.results.noise import Noise, judgement, mark, share

_Pair = tuple[float, "float | None"]


def with_means(rows: Sequence[Row], reference: Reference) -> list[Row]:
    """Adds the mean over a task's subsets where the reference knows that mean alone.

    It is added only when every subset of the benchmark is there; the subsets themselves stay.
    """
    wanted = {(r.task, r.split, r.metric) for r in reference.rows if r.subset == MEAN_OF_SUBSETS}
    if not wanted:
        return list(rows)
    tasks = {task.name: task for benchmark in benchmarks() for task in benchmark.tasks}
    groups: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[(row.run, row.task, row.split, row.conditions)].append(row)
    added = []
    for members in groups.values():
        first = members[0]
        task = tasks.get(first.task)
        metric = next((m for t, s, m in wanted if t == first.task and s == first.split), None)
        if task is None or metric is None or not _complete(task, {m.subset for m in members}):
            continue
        kept = [m for m in members if _belongs(task, m.subset)]
        values = [m.value(metric) for m in kept]
        # a subset that was measured twice has no one mean
        if len({m.subset for m in kept}) != len(kept) or any(v is None for v in values):
            continue
        mean = math.fsum(v for v in values if v is not None) / len(values)
        added.append(replace(first, subset=MEAN_OF_SUBSETS, metric=metric, score=mean, metrics={}))
    return [*rows, *added]


def benchmark_means(
    pairs: Iterable[tuple[Row, ComparedRow]], reference: Reference, noise: Noise
) -> tuple[MeanRow, ...]:
    """Computes every benchmark's means over the tasks that are wholly there.

    A task counts when each of its splits and subsets is there and judged. Where the reference is known as a mean only,
    as rerankers are, a task counts when its scores are there, and the mean is judged when every task is.
    """
    by_run: dict[tuple[str, str, str], list[tuple[Row, ComparedRow]]] = defaultdict(list)
    for row, compared in pairs:
        # scores on the candidates of two encoders have no mean in common
        by_run[row.run.label, row.run.kind or "", row.conditions.candidates_of].append((row, compared))
    found: list[MeanRow] = []
    for _, members in sorted(by_run.items(), key=lambda item: item[0]):
        for benchmark in benchmarks():
            published = {a.measure: a for a in reference.aggregates if a.benchmark == benchmark.name and a.judged_by}
            if not benchmark.name.startswith("MTEB(") and not published:
                continue  # the reranking table's columns matter to rerankers only
            found += _means(benchmark, members, published, reference, noise)
    return tuple(found)


def _means(
    benchmark: Benchmark,
    members: list[tuple[Row, ComparedRow]],
    published: dict[str, Aggregate],
    reference: Reference,
    noise: Noise,
) -> list[MeanRow]:
    both = _task_scores(benchmark, members, judged=True)
    alone = {} if both else _task_scores(benchmark, _unlike_removed(members, reference), judged=False)
    scores = both or alone
    if not scores:
        return []
    types = {task.name: task.type for task in benchmark.tasks}
    complete = len(scores) == len(benchmark.tasks)
    rows = []
    for measure in benchmark.measures:
        mine = _mean(measure, {t: ours for t, (ours, _) in scores.items()}, types)
        stated = published.get(measure)
        theirs = {t: other for t, (_, other) in scores.items() if other is not None}
        value = _mean(measure, theirs, types) if both else stated.value if stated else None
        rounding = 0.0 if both else stated.rounding if stated else 0.0
        if value is None:
            continue  # nothing to lay beside it: a mean alone says nothing here
        rows.append(
            _row(benchmark, measure, mine, value, len(scores), stated, noise, members, reference, complete=complete,
                 same_tasks=bool(both), rounding=rounding)
        )  # fmt: skip
    return rows


def _row(
    benchmark: Benchmark,
    measure: str,
    mine: float,
    value: float,
    tasks: int,
    stated: Aggregate | None,
    noise: Noise,
    members: list[tuple[Row, ComparedRow]],
    reference: Reference,
    *,
    complete: bool,
    same_tasks: bool,
    rounding: float,
) -> MeanRow:
    dtypes = {row.conditions.dtype for row, _ in members}
    theirs = reference.conditions.dtype
    each = (noise.of(value, ours=dtype, theirs=theirs, rounding=rounding) for dtype in sorted(dtypes, key=str))
    tolerance = max(each, key=lambda t: t.value)
    difference = mine - value
    part = share(mine, value)
    comparable = same_tasks or complete
    return MeanRow(
        benchmark=benchmark.name,
        measure=measure,
        tasks=tasks,
        of=len(benchmark.tasks),
        ours=mine,
        verdict=judgement(difference, tolerance.value) if complete else "not judged",
        reference=value if comparable else None,
        difference=difference if comparable else None,
        tolerance=tolerance.value,
        published=stated.value if stated else None,
        share=part if comparable else None,
        mark=mark(part) if comparable else "",
        run=members[0][1].run,
    )


def _unlike_removed(members: list[tuple[Row, ComparedRow]], reference: Reference) -> list[tuple[Row, ComparedRow]]:
    """Keeps the rows that a published mean may be held against: the same kind of model, no other conditions."""
    return [
        (row, compared)
        for row, compared in members
        if not row.conditions.conflicts(reference.conditions)
        and not (reference.kind and row.run.kind and reference.kind != row.run.kind)
    ]


def _task_scores(benchmark: Benchmark, members: list[tuple[Row, ComparedRow]], *, judged: bool) -> dict[str, _Pair]:
    by_task: dict[str, dict[tuple[str, str], list[_Pair]]] = defaultdict(lambda: defaultdict(list))
    tasks = {task.name: task for task in benchmark.tasks}
    for row, compared in members:
        task = tasks.get(row.task)
        if task is None or row.split not in task.splits:
            continue
        ours = compared.ours if judged else row.value(task.metric)
        # a failed row without a difference has a score that is none, such as one in percent
        if ours is None or abs(ours) > 1 or (judged and compared.difference is None):
            continue
        by_task[row.task][(row.split, row.subset)].append((ours, compared.reference if judged else None))
    scores: dict[str, _Pair] = {}
    for name, values in by_task.items():
        task = tasks[name]
        whole = {key: v for key, v in values.items() if key[1] == MEAN_OF_SUBSETS}
        parts = {key: v for key, v in values.items() if key[1] != MEAN_OF_SUBSETS and _belongs(task, key[1])}
        for chosen in (parts, whole):
            if chosen and all(len(v) == 1 for v in chosen.values()) and _every(task, chosen, whole=chosen is whole):
                pairs = [v[0] for v in chosen.values()]
                mine = math.fsum(p[0] for p in pairs) / len(pairs)
                theirs = [p[1] for p in pairs if p[1] is not None]
                scores[name] = (mine, math.fsum(theirs) / len(theirs) if len(theirs) == len(pairs) else None)
                break
    return dict(sorted(scores.items()))


def _every(task: BenchmarkTask, values: dict[tuple[str, str], list[_Pair]], *, whole: bool) -> bool:
    by_split: dict[str, set[str]] = {split: set() for split in task.splits}
    for split, subset in values:
        by_split[split].add(subset)
    return all(bool(subsets) if whole else _complete(task, subsets) for subsets in by_split.values())


def _complete(task: BenchmarkTask, subsets: set[str]) -> bool:
    if task.subsets:
        return set(task.subsets) <= subsets
    return len(subsets) >= task.subset_count


def _belongs(task: BenchmarkTask, subset: str) -> bool:
    """A run may hold more subsets than the benchmark takes (STS17 has eleven, eng v2 one of them)."""
    return not task.subsets or subset in task.subsets


def _mean(measure: str, scores: dict[str, float], types: dict[str, str]) -> float:
    if measure == "Mean(Task)":
        return math.fsum(scores.values()) / len(scores)
    by_type: dict[str, list[float]] = defaultdict(list)
    for task, value in scores.items():
        by_type[types[task]].append(value)
    means = [math.fsum(values) / len(values) for values in by_type.values()]
    return math.fsum(means) / len(means)
