"""The page of a run: one HTML file that needs nothing but itself.

The plots are drawn by the template (HTML and SVG of a few kilobytes), not by a plotting library of four megabytes: the page
stays small enough to send by mail, readable without scripts, and its text can be selected, searched and read aloud.
"""

from __future__ import annotations

import base64
import hashlib
import html
import os
import re
import shlex
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalscope_vacc._version import __version__
from evalscope_vacc.config import ModelConfig
from evalscope_vacc.evidence import TaskUsage
from evalscope_vacc.files import read_bounded, write_whole
from evalscope_vacc.names import served_name
from evalscope_vacc.results.judge import compared_row
from evalscope_vacc.results.left import RunData, Sample
from evalscope_vacc.results.model import ComparedRow, Verdict
from evalscope_vacc.view import comparison as shown
from evalscope_vacc.view import words as written
from evalscope_vacc.view.machine import to_mapping
from evalscope_vacc.view.plot import dot_plot, skylines
from evalscope_vacc.view.words import Words, numbering, row_notes

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
HTML_LANGUAGE = {"en": "en", "zh": "zh-Hans"}
# where a long name may be broken: between its words
_BREAKS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[_.-])(?=[A-Za-z])")
MAX_ROWS = 3000
MAX_SAMPLES_OF_A_TASK = 12
MAX_SAMPLES = 400
# as the demo, `pip show` and MTEB's own files name them; the others are in the table of versions
_PINNED = ("evalscope", "mteb", "evalscope-vacc")
_VERDICTS = ("fail", "above", "pass", "not judged", "no reference")
MAX_BYTES = 64 << 20
_MARK = "<!-- evalscope-vacc -->"
_WRITTEN_ELSEWHERE = ("origins", "notes", "catalog_prompts")


def render(data: RunData, *, language: str = "en", against: str | None = None, evalscope_page: str = "") -> str:
    """Returns the whole page in a language, "en" or "zh".

    ``against`` is what the user gave with ``--against``, for the commands that repeat the comparison; ``evalscope_page`` the
    address of EvalScope's own page of the run, as seen from this one, or "".
    """
    words = Words(language)
    script = _template("report.js")
    page = {
        "lang": HTML_LANGUAGE[language],
        "t": words,
        "say": lambda reason: data.cleaner.text(words.say(reason), 600),
        "data": data,
        # Chinese sentences follow one another without a space
        "space": "" if language == "zh" else " ",
        "version": __version__,
        "style": _template("report.css"),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        **_answer(data, words),
        **_scores(data, words),
        **_evidence(data, words),
        "repeat_file": _yaml(data.repeat) if data.repeat is not None else "",
        "install": _install(data.versions),
        "commands": _commands(data, against),
        "evalscope_page": evalscope_page,
        "numbers": _numbers(data, words),
    }
    return _environment(language).get_template("report.html.j2").render(page)


def _answer(data: RunData, words: Words) -> dict[str, Any]:
    """The verdict, what it is about, and what may explain it."""
    clean, verdict = data.cleaner.text, data.verdict
    causes = (clean(line.text, 600) for c in data.verdict.comparisons for line in shown.causes(c, words))
    return {
        "outcome": verdict.outcome,
        "headline": _headline(verdict, words),
        "lines": [clean(line, 900) for line in _lines(data, words)],
        "loud": [clean(line, 600) for line in shown.warnings(verdict, words)],
        "causes": list(dict.fromkeys(causes)),
        "finished": _when(data.finished),
    }


def _scores(data: RunData, words: Words) -> dict[str, Any]:
    """Figures and tables of the scores, with numbered notes."""
    notes, rows = numbering(), _rows(data)
    listed = rows[:MAX_ROWS]
    return {
        "kpis": list(_kpis(data, rows, words)),
        "plots": [(c, plot) for c in data.verdict.comparisons if (plot := dot_plot(c.rows))],
        "rows": [(row, [notes[data.cleaner.text(note, 600)] for note in row_notes(row, words)]) for row in listed],
        "rows_left_out": len(rows) - len(listed),
        "verdicts": {v: n for v in _VERDICTS if (n := sum(row.verdict == v for row in listed))},
        "notes": notes,
        "means": [mean for c in data.verdict.comparisons for mean in c.means if shown.worth_showing(mean)],
        "mean_verdict": shown.mean_verdict,
        "matrix": shown.matrix(data.verdict.comparisons, words) if len(data.verdict.comparisons) > 1 else [],
        "against_column": words("col_published" if data.published else "col_reference"),
    }


def _evidence(data: RunData, words: Words) -> dict[str, Any]:
    """What the run left behind: speed, samples, server, configuration."""
    samples = _samples(data.samples)
    return {
        "skylines": skylines(data.speed),
        "samples": samples,
        "samples_left_out": len(data.samples) - sum(map(len, samples.values())),
        "configs": {name: _parted(values) for name, values in data.configs.items()},
        "facts": {name: list(_facts(facts, words)) for name, facts in data.servers.items()},
    }


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


@lru_cache(maxsize=2)
def _environment(language: str) -> Environment:
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
        percent=written.percent,
        points=written.points,
        whole=written.count,
        rate=written.rate,
        allowed=written.allowed,
        reached=written.share,
        share=lambda value: "" if value is None else f"{100 * value:.0f} %",
        seconds=Words(language).duration,
        exact=lambda value: "" if value is None else repr(float(value)),
        shown=_shown,
        served=served_name,
        breakable=lambda name: Markup("<wbr>").join(_BREAKS.split(name)),
        # the style sheet and the script are files of this package, nobody's input
        trusted=Markup,
    )
    return environment


def _headline(verdict: Verdict, words: Words) -> str:
    """Names the verdict, and how much of what was asked for it is about."""
    title = words(f"title_{verdict.outcome}")
    if not (verdict.partial or verdict.recorded):
        return title
    return f"{title} · {words('finished_of', finished=verdict.finished, asked=len(verdict.tasks))}"


def _lines(data: RunData, words: Words) -> Iterator[str]:
    """Says how much is there, and what came of each run; where there are several, each line says which it is about."""
    yield from (line + words("stop").strip() for line in shown.progress(data.verdict, words))
    yield from shown.unfinished(data.verdict, words)
    for comparison in data.verdict.comparisons:
        named = (
            ", ".join(map(served_name, comparison.runs)) + words("colon") if len(data.verdict.comparisons) > 1 else ""
        )
        yield named + shown.answer(comparison, data.verdict, words) + words("stop").strip()
    if not data.verdict.comparisons:
        yield words("no_reference") + words("stop").strip()
    if not data.verdict.recorded:
        yield words("asked_unknown")


def _rows(data: RunData) -> list[ComparedRow]:
    """Returns every row, the ones that do not match first; rows of models without a reference are there, too."""
    compared = [row for comparison in data.verdict.comparisons for row in comparison.rows]
    known = {(row.task, row.split, row.subset, row.model) for row in compared}
    others = (row for row in data.rows if (row.task, row.split, row.subset, row.run.model) not in known)
    rest = [compared_row(row, "no reference") for row in others]
    wrong = ("fail", "above")
    return sorted(
        (*compared, *rest), key=lambda r: (r.verdict not in wrong, r.task.casefold(), r.split, r.subset, r.run)
    )


def _kpis(data: RunData, rows: Sequence[ComparedRow], words: Words) -> Iterable[tuple[str, str]]:
    judged = [row for row in rows if row.judged]
    if judged:
        yield f"{len(judged):,}", words("kpi_scores")
        worst = max((row.difference for row in judged if row.difference is not None), key=abs, default=None)
        if worst is not None:
            yield written.points(worst), words("kpi_worst")
    else:
        yield f"{len({row.task for row in data.rows}):,}", words("kpi_tasks")
    sent = [speed for speed in data.speed if speed.rate is not None]
    if sent:
        whole = reduce(TaskUsage.plus, sent)
        yield written.rate(whole.sent / whole.seconds), words("kpi_rate")
        if whole.tokens is not None:
            yield written.rate(whole.tokens / whole.seconds), words("kpi_token_rate")
        if whole.busy is not None:
            yield f"{100 * whole.busy:.0f} %", words("kpi_busy")
        yield words.duration(sum(speed.seconds for speed in data.speed)), words("kpi_time")
        yield f"{sum(speed.retries for speed in data.speed):,}", words("kpi_retries")


def _samples(samples: Iterable[Sample]) -> dict[tuple[str, str], list[Sample]]:
    groups: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    total = 0
    for sample in samples:
        group = groups[sample.model, sample.task]
        if len(group) < MAX_SAMPLES_OF_A_TASK and total < MAX_SAMPLES:
            group.append(sample)
            total += 1
    return {key: group for key, group in groups.items() if group}


def _parted(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parts a configuration into what somebody or something chose, and what is as it is by default."""
    origins = values.get("origins")
    origins = origins if isinstance(origins, Mapping) else {}
    chosen: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, value in values.items():
        if name in _WRITTEN_ELSEWHERE and not (name == "notes" and value):
            continue
        field = ModelConfig.model_fields.get(name)
        default = origins.get(name) == "default" or (field is not None and value in (field.default, None, [], {}))
        (rest if default else chosen)[name] = value
    return chosen, rest


def _facts(facts: Mapping[str, Any], words: Words, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Flattens what a server said into names and values; several servers keep their numbers."""
    for name, value in facts.items():
        if name == "servers" and isinstance(value, list):
            for number, server in enumerate(value, 1):
                if isinstance(server, Mapping):
                    yield from _facts(server, words, f"{number}. " if len(value) > 1 else "")
        elif name == "preflight" and value == []:
            checks = facts.get("preflight_checks")
            counted = words("preflight_passed", count=len(checks)) if isinstance(checks, Mapping) else ""
            yield name, counted or words("preflight_clean")
        elif name == "preflight":
            yield name, facts.get(f"preflight_{words.language}", value)
        elif name not in {"preflight_checks", "preflight_zh"}:
            yield f"{prefix}{name}", value


def _yaml(plain: Any) -> str:
    import yaml

    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)).rstrip()


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


def _numbers(data: RunData, words: Words) -> dict[str, Any]:
    """The numbers of the page for machines, with our own paths left out."""
    found = to_mapping(data.verdict, words)
    for comparison in found["comparisons"]:
        for row in comparison["rows"]:
            row.pop("source", None)
    speed = [{**asdict(speed), "sent": speed.sent, "rate": speed.rate} for speed in data.speed]
    return {**data.cleaner.value(found), "format": "evalscope-vacc/report", "speed": speed}


def _when(seconds: float | None) -> str:
    try:
        return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return ""


def _shown(value: Any) -> str:
    """Writes a plain value for people; a mapping or list of several things as YAML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value in (None, "", (), [], {}):
        return "—"
    if isinstance(value, (list, tuple)) and all(isinstance(item, (str, int, float)) for item in value):
        return "\n".join(str(item) for item in value)
    if isinstance(value, Mapping):
        return _yaml(dict(value))
    return _yaml(list(value)) if isinstance(value, (list, tuple)) else str(value)


def own_page(run: Path) -> Path | None:
    """Returns the page that EvalScope writes beside a run's reports, or None."""
    page = run / "reports" / "report.html"
    return page if page.is_file() else None


def link_back(page: Path, ours: Path, words: Words) -> None:
    """Puts a link to our page at the end of EvalScope's, once; a page that is not as expected is left alone."""
    try:
        text = read_bounded(page, MAX_BYTES).decode()
    except (OSError, ValueError):
        return
    head, end, tail = text.rpartition("</body>")
    if not end:
        return
    head = head.partition(_MARK)[0]
    address = html.escape(Path(os.path.relpath(ours, page.parent)).as_posix(), quote=True)
    link = f'{_MARK}<p style="text-align:center"><a href="{address}">{html.escape(words("our_page"))}</a></p>\n'
    try:
        write_whole(page, head + link + end + tail)
    except OSError:
        return
