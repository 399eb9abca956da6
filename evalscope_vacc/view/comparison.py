"""A verdict as a document: the answer first, then what is wrong, then the rest, and last where it all comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from evalscope_vacc.names import served_name
from evalscope_vacc.redact import clean
from evalscope_vacc.results.model import JUDGED, ComparedRow, Comparison, MeanRow, Verdict
from evalscope_vacc.view.document import Block, Column, Line, Style, Table, table, to_markdown, to_terminal
from evalscope_vacc.view.machine import to_csv, to_json, to_mapping
from evalscope_vacc.view.words import Words, allowed, numbering, percent, points, row_notes, share, where

MATCHING = 20
MOST_CAUSES = 4
STYLES: dict[str, Style] = {
    "pass": "good", "fail": "bad", "above": "bad", "incomplete": "doubt", "nothing comparable": "doubt",
    "not judged": "doubt", "no reference": "soft", "partial": "soft",
}  # fmt: skip
_ORDER = ("fail", "above", "not judged", "no reference", "pass")
_MARKS = {"99.9 %": ("99.9 %",), "99 %": ("99.9 %", "99 %")}


def document(verdict: Verdict, words: Words, *, verbose: bool = False) -> list[Block]:
    """Returns what `compare` shows; ``verbose`` lists every row that matches, however many there are."""
    blocks: list[Block] = []
    several = len(verdict.comparisons) > 1
    seen: set[str] = set()
    if several:
        blocks.append(Line(overall(verdict, words), "head", STYLES[verdict.outcome]))
    for number, comparison in enumerate(verdict.comparisons):
        blocks.append(Line(headline(comparison, verdict, words), "head", STYLES[verdict.outcome_of(comparison)]))
        if not number:
            blocks += [Line(text, "loud", "bad") for text in warnings(verdict, words)]
            blocks += [Line(text, "fact", "doubt") for text in unfinished(verdict, words)]
        blocks += causes(comparison, words)
        blocks += _tables(comparison, words, verbose=verbose)
        facts = [*_asked(verdict, words), *_facts(comparison, words)] if not number else _facts(comparison, words)
        # what holds for all the runs is said once
        blocks += [Line(clean(text, limit=600), "fact") for text in facts if text not in seen]
        seen.update(facts)
    if several:
        blocks += matrix(verdict.comparisons, words)
    return blocks


def written(verdict: Verdict, words: Words, form: str = "terminal", *, verbose: bool = False) -> str:
    """Returns the verdict in one of the formats: terminal, json, csv or markdown."""
    if form == "json":
        return to_json(to_mapping(verdict, words))
    if form == "csv":
        return to_csv(verdict, words)
    shown = document(verdict, words, verbose=verbose or form == "markdown")
    return to_markdown(shown) if form == "markdown" else to_terminal(shown)


def overall(verdict: Verdict, words: Words) -> str:
    """Says the joint answer about several runs in one line."""
    found = Counter(words(f"word_{verdict.outcome_of(comparison)}") for comparison in verdict.comparisons)
    counted = words("comma").join(f"{count} {word}" for word, count in found.items())
    said = [words("runs_head", runs=len(verdict.comparisons)) + words("colon") + counted, *progress(verdict, words)]
    return words(f"word_{verdict.outcome}") + words("colon") + words("semicolon").join(said)


def headline(comparison: Comparison, verdict: Verdict, words: Words) -> str:
    """Says the answer about one run in one line: how much of what was asked for, and which tasks differ by how much."""
    several = len(verdict.comparisons) > 1
    said = [answer(comparison, verdict, words)]
    if not several:
        said = [*progress(verdict, words), *said] if verdict.partial else [*said, *progress(verdict, words)]
    return words(f"word_{verdict.outcome_of(comparison)}") + words("colon") + words("semicolon").join(said)


def progress(verdict: Verdict, words: Words) -> list[str]:
    """Says how much of what was asked for is there, where something is not."""
    names: dict[str, list[str]] = {
        state: [task.task for task in verdict.tasks if task.state == state] for state in verdict.counts
    }
    said = [
        words(f"n_{state}", count=len(names[state]), tasks=words.some(names[state]))
        for state in ("failed", "not run", "no reference")
        if names[state]
    ]
    if not verdict.partial:
        return said
    said.insert(0, words("n_judged", count=len(names["judged"])))
    finished = words("finished_of", finished=verdict.finished, asked=len(verdict.tasks))
    return [finished + words("colon") + words("comma").join(said)]


def answer(comparison: Comparison, verdict: Verdict, words: Words) -> str:
    """Says what came of one run's scores."""
    judged = [row for row in comparison.rows if row.judged]
    failed, above = ([row for row in judged if row.verdict == v] for v in ("fail", "above"))
    against = clean(served_name(comparison.reference), limit=200)
    unlike = sum(not row.judged for row in comparison.rows)
    rest = words("semicolon") + words("not_compared", count=unlike) if unlike else ""
    if comparison.outcome == "nothing comparable":
        why = sorted({words.say(reason) for row in comparison.rows for reason in row.reasons[:1]})
        said = why[0] if why else words("no_result")
        return (
            words("answer_nothing", reference=against)
            + words("colon")
            + (words("other_reasons", reason=said) if len(why) > 1 else said)
        )
    if verdict.allow_above and not failed:
        above = []
    for rows, name in ((failed, "fail"), (above, "above")):
        if rows:
            line = words(f"answer_{name}", count=len(rows), judged=len(judged), reference=against)
            more = words("also_above", count=len(above)) if above and name == "fail" else ""
            return line + more + words("colon") + words.some(_failure(row, words) for row in _worst(rows)) + rest
    means = [mean for mean in comparison.means if mean.verdict in JUDGED]
    wrong = [m for m in means if m.verdict != "pass" and not (m.verdict == "above" and verdict.allow_above)]
    if wrong:
        named = [words("points_of", where=f"{m.benchmark} {m.measure}", points=points(m.difference)) for m in wrong]
        return words(f"answer_mean_{wrong[0].verdict}", reference=against) + words("colon") + words.some(named)
    if not judged:
        named = [f"{m.benchmark} {m.measure} {percent(m.ours)}" for m in means]
        return words("answer_means_pass", means=words.some(named), reference=against)
    return words("answer_pass", judged=len(judged), reference=against) + rest


def _worst(rows: Iterable[ComparedRow]) -> list[ComparedRow]:
    return sorted(rows, key=lambda row: (-abs(row.difference if row.difference is not None else 1e9), where(row)))


def _failure(row: ComparedRow, words: Words) -> str:
    if row.difference is not None:
        return words("points_of", where=where(row), points=points(row.difference))
    return words("no_score_of", where=where(row)) if row.ours is None else f"{where(row)}: {words.say(row.reasons[0])}"


def warnings(verdict: Verdict, words: Words) -> list[str]:
    """Says which scores no weights would earn."""
    return [words("warning", text=words.say(reason)) for reason in verdict.warnings]


def unfinished(verdict: Verdict, words: Words) -> list[str]:
    """Says why a task failed, or what its result lacks."""
    return [
        clean(
            words("task_failed" if task.state == "failed" else "task_lacks", task=task.task, why=words.say(task.detail))
        )
        for task in verdict.tasks
        if task.detail is not None
    ]


def causes(comparison: Comparison, words: Words) -> list[Line]:
    """Says what may explain scores that do not match."""
    if comparison.outcome not in ("fail", "above"):
        return []
    named = [words.say(reason) for reason in comparison.causes[:MOST_CAUSES]]
    lines = [words("causes"), *named] if named else [words("no_causes")]
    return [Line(text, "fact" if number else "text") for number, text in enumerate(lines)]


def _tables(comparison: Comparison, words: Words, *, verbose: bool) -> Iterator[Block]:
    notes = numbering()
    rows = sorted(comparison.rows, key=lambda row: _ORDER.index(row.verdict))
    matching = [row for row in rows if row.verdict == "pass"]
    if len(matching) > MATCHING and not verbose:
        rows = rows[: len(rows) - len(matching)]
    if rows:
        heads = ("task", "split", "subset", "metric", "ours", "reference", "points", "allowed", "share", "verdict")
        cells, styles = [_cells(row, notes, words) for row in rows], [STYLES[row.verdict] for row in rows]
        yield table(words, heads, cells, right=heads[4:9], extra=("metric", "allowed", "share"), styles=styles)
    if len(rows) < len(comparison.rows):
        furthest = _worst(matching)[0]
        difference = points(furthest.difference)
        yield Line(words("matching", count=len(matching), points=difference, where=where(furthest)))
    shown = [mean for mean in comparison.means if worth_showing(mean)]
    if shown:
        names = ("benchmark", "measure", "tasks", "ours", "reference", "points", "published", "verdict")
        cells, styles = [_mean_cells(mean, words) for mean in shown], [STYLES[mean_verdict(mean)] for mean in shown]
        yield table(words, names, cells, right=names[2:7], extra=("published",), styles=styles)
    for text, number in notes.items():
        yield Line(text, "note", number=number)
    if len(shown) < len(comparison.means):
        yield Line(words("partial_means", count=len(comparison.means) - len(shown)), "fact")


def worth_showing(mean: MeanRow) -> bool:
    """Whether a mean says something of its benchmark: it is over half of the tasks, or judged."""
    return 2 * mean.tasks >= mean.of or mean.verdict in JUDGED


def mean_verdict(mean: MeanRow) -> str:
    """Returns the word for a mean: one over a part of the tasks is not a verdict."""
    return mean.verdict if mean.tasks == mean.of else "partial"


def _cells(row: ComparedRow, notes: Mapping[str, int], words: Words) -> tuple[str, ...]:
    marks = "".join(f" [{notes[text]}]" for text in row_notes(row, words))
    return (
        row.task, row.split, "" if row.subset == "default" else row.subset, row.metric, percent(row.ours),
        percent(row.reference), points(row.difference), allowed(row.tolerance), share(row.share),
        words(f"v_{row.verdict}") + marks,
    )  # fmt: skip


def _mean_cells(mean: MeanRow, words: Words) -> tuple[str, ...]:
    return (
        mean.benchmark, mean.measure, words("of", part=mean.tasks, whole=mean.of), percent(mean.ours),
        percent(mean.reference), points(mean.difference), percent(mean.published), words(f"v_{mean_verdict(mean)}"),
    )  # fmt: skip


def _asked(verdict: Verdict, words: Words) -> Iterator[str]:
    if not verdict.recorded:
        yield words("asked_unknown")
    elif not verdict.partial:
        yield words("asked_all", count=len(verdict.tasks))


def _facts(comparison: Comparison, words: Words) -> Iterator[str]:
    yield from (words("run", text=served_name(run)) for run in comparison.runs)
    repeated = comparison.reference_revision in comparison.reference  # a run's name holds it
    named = served_name(comparison.reference) + ("" if repeated else f" @ {comparison.reference_revision}")
    yield words("against", text=words("comma").join(part for part in (named, comparison.reference_source) if part))
    yield words.say(comparison.noise)
    given = sorted(
        {(row.tolerance, row.tolerance_reason) for row in comparison.rows if row.tolerance is not None}, key=repr
    )
    if given:
        each = [words("allowed_one", points=100 * value, why=words.say(why)) for value, why in given]
        yield words("allowed_here", text=words.some(each, 3))
    marked = [row for row in comparison.rows if row.mark]
    if marked:
        high, low = (sum(row.mark in names for row in marked) for names in _MARKS.values())
        yield words("marks", high=high, low=low, all=len(marked))
    counted = words("comma").join(f"{count} {words(f'v_{name}')}" for name, count in comparison.counts.items() if count)
    yield words("scores_counted", text=counted or words("none"))
    if comparison.missing:
        yield words("only_reference", count=len(comparison.missing), text=words.some(comparison.missing))
    yield from (words("problem", text=words.say(problem)) for problem in comparison.problems)


def matrix(comparisons: Sequence[Comparison], words: Words) -> list[Block]:
    """Shows several runs side by side: one line for each score, one column for each run; best and worst are marked."""
    reference = clean(served_name(comparisons[0].reference), limit=200)
    alike = [c for c in comparisons if c.reference == comparisons[0].reference and c.outcome != "nothing comparable"]
    scores = [{(row.task, row.split, row.subset): row for row in c.rows if row.judged} for c in alike]
    keys = sorted({key for found in scores for key in found}) if len(alike) > 1 else []
    lines = []
    for key in keys:
        rows = [found.get(key) for found in scores]
        known = [row.ours for row in rows if row is not None and row.ours is not None]
        theirs = next((row.reference for row in rows if row is not None), None)
        cells = [_beside(row, known) for row in rows]
        lines.append((" · ".join(part for part in key if part != "default"), percent(theirs), *cells))
    if not lines:
        return []
    letters = [chr(ord("A") + number % 26) + str(number // 26 or "") for number in range(len(alike))]
    heads = (Column(words("col_task")), Column(words("col_reference"), True), *(Column(c, True) for c in letters))
    legend = [
        f"{letter} = {clean(', '.join(map(served_name, c.runs)), limit=300)}"
        for letter, c in zip(letters, alike, strict=True)
    ]
    return [
        Line(words("matrix"), "head"),
        Table(heads, tuple(lines)),
        *(Line(text, "fact") for text in (*legend, words("matrix_legend", reference=reference))),
    ]


def _beside(row: ComparedRow | None, known: Sequence[float]) -> str:
    if row is None or row.ours is None:
        return "–"
    mark = ""
    if len(known) > 1 and max(known) > min(known):
        mark = "▲ " if row.ours == max(known) else "▼ " if row.ours == min(known) else ""
    return f"{mark}{percent(row.ours)} ({points(row.difference)})"
