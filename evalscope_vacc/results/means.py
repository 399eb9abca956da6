"""Means of benchmarks over the tasks that are there, never as if they were all."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from evalscope_vacc.results.benchmarks import Benchmark, BenchmarkTask, benchmarks
from evalscope_vacc.results.model import MEAN_OF_SUBSETS, ComparedRow, MeanRow, Reference, Row
from evalscope_vacc.results.noise import Noise, judgement, mark, share

_Pair = tuple[float, "float | None"]
_Members = Sequence[tuple[Row, ComparedRow]]


def with_means(rows: Sequence[Row], reference: Reference) -> list[Row]:
    """Adds the mean over a task's subsets where the reference knows that mean alone.

    It is added only when every subset of the benchmark is there; the subsets themselves stay.
    """
    wanted = {(r.task, r.split): r.metric for r in reference.rows if r.subset == MEAN_OF_SUBSETS}
    tasks = {task.name: task for benchmark in benchmarks() for task in benchmark.tasks}
    groups: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if (row.task, row.split) in wanted and row.task in tasks and _belongs(tasks[row.task], row.subset):
            groups[row.run, row.task, row.split, row.conditions].append(row)
    added = []
    for members in groups.values():
        first, subsets = members[0], {m.subset for m in members}
        metric = wanted[first.task, first.split]
        values = [value for m in members if (value := m.value(metric)) is not None]
        # a subset that was measured twice has no one mean
        if _complete(tasks[first.task], subsets) and len(subsets) == len(members) == len(values):
            mean = math.fsum(values) / len(values)
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
    return tuple(
        mean
        for _, members in sorted(by_run.items(), key=lambda item: item[0])
        for benchmark in benchmarks()
        for mean in _means(benchmark, members, reference, noise)
    )


def _means(benchmark: Benchmark, members: _Members, reference: Reference, noise: Noise) -> Iterable[MeanRow]:
    published = {a.measure: a for a in reference.aggregates if a.benchmark == benchmark.name and a.judged_by}
    if not benchmark.name.startswith("MTEB(") and not published:
        return  # the reranking table's columns matter to rerankers only
    both = _task_scores(benchmark, members, judged=True)
    scores = both or _task_scores(benchmark, _alike(members, reference), judged=False)
    types = {task.name: task.type for task in benchmark.tasks}
    complete = len(scores) == len(benchmark.tasks)
    theirs = {task: other for task, (_, other) in scores.items() if other is not None}
    dtypes = {row.conditions.dtype for row, _ in members}
    for measure in benchmark.measures if scores else ():
        stated = published.get(measure)
        if both:
            value, rounding = _mean(measure, theirs, types), 0.0
        elif stated:
            value, rounding = stated.value, stated.rounding
        else:
            continue  # no reference mean: a mean alone says nothing here
        mine = _mean(measure, {task: ours for task, (ours, _) in scores.items()}, types)
        tolerance = max(
            noise.of(value, ours=d, theirs=reference.conditions.dtype, rounding=rounding).value for d in dtypes
        )
        found = MeanRow(
            benchmark=benchmark.name,
            measure=measure,
            tasks=len(scores),
            of=len(benchmark.tasks),
            ours=mine,
            verdict=judgement(mine - value, tolerance) if complete else "not judged",
            tolerance=tolerance,
            published=stated.value if stated else None,
            run=members[0][1].run,
        )
        if both or complete:
            part = share(mine, value)
            found = replace(found, reference=value, difference=mine - value, share=part, mark=mark(part))
        yield found


def _alike(members: _Members, reference: Reference) -> _Members:
    """Keeps the rows that a published mean may be compared with: the same kind of model, no other conditions."""
    return [
        (row, compared)
        for row, compared in members
        if not row.conditions.conflicts(reference.conditions)
        and not (reference.kind and row.run.kind and reference.kind != row.run.kind)
    ]


def _task_scores(benchmark: Benchmark, members: _Members, *, judged: bool) -> dict[str, _Pair]:
    """Returns the mean over the subsets of each task that is wholly there, ours and the reference's."""
    tasks = {task.name: task for task in benchmark.tasks}
    by_task: dict[str, dict[tuple[str, str], list[_Pair]]] = defaultdict(lambda: defaultdict(list))
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
    for name, values in sorted(by_task.items()):
        task = tasks[name]
        whole = {key: v for key, v in values.items() if key[1] == MEAN_OF_SUBSETS}
        parts = {key: v for key, v in values.items() if key not in whole and _belongs(task, key[1])}
        for chosen in (parts, whole):
            splits = [{subset for split, subset in chosen if split == wanted} for wanted in task.splits]
            there = all(bool(found) if chosen is whole else _complete(task, found) for found in splits)
            if chosen and there and all(len(v) == 1 for v in chosen.values()):
                pairs = [v[0] for v in chosen.values()]
                theirs = [p[1] for p in pairs if p[1] is not None]
                mean = math.fsum(theirs) / len(theirs) if len(theirs) == len(pairs) else None
                scores[name] = (math.fsum(p[0] for p in pairs) / len(pairs), mean)
                break
    return scores


def _complete(task: BenchmarkTask, subsets: Collection[str]) -> bool:
    return set(task.subsets) <= set(subsets) if task.subsets else len(subsets) >= task.subset_count


def _belongs(task: BenchmarkTask, subset: str) -> bool:
    """A run may hold more subsets than the benchmark takes (STS17 has eleven, eng v2 one of them)."""
    return not task.subsets or subset in task.subsets


def _mean(measure: str, scores: dict[str, float], types: dict[str, str]) -> float:
    by_type: dict[str, list[float]] = defaultdict(list)
    for task, value in scores.items():
        by_type["" if measure == "Mean(Task)" else types[task]].append(value)
    means = [math.fsum(values) / len(values) for values in by_type.values()]
    return math.fsum(means) / len(means)
