"""What the benchmarks consist of: tasks with type, main metric, splits and subsets, from MTEB's own definitions.

Package data, so that no MTEB is needed to read results; ``benchmarks/published/build_benchmarks.py`` writes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.names import did_you_mean
from evalscope_vacc.redact import clean
from evalscope_vacc.results.files import read_packaged


@dataclass(frozen=True)
class BenchmarkTask:
    """One task as a benchmark uses it."""

    name: str
    type: str
    metric: str
    splits: tuple[str, ...]
    subsets: tuple[str, ...]  # names; empty where ``subset_count`` alone is kept because there are thousands
    subset_count: int


@dataclass(frozen=True)
class Benchmark:
    """A named list of tasks."""

    name: str
    tasks: tuple[BenchmarkTask, ...]
    measures: tuple[str, ...]  # what is published of it: "Mean(Task)" and "Mean(Type)", or "Mean(Task)" alone

    def __contains__(self, task: object) -> bool:
        return any(t.name == task for t in self.tasks)


@lru_cache(maxsize=1)
def benchmarks() -> tuple[Benchmark, ...]:
    """Returns eng v2, cmn v1, Multilingual v2, Code v1, and the six columns of Qwen's reranking table."""
    return tuple(
        Benchmark(
            name,
            tuple(
                BenchmarkTask(task, kind, metric, tuple(splits), tuple(subsets), count)
                for task, (kind, metric, splits, subsets, count) in entry["tasks"].items()
            ),
            tuple(entry["measures"]),
        )
        for name, entry in read_packaged("_benchmarks")["benchmarks"].items()
    )


def benchmark(name: str) -> Benchmark | None:
    """Returns the benchmark of this name, or None."""
    return next((b for b in benchmarks() if b.name == name), None)


def named(name: str) -> Benchmark:
    """Returns a benchmark by MTEB's name or alias; MTEB itself is asked only for those that the package does not bring.

    Raises:
        ConfigError: There is none; the nearest is named.
    """
    known = benchmark(name)
    if known is not None:
        return known
    theirs = _of_mteb(name)
    return benchmark(str(theirs.name)) or Benchmark(
        str(theirs.name),
        tuple(
            BenchmarkTask(
                task.metadata.name,
                str(task.metadata.type),
                str(task.metadata.main_score),
                tuple(map(str, task.eval_splits)),
                tuple(map(str, task.hf_subsets)),
                len(task.hf_subsets),
            )
            for task in theirs.tasks
        ),
        ("Mean(Task)", "Mean(Type)"),
    )


def mteb_tasks(name: str) -> list[Any]:
    """Returns MTEB's own tasks of a benchmark, with its languages, subsets and splits; not to be changed.

    Raises:
        ConfigError: There is no such benchmark; the nearest is named.
    """
    import mteb

    known = benchmark(name)
    if known is None or name in _names():
        return list(_of_mteb(name).tasks)
    # a column of a published table, which MTEB has no name for
    return [
        mteb.get_task(task.name, eval_splits=list(task.splits), hf_subsets=list(task.subsets) or None)
        for task in known.tasks
    ]


def parts(given: Iterable[str] | Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...] | None]:
    """Reads ``eval.benchmarks``: a list of names, or name to those of its tasks that are evaluated.

    Returns:
        Name to tasks; None means all of them.
    """
    if isinstance(given, Mapping):
        return {str(name): tuple(tasks) for name, tasks in given.items()}
    return dict.fromkeys(given)


def is_benchmark(name: str) -> bool:
    """Whether a name is a benchmark's, or an alias of one, such as ``CMTEB``."""
    return benchmark(name) is not None or name in _names()


def _of_mteb(name: str) -> Any:
    import mteb

    try:
        return mteb.get_benchmark(name)
    except KeyError:
        known = [*_names(), *(one.name for one in benchmarks())]
        hint = did_you_mean(name, known, "mteb.get_benchmarks() lists them")
        raise ConfigError(f"there is no benchmark {clean(name, limit=200)!r}: {hint}") from None


def _names() -> list[str]:
    import mteb

    return [str(name) for one in mteb.get_benchmarks() for name in (one.name, *(getattr(one, "aliases", None) or ()))]


def main_metric(task: str, score: float | None, metrics: Mapping[str, float]) -> tuple[str, str]:
    """Tells type ("" when unknown) and main metric of a task; result files carry the main score without its name.

    The table of MTEB is believed where the file agrees with it; a task of another version and a custom task are named
    after the scores that equal its main score, "main_score" if none does.
    """
    kind, metric = read_packaged("_benchmarks")["tasks"].get(task, ("", ""))
    if metric and (score is None or metrics.get(metric) == score):
        return kind, metric
    # mteb 1.x: the same measure under its older name, under which published scores are not listed
    if metric not in metrics and any(metrics.get(older) == score for older in _OLDER.get(metric, ())):
        return kind, metric
    same = sorted(name for name, value in metrics.items() if value == score)
    for name in _USUAL:
        if name in same:
            return kind, name
    return kind, same[0] if same else metric or "main_score"


_OLDER: Mapping[str, tuple[str, ...]] = {
    "map_at_1000": ("map",),
    "max_over_subqueries_map_at_1000": ("map",),
    "mrr_at_10": ("mrr",),
    "ndcg_at_10": ("NDCG@10(MIRACL)",),
}

# the main metrics of MTEB's tasks, the commonest first: which one is meant where several have the same value
_USUAL = (
    "ndcg_at_10", "cosine_spearman", "accuracy", "v_measure", "max_ap", "f1", "map_at_1000", "map", "p-MRR",
    "max_accuracy", "ndcg_at_5", "ndcg_at_20", "recall_at_5", "lrap", "similarity_ap", "cosine_ap", "cos_sim_spearman",
)  # fmt: skip
