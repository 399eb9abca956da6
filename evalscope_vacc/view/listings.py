"""What the smaller commands show: models, published scores, the store, estimates, and the scores of a run or of the demo."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalscope_vacc.messages import ENGLISH
from evalscope_vacc.names import served_name
from evalscope_vacc.redact import clean
from evalscope_vacc.results.estimate import Estimate
from evalscope_vacc.results.model import Row
from evalscope_vacc.results.published import Published
from evalscope_vacc.view.document import Block, Column, Line, Style, Table, table
from evalscope_vacc.view.machine import plain
from evalscope_vacc.view.words import Words, count, many, numbering, percent, size

if TYPE_CHECKING:
    from evalscope_vacc.catalog import Entry
    from evalscope_vacc.demo.run import DemoReport
    from evalscope_vacc.store import Listing, Verdict


# -- the catalog -----------------------------------------------------------------------------------------------------------


def models(entries: Sequence[Entry], words: Words) -> list[Block]:
    """Lists the models of the catalog."""
    numbers = ("size", "layers", "length", "dimension", "mrl", "instruct", "tp", "requests_max")
    rows, others = [], []
    for entry in entries:
        if entry.rules_only:
            cells = _dashed(entry.size, entry.model_limit, entry.dimensions)
            others.append((entry.name, *cells, words(_rule(entry))))
            continue
        yes = [words("yes") if value else None for value in (entry.matryoshka, entry.instruction_aware)]
        parallel = "/".join(map(str, entry.tensor_parallel))
        figures = (entry.size, entry.layers, entry.model_limit, entry.dimensions, *yes, parallel, entry.max_concurrency)
        rows.append((entry.name, *_dashed(*figures)))
    few = ("other_model", "size", "length", "dimension", "texts_get")
    whole = table(words, ("model", *numbers), rows, right=numbers, extra=numbers[1:2] + numbers[4:7])
    return [whole, Line(words("models_legend"), "fact"), table(words, few, others, right=numbers)]


def _dashed(*cells: object) -> list[str]:
    return ["–" if cell is None else str(cell) for cell in cells]


def _rule(entry: Entry) -> str:
    """What the model's texts get, in a word or two."""
    if entry.template_family:
        return "get_template"
    if entry.profile not in (None, "none"):
        return "get_instructions"
    return "get_prefixes" if entry.prompts else "get_nothing"


_FACTS = (
    "kind", "huggingface", "modelscope", "size", "download", "layers", "hidden_size", "dimensions", "pooling",
    "tokens", "model_limit", "instruction_aware", "profile", "instruction_template", "template", "template_family",
    "prompts", "rules_from", "max_concurrency", "tensor_parallel", "hf_overrides", "arguments", "languages",
    "license", "source",
)  # fmt: skip


def model(entry: Entry, words: Words) -> list[Block]:
    """Shows one model of the catalog whole."""
    lengths = entry.dimensions
    said = {
        "download": entry.download_mb and words("about_gb", size=entry.download_mb / 1000),
        "dimensions": words("or_from", size=lengths, least=entry.matryoshka[0]) if entry.matryoshka else lengths,
        "tokens": words("as_measured", tokens=entry.max_tokens),
        "model_limit": words("n_tokens", tokens=entry.model_limit),
        "instruction_aware": words("yes" if entry.instruction_aware else "no"),
        "instruction_template": entry.instruction_template and repr(entry.instruction_template),
        "prompts": "; ".join(f"{key}: {value!r}" for key, value in entry.prompts.items()),
        "tensor_parallel": ", ".join(map(str, entry.tensor_parallel)),
        "hf_overrides": entry.serve.hf_overrides,
        "arguments": " ".join(entry.serve.arguments),
        "languages": ", ".join(entry.languages),
        "source": entry.source or words("built_in"),
    }
    facts = {name: said[name] if name in said else getattr(entry, name) for name in _FACTS}
    # a table of names and values, without heads
    rows = tuple((words(f"m_{name}"), str(value) if value else "–") for name, value in facts.items())
    return [Line(entry.name, "head"), Table((Column(""), Column("")), rows)]


# -- published scores ------------------------------------------------------------------------------------------------------


def published(entries: Iterable[Published], words: Words) -> list[Block]:
    """Lists the models that have published scores."""
    numbers = ("scores", "tasks", "means")
    rows = []
    for entry in entries:
        facts = published_summary(entry)
        counts = (str(facts[name]) for name in numbers)
        rows.append((facts["model"], facts["kind"], *counts, _span(facts["mteb_versions"], words)))
    return [
        table(words, ("model", "kind", *numbers, "mteb"), rows, right=numbers),
        Line(words("published_more"), "fact"),
    ]


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
    names = (
        "task", "type", "split", "subset", "metric", "score", "mteb_version", "dataset_revision", "conditions",
        "source",
    )  # fmt: skip
    rows = []
    for row in reference.rows:
        rows.append({**{name: getattr(row, name) for name in names}, "conditions": row.conditions.to_json()})
        if row.suspect:
            rows[-1]["suspect"] = ENGLISH("outlier")
    return {
        **published_summary(entry),
        "revision": reference.revision,
        "conditions": reference.conditions.to_json(),
        "rows": rows,
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
    reference, notes = entry.reference(), numbering()
    title = " · ".join(part for part in (entry.name, reference.kind, reference.revision) if part)
    blocks: list[Block] = [Line(title, "head")]
    if reference.rows:
        heads = ("task", "split", "subset", "metric", "score", "mteb", "data")
        blocks.append(table(words, heads, _score_lines(entry, notes, words), right=("score",)))
    if reference.aggregates:
        rows = []
        for mean in reference.aggregates:
            source = _short(mean.source)
            said = source if mean.judged_by else words("not_compared_mean", source=source)
            rows.append((mean.benchmark, mean.measure, percent(mean.value), said))
        blocks.append(table(words, ("benchmark", "measure", "value", "source"), rows, right=("value",)))
    blocks += [Line(text, "note", number=number) for text, number in notes.items()]
    conditions = _named(reference.conditions.to_json()) or words("not_recorded")
    facts = [words("source", text=entry.source), words("run_with", text=conditions)]
    facts += [
        words("listed", what=fact["what"], values=_named(fact["values"]), source=_short(fact["source"]))
        for fact in entry.data.get("listed", ())
    ]
    return [*blocks, *(Line(fact, "fact") for fact in facts)]


def _named(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _score_lines(entry: Published, notes: Mapping[str, int], words: Words) -> Iterator[tuple[str, ...]]:
    """Yields one line for each task and split; the subsets of a task with many are joined to their mean."""
    reference = entry.reference()
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in reference.rows:
        remark = words("outlier") if row.suspect else ""
        if row.conditions != reference.conditions or row.source != entry.source:
            remark = "; ".join(part for part in (remark, _named(row.conditions.to_json()), row.source) if part)
        revision = (row.dataset_revision or "")[:8]
        groups[row.task, row.split, row.metric, row.mteb_version or "", revision, remark].append(row)
    for (task, split, metric, version, revision, remark), rows in sorted(groups.items()):
        values = [row.score for row in rows if row.score is not None]
        score = percent(math.fsum(values) / len(values)) if values else ""
        subset = rows[0].subset if len(rows) == 1 else words("mean_of", count=count(len(rows)))
        marked = f"{task} [{notes[remark]}]" if remark else task
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
        blocks += [Line(clean(name)), table(words, ("task", *numbers), rows, right=numbers)]
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
    rows = tuple(
        (
            shortest(line.name, names), line.model, line.kind, line.label, count(line.entries), size(line.bytes),
            words.duration(line.age_s), words("unreadable_store") if line.problem else words("in_use") if line.in_use else "",
        )
        for line in lines
    )  # fmt: skip
    styles: tuple[Style, ...] = tuple("bad" if line.problem else "" for line in lines)
    heads = ("name", "model", "kind", "task", "answers", "bytes", "used", "state")
    total = size(sum(line.bytes for line in lines))
    problems = [Line(f"{shortest(line.name, names)}: {line.problem}", "fact", "bad") for line in lines if line.problem]
    return [
        Line(words("kept_in", place=place, size=total), "head"),
        *problems,
        table(words, heads, rows, right=("answers", "bytes", "used"), extra=("kind",), styles=styles),
    ]


def verified(place: Path, verdicts: Sequence[Verdict], words: Words) -> list[Block]:
    """Says of each entry of the store whether it is damaged."""
    if not verdicts:
        return [Line(words("nothing_kept", place=place))]
    blocks: list[Block] = []
    for verdict in verdicts:
        said = words("store_sound" if verdict.ok else "store_damaged", **vars(verdict))
        blocks.append(Line(said, "text", "" if verdict.ok else "bad"))
        blocks += [Line(verdict.problem, "more")] if verdict.problem else []
    if not all(verdict.ok for verdict in verdicts):
        blocks.append(Line(words("store_action"), "more"))
    return blocks


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
        cells = [served_name(str(row["model"])), *(str(row[head]) for head in heads[1:])]
        lines.append((*cells, f"{score:.5f}" if isinstance(score, float) else str(score)))
    listed = table(words, (*heads, "main_score"), lines, right=("main_score",))
    places = [Line(words("files_in", place=folder), "fact")]
    places += [
        Line(words("predictions_in", place=place), "fact")
        for place in (folder / "predictions", folder / "stage1" / "predictions")
        if place.is_dir()
    ]
    return [listed, *places]


def demo(report: DemoReport, words: Words) -> list[Block]:
    """Shows what the demo scored, each score beside what it has to be."""
    if report.passed:
        blocks: list[Block] = [Line(words("demo_passed"), "head", "good")]
    else:
        differences = {"difference": report.largest_difference, "stages": report.two_stage_difference}
        blocks = [Line(words("demo_failed", **differences), "head", "bad")]
    titles = {"one-stage": "demo_one_stage", "first": "demo_first", "second": "demo_second"}
    heads = ("task", "subset", "metric", "served", "in_process")
    for (stage, name), rows in groupby(report.results, key=lambda row: (row.stage, row.model)):
        lines = tuple(
            (r.task, r.subset, r.metric, f"{r.score:.5f}", "" if r.in_process is None else f"{r.in_process:.5f}")
            for r in rows
        )
        blocks += [Line(words(titles[stage], model=name)), table(words, heads, lines, right=heads[3:])]
    work = words(
        "demo_work", requests=report.requests, time=words.duration(report.seconds), texts=report.texts_encoded,
        known=report.texts_remembered,
    )  # fmt: skip
    return [*blocks, Line(work, "fact"), Line(words("files_in", place=report.work_dir), "fact")]
