"""How long a configuration will take: texts, tokens and time of every task, before anything is sent.

The sizes are MTEB's own descriptive statistics. Tokens are characters divided by a rule of thumb per script, so they
are good to a third or so; the time comes from a rate that the user measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.redact import clean
from evalscope_vacc.results import published
from evalscope_vacc.results.benchmarks import benchmarks, main_metric
from evalscope_vacc.results.data import read_packaged
from evalscope_vacc.results.evidence import read_conditions
from evalscope_vacc.results.rows import MEAN_OF_SUBSETS, Reference
from evalscope_vacc.task_file import TOP_K, read_config
from evalscope_vacc.text.task import RERANKING

ASSUMPTIONS = (
    "texts are the different ones; a text that a task repeats is sent once",
    "tokens are characters divided by 4.2 (Latin script), 1.6 (Chinese, Japanese, Korean), 2.5 (others), 3.2 (code)",
    "instructions and the limit per text are not in the tokens",
)


@dataclass(frozen=True)
class TaskEstimate:
    """What one model has to do for one task.

    Attributes:
        model: Served name.
        unit: "texts" for encoders, "pairs" for cross-encoders.
        count: Texts or pairs to send.
        tokens: Estimated, of all of them.
        seconds: Estimated at the given rate.
        expected: Published score as a fraction, or None.
        metric: Of the expected score.
    """

    model: str
    task: str
    type: str
    unit: str
    count: int
    tokens: int
    seconds: float
    expected: float | None = None
    metric: str = ""


@dataclass(frozen=True)
class Estimate:
    """A whole configuration.

    Attributes:
        unknown: Tasks that MTEB publishes no sizes for; nothing is counted for them.
        means: Published means of the benchmark that the tasks make up, by model: (model, benchmark, measure, fraction).
    """

    tasks: tuple[TaskEstimate, ...]
    unknown: tuple[str, ...]
    means: tuple[tuple[str, str, str, float], ...]
    notes: tuple[str, ...] = ASSUMPTIONS

    @property
    def seconds(self) -> float:
        """Of everything, one after the other."""
        return math.fsum(task.seconds for task in self.tasks)

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        units = ("texts", "pairs")
        return {
            "seconds": self.seconds,
            "tokens": sum(t.tokens for t in self.tasks),
            **{unit: sum(t.count for t in self.tasks if t.unit == unit) for unit in units},
            "tasks": [asdict(t) for t in self.tasks],
            "unknown": list(self.unknown),
            "means": [dict(zip(("model", "benchmark", "measure", "value"), m, strict=True)) for m in self.means],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class _Sizes:
    texts: int
    characters: int
    queries: int
    query_characters: int
    documents: int
    document_characters: int
    pairs: int
    keys: tuple[tuple[str, str], ...]


def estimate(config: Path, *, texts_per_second: float, pairs_per_second: float | None = None) -> Estimate:
    """Estimates an EvalScope RAGEval file (``tool``, ``models``, ``eval``), or a whole task file that holds one.

    Args:
        config: YAML or JSON file.
        texts_per_second: Measured rate of the encoder.
        pairs_per_second: Measured rate of the cross-encoder; the same number when not given.

    Raises:
        ConfigError: The file or a rate cannot be used, or the file names no task.
    """
    for name, rate in (("--texts-per-second", texts_per_second), ("--pairs-per-second", pairs_per_second)):
        if rate is not None and not (math.isfinite(rate) and rate > 0):
            msg = f"{name} {rate} is not a rate above 0"
            raise ConfigError(msg)
    content = _read(config)
    evaluation = content.get("eval")
    models = content.get("models", content.get("model"))
    models = [models] if isinstance(models, Mapping) else models
    if (
        not isinstance(evaluation, Mapping)
        or not isinstance(models, list)
        or not all(isinstance(m, Mapping) for m in models)
    ):
        msg = (
            f"{config}: expected the keys models (a list) and eval (a mapping), as `evalscope eval --eval-config` takes"
        )
        raise ConfigError(msg)
    names = evaluation.get("task_names") or evaluation.get("tasks")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        msg = f"{config}: eval.task_names lists no task; sizes are known by task"
        raise ConfigError(msg)
    sizes = {name: sized for name in dict.fromkeys(names) if (sized := _sizes(name, evaluation)) is not None}
    unknown = tuple(clean(name, limit=200) for name in dict.fromkeys(names) if name not in sizes)
    top_k = evaluation.get("top_k") or TOP_K
    if not isinstance(top_k, int):
        msg = f"{config}: eval.top_k is {clean(str(top_k), limit=60)!r}, not a number of candidates"
        raise ConfigError(msg)
    rates = {"texts": texts_per_second, "pairs": pairs_per_second or texts_per_second}
    found: list[TaskEstimate] = []
    means: list[tuple[str, str, str, float]] = []
    for model in _scored(models, sizes):
        crossed = _is_cross_encoder(model)
        name = clean(str(model.get("model_name") or model.get("model_name_or_path") or "?"), limit=200)
        known = published.find(name)
        if known is not None and _otherwise(model, known.reference(), top_k if crossed else None):
            known = None
        expected = _expected(known, sizes) if known else {}
        for task, sized in sizes.items():
            narrowed = task in _stored(model)
            unit, count, characters = (
                _work(task, sized, top_k, narrowed) if crossed else ("texts", sized.texts, sized.characters)
            )
            score, metric = expected.get(task, (None, ""))
            tokens = round(characters / _data()[task]["chars_per_token"])
            kind = main_metric(task, None, {})[0]
            found.append(TaskEstimate(name, task, kind, unit, count, tokens, count / rates[unit], score, metric))
        if known:
            means += _means(name, known, set(names))
    notes: tuple[str, ...] = ASSUMPTIONS
    if evaluation.get("limits"):
        notes = (*notes, "eval.limits is not taken into account: this is the whole of every task")
    return Estimate(tuple(found), unknown, tuple(means), notes)


def task_splits(task: str) -> tuple[str, ...]:
    """Returns the splits of a task that MTEB evaluates unless told otherwise; none for an unknown task."""
    return tuple(_data().get(task, {"sizes": {}})["sizes"])


@lru_cache(maxsize=1)
def _data() -> Mapping[str, Any]:
    tasks: Mapping[str, Any] = read_packaged("_statistics")["tasks"]
    return tasks


def _read(config: Path) -> Mapping[str, Any]:
    content = read_config(config)
    inner = content.get("eval_config")
    return inner if isinstance(inner, Mapping) else content


def _is_cross_encoder(model: Mapping[str, Any]) -> bool:
    if isinstance(model.get("is_cross_encoder"), bool):
        return bool(model["is_cross_encoder"])
    from evalscope_vacc.catalog import find

    entry = find(str(model.get("model_name") or ""))
    return entry is not None and entry.is_cross_encoder


def _scored(models: Sequence[Mapping[str, Any]], sizes: Mapping[str, _Sizes]) -> list[Mapping[str, Any]]:
    """One encoder and one cross-encoder are two stages on retrieval tasks; without one only the second runs."""
    encoders = [m for m in models if not _is_cross_encoder(m)]
    crossed = [m for m in models if _is_cross_encoder(m)]
    retrieval = any(main_metric(task, None, {})[0] == "Retrieval" for task in sizes)
    if len(encoders) == 1 and len(crossed) == 1 and not retrieval:
        return crossed
    return [*encoders, *crossed]


def _sizes(task: str, evaluation: Mapping[str, Any]) -> _Sizes | None:
    """Adds up the splits and subsets that the configuration asks for."""
    entry = _data().get(task)
    if entry is None:
        return None
    wanted = evaluation.get("splits") or {}
    wanted = wanted if isinstance(wanted, Mapping) else {"*": wanted}
    splits = wanted.get(task, wanted.get("*")) or list(entry["sizes"])
    splits = [splits] if isinstance(splits, str) else splits
    languages = {str(lang).split("-")[0] for lang in evaluation.get("languages") or ()}
    spoken = entry.get("languages", {})
    texts_to_send = characters_to_send = pairs = 0
    asked = {"queries": [0, 0], "documents": [0, 0]}
    keys: list[tuple[str, str]] = []
    for split in splits:
        for subset, sides in entry["sizes"].get(split, {}).items():
            if languages and spoken and not languages & set(spoken.get(subset, ())):
                continue
            keys.append((split, subset))
            for side, (texts, different, characters) in sides.items():
                if side == "pairs":
                    pairs += texts
                    continue
                texts_to_send += different
                # a repeated text is sent once, so its characters count once
                characters_to_send += round(characters * different / texts) if texts else 0
                if side in asked:
                    asked[side][0] += texts
                    asked[side][1] += characters
    if not keys:
        return None
    (queries, query_characters), (documents, document_characters) = asked["queries"], asked["documents"]
    return _Sizes(
        texts=texts_to_send,
        characters=characters_to_send,
        queries=queries,
        query_characters=query_characters,
        documents=documents,
        document_characters=document_characters,
        pairs=pairs,
        keys=tuple(keys),
    )


def _otherwise(model: Mapping[str, Any], reference: Reference, top_k: int | None) -> bool:
    """Whether the model is configured otherwise than the published run was: then its scores are not to be expected."""
    return bool(replace(read_conditions(model), top_k=top_k).conflicts(reference.conditions))


def _stored(model: Mapping[str, Any]) -> Sequence[str]:
    """Returns the tasks of which stored predictions are reranked, those of tasks with candidates of their own included."""
    given = model.get("model_kwargs")
    given = {**(given if isinstance(given, Mapping) else {}), **model}
    files, names = given.get("embed_results"), given.get("task_name")
    if isinstance(files, Mapping):
        return [str(name) for name in files]
    return [str(name) for name in names] if isinstance(names, list) else [str(names)] if names else []


def _work(task: str, sized: _Sizes, top_k: int, narrowed: bool) -> tuple[str, int, int]:
    """Returns the pairs that a cross-encoder scores, and their characters."""
    given = main_metric(task, None, {})[0] in RERANKING and not narrowed
    pairs = sized.pairs if given else sized.queries * min(top_k, sized.documents)
    if not sized.queries or not sized.documents:
        return "pairs", 0, 0
    each = sized.query_characters / sized.queries + sized.document_characters / sized.documents
    return "pairs", pairs, round(pairs * each)


def _expected(known: published.Published, sizes: Mapping[str, _Sizes]) -> dict[str, tuple[float, str]]:
    reference = known.reference()
    found: dict[str, tuple[float, str]] = {}
    for task, sized in sizes.items():
        whole = {split for split, subset in sized.keys if subset == "*"}
        rows = [
            r
            for r in reference.rows
            if r.task == task
            and r.score is not None
            and r.conditions == reference.conditions
            and (r.key[1:] in sized.keys or r.split in whole or r.subset == MEAN_OF_SUBSETS)
        ]
        if rows:
            found[task] = (math.fsum(r.score for r in rows if r.score is not None) / len(rows), rows[0].metric)
    return found


def _means(name: str, known: published.Published, tasks: set[str]) -> Iterable[tuple[str, str, str, float]]:
    for benchmark in benchmarks():
        if {t.name for t in benchmark.tasks} != tasks:
            continue
        for mean in known.reference().aggregates:
            if mean.benchmark == benchmark.name and mean.measure in benchmark.measures and mean.judged_by:
                yield name, benchmark.name, mean.measure, mean.value
