"""Writes a comparison down: for a terminal, as Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from evalscope_vacc.redact import clean
from evalscope_vacc.results.compare import JUDGED, ComparedRow, Comparison, MeanRow
from evalscope_vacc.results.verdict import Suspicion, Verdict

if TYPE_CHECKING:
    from rich.console import RenderableType

FORMAT = "evalscope-vacc/compare"
VERSION = 1
WORST = 5
WIDE = 100
_COLOURS = {"pass": "green", "above": "cyan", "fail": "bold red", "not judged": "yellow", "no reference": "dim"}
_MARKS = {"99.9 %": ("99.9 %",), "99 %": ("99.9 %", "99 %")}
_CSV_COLUMNS = (
    "verdict", "task", "split", "subset", "metric", "ours", "reference", "difference", "tolerance", "share", "mark",
    "interval_low", "interval_high", "p_value", "queries", "type", "run", "against", "reason", "notes",
)  # fmt: skip


def to_json(verdict: Verdict) -> str:
    """Returns one JSON document."""
    document: dict[str, Any] = {"format": FORMAT, "version": VERSION, **summary(verdict)}
    document["comparisons"] = [c.to_json() for c in verdict.comparisons]
    return json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False)


def summary(verdict: Verdict) -> dict[str, Any]:
    """Returns the answer on the whole as plain values; ``asked`` is None where the run left no word of it."""
    return {
        "verdict": verdict.outcome,
        "exit_status": verdict.exit_status,
        "asked": verdict.asked,
        **{state.replace(" ", "_"): count for state, count in verdict.counts.items()},
        "partial": verdict.partial,
        "tasks": [asdict(task) for task in verdict.tasks],
        "suspicions": [asdict(suspicion) for suspicion in verdict.suspicions],
    }


def to_csv(verdict: Verdict) -> str:
    """Returns a line a row; scores are fractions at full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for comparison in verdict.comparisons:
        for row in comparison.rows:
            ends = row.interval
            writer.writerow(
                _inert(value)
                for value in (
                    row.verdict, row.task, row.split, row.subset, row.metric, row.ours, row.reference, row.difference,
                    row.tolerance, row.share, row.mark, ends and ends.low, ends and ends.high, ends and ends.p_value,
                    ends and ends.queries, row.type, row.run, comparison.reference, row.reason, "; ".join(row.notes),
                )
            )  # fmt: skip
    return out.getvalue()


def to_markdown(verdict: Verdict) -> str:
    """Returns a page that can be pasted into an issue."""
    parts: list[str] = []
    for comparison in verdict.comparisons:
        notes = _Notes()
        title = headline(comparison, verdict)
        loud = warnings(verdict) if comparison is verdict.comparisons[0] else []
        parts += [f"## {_md(title)}", "", *(f"**{_md(line)}**\n" for line in loud)]
        parts += [*(f"* {_md(line)}" for line in _facts(comparison)), ""]
        parts += _md_table(ROW_HEADS, [_row_cells(row, notes) for row in comparison.rows], right=range(4, 9))
        if comparison.means:
            parts += _md_table(MEAN_HEADS, [_mean_cells(mean) for mean in comparison.means], right=range(2, 7))
        parts += [f"{number}. {_md(note)}" for number, note in enumerate(notes.texts, 1)]
        if notes.texts:
            parts.append("")
    return "\n".join(parts).rstrip("\n") + "\n"


def to_rich(verdict: Verdict, width: int = 80) -> Iterable[RenderableType]:
    """Yields what a terminal of ``width`` columns shows: headline, facts, tables, notes."""
    from rich.markup import escape
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    heads_here = NARROW_HEADS if width >= WIDE else tuple(head for head in NARROW_HEADS if head != "Share")
    kept = [NARROW_HEADS.index(head) for head in heads_here]
    for comparison in verdict.comparisons:
        notes = _Notes()
        title = headline(comparison, verdict)
        style = {"PASS": "bold green", "FAIL": "bold red", "ABOV": "bold red"}.get(title[:4], "bold yellow")
        yield Text(title, style=style)
        if comparison is verdict.comparisons[0]:
            for line in warnings(verdict):
                yield Text(line, style="bold red")
        for line in _facts(comparison):
            yield Padding(Text(line, style="dim"), (0, 0, 0, 2), expand=False)
        for heads, cells, numbers in (
            (heads_here, [[cells[i] for i in kept] for cells in _narrow_rows(comparison, notes)], range(2, 6)),
            *_mean_tables(comparison),
        ):
            if not cells:
                continue
            table = Table(box=None, header_style="bold", pad_edge=False)
            for position, head in enumerate(heads):
                right = position in numbers and head != "Verdict"
                table.add_column(
                    head, justify="right" if right else "left", no_wrap=right or head == "Verdict", overflow="fold"
                )
            for line_cells in cells:
                word = line_cells[-1].split(" [")[0]
                shown = [escape(cell) for cell in line_cells]
                colour = _COLOURS.get(word, "")
                shown[-1] = f"[{colour}]{shown[-1]}[/]" if colour else shown[-1]
                table.add_row(*shown)
            yield table
            yield ""
        for number, note in enumerate(notes.texts, 1):
            yield Padding(Text(f"[{number}] {note}", style="dim"), (0, 0, 0, 2), expand=False)


def headline(comparison: Comparison, verdict: Verdict) -> str:
    """Says the answer in one line: how much of what was asked for, and which tasks differ by how much."""
    outcome: str = comparison.outcome
    whole = verdict.outcome == "incomplete" or (verdict.partial and outcome != "nothing comparable")
    if outcome == "pass" and verdict.outcome == "incomplete":
        outcome = "incomplete"
    if outcome == "above" and verdict.allow_above:
        outcome = "incomplete" if verdict.outcome == "incomplete" else "pass"
    words = _HEADS[outcome]
    return f"{words}{f'{_progress(verdict)}; ' if whole else ''}{_answer(comparison)}"


_HEADS = {
    "pass": "PASS: ", "fail": "FAIL: ", "above": "ABOVE: ", "incomplete": "INCOMPLETE: ",
    "nothing comparable": "NOTHING COMPARABLE ",
}  # fmt: skip


def _progress(verdict: Verdict) -> str:
    words = f"{verdict.finished} of {len(verdict.tasks)} tasks finished"
    for state in ("failed", "not run"):
        names = [task.task for task in verdict.tasks if task.state == state]
        if names:
            words += f", {len(names)} {state} ({', '.join(names[:WORST])}{' …' if len(names) > WORST else ''})"
    return words


def warnings(verdict: Verdict) -> list[str]:
    """Says which scores no weights would earn."""
    return [clean(_suspicion(suspicion), limit=600) for suspicion in verdict.suspicions]


def _suspicion(found: Suspicion) -> str:
    names = ", ".join(found.tasks[:WORST]) + (
        f" and {len(found.tasks) - WORST} more" if len(found.tasks) > WORST else ""
    )
    return {
        "at chance": f"WARNING: no better than chance: {names}",
        "no number": f"WARNING: the score is missing or not a finite number: {names}",
        "all equal": f"WARNING: every task has the same score, {_percent(found.value)}: {names}",
        "sanity": f"WARNING: before the run every text got the same answer: {names}",
    }[found.code]


def _answer(comparison: Comparison) -> str:
    judged = [row for row in comparison.rows if row.judged]
    failed = sorted((row for row in judged if row.verdict == "fail"), key=_badness)
    above = sorted((row for row in judged if row.verdict == "above"), key=_badness, reverse=True)
    against = clean(comparison.reference, limit=200)
    if comparison.outcome == "nothing comparable":
        why = sorted({row.reason for row in comparison.rows if row.reason})
        other = ", and other reasons below" if len(why) > 1 else ""
        return f"with {against}: {why[0] + other if why else 'no result was found'}"
    for rows, place in ((failed, "below"), (above, "above")):
        if rows:
            worst = ", ".join(_failure(row) for row in rows[:WORST])
            rest = f", and {len(rows) - WORST} more" if len(rows) > WORST else ""
            more = f" ({len(above)} above it)" if above and place == "below" else ""
            return (
                f"{len(rows)} of {len(judged)} scores are {place} {against}{more}: {worst}{rest}{_left_out(comparison)}"
            )
    means = [m for m in comparison.means if m.verdict in JUDGED]
    wrong = [m for m in means if m.verdict != "pass"]
    if wrong:
        points = ", ".join(f"{m.benchmark} {m.measure} {_points(m.difference)} points" for m in wrong)
        return f"a mean is {'below' if wrong[0].verdict == 'fail' else 'above'} {against}: {points}"
    if not judged:
        named = ", ".join(f"{m.benchmark} {m.measure} {_percent(m.ours)}" for m in means)
        return f"{named} is as accurate as {against}; no score by itself is compared"
    return f"{len(judged)} of {len(judged)} scores are as accurate as {against}{_left_out(comparison)}"


def _left_out(comparison: Comparison) -> str:
    """A pass of one score in forty must not read as a pass of forty."""
    count = sum(not row.judged for row in comparison.rows)
    return f"; {count} not compared" if count else ""


ROW_HEADS = ("Task", "Split", "Subset", "Metric", "Ours", "Reference", "Points", "Allowed", "Share", "Mark", "Verdict")
NARROW_HEADS = ("Task", "Metric", "Ours", "Reference", "Points", "Share", "Verdict")
MEAN_HEADS = ("Benchmark", "Mean", "Tasks", "Ours", "Reference", "Points", "Published", "Verdict")


class _Notes:
    """Numbers the notes, each text once."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def number(self, text: str) -> int:
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def _facts(comparison: Comparison) -> list[str]:
    lines = [f"run: {run}" for run in comparison.runs]
    repeated = comparison.reference_revision in comparison.reference  # a run's name holds it
    revision = "" if repeated else f" at {comparison.reference_revision}"
    lines.append(
        f"against: {comparison.reference}{revision}"
        + (f", {comparison.reference_source}" if comparison.reference_source else "")
    )
    lines.append(comparison.noise)
    allowed = sorted({(row.tolerance, row.tolerance_reason) for row in comparison.rows if row.tolerance is not None})
    if allowed:
        given = ", ".join(f"±{100 * value:.3g} points ({why})" for value, why in allowed[:3])
        lines.append(f"allowed here: {given}" + (f" and {len(allowed) - 3} more" if len(allowed) > 3 else ""))
    marked = [row for row in comparison.rows if row.mark]
    if marked:
        reached = {name: sum(row.mark in names for row in marked) for name, names in _MARKS.items()}
        lines.append(
            "share of the reference: " + ", ".join(f"{n} of {len(marked)} reach {name}" for name, n in reached.items())
        )
    counted = ", ".join(f"{count} {name}" for name, count in comparison.counts.items() if count)
    lines.append(f"scores: {counted or 'none'}")
    if comparison.missing:
        named = ", ".join(comparison.missing[:WORST])
        rest = f", and {len(comparison.missing) - WORST} more" if len(comparison.missing) > WORST else ""
        lines.append(f"in the reference only: {len(comparison.missing)} scores: {named}{rest}")
    lines += [f"problem: {problem}" for problem in comparison.problems]
    return [clean(line, limit=600) for line in lines]


def _row_cells(row: ComparedRow, notes: _Notes) -> list[str]:
    texts = [row.reason, *row.notes]
    if row.interval:
        ends = row.interval
        texts.insert(
            1,
            f"{row.task} {row.subset}: 95 % interval of the difference {_points(ends.low)} to {_points(ends.high)} "
            f"points, p = {ends.p_value:.2g}, {ends.queries} queries",
        )
    marks = "".join(f" [{notes.number(text)}]" for text in texts if text)
    return [
        row.task, row.split, row.subset, row.metric, _percent(row.ours), _percent(row.reference),
        _points(row.difference), f"±{100 * row.tolerance:.3g}" if row.tolerance is not None else "", _share(row.share),
        row.mark, row.verdict + marks,
    ]  # fmt: skip


def _mean_tables(comparison: Comparison) -> Iterable[tuple[tuple[str, ...], list[list[str]], range]]:
    """The published column is there only where something is published."""
    cells = [_mean_cells(mean) for mean in comparison.means]
    if any(mean.published is not None for mean in comparison.means):
        yield MEAN_HEADS, cells, range(2, 7)
    else:
        hidden = MEAN_HEADS.index("Published")
        shorter = [[cell for i, cell in enumerate(row) if i != hidden] for row in cells]
        yield tuple(h for h in MEAN_HEADS if h != "Published"), shorter, range(2, 6)


def _narrow_rows(comparison: Comparison, notes: _Notes) -> Iterable[list[str]]:
    """Fits 80 columns: a subset that is called "default" and the allowed difference are in the other formats."""
    for row in comparison.rows:
        task, split, subset, metric, ours, reference, points, _, part, _, verdict = _row_cells(row, notes)
        where = f"{task} · {split}" + (f" · {subset}" if subset != "default" else "")
        yield [where, metric, ours, reference, points, part, verdict]


def _mean_cells(mean: MeanRow) -> list[str]:
    return [
        mean.benchmark, mean.measure, f"{mean.tasks} of {mean.of}", _percent(mean.ours), _percent(mean.reference),
        _points(mean.difference), _percent(mean.published), mean.verdict if mean.tasks == mean.of else "partial",
    ]  # fmt: skip


def _failure(row: ComparedRow) -> str:
    where = row.task if row.subset == "default" else f"{row.task} {row.subset}"
    if row.difference is not None:
        return f"{where} ({row.split}) {_points(row.difference)} points"
    return f"{where} has no score" if row.ours is None else f"{where} ({row.split}): {row.reason}"


def _badness(row: ComparedRow) -> tuple[float, str, str, str]:
    return (row.difference if row.difference is not None else float("-inf"), row.task, row.split, row.subset)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _points(value: float | None) -> str:
    # a difference of 1e-7 is not a minus zero
    return "" if value is None else f"{round(100 * value, 3) + 0.0:+.3f}"


def _share(value: float | None) -> str:
    if value is None:
        return ""
    shown = round(100 * value, 2)
    # 99.896 % does not reach the 99.9 % mark and must not read as if it did
    if any(100 * value < limit <= shown for limit in (99.0, 99.9)):
        shown = math.floor(1e4 * value) / 100
    return f"{shown:.2f} %"


def _md_table(heads: Sequence[str], rows: list[list[str]], *, right: Iterable[int]) -> list[str]:
    if not rows:
        return []
    numbers = set(right)
    rule = ["---:" if position in numbers else "---" for position in range(len(heads))]
    lines = [heads, rule, *([_md(cell) for cell in row] for row in rows)]
    return [*("| " + " | ".join(line) + " |" for line in lines), ""]


def _md(text: str) -> str:
    """Keeps names from becoming markup: a task may be called anything."""
    for mark in ("\\", "|", "<", ">", "*", "`", "[", "]", "_"):
        text = text.replace(mark, f"\\{mark}" if mark not in "<>" else {"<": "&lt;", ">": "&gt;"}[mark])
    return text.replace("\n", " ")


def _inert(value: Any) -> Any:
    """Keeps a spreadsheet from reading a name as a formula."""
    if isinstance(value, str):
        flat = value.replace("\n", " ").replace("\r", " ")
        return f"'{flat}" if flat[:1] in {"=", "+", "-", "@", "\t"} else flat
    return "" if value is None else value
