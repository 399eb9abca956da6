"""How long a configuration will take: texts, tokens and time of every task, before anything is sent.

The sizes are MTEB's own descriptive statistics. Tokens are characters divided by a rule of thumb per script, so they
are good to a third or so; the time comes from a rate that the user measured, in tokens where texts differ in length.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.messages import Reason
from evalscope_vacc.names import nearest
from evalscope_vacc.redact import clean
from evalscope_vacc.results import published
from evalscope_vacc.results.asked import is_cross_encoder, plan
from evalscope_vacc.results.benchmarks import BenchmarkTask, benchmarks, main_metric, named, parts
from evalscope_vacc.results.evidence import read_conditions
from evalscope_vacc.results.files import read_packaged
from evalscope_vacc.results.model import MEAN_OF_SUBSETS, Reference
from evalscope_vacc.task_file import TOP_K, read_rageval
from evalscope_vacc.text.task import RERANKING

ASSUMPTIONS = tuple(map(Reason, ("counted_once", "tokens_by_script", "without_instructions")))


@dataclass(frozen=True)
class TaskEstimate:
    """What one model has to do for one task."""

    model: str  # served name
    task: str
    type: str
    unit: str  # "texts" for encoders, "pairs" for cross-encoders
    count: int  # texts or pairs to send
    tokens: int  # estimated, of all of them
    seconds: float | None  # estimated at the slower of the given rates; None without a rate
    expected: float | None = None  # published score as a fraction, or None
    metric: str = ""  # of the expected score


@dataclass(frozen=True)
class Estimate:
    """A whole configuration."""

    tasks: tuple[TaskEstimate, ...]
    unknown: tuple[str, ...]  # tasks that MTEB publishes no sizes for, where they may be left out
    # published means of the benchmark that the tasks make up, by model: (model, benchmark, measure, fraction)
    means: tuple[tuple[str, str, str, float], ...]
    notes: tuple[Reason, ...] = ASSUMPTIONS

    @property
    def seconds(self) -> float | None:
        """Of everything, one after the other; None without a rate."""
        known = [task.seconds for task in self.tasks if task.seconds is not None]
        return math.fsum(known) if len(known) == len(self.tasks) else None


@dataclass
class _Sizes:
    """Texts and characters of a task, each different text once; of queries and documents, as often as they occur."""

    texts: int = 0
    characters: int = 0
    queries: int = 0
    query_characters: int = 0
    documents: int = 0
    document_characters: int = 0
    pairs: int = 0
    keys: tuple[tuple[str, str], ...] = ()


def estimate(
    config: Path | Mapping[str, Any],
    *,
    texts_per_second: float | None = None,
    pairs_per_second: float | None = None,
    tokens_per_second: float | None = None,
    skip_unknown: bool = False,
) -> Estimate:
    """Estimates an EvalScope RAGEval file (``tool``, ``models``, ``eval``), or a whole task file that holds one.

    The rates are measured ones. That of the encoder stands in for the cross-encoder's; where tokens per second are given,
    too, the slower one counts. ``skip_unknown`` leaves out tasks whose sizes are not known.

    Raises:
        ConfigError: The file or a rate cannot be used, or it names no task, or one whose sizes are not known.
    """
    rates = {"texts": texts_per_second, "pairs": pairs_per_second, "tokens": tokens_per_second}
    for name, rate in rates.items():
        if rate is not None and not (math.isfinite(rate) and rate > 0):
            raise ConfigError(f"--{name}-per-second {rate} is not a rate above 0")
    rates["pairs"] = pairs_per_second or texts_per_second
    where = config if isinstance(config, Path) else "the configuration"
    evaluation, models = _read(config, where)
    parts = _wanted(evaluation, where)
    names = list(parts)
    top_k = evaluation.get("top_k") or TOP_K
    if not isinstance(top_k, int):
        raise ConfigError(f"{where}: eval.top_k is {clean(str(top_k), limit=60)!r}, not a number of candidates")
    sizes = {name: sized for name, part in parts.items() if (sized := _sizes(name, evaluation, part)).keys}
    unknown = tuple(clean(name, limit=200) for name in dict.fromkeys(names) if name not in sizes)
    if unknown and not skip_unknown:
        raise ConfigError(
            f"the sizes of {_hinted(unknown)} are unknown, so the time is unknown, too; --skip-unknown leaves them out"
        )
    found: list[TaskEstimate] = []
    means: list[tuple[str, str, str, float]] = []
    for model in models:
        mine = {task: sizes[task] for planned, _, task in plan(models, list(sizes)) if planned is model}
        name = clean(str(model.get("model_name") or model.get("model_name_or_path") or "?"), limit=200)
        reference = _published(name, model, top_k)
        found += _of_model(model, name, mine, top_k, rates, _expected(reference, mine))
        means += _means(name, reference, set(names))
    limited = (Reason("limits_ignored"),) if evaluation.get("limits") else ()
    return Estimate(tuple(found), unknown, tuple(means), (*ASSUMPTIONS, *limited))


def texts_of(task: str, *, reranked: bool = False) -> int | None:
    """Returns how many different texts MTEB evaluates of a whole task; None where its sizes are not known.

    Args:
        task: Name of the task.
        reranked: Add the pairs of a second stage.
    """
    sized = _sizes(task, {})
    if not sized.keys:
        return None
    return sized.texts + reranked * sized.queries * min(TOP_K, sized.documents)


def task_parts(task: str) -> tuple[tuple[str, str], ...]:
    """Returns the splits and subsets that MTEB evaluates of a whole task; none where its sizes are not known."""
    return _sizes(task, {}).keys


def _data() -> Mapping[str, Any]:
    tasks: Mapping[str, Any] = read_packaged("_statistics")["tasks"]
    return tasks


def _read(config: Path | Mapping[str, Any], where: Path | str) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]]:
    content = read_rageval(config) if isinstance(config, Path) else config
    evaluation, models = content.get("eval"), content.get("models", content.get("model"))
    models = [models] if isinstance(models, Mapping) else models
    if isinstance(evaluation, Mapping) and isinstance(models, list) and all(isinstance(m, Mapping) for m in models):
        return evaluation, models
    raise ConfigError(
        f"{where}: expected the keys models (a list) and eval (a mapping), as `evalscope eval --eval-config` takes"
    )


def _wanted(evaluation: Mapping[str, Any], where: Path | str) -> dict[str, BenchmarkTask | None]:
    """Returns the tasks, each with the part of it that a benchmark takes; None means what MTEB evaluates by itself."""
    found: dict[str, BenchmarkTask | None] = {}
    for key in ("task_names", "tasks"):
        for name in _names(evaluation.get(key), key, where):
            if any(known.name == name for known in benchmarks()):
                raise ConfigError(f"{where}: {name!r} is a benchmark: write eval.benchmarks: [{name!r}] instead")
            found[name] = None
    given = evaluation.get("benchmarks")
    chosen = given if isinstance(given, Mapping) else _names(given, "benchmarks", where)
    for name, only in parts(chosen).items():
        for task in named(name).tasks:
            if only is None or task.name in only:
                found.setdefault(task.name, task)
    if not found:
        raise ConfigError(
            f"{where}: eval.task_names lists no task and eval.benchmarks no benchmark; sizes are known by task"
        )
    return found


def _names(given: object, key: str, where: Path | str) -> list[str]:
    names = [given] if isinstance(given, str) else given or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{where}: eval.{key} lists no task by name")
    return names


def _hinted(unknown: Sequence[str]) -> str:
    """Names tasks, each with the nearest that is known."""
    known = [*_data(), *(benchmark.name for benchmark in benchmarks())]
    near = {name: nearest(name, known, likeness=0.6) for name in unknown}
    return ", ".join(f"{name} (did you mean {found[0]}?)" if found else name for name, found in near.items())


def _sizes(task: str, evaluation: Mapping[str, Any], part: BenchmarkTask | None = None) -> _Sizes:
    """Adds up the splits and subsets that the configuration asks for, or those of them that a benchmark takes.

    Nothing is added up, and there are no keys, where none of them is known.
    """
    entry = _data().get(task, {"sizes": {}})
    wanted = evaluation.get("splits") or {}
    wanted = wanted if isinstance(wanted, Mapping) else {"*": wanted}
    splits = wanted.get(task, wanted.get("*")) or list(part.splits if part else entry["sizes"])
    languages = {str(lang).split("-")[0] for lang in evaluation.get("languages") or ()}
    spoken = entry.get("languages", {})
    found = _Sizes()
    for split in [splits] if isinstance(splits, str) else splits:
        for subset, sides in entry["sizes"].get(split, {}).items():
            if languages and spoken and not languages & set(spoken.get(subset, ())):
                continue
            if part and part.subsets and subset not in (*part.subsets, "*"):
                continue
            found.keys += ((split, subset),)
            for side, (texts, different, characters) in sides.items():
                if side == "pairs":
                    found.pairs += texts
                    continue
                found.texts += different
                # a repeated text is sent once, so its characters count once
                found.characters += round(characters * different / texts) if texts else 0
                if side == "queries":
                    found.queries += texts
                    found.query_characters += characters
                elif side == "documents":
                    found.documents += texts
                    found.document_characters += characters
    return found


def _of_model(
    model: Mapping[str, Any],
    name: str,
    sizes: Mapping[str, _Sizes],
    top_k: int,
    rates: Mapping[str, float | None],
    expected: Mapping[str, tuple[float, str]],
) -> Iterable[TaskEstimate]:
    crossed, stored = is_cross_encoder(model), _stored(model)
    for task, sized in sizes.items():
        kind = main_metric(task, None, {})[0]
        unit, count, characters = "texts", sized.texts, sized.characters
        if crossed:
            given = kind in RERANKING and task not in stored
            unit, count = "pairs", sized.pairs if given else sized.queries * min(top_k, sized.documents)
            count *= bool(sized.queries and sized.documents)
            each = sized.query_characters / max(sized.queries, 1) + sized.document_characters / max(sized.documents, 1)
            characters = round(count * each)
        score, metric = expected.get(task, (None, ""))
        tokens = round(characters / _data()[task]["chars_per_token"])
        times = [work / rate for work, rate in ((count, rates[unit]), (tokens, rates["tokens"])) if rate]
        yield TaskEstimate(name, task, kind, unit, count, tokens, max(times, default=None), score, metric)


def _stored(model: Mapping[str, Any]) -> Sequence[str]:
    """Returns the tasks of which stored predictions are reranked, those of tasks with candidates of their own included."""
    given = model.get("model_kwargs")
    given = {**(given if isinstance(given, Mapping) else {}), **model}
    files, names = given.get("embed_results"), given.get("task_name")
    if isinstance(files, Mapping):
        return [str(name) for name in files]
    return [str(name) for name in names] if isinstance(names, list) else [str(names)] if names else []


def _published(name: str, model: Mapping[str, Any], top_k: int) -> Reference | None:
    """Returns a model's published scores, unless it is configured otherwise: then they are not to be expected."""
    known = published.find(name)
    if known is None:
        return None
    reference = known.reference()
    conditions = replace(read_conditions(model), top_k=top_k if is_cross_encoder(model) else None)
    return None if conditions.conflicts(reference.conditions) else reference


def _expected(reference: Reference | None, sizes: Mapping[str, _Sizes]) -> dict[str, tuple[float, str]]:
    found: dict[str, tuple[float, str]] = {}
    if reference is None:
        return found
    for task, sized in sizes.items():
        whole = {split for split, subset in sized.keys if subset == "*"}
        rows = [
            (r.score, r.metric)
            for r in reference.rows
            if r.task == task
            and r.score is not None
            and r.conditions == reference.conditions
            and (r.key[1:] in sized.keys or r.split in whole or r.subset == MEAN_OF_SUBSETS)
        ]
        if rows:
            found[task] = (math.fsum(score for score, _ in rows) / len(rows), rows[0][1])
    return found


def _means(name: str, reference: Reference | None, tasks: set[str]) -> Iterable[tuple[str, str, str, float]]:
    """Yields the published means of every benchmark that consists of just these tasks."""
    measures = {b.name: b.measures for b in benchmarks() if {t.name for t in b.tasks} == tasks}
    for mean in reference.aggregates if reference else ():
        if mean.measure in measures.get(mean.benchmark, ()) and mean.judged_by:
            yield name, mean.benchmark, mean.measure, mean.value
