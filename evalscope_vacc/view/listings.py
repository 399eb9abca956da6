"""What the smaller commands show: models, published scores, the store, estimates, and the scores of a run or of the demo."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalscope_vacc.redact import clean
from evalscope_vacc.results.estimate import Estimate
from evalscope_vacc.results.model import Reason, Row
from evalscope_vacc.results.published import Published
from evalscope_vacc.view.document import Block, Column, Line, Style, Table
from evalscope_vacc.view.machine import plain
from evalscope_vacc.view.words import Notes, Words, count, many, percent, size

if TYPE_CHECKING:
    from evalscope_vacc.catalog import Entry
    from evalscope_vacc.demo.run import DemoReport
    from evalscope_vacc.store import Listing


def _columns(words: Words, *heads: str, right: Iterable[str] = (), extra: Iterable[str] = ()) -> tuple[Column, ...]:
    return tuple(Column(words(f"col_{head}"), head in right, head in extra) for head in heads)


# -- the catalog -----------------------------------------------------------------------------------------------------------


def models(entries: Sequence[Entry], words: Words) -> list[Block]:
    """Lists the models of the catalog."""
    numbers = ("size", "layers", "length", "dimension", "mrl", "instruct", "tp", "requests_max")
    rows = []
    for entry in (entry for entry in entries if not entry.rules_only):
        parallel = "/".join(map(str, entry.tensor_parallel))
        cells = [entry.size, entry.layers, entry.model_limit, entry.dimensions, _yes(entry.matryoshka, words)]
        cells += [_yes(entry.instruction_aware, words), parallel, entry.max_concurrency]
        rows.append((entry.name, *("–" if cell is None else str(cell) for cell in cells)))
    columns = _columns(words, "model", *numbers, right=numbers, extra=numbers[1:2] + numbers[4:7])
    others = []
    for entry in (entry for entry in entries if entry.rules_only):
        cells = [entry.size, entry.model_limit, entry.dimensions]
        others.append((entry.name, *("–" if cell is None else str(cell) for cell in cells), words(_rule(entry))))
    few = _columns(words, "other_model", "size", "length", "dimension", "texts_get", right=numbers)
    return [Table(columns, tuple(rows)), Line(words("models_legend"), "fact"), Table(few, tuple(others))]


def _rule(entry: Entry) -> str:
    """What the model's texts get, in a word or two."""
    if entry.template_family:
        return "get_template"
    if entry.profile not in (None, "none"):
        return "get_instructions"
    return "get_prefixes" if entry.prompts else "get_nothing"


def model(entry: Entry, words: Words) -> list[Block]:
    """Shows one model of the catalog whole."""
    lengths = None if entry.dimensions is None else str(entry.dimensions)
    if lengths and entry.matryoshka:
        lengths = words("or_from", size=lengths, least=entry.matryoshka[0])
    facts = {
        "kind": entry.kind,
        "huggingface": entry.huggingface,
        "modelscope": entry.modelscope,
        "size": entry.size,
        "download": entry.download_mb and words("about_gb", size=entry.download_mb / 1000),
        "layers": entry.layers,
        "hidden_size": entry.hidden_size,
        "dimensions": lengths,
        "pooling": entry.pooling,
        "tokens": words("as_measured", tokens=entry.max_tokens),
        "model_limit": words("n_tokens", tokens=entry.model_limit),
        "instruction_aware": words("yes" if entry.instruction_aware else "no"),
        "profile": entry.profile,
        "instruction_template": entry.instruction_template and repr(entry.instruction_template),
        "template": entry.template,
        "template_family": entry.template_family,
        "prompts": "; ".join(f"{key}: {value!r}" for key, value in entry.prompts.items()),
        "rules_from": entry.rules_from,
        "max_concurrency": entry.max_concurrency,
        "tensor_parallel": ", ".join(map(str, entry.tensor_parallel)),
        "hf_overrides": entry.serve.hf_overrides,
        "arguments": " ".join(entry.serve.arguments),
        "languages": ", ".join(entry.languages),
        "license": entry.license,
        "source": entry.source or words("built_in"),
    }
    return [Line(entry.name, "head"), _facts({words(f"m_{name}"): value for name, value in facts.items()})]


def _facts(facts: Mapping[str, Any]) -> Table:
    """A table of names and values, without heads."""
    rows = tuple((name, str(value) if value else "–") for name, value in facts.items())
    return Table((Column(""), Column("")), rows)


def _yes(value: object, words: Words) -> str:
    return words("yes") if value else "–"


# -- published scores ------------------------------------------------------------------------------------------------------


def published(entries: Iterable[Published], words: Words) -> list[Block]:
    """Lists the models that have published scores."""
    numbers = ("scores", "tasks", "means")
    rows = []
    for entry in entries:
        facts = published_summary(entry)
        counts = (str(facts[name]) for name in numbers)
        rows.append((facts["model"], facts["kind"], *counts, _span(facts["mteb_versions"], words)))
    columns = _columns(words, "model", "kind", *numbers, "mteb", right=numbers)
    return [Table(columns, tuple(rows)), Line(words("published_more"), "fact")]


def published_summary(entry: Published) -> dict[str, Any]:
    """Returns what is published of a model, in numbers."""
    reference = entry.reference()
    return {
        "model": entry.name,
        "kind": reference.kind,
        "scores": len(reference.rows),
        "tasks": len({row.task for row in reference.rows}),
        "means": len(reference.aggregates),
        "mteb_versions": sorted({row.mteb_version for row in reference.rows if row.mteb_version}),
        "source": entry.source,
    }


def published_mapping(entry: Published) -> dict[str, Any]:
    """Returns one model's published scores as plain values; scores are fractions."""
    reference = entry.reference()
    outlier = Words().say(Reason("outlier"))
    return {
        **published_summary(entry),
        "revision": reference.revision,
        "conditions": reference.conditions.to_json(),
        "rows": [
            {
                "task": r.task, "type": r.type, "split": r.split, "subset": r.subset, "metric": r.metric,
                "score": r.score, "mteb_version": r.mteb_version, "dataset_revision": r.dataset_revision,
                "conditions": r.conditions.to_json(), "source": r.source, **({"suspect": outlier} if r.suspect else {}),
            }
            for r in reference.rows
        ],
        "means": [
            {
                "benchmark": a.benchmark, "measure": a.measure, "value": a.value, "protocol": a.protocol,
                "source": a.source, "compared": a.judged_by,
            }
            for a in reference.aggregates
        ],
        "listed": list(entry.data.get("listed", ())),
    }  # fmt: skip


def published_model(entry: Published, words: Words) -> list[Block]:
    """Lists one model's published scores, and where they come from."""
    reference, notes = entry.reference(), Notes()
    title = " · ".join(part for part in (entry.name, reference.kind, reference.revision) if part)
    blocks: list[Block] = [Line(title, "head")]
    if reference.rows:
        heads = ("task", "split", "subset", "metric", "score", "mteb", "data")
        blocks.append(Table(_columns(words, *heads, right=("score",)), tuple(_score_lines(entry, notes, words))))
    if reference.aggregates:
        rows = []
        for mean in reference.aggregates:
            source = _short(mean.source)
            said = source if mean.judged_by else words("not_compared_mean", source=source)
            rows.append((mean.benchmark, mean.measure, percent(mean.value), said))
        blocks.append(Table(_columns(words, "benchmark", "measure", "value", "source", right=("value",)), tuple(rows)))
    blocks += [Line(text, "note", number=number) for number, text in enumerate(notes.texts, 1)]
    conditions = ", ".join(f"{name} {value}" for name, value in reference.conditions.to_json().items())
    blocks.append(Line(words("source", text=entry.source), "fact"))
    blocks.append(Line(words("run_with", text=conditions or words("not_recorded")), "fact"))
    for fact in entry.data.get("listed", ()):
        values = ", ".join(f"{name} {value}" for name, value in fact["values"].items())
        blocks.append(Line(words("listed", what=fact["what"], values=values, source=_short(fact["source"])), "fact"))
    return blocks


def _score_lines(entry: Published, notes: Notes, words: Words) -> Iterator[tuple[str, ...]]:
    """Yields a line a task and split; the subsets of a task with many are joined to their mean."""
    reference = entry.reference()
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in reference.rows:
        remark = words("outlier") if row.suspect else ""
        if row.conditions != reference.conditions or row.source != entry.source:
            conditions = ", ".join(f"{name} {value}" for name, value in row.conditions.to_json().items())
            remark = "; ".join(part for part in (remark, conditions, row.source) if part)
        revision = (row.dataset_revision or "")[:8]
        groups[row.task, row.split, row.metric, row.mteb_version or "", revision, remark].append(row)
    for (task, split, metric, version, revision, remark), rows in sorted(groups.items()):
        values = [row.score for row in rows if row.score is not None]
        score = percent(math.fsum(values) / len(values)) if values else ""
        subset = rows[0].subset if len(rows) == 1 else words("mean_of", count=count(len(rows)))
        marked = f"{task} [{notes.number(remark)}]" if remark else task
        yield marked, split, subset, metric, score, version, revision


def _span(versions: Sequence[str], words: Words) -> str:
    ordered = sorted(versions, key=lambda name: [int(part) if part.isdigit() else 0 for part in name.split(".")])
    return words("to", first=ordered[0], last=ordered[-1]) if len(ordered) > 1 else "".join(ordered)


def _short(source: str) -> str:
    """Cuts a source down to repository and commit."""
    name, at, commit = source.split(" ", 1)[0].partition("@")
    return f"{name}{at}{commit[:9]}"


# -- estimates -------------------------------------------------------------------------------------------------------------


def estimate(found: Estimate, words: Words) -> list[Block]:
    """Shows how much a configuration sends and how long that takes: the sum first."""
    texts, pairs, tokens = _work(found)
    said = words("together_work", tokens=many(tokens), texts=count(texts), pairs=count(pairs))
    blocks: list[Block] = []
    if found.seconds is None:
        blocks += [Line(said, "head"), Line(words("no_rate"), "fact", "doubt")]
    else:
        blocks.append(Line(words("together", time=words.duration(found.seconds)) + words("colon") + said, "head"))
    if found.unknown:
        blocks.append(Line(words("unknown_sizes", tasks=words.some(found.unknown, 20)), "loud", "doubt"))
    for name in dict.fromkeys(task.model for task in found.tasks):
        mine = [task for task in found.tasks if task.model == name]
        numbers = (mine[0].unit, "tokens", "time", "expected")
        rows = [
            (clean(t.task), count(t.count), many(t.tokens), words.duration(t.seconds), percent(t.expected))
            for t in mine
        ]
        blocks += [Line(clean(name)), Table(_columns(words, "task", *numbers, right=numbers), tuple(rows))]
    blocks += [
        Line(words("published_mean", benchmark=benchmark, measure=measure, value=percent(value), model=model), "fact")
        for model, benchmark, measure, value in found.means
    ]
    return [*blocks, *(Line(words.say(note), "fact") for note in found.notes)]


def _work(found: Estimate) -> tuple[int, int, int]:
    texts, pairs = (sum(t.count for t in found.tasks if t.unit == unit) for unit in ("texts", "pairs"))
    return texts, pairs, sum(t.tokens for t in found.tasks)


def estimate_mapping(found: Estimate, words: Words) -> dict[str, Any]:
    """Returns an estimate as plain values; ``seconds`` is None without a rate."""
    texts, pairs, tokens = _work(found)
    named = [dict(zip(("model", "benchmark", "measure", "value"), mean, strict=True)) for mean in found.means]
    sums = {"seconds": found.seconds, "tokens": tokens, "texts": texts, "pairs": pairs}
    return {**sums, **plain(found, words), "means": named}


# -- the store -------------------------------------------------------------------------------------------------------------


def store(place: Path, lines: Sequence[Listing], words: Words) -> list[Block]:
    """Lists what is kept on disk."""
    if not lines:
        return [Line(words("nothing_kept", place=place))]
    names = [line.name for line in lines]
    rows: list[tuple[str, ...]] = []
    styles: list[Style] = []
    for line in lines:
        state = words("unreadable_store") if line.problem else words("in_use") if line.in_use else ""
        rows.append((
            shortest(line.name, names), line.model, line.kind, line.label, count(line.entries), size(line.bytes),
            words.duration(line.age_s), state,
        ))  # fmt: skip
        styles.append("bad" if line.problem else "")
    heads = ("name", "model", "kind", "task", "answers", "bytes", "used", "state")
    total = size(sum(line.bytes for line in lines))
    columns = _columns(words, *heads, right=("answers", "bytes", "used"), extra=("kind",))
    problems = [Line(f"{shortest(line.name, names)}: {line.problem}", "fact", "bad") for line in lines if line.problem]
    return [
        Line(words("kept_in", place=place, size=total), "head"),
        *problems,
        Table(columns, tuple(rows), tuple(styles)),
    ]


def shortest(name: str, names: Sequence[str]) -> str:
    """Returns the beginning of a name that fits no other."""
    others = [other for other in names if other != name]
    for length in range(len("resume-") + 8, len(name)):
        if not any(other.startswith(name[:length]) for other in others):
            return name[:length]
    return name


# -- scores of a run -------------------------------------------------------------------------------------------------------


def scores(rows: Sequence[Mapping[str, Any]], folder: Path, words: Words) -> list[Block]:
    """Lists the main scores of a run."""
    heads = ["model", "stage", "task", "split", "subset"]
    if not any(row["stage"] for row in rows):
        heads.remove("stage")
    lines = []
    for row in rows:
        score = row["main_score"]
        lines.append((*(str(row[head]) for head in heads), f"{score:.5f}" if isinstance(score, float) else str(score)))
    table = Table(_columns(words, *heads, "main_score", right=("main_score",)), tuple(lines))
    places = [Line(words("files_in", place=folder), "fact")]
    places += [
        Line(words("predictions_in", place=place), "fact")
        for place in (folder / "predictions", folder / "stage1" / "predictions")
        if place.is_dir()
    ]
    return [table, *places]


def demo(report: DemoReport, words: Words) -> list[Block]:
    """Shows what the demo scored, each score beside what it has to be."""
    if report.passed:
        blocks: list[Block] = [Line(words("demo_passed"), "head", "good")]
    else:
        differences = {"difference": report.largest_difference, "stages": report.two_stage_difference}
        blocks = [Line(words("demo_failed", **differences), "head", "bad")]
    titles = {"one-stage": "demo_one_stage", "first": "demo_first", "second": "demo_second"}
    for (stage, name), rows in groupby(report.results, key=lambda row: (row.stage, row.model)):
        columns = _columns(words, "task", "subset", "metric", "served", "in_process", right=("served", "in_process"))
        lines = tuple(
            (r.task, r.subset, r.metric, f"{r.score:.5f}", "" if r.in_process is None else f"{r.in_process:.5f}")
            for r in rows
        )
        blocks += [Line(words(titles[stage], model=name)), Table(columns, lines)]
    work = words(
        "demo_work", requests=report.requests, time=words.duration(report.seconds), texts=report.texts_encoded,
        known=report.texts_remembered,
    )  # fmt: skip
    return [*blocks, Line(work, "fact"), Line(words("files_in", place=report.work_dir), "fact")]
