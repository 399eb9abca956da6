"""The verdict: are the served weights as accurate as the reference says?

A row is judged when task, split, subset and metric agree and neither side records a condition that makes it another
measurement (profile, max_tokens, rerank template, candidates). What is merely not recorded, another MTEB and another
dataset revision are notes. The question is whether the weights are reproduced: a row that lies below or above the
reference by more than the tolerance does not match it. Where both sides kept per-query results, a difference within the
queries' own noise is excused, but never one of more than a fiftieth of the reference: the noise of few queries would
excuse anything.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from evalscope_vacc.errors import ResultError
from evalscope_vacc.results.noise import Noise, mark, share, within
from evalscope_vacc.results.rows import Reference, Results, Row, Run, blocking

Verdict = Literal["pass", "above", "fail", "not judged", "no reference"]
Outcome = Literal["pass", "fail", "above", "nothing comparable"]
JUDGED: tuple[Verdict, ...] = ("pass", "above", "fail")
EXCUSED_SHARE = 0.98  # twice what MLPerf's wider mark allows


@dataclass(frozen=True)
class Interval:
    """The difference by query, ours less the reference.

    Attributes:
        low: Lower end of the 95 % interval.
        high: Upper end.
        p_value: Two-sided, of the paired randomisation test.
        queries: Queries that both sides answered.
    """

    low: float
    high: float
    p_value: float
    queries: int


@dataclass(frozen=True)
class ComparedRow:
    """One line of the verdict. Scores, differences and tolerances are fractions.

    Attributes:
        share: Ours divided by the reference; None where that means nothing.
        mark: MLPerf's accuracy mark that the share reaches.
        reason: Why the row is not judged, or why it is judged as it is; may be empty.
        notes: What should be known about a judged row.
    """

    task: str
    split: str
    subset: str
    metric: str
    verdict: Verdict
    type: str = ""
    ours: float | None = None
    reference: float | None = None
    difference: float | None = None
    share: float | None = None
    mark: str = ""
    tolerance: float | None = None
    tolerance_reason: str = ""
    reason: str = ""
    notes: tuple[str, ...] = ()
    interval: Interval | None = None
    run: str = ""
    source: str = ""
    reference_source: str = ""

    @property
    def judged(self) -> bool:
        """Whether the row counts for the outcome."""
        return self.verdict in JUDGED

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return _mapping(self)


@dataclass(frozen=True)
class MeanRow:
    """A benchmark's mean over the tasks that are there.

    Attributes:
        measure: "Mean(Task)" or "Mean(Type)".
        tasks: Tasks whose every split and subset is there.
        of: Tasks of the benchmark.
        ours: Mean over those tasks.
        reference: The reference's mean over the same tasks; for a benchmark known as a mean only, that mean.
        published: The published mean over all tasks, for information.
        verdict: "not judged" unless every task is there.
        run: Whose scores these are.
    """

    benchmark: str
    measure: str
    tasks: int
    of: int
    ours: float
    verdict: Verdict
    reference: float | None = None
    difference: float | None = None
    tolerance: float | None = None
    published: float | None = None
    share: float | None = None
    mark: str = ""
    reason: str = ""
    run: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return _mapping(self)


@dataclass(frozen=True)
class Comparison:
    """One run against one reference.

    Attributes:
        missing: Scores of the reference run that this run lacks, as "task (split) subset".
    """

    reference: str
    reference_revision: str
    reference_source: str
    noise: str
    rows: tuple[ComparedRow, ...]
    means: tuple[MeanRow, ...] = ()
    runs: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """The answer: "fail" as soon as one row or complete mean lies below, else "above" as soon as one lies above."""
        verdicts = {row.verdict for row in self.rows} | {mean.verdict for mean in self.means}
        for outcome in ("fail", "above", "pass"):
            if outcome in verdicts:
                return outcome
        return "nothing comparable"

    def to_json(self) -> dict[str, Any]:
        """Returns plain values for ``--json`` and the report."""
        return {"verdict": self.outcome, **_mapping(self)}


# no main metric of MTEB's leaves this range; a score of 64.5 is one in percent
_NO_FRACTION = "is not a fraction from -1 to 1"
_ABOVE = "the same weights do not score more than the tolerance above themselves: other texts, data or candidates?"

PairedTest = Callable[[Row, Row, str], "Interval | str | None"]


def compare(
    ours: Results, reference: Reference, *, noise: Noise | None = None, paired: PairedTest | None = None
) -> Comparison:
    """Holds a run against a reference, row by row.

    Args:
        ours: What :func:`evalscope_vacc.results.load.load_results` read.
        reference: Published scores, or another run (:func:`reference_from`).
        noise: How far scores may lie apart; by dtype when not given.
        paired: Test by query: given both rows and the metric it returns an interval, a note why there is none, or None.

    Returns:
        The verdict on every row of ``ours``, in an order that does not depend on the order of the input.
    """
    from evalscope_vacc.results.means import benchmark_means, with_means

    noise = noise or Noise()
    mine = with_means(_distinct(ours.rows), reference)
    theirs: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in _distinct(reference.rows):
        theirs[row.key].append(row)
    pairs = [(row, _judge(row, theirs.get(row.key, ()), reference, noise, paired)) for row in mine]
    pairs.sort(key=lambda pair: _order(pair[1]))
    rows = tuple(compared for _, compared in pairs)
    counts: dict[str, int] = dict.fromkeys(("pass", "above", "fail", "not judged", "no reference"), 0)
    for compared in rows:
        counts[compared.verdict] += 1
    return Comparison(
        reference=reference.name,
        reference_revision=reference.revision,
        reference_source=reference.source,
        noise=noise.describe(),
        rows=rows,
        means=benchmark_means(pairs, reference, noise),
        runs=tuple(sorted({row.run.label for row in mine})),
        problems=ours.problems,
        counts=counts,
        missing=_missing(mine, reference) if reference.is_run else (),
    )


def reference_from(results: Results, *, like: Iterable[Run] = ()) -> Reference:
    """Makes a reference of another run.

    Args:
        results: What was read from the other folder.
        like: The runs that will be held against it; with several runs in the folder, the one that goes with them is
            taken: of the same kind first, then of the same model, the same settings and the same revision.

    Raises:
        ResultError: There is no result, or more than one run could be meant.
    """
    wanted = list(like)
    runs = results.runs
    if not runs:
        hint = "; ".join(results.problems[:3])
        msg = f"no result was found under {', '.join(results.paths)}{f' ({hint})' if hint else ''}"
        raise ResultError(msg)
    for narrower in (_same_kind, _same_model, _same_experiment, _same_revision):
        if len(runs) > 1 and wanted:
            runs = tuple(narrower(runs, wanted)) or runs
    if len(runs) > 1:
        msg = (
            f"{len(runs)} runs lie under {', '.join(results.paths)}: {'; '.join(r.label for r in runs[:5])}. "
            "Give the folder of the one to compare with."
        )
        raise ResultError(msg)
    chosen = runs[0]
    rows = tuple(row for row in results.rows if row.run == chosen)
    return Reference(
        name=chosen.label,
        rows=rows,
        kind=chosen.kind,
        revision=chosen.revision,
        source=", ".join(results.paths),
        predictions=results.predictions,
        is_run=True,
    )


def _missing(mine: Sequence[Row], reference: Reference) -> tuple[str, ...]:
    keys = {row.key for row in reference.rows} - {row.key for row in mine}
    return tuple(
        f"{task} ({split})" + (f" {subset}" if subset != "default" else "") for task, split, subset in sorted(keys)
    )


def _same_kind(runs: Sequence[Run], like: Sequence[Run]) -> Iterable[Run]:
    kinds = {run.kind for run in like}
    return [run for run in runs if run.kind in kinds] if len(kinds) == 1 else ()


def _same_model(runs: Sequence[Run], like: Sequence[Run]) -> Iterable[Run]:
    names = {run.served_name.casefold() for run in like}
    return [run for run in runs if run.served_name.casefold() in names]


def _same_experiment(runs: Sequence[Run], like: Sequence[Run]) -> Iterable[Run]:
    names = {run.experiment for run in like}
    return [run for run in runs if run.experiment in names]


def _same_revision(runs: Sequence[Run], like: Sequence[Run]) -> Iterable[Run]:
    revisions = {run.revision for run in like}
    return [run for run in runs if run.revision in revisions]


def _judge(
    row: Row, candidates: Sequence[Row], reference: Reference, noise: Noise, paired: PairedTest | None
) -> ComparedRow:
    base: dict[str, Any] = {
        "task": row.task, "split": row.split, "subset": row.subset, "metric": row.metric, "type": row.type,
        "ours": row.score, "run": row.run.label, "source": row.source,
    }  # fmt: skip
    if not candidates:
        return ComparedRow(verdict="no reference", reason="the reference has no such row", **base)
    if reference.kind and row.run.kind and reference.kind != row.run.kind:
        words = f"this is the result of {_article(row.run.kind)}, the reference is {_article(reference.kind)}"
        return ComparedRow(verdict="not judged", reason=words, **base)
    measured = [(theirs, metric) for theirs in candidates if (metric := _shared_metric(row, theirs))]
    if not measured:
        metrics = " or ".join(sorted({c.metric for c in candidates}))
        return ComparedRow(verdict="no reference", reason=f"the reference's metric is {metrics}", **base)
    free = [(theirs, metric) for theirs, metric in measured if not row.conditions.conflicts(theirs.conditions)]
    if not free:
        why = min((row.conditions.conflicts(theirs.conditions) for theirs, _ in measured), key=lambda c: (len(c), c))
        return ComparedRow(verdict="not judged", reason="; ".join(why), **base)
    # several may be left: the one whose recorded conditions agree in most
    most = max(_agreement(row, theirs) for theirs, _ in free)
    best = [(theirs, metric) for theirs, metric in free if _agreement(row, theirs) == most]
    if len({theirs.value(metric) for theirs, metric in best}) > 1:
        values = ", ".join(sorted(f"{theirs.value(metric)}" for theirs, metric in best))
        return ComparedRow(
            verdict="not judged", reason=f"the reference has several values for this row: {values}", **base
        )
    theirs, metric = min(best, key=lambda pair: (pair[1], pair[0].source, pair[0].mteb_version or ""))
    return _measure(row, theirs, metric, base, noise, paired)


def _measure(
    row: Row, theirs: Row, metric: str, base: dict[str, Any], noise: Noise, paired: PairedTest | None
) -> ComparedRow:
    mine, published = row.value(metric), theirs.value(metric)
    base = {**base, "metric": metric, "ours": mine, "reference": published, "reference_source": theirs.source}
    if published is None:
        return ComparedRow(verdict="not judged", reason="the reference's score is not a finite number", **base)
    if theirs.suspect:
        return ComparedRow(verdict="not judged", reason=theirs.suspect, **base)
    if abs(published) > 1:
        return ComparedRow(verdict="not judged", reason=f"the reference's {published:g} {_NO_FRACTION}", **base)
    if mine is None:
        return ComparedRow(verdict="fail", reason="the score is missing or not a finite number", **base)
    if abs(mine) > 1:
        return ComparedRow(verdict="fail", reason=f"the score {mine:g} {_NO_FRACTION}", **base)
    difference = mine - published
    tolerance = noise.of(published, ours=row.conditions.dtype, theirs=theirs.conditions.dtype, rounding=theirs.rounding)
    notes = list(_notes(row, theirs))
    verdict, reason, interval = _verdict(difference, tolerance.value), "", None
    if paired is not None:
        tested = paired(row, theirs, metric)
        if isinstance(tested, Interval):
            interval = tested
            excusable = abs(difference) <= (1 - EXCUSED_SHARE) * abs(published)
            if verdict != "pass" and interval.low <= 0 <= interval.high and interval.p_value > 0.05 and excusable:
                verdict = "pass"
                reason = (
                    f"beyond the tolerance, but within the noise of {interval.queries} queries "
                    f"(p = {interval.p_value:.2g})"
                )
        elif tested:
            notes.append(tested)
    if verdict == "above":
        notes.append(_ABOVE)
    part = share(mine, published)
    return ComparedRow(
        verdict=verdict, difference=difference, share=part, mark=mark(part), tolerance=tolerance.value,
        tolerance_reason=tolerance.reason, reason=reason, notes=tuple(notes), interval=interval, **base,
    )  # fmt: skip


def _verdict(difference: float, tolerance: float) -> Verdict:
    if within(difference, tolerance):
        return "pass"
    return "above" if difference > 0 else "fail"


def _notes(row: Row, theirs: Row) -> Iterable[str]:
    yield from row.conditions.unrecorded(theirs.conditions)
    if row.mteb_version and theirs.mteb_version and row.mteb_version != theirs.mteb_version:
        yield f"mteb {row.mteb_version} here, {theirs.mteb_version} in the reference"
    if row.dataset_revision and theirs.dataset_revision and row.dataset_revision != theirs.dataset_revision:
        yield f"dataset revision {row.dataset_revision[:8]} here, {theirs.dataset_revision[:8]} in the reference"
    mine, other = row.conditions.dimensions, theirs.conditions.dimensions
    if mine != other and mine is not None:
        yield f"vectors cut to {mine} dimensions" + (f", {other} in the reference" if other else "")


def _shared_metric(row: Row, theirs: Row) -> str | None:
    """The reference's metric where our file has it, else ours where the reference has it."""
    if row.metric == theirs.metric or theirs.metric in row.metrics:
        return theirs.metric
    return row.metric if row.metric in theirs.metrics else None


def _agreement(row: Row, theirs: Row) -> int:
    ours, others = row.conditions, theirs.conditions
    return sum(others.get(name) is not None and ours.get(name) == others.get(name) for name in blocking())


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _distinct(rows: Iterable[Row]) -> list[Row]:
    """Drops copies: the same score of the same run under the same conditions, found in two places."""
    seen: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        identity = (*row.key, row.metric, repr(row.score), row.run, row.conditions)
        known = seen.get(identity)
        # of copies, the same one whatever the order
        if known is None or _tie(row) < _tie(known):
            seen[identity] = row
    return list(seen.values())


def _tie(row: Row) -> str:
    return repr(row)


def _order(row: ComparedRow) -> tuple[Any, ...]:
    return (row.task, row.split, row.subset, row.metric, row.run, row.source, repr(row.ours), row.verdict, repr(row))


def _mapping(value: Any) -> dict[str, Any]:
    return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}


def _plain(value: Any) -> Any:
    """Makes plain values of the dataclasses of this module; a number that is not finite becomes None."""
    if hasattr(value, "__dataclass_fields__"):
        return _mapping(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
