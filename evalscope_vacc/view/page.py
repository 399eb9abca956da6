"""Renders the page: one HTML file that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalscope_vacc.report.data import RunData, Sample, TaskSpeed
from evalscope_vacc.report.plot import DotPlot, dot_plot, points, skylines
from evalscope_vacc.report.texts import HTML_LANGUAGE, LANGUAGES, say, translator
from evalscope_vacc.results.compare import ComparedRow, Comparison, MeanRow
from evalscope_vacc.results.render import summary

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
# where a long name may be broken: between its words
_BREAKS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[_.-])(?=[A-Za-z])")
MAX_ROWS = 3000
MAX_SAMPLES_OF_A_TASK = 12
MAX_SAMPLES = 400
WORST = 3
# as the demo, `pip show` and MTEB's own files name them; the others are in the table of versions
_PINNED = ("evalscope", "mteb", "evalscope-vacc")


@dataclass(frozen=True)
class TableRow:
    """One line of the table of scores; numbers for sorting, the rest for reading."""

    row: ComparedRow
    notes: tuple[int, ...]
    share: str


@dataclass(frozen=True)
class Part:
    """One comparison as the page shows it."""

    comparison: Comparison
    line: str
    worst: str
    more: int
    plot: DotPlot | None


def render(data: RunData, *, language: str = "en", against: str | None = None) -> str:
    """Returns the whole page.

    Args:
        data: What :func:`evalscope_vacc.report.data.gather` found.
        language: "en" or "zh".
        against: What the user gave with ``--against``, for the commands that repeat the comparison.

    Raises:
        KeyError: The language is not known.
    """
    from evalscope_vacc._version import __version__

    text = translator(language)
    clean = data.cleaner.text
    notes = _Notes(lambda note: say(clean(note, 600), language))
    rows = _rows(data)
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    page = {
        "lang": HTML_LANGUAGE[language],
        "t": text,
        "say": lambda sentence: say(clean(sentence, 600), language),
        "data": data,
        # Chinese sentences follow one another without a space
        "space": "" if language == "zh" else " ",
        "version": __version__,
        "style": (TEMPLATES / "report.css").read_text(encoding="utf-8"),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        "parts": [
            _part(comparison, text, clean, language, named=len(data.comparisons) > 1) for comparison in data.comparisons
        ],
        "outcome": data.verdict.outcome if data.verdict.outcome != "nothing comparable" else "nothing",
        "progress": list(_progress(data, text)),
        "rows": [_table_row(row, notes, text) for row in rows[:MAX_ROWS]],
        "rows_left_out": max(0, len(rows) - MAX_ROWS),
        "verdicts": _counted(rows[:MAX_ROWS]),
        "notes": notes,
        "means": [mean for comparison in data.comparisons for mean in comparison.means],
        "against_column": text("col_published" if data.published else "col_reference"),
        "skylines": skylines(data.speed),
        "samples": _samples(data.samples),
        "samples_left_out": len(data.samples) - _kept(data.samples),
        "repeat_file": _yaml(data.repeat),
        "install": _install(data.versions),
        "commands": _commands(data, against),
        "finished": _when(data.finished),
        "facts": {name: list(_facts(facts)) for name, facts in data.servers.items()},
        "numbers": _numbers(data),
        "kpis": list(_kpis(data, rows, text)),
        "mean_verdict": mean_verdict,
    }
    return _environment().get_template("report.html.j2").render(page)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=lambda value: "" if value is None else f"{100 * value:.2f}",
        plain=lambda value: "" if value is None else f"{value:.2f}",
        points=points,
        signed=lambda value: points(None if value is None else value / 100),
        whole=lambda value: "" if value is None else f"{value:,.0f}",
        rate=_rate,
        share=lambda value: "" if value is None else f"{100 * value:.0f} %",
        seconds=_duration,
        exact=lambda value: "" if value is None else repr(float(value)),
        shown=_shown,
        breakable=lambda name: Markup("<wbr>").join(_BREAKS.split(name)),
        # the style sheet and the script are files of this package, nobody's input
        trusted=Markup,
    )
    return environment


class _Notes:
    """Numbers the notes, each text once."""

    def __init__(self, say_it: Any) -> None:
        self._say = say_it
        self.texts: list[str] = []

    def number(self, note: str) -> int:
        said = self._say(note)
        if said not in self.texts:
            self.texts.append(said)
        return self.texts.index(said) + 1


def _part(comparison: Comparison, text: Any, clean: Any, language: str, *, named: bool) -> Part:
    """Words one comparison; where there are several, each says which run it is about."""
    judged = [row for row in comparison.rows if row.judged]
    failed = sorted((row for row in judged if row.verdict == "fail"), key=lambda r: (r.difference or -1.0, r.task))
    reference = clean(comparison.reference, 200)
    above = comparison.counts.get("above", 0)
    if comparison.outcome == "nothing comparable":
        line = text("nothing_line", reference=reference)
    elif failed:
        line = text("fail_line", failed=len(failed), judged=len(judged), reference=reference)
    elif above and not failed:
        line = text("above_line", above=above, judged=len(judged), reference=reference)
    elif comparison.outcome in ("fail", "above"):
        line = text("fail_mean_line", reference=reference)
    else:
        line = text("pass_line", judged=len(judged), reference=reference)
    if above and failed:
        line = f"{line}{'' if language == 'zh' else ' '}{text('also_above', above=above)}"
    if named and comparison.runs:
        line = f"{clean(', '.join(comparison.runs), 200)}{'：' if language == 'zh' else ': '}{line}"
    worst = (", " if language == "en" else "、").join(map(_failure, failed[:WORST]))
    return Part(comparison, line, clean(worst, 600), max(0, len(failed) - WORST), dot_plot(comparison.rows))


def _progress(data: RunData, text: Any) -> Iterable[str]:
    """Says how much of what was asked for is there, and which scores no weights would earn."""
    verdict, clean = data.verdict, data.cleaner.text
    if verdict.partial:
        yield text("finished_of", finished=verdict.finished, asked=len(verdict.tasks))
    for state in ("failed", "not run", "no reference"):
        names = [clean(task.task, 200) for task in verdict.tasks if task.state == state]
        if names and (state != "no reference" or data.comparisons):
            yield text(state.replace(" ", "_") + "_tasks", count=len(names), tasks=", ".join(names[: WORST * 2]))
    for found in verdict.suspicions:
        name = "suspicion_" + found.code.replace(" ", "_")
        yield text(name, tasks=clean(", ".join(found.tasks[:WORST]), 600), value=f"{100 * (found.value or 0):.2f}")


def _failure(row: ComparedRow) -> str:
    where = row.task if row.subset == "default" else f"{row.task} {row.subset}"
    return f"{where} {points(row.difference)}".rstrip()


def _rows(data: RunData) -> list[ComparedRow]:
    """Returns every row, the failed ones first; rows of models without a reference are there, too."""
    compared = [row for comparison in data.comparisons for row in comparison.rows]
    known = {(row.task, row.split, row.subset, row.run) for row in compared}
    rest = [
        ComparedRow(
            task=row.task, split=row.split, subset=row.subset, metric=row.metric, verdict="no reference",
            type=row.type, ours=row.score, run=row.run.label, source=row.source,
        )
        for row in data.rows
        if (row.task, row.split, row.subset, row.run.label) not in known
    ]  # fmt: skip
    order = {"fail": 0, "above": 1, "pass": 1, "not judged": 2, "no reference": 3}
    everything = [*compared, *rest]
    return sorted(everything, key=lambda r: (order[r.verdict] > 0, r.task.casefold(), r.split, r.subset, r.run))


def _table_row(row: ComparedRow, notes: _Notes, text: Any) -> TableRow:
    said = [row.reason, *row.notes]
    numbers = [notes.number(note) for note in said if note]
    if row.interval:
        ends = row.interval
        numbers.append(
            notes.number(
                text(
                    "interval",
                    task=row.task,
                    subset=row.subset,
                    low=points(ends.low),
                    high=points(ends.high),
                    p=f"{ends.p_value:.2g}",
                    queries=ends.queries,
                )
            )
        )
    share = "" if row.share is None else f"{_floor_at_marks(row.share):.2f} %"
    return TableRow(row, tuple(dict.fromkeys(numbers)), share)


def _floor_at_marks(share: float) -> float:
    """Rounds a share to two digits, but never up to a mark that it does not reach."""
    rounded = round(100 * share, 2)
    return int(1e4 * share) / 100 if any(100 * share < mark <= rounded for mark in (99.0, 99.9)) else rounded


def _counted(rows: Iterable[ComparedRow]) -> dict[str, int]:
    counts: dict[str, int] = dict.fromkeys(("fail", "pass", "above", "not judged", "no reference"), 0)
    for row in rows:
        counts[row.verdict] += 1
    return {verdict: count for verdict, count in counts.items() if count}


def _kpis(data: RunData, rows: Sequence[ComparedRow], text: Any) -> Iterable[tuple[str, str]]:
    judged = [row for row in rows if row.judged]
    if judged:
        yield f"{len(judged):,}", text("kpi_scores")
        worst = max((row.difference for row in judged if row.difference is not None), key=abs, default=None)
        if worst is not None:
            yield points(worst), text("kpi_worst")
    else:
        yield f"{len({row.task for row in data.rows}):,}", text("kpi_tasks")
    seconds = sum(speed.seconds for speed in data.speed)
    if seconds > 0:
        yield _rate(sum(speed.texts for speed in data.speed) / seconds), text("kpi_rate")
        known = [(s.busy, s.seconds) for s in data.speed if s.busy is not None and s.seconds > 0]
        if known:
            busy = sum(share * part for share, part in known) / sum(part for _, part in known)
            yield f"{100 * busy:.0f} %", text("kpi_busy")
        yield _duration(seconds), text("kpi_time")
        yield f"{sum(speed.retries for speed in data.speed):,}", text("kpi_retries")


def _samples(samples: Iterable[Sample]) -> dict[tuple[str, str], list[Sample]]:
    groups: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    total = 0
    for sample in samples:
        group = groups[sample.model, sample.task]
        if len(group) < MAX_SAMPLES_OF_A_TASK and total < MAX_SAMPLES:
            group.append(sample)
            total += 1
    return {key: group for key, group in groups.items() if group}


def _kept(samples: Iterable[Sample]) -> int:
    return sum(map(len, _samples(samples).values()))


def _facts(facts: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Flattens what a server said into names and values; several servers keep their numbers."""
    for name, value in facts.items():
        if name == "servers" and isinstance(value, list):
            for number, server in enumerate(value, 1):
                if isinstance(server, Mapping):
                    yield from _facts(server, f"{number}. " if len(value) > 1 else "")
        else:
            yield f"{prefix}{name}", value


def _yaml(repeat: Mapping[str, Any] | None) -> str:
    import yaml

    if repeat is None:
        return ""
    return str(yaml.safe_dump(dict(repeat), sort_keys=False, allow_unicode=True, width=100)).rstrip()


def _install(versions: Mapping[str, str]) -> str:
    pinned = [f"{name}=={versions[name]}" for name in _PINNED if name in versions and "," not in versions[name]]
    return f"pip install {' '.join(shlex.quote(part) for part in pinned)}" if pinned else ""


def _commands(data: RunData, against: str | None) -> str:
    lines: list[str] = []
    target = "outputs/RUN"
    tasks = sorted({row.task for row in data.rows})
    if data.repeat is not None:
        lines.append("evalscope eval --eval-backend RAGEval --eval-config run.yaml")
    elif tasks:
        for name, config in data.configs.items() or ((f"vacc/{title}", {}) for title in data.title):
            bases = config.get("api_base")
            base = str(bases[0]) if isinstance(bases, list) and bases else "http://HOST:8000/v1"
            served = name if "/" in name else f"vacc/{name}"
            lines.append(
                f"VACC_API_BASE={shlex.quote(base)} evalscope-vacc mteb run -m {shlex.quote(served)} "
                f"-t {' '.join(shlex.quote(task) for task in tasks[:20])}{' …' if len(tasks) > 20 else ''} "
                "--output-folder outputs/RUN"
            )
    # without it, both commands find the published scores by the served name, as they did for this page
    option = f" --against {shlex.quote(data.cleaner.text(against, 300))}" if against else ""
    lines += [f"evalscope-vacc compare {target}{option}", f"evalscope-vacc report {target}{option} -o report.html"]
    return "\n".join(lines)


def _numbers(data: RunData) -> dict[str, Any]:
    """The numbers of the page for machines, with our own paths left out."""
    comparisons = []
    for comparison in data.comparisons:
        plain = comparison.to_json()
        for row in plain["rows"]:
            row.pop("source", None)
        comparisons.append(data.cleaner.value(plain))
    return {
        "format": "evalscope-vacc/report",
        "version": 1,
        **summary(data.verdict),
        "comparisons": comparisons,
        "speed": [
            {name: getattr(speed, name) for name in TaskSpeed.__dataclass_fields__} for speed in data.speed
        ],
    }  # fmt: skip


def _when(seconds: float | None) -> str:
    try:
        return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return ""


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _shown(value: Any) -> str:
    """Writes a plain value for people; a mapping or list of several things as YAML."""
    import yaml

    if value is None:
        return "—"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)) and all(isinstance(item, (str, int, float)) for item in value):
        return "\n".join(str(item) for item in value) or "—"
    if isinstance(value, (Mapping, list, tuple)):
        plain = dict(value) if isinstance(value, Mapping) else list(value)
        return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)).rstrip() if plain else "—"
    return str(value) if str(value) else "—"


def mean_verdict(mean: MeanRow) -> str:
    """Returns the word for a mean: one over a part of the tasks is not a verdict."""
    return mean.verdict if mean.tasks == mean.of else "partial"


__all__ = ["LANGUAGES", "mean_verdict", "render"]
