"""The verdict: does the run reproduce the weights, and is everything there that was asked for?

One rule says which scores may be compared. The identity of a score (task, split, subset, metric, kind of model) and its
conditions (profile, max_tokens, rerank template, candidates …) must agree where both sides record them; else the row is not
judged. Where it comes from (mteb version, dataset revision), and what is merely not recorded, is a note.

The question is whether the weights are reproduced: a row that lies below or above the reference by more than the tolerance
does not match it. Where both sides kept per-query results, a difference within the queries' own noise is excused, but
never one of more than a fiftieth of the reference: the noise of few queries would excuse anything.

Everything here is a pure function of its arguments; :mod:`evalscope_vacc.results.ask` reads the files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from evalscope_vacc.errors import ResultError
from evalscope_vacc.messages import Reason
from evalscope_vacc.names import served_name
from evalscope_vacc.results.benchmarks import benchmark
from evalscope_vacc.results.means import benchmark_means, with_means
from evalscope_vacc.results.model import (
    JUDGED,
    AskedTask,
    ComparedRow,
    Comparison,
    Interval,
    Judgement,
    Reference,
    Results,
    Row,
    Run,
    TaskState,
    Verdict,
    blocking,
)
from evalscope_vacc.results.noise import Noise, judgement, mark, share

EXCUSED_SHARE = 0.98  # twice what MLPerf's wider mark allows
# tasks on which vectors or scores without meaning score next to nothing, and what that is at most
CHANCE = {"STS": 0.05, "Retrieval": 0.003, "BitextMining": 0.002, "Clustering": 0.01}
FEWEST_EQUAL = 3
# what explains a score that does not match, the likeliest first
CAUSES = (
    "server_changed", "unrecorded_there", "unrecorded_here", "own_prompts", "cut_vectors", "cut_vectors_both",
    "first_stage_names", "other_data", "other_mteb", "assumed", "no_score", "no_fraction",
)  # fmt: skip
SETTINGS_FIRST = ("max_tokens", "prompts", "profile", "template")

PairedTest = Callable[[Row, Row, str], "Interval | Reason | None"]


def judge(
    results: Results,
    references: Sequence[tuple[Results, Reference]],
    asked: Sequence[AskedTask] | None = None,
    *,
    noise: Noise | None = None,
    paired: Callable[[Results, Reference], PairedTest | None] = lambda *_: None,
    unpublished: Iterable[str] = (),
    servers: Mapping[str, Mapping[str, Any]] | None = None,
    allow_partial: bool = False,
    allow_above: bool = False,
) -> Verdict:
    """Judges the whole.

    Args:
        results: Every row that was found, with or without a reference.
        references: Each run and its reference; may be empty.
        asked: What was asked for, or None where that is not known.
        noise: How far scores may differ; by dtype when not given.
        paired: Gives the test by query of a run and its reference, or None.
        unpublished: Models that have no reference.
        servers: What the run wrote down of each model's servers.
        allow_partial: Do not mind tasks that failed or were not run.
        allow_above: Do not mind scores above the reference.
    """
    found = [compare(part, theirs, noise=noise, paired=paired(part, theirs)) for part, theirs in references]
    if found:
        said = tuple(Reason.of("unpublished", model=name or "(unnamed)") for name in unpublished)
        found[0] = replace(found[0], problems=results.problems + said)
    servers = servers or {}
    changed = [name for name, facts in servers.items() if facts.get("rescoring")]
    # an answer before what is none, such as the second stage's of a run that is compared with an encoder
    found = [replace(comparison, causes=_causes(comparison, changed)) for comparison in found]
    found.sort(key=lambda comparison: comparison.outcome == "nothing comparable")
    return Verdict(
        tuple(found), _states(results, found, asked), asked is not None, _warnings(results, found, _insane(servers)),
        allow_partial, allow_above,
    )  # fmt: skip


def _insane(servers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the models of which the short check before the run found that all texts get the same answer."""
    checks = {name: facts.get("preflight_checks") for name, facts in servers.items()}
    return [name for name, states in checks.items() if isinstance(states, dict) and states.get("sanity", "ok") != "ok"]


def _states(
    results: Results, comparisons: Sequence[Comparison], asked: Sequence[AskedTask] | None
) -> tuple[TaskState, ...]:
    judged = {(row.model, row.task) for c in comparisons for row in c.rows if row.judged}
    # a reranker is known by the mean of a benchmark: then its tasks are judged by that
    for comparison in comparisons:
        means = [benchmark(mean.benchmark) for mean in comparison.means if mean.verdict in JUDGED]
        judged |= {(row.model, row.task) for row in comparison.rows if any(row.task in mean for mean in means if mean)}
    there: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in results.rows:
        there[row.run.model, row.task].append(row)
    states, left = [], set(there)
    for entry in asked or ():
        keys = [key for key in there if key[1] == entry.task and entry.is_for(key[0])]
        left -= set(keys)
        states.append(_state(entry, [row for key in keys for row in there[key]], judged=bool(judged & set(keys))))
    states += [
        TaskState(model, task, "judged" if (model, task) in judged else "no reference") for model, task in sorted(left)
    ]
    return tuple(sorted(states, key=lambda s: (s.model.casefold(), s.task)))


def _state(entry: AskedTask, rows: Sequence[Row], *, judged: bool) -> TaskState:
    model = entry.model or (rows[0].run.model if rows else "")
    if entry.error:
        return TaskState(model, entry.task, "failed", Reason.of("error", text=entry.error))
    if not rows:
        return TaskState(model, entry.task, "not run")
    have = {(row.split, row.subset) for row in rows}
    missing = [f"{s} · {u}" for s in entry.splits for u in entry.subsets if (s, u) not in have]
    if missing:
        parts = ", ".join(missing[:5]) + (" …" if len(missing) > 5 else "")
        return TaskState(model, entry.task, "not run", Reason.of("lacks", parts=parts))
    return TaskState(model, entry.task, "judged" if judged else "no reference")


def _warnings(results: Results, comparisons: Sequence[Comparison], insane: Iterable[str]) -> tuple[Reason, ...]:
    """Finds scores that no weights would earn: at chance, all equal, no numbers; or answers that were all the same.

    A task that the reference too is bad at, such as one of a language that the model was not trained on, is none.
    """
    earned = {(row.model, row.task) for c in comparisons for row in c.rows if row.verdict == "pass"}
    by_task: dict[tuple[Run, str, str], list[float]] = defaultdict(list)
    for row in results.rows:
        if row.score is not None:
            by_task[row.run, row.type, row.task].append(row.score)
    low = {
        task for (run, kind, task), scores in by_task.items()
        if kind in CHANCE and max(map(abs, scores)) <= CHANCE[kind] and (run.model, task) not in earned
    }  # fmt: skip
    found = [
        Reason.of(code, tasks=tuple(sorted(tasks)))
        for code, tasks in (
            ("at_chance", low), ("no_number", {row.task for row in results.rows if row.score is None}),
            ("sanity_failed", set(map(served_name, insane))),
        ) if tasks
    ]  # fmt: skip
    for run in sorted({key[0] for key in by_task}, key=repr):
        mine = {key[2]: scores for key, scores in by_task.items() if key[0] == run}
        values = {score for scores in mine.values() for score in scores}
        if len(mine) >= FEWEST_EQUAL and len(values) == 1:
            found.append(Reason.of("all_equal", tasks=tuple(sorted(mine)), value=values.pop()))
    return tuple(found)


def _causes(comparison: Comparison, changed: Collection[str]) -> tuple[Reason, ...]:
    """Gathers what the notes of the rows that do not match say, the likeliest cause first."""
    wrong = [row for row in comparison.rows if row.verdict in ("fail", "above")]
    notes = {note for row in wrong for note in (*row.notes, *row.reasons) if note.code in CAUSES}
    notes |= {Reason.of("server_changed", model=served_name(row.model)) for row in wrong if row.model in changed}

    def likely(note: Reason) -> tuple[int, int, Reason]:
        setting = dict(note.args).get("setting")
        place = SETTINGS_FIRST.index(setting) if setting in SETTINGS_FIRST else len(SETTINGS_FIRST)
        return CAUSES.index(note.code), place, note

    return tuple(sorted(notes, key=likely))


def compare(
    ours: Results, reference: Reference, *, noise: Noise | None = None, paired: PairedTest | None = None
) -> Comparison:
    """Compares a run with a reference, row by row, in an order that does not depend on the order of the input.

    Args:
        ours: What :func:`evalscope_vacc.results.load.load_results` read.
        reference: Published scores, or another run (:func:`reference_from`).
        noise: How far scores may differ; by dtype when not given.
        paired: Test by query: given both rows and the metric it returns an interval, a note why there is none, or None.
    """
    noise = noise or Noise()
    mine = with_means(_distinct(ours.rows), reference)
    theirs: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in _distinct(reference.rows):
        theirs[row.key].append(row)
    pairs = [(row, _judge(row, theirs.get(row.key, ()), reference, noise, paired)) for row in mine]
    pairs.sort(key=lambda pair: _order(pair[1]))
    rows = tuple(compared for _, compared in pairs)
    return Comparison(
        reference=reference.name,
        reference_revision=reference.revision,
        reference_source=reference.source,
        noise=noise.describe(),
        rows=rows,
        means=benchmark_means(pairs, reference, noise),
        runs=tuple(sorted({row.run.label for row in mine})),
        problems=ours.problems,
        missing=_missing(mine, reference) if reference.is_run else (),
    )


def reference_from(results: Results, *, like: Iterable[Run] = ()) -> Reference:
    """Makes a reference of another run.

    Of several runs in the folder, the one that goes with the runs ``like`` which it will be held against is taken: of the same
    kind first, then of the same model, the same settings and the same revision.

    Raises:
        ResultError: There is no result, or more than one run could be meant.
    """
    wanted, runs = list(like), results.needed().runs
    kinds = {run.kind for run in wanted}
    narrower: list[Callable[[Run], object]] = [lambda run: run.kind] if len(kinds) == 1 else []
    narrower += [lambda run: run.served_name.casefold(), lambda run: run.experiment, lambda run: run.revision]
    for of in narrower:
        if len(runs) > 1 and wanted:
            runs = tuple(run for run in runs if of(run) in {of(one) for one in wanted}) or runs
    if len(runs) > 1:
        raise ResultError(
            f"{len(runs)} runs are under {', '.join(results.paths)}: {'; '.join(r.label for r in runs[:5])}. "
            "Give the folder of the one to compare with."
        )
    chosen = runs[0]
    return Reference(
        name=chosen.label,
        rows=tuple(row for row in results.rows if row.run == chosen),
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


def _judge(
    row: Row, candidates: Sequence[Row], reference: Reference, noise: Noise, paired: PairedTest | None
) -> ComparedRow:
    if not candidates:
        return compared_row(row, "no reference", Reason("no_row"))
    if reference.kind and row.run.kind and reference.kind != row.run.kind:
        return compared_row(row, "not judged", Reason.of("other_kind", ours=row.run.kind, theirs=reference.kind))
    measured = [(theirs, metric) for theirs in candidates if (metric := _shared_metric(row, theirs))]
    if not measured:
        metrics = ", ".join(sorted({c.metric for c in candidates}))
        return compared_row(row, "no reference", Reason.of("other_metric", metrics=metrics))
    free = [(theirs, metric) for theirs, metric in measured if not row.conditions.conflicts(theirs.conditions)]
    if not free:
        why = min((row.conditions.conflicts(theirs.conditions) for theirs, _ in measured), key=lambda c: (len(c), c))
        return compared_row(row, "not judged", *why)
    # several may be left: the one whose recorded conditions agree in most
    most = max(_agreement(row, theirs) for theirs, _ in free)
    best = [(theirs, metric) for theirs, metric in free if _agreement(row, theirs) == most]
    values = {theirs.value(metric) for theirs, metric in best}
    if len(values) > 1:
        return compared_row(row, "not judged", Reason.of("several_values", values=", ".join(sorted(map(str, values)))))
    theirs, metric = min(best, key=lambda pair: (pair[1], pair[0].source, pair[0].mteb_version or ""))
    return _measure(row, theirs, metric, noise, paired)


def compared_row(row: Row, verdict: Judgement, *reasons: Reason, **more: Any) -> ComparedRow:
    """Makes a line of the verdict of a score."""
    base = {
        "task": row.task, "split": row.split, "subset": row.subset, "metric": row.metric, "type": row.type,
        "ours": row.score, "model": row.run.model, "run": row.run.label, "source": row.source,
    }  # fmt: skip
    return ComparedRow(**{**base, "verdict": verdict, "reasons": reasons, **more})


def _measure(row: Row, theirs: Row, metric: str, noise: Noise, paired: PairedTest | None) -> ComparedRow:
    mine, published = row.value(metric), theirs.value(metric)
    more: dict[str, Any] = {"metric": metric, "ours": mine, "reference": published, "reference_source": theirs.source}
    if published is None:
        return compared_row(row, "not judged", Reason("reference_no_number"), **more)
    if theirs.suspect:
        return compared_row(row, "not judged", Reason("outlier"), **more)
    # no main metric of MTEB's leaves this range; a score of 64.5 is one in percent
    if abs(published) > 1:
        return compared_row(row, "not judged", Reason.of("reference_no_fraction", value=published), **more)
    if mine is None:
        return compared_row(row, "fail", Reason("no_score"), **more)
    if abs(mine) > 1:
        return compared_row(row, "fail", Reason.of("no_fraction", value=mine), **more)
    difference = mine - published
    tolerance = noise.of(published, ours=row.conditions.dtype, theirs=theirs.conditions.dtype, rounding=theirs.rounding)
    notes, reasons = list(_notes(row, theirs)), list[Reason]()
    verdict = judgement(difference, tolerance.value)
    tested = paired(row, theirs, metric) if paired is not None else None
    interval = tested if isinstance(tested, Interval) else None
    if isinstance(tested, Reason):
        notes.append(tested)
    if interval and verdict != "pass":
        excusable = abs(difference) <= (1 - EXCUSED_SHARE) * abs(published)
        if interval.low <= 0 <= interval.high and interval.p_value > 0.05 and excusable:
            verdict = "pass"
            reasons.append(Reason.of("within_query_noise", queries=interval.queries, p=interval.p_value))
    if verdict == "above":
        notes.append(Reason("above_itself"))
    part = share(mine, published)
    return compared_row(
        row, verdict, *reasons, difference=difference, share=part, mark=mark(part), tolerance=tolerance.value,
        tolerance_reason=tolerance.reason, notes=tuple(notes), interval=interval, **more,
    )  # fmt: skip


def _notes(row: Row, theirs: Row) -> Iterable[Reason]:
    """What differs and is no other measurement: the provenance, never the identity or the conditions of a score."""
    yield from row.conditions.unrecorded(theirs.conditions)
    if row.mteb_version and theirs.mteb_version and row.mteb_version != theirs.mteb_version:
        yield Reason.of("other_mteb", ours=row.mteb_version, theirs=theirs.mteb_version)
    if row.dataset_revision and theirs.dataset_revision and row.dataset_revision != theirs.dataset_revision:
        yield Reason.of("other_data", ours=row.dataset_revision[:8], theirs=theirs.dataset_revision[:8])
    mine, other = row.conditions.dimensions, theirs.conditions.dimensions
    if mine != other and mine is not None:
        yield Reason.of("cut_vectors_both" if other else "cut_vectors", ours=mine, theirs=other)


def _shared_metric(row: Row, theirs: Row) -> str | None:
    """The reference's metric where our file has it, else ours where the reference has it."""
    if row.metric == theirs.metric or theirs.metric in row.metrics:
        return theirs.metric
    return row.metric if row.metric in theirs.metrics else None


def _agreement(row: Row, theirs: Row) -> int:
    ours, others = row.conditions, theirs.conditions
    return sum(others.get(name) is not None and ours.get(name) == others.get(name) for name in blocking())


def _distinct(rows: Iterable[Row]) -> list[Row]:
    """Drops copies: the same score of the same run under the same conditions, found in two places."""
    seen: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        identity = (*row.key, row.metric, repr(row.score), row.run, row.conditions)
        known = seen.get(identity)
        # of copies, the same one whatever the order
        if known is None or repr(row) < repr(known):
            seen[identity] = row
    return list(seen.values())


def _order(row: ComparedRow) -> tuple[Any, ...]:
    return (row.task, row.split, row.subset, row.metric, row.run, row.source, repr(row.ours), row.verdict, repr(row))
