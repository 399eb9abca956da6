"""The difference by query: is it more than the queries' own noise?

Both sides must have kept their predictions, and the judgements (qrels) must be available. Scores by query come from
pytrec_eval, which MTEB itself uses; their mean must equal the recorded score, else nothing is said. The test is
scipy's paired randomisation test, the interval its bootstrap over queries.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalscope_vacc.errors import ResultError
from evalscope_vacc.files import read_bounded
from evalscope_vacc.messages import Reason
from evalscope_vacc.results.files import finite, read_json, shown
from evalscope_vacc.results.model import Interval, Predictions, Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Qrels = Mapping[str, Mapping[str, int]]
QrelsSource = Callable[[str, str, str], "Qrels | None"]
"""task, split, subset -> judgements by query and document, or None where there are none."""

MAX_PREDICTIONS_BYTES = 2**30
MAX_QRELS_BYTES = 512 * 2**20
FEWEST = 20
RESAMPLES = 9999
FEWEST_RESAMPLES = 1999
_ELEMENTS = 1_000_000  # numbers per batch of resamples, so that ten thousand queries do not need a gigabyte
_DRAWN = 20_000_000  # numbers drawn in all: with many queries fewer resamples give as steady an interval
# MTEB rounds to five decimals (1.x: of the mean, 2.x: of the mean too)
_RECORDED = 2e-5

_MEASURES = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P"}


@dataclass(frozen=True)
class QueryTest:
    """Tests rows of two runs by query; to be given to :func:`evalscope_vacc.results.judge.compare`.

    The prediction files of both are taken as they are; the same ``seed`` of the resampling gives the same interval.
    """

    ours: Sequence[Predictions]
    theirs: Sequence[Predictions]
    qrels: QrelsSource
    seed: int = 20250607

    def __call__(self, row: Row, theirs: Row, metric: str) -> Interval | Reason | None:
        """Returns the interval, a note why there is none, or None where there is nothing to test."""
        measure = trec_measure(metric)
        if measure is None:
            return None
        mine, other = _file_for(self.ours, row), _file_for(self.theirs, theirs)
        if mine is None or other is None:
            return None
        scored: list[dict[str, float]] = []
        try:
            qrels = self.qrels(row.task, row.split, row.subset)
            if not qrels:
                return Reason("no_judgements")
            for file, run in ((mine, row), (other, theirs)):
                found = _by_query(read_predictions(file, run), qrels, measure, run.value(metric))
                if isinstance(found, Reason):
                    return found
                scored.append(found)
        except ResultError as error:
            return Reason.of("no_query_test", text=str(error))
        common = sorted(scored[0].keys() & scored[1].keys())
        if len(common) < FEWEST:
            return Reason.of("few_queries", common=len(common), fewest=FEWEST)
        import numpy as np

        return interval(np.array([scored[0][q] - scored[1][q] for q in common]), seed=self.seed)


def interval(differences: NDArray[np.float64], *, seed: int = 20250607, resamples: int | None = None) -> Interval:
    """Returns the 95 % interval of the mean difference and the two-sided p-value.

    Args:
        differences: This run minus the reference, one number for each query, shape (n,).
        seed: Of the resampling.
        resamples: 9999 when not given, fewer where there are thousands of queries.
    """
    import numpy as np
    from scipy import stats  # type: ignore[import-untyped, unused-ignore]

    d = np.asarray(differences, dtype=np.float64)
    mean = float(d.mean())
    if not np.any(d != d[0]):
        # every query moved alike: nothing varies, so nothing can be resampled
        return Interval(mean, mean, 1.0 if mean == 0 else 0.0, len(d))
    batch = max(1, _ELEMENTS // len(d))
    resamples = resamples or min(RESAMPLES, max(FEWEST_RESAMPLES, _DRAWN // len(d)))
    permuted = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=resamples, batch=batch, vectorized=True,
        alternative="two-sided", random_state=np.random.default_rng(seed),
    )  # fmt: skip
    booted = stats.bootstrap(
        (d,), np.mean, n_resamples=resamples, batch=batch, vectorized=True, confidence_level=0.95,
        method="percentile", random_state=np.random.default_rng(seed),
    )  # fmt: skip
    ends = booted.confidence_interval
    return Interval(float(ends.low), float(ends.high), float(permuted.pvalue), len(d))


def trec_measure(metric: str) -> str | None:
    """Translates MTEB's name of a metric to trec_eval's, or returns None where that has none."""
    match = re.fullmatch(r"(ndcg|map|recall|precision)_at_(\d{1,5})", metric)
    return f"{_MEASURES[match[1]]}.{match[2]}" if match else None


def read_predictions(file: Predictions, row: Row) -> dict[str, dict[str, float]]:
    """Reads the scores of every document of every query for the row's split and subset.

    Raises:
        ResultError: The file cannot be read, lacks the split or subset, or holds something else.
    """
    data = read_json(file.path, MAX_PREDICTIONS_BYTES)
    if file.subset is None and isinstance(data, dict):
        # mteb 2.x: subset, split, query, document
        part = data.get(row.subset)
        data = part.get(row.split) if isinstance(part, dict) else None
    if not isinstance(data, dict) or not data:
        raise ResultError(f"{shown(file.path)} has no predictions for split {row.split}, subset {row.subset}")
    for query, documents in data.items():
        if not isinstance(documents, dict) or not all(finite(score) is not None for score in documents.values()):
            raise ResultError(f"{shown(file.path)}: query {query[:60]!r} has no mapping of documents to finite scores")
    return data


def qrels_from_files(path: Path) -> QrelsSource:
    """Reads judgements from a folder with a file a task, or from one file.

    Understood are ``<Task>.json`` ({query: {document: relevance}}, or the same below subset and split), and
    ``<Task>.tsv``/``.qrels``/``.txt`` in TREC's four or BEIR's three columns.

    Raises:
        ResultError: There is no such path.
    """
    if not path.exists():
        raise ResultError(f"there is no file or folder {shown(path)} with judgements")

    def look(task: str, split: str, subset: str) -> Qrels | None:
        if path.is_file():
            return _read_qrels(path, split, subset)
        for name in (task, f"{task}.{split}", f"{task}_{subset}", f"{task}.{split}.{subset}"):
            for suffix in (".json", ".tsv", ".qrels", ".txt"):
                file = path / f"{name}{suffix}"
                # a task's name comes from a file that anybody may have written
                if file.parent == path and file.is_file():
                    return _read_qrels(file, split, subset)
        return None

    return look


def qrels_from_mteb(task: str, split: str, subset: str) -> Qrels | None:
    """Loads the task's data with MTEB, over the network where they are not in the cache, and returns its judgements."""
    loaded = _loaded(task)
    dataset = getattr(loaded, "dataset", None)
    found: Any = None
    if isinstance(dataset, dict) and isinstance(dataset.get(subset), dict):
        found = dict(dataset[subset].get(split) or {}).get("relevant_docs")
    if found is None:
        relevant = getattr(loaded, "relevant_docs", None) or {}
        found = relevant.get(split) or (relevant.get(subset) or {}).get(split)
    return {str(q): {str(d): int(r) for d, r in docs.items()} for q, docs in found.items()} if found else None


@lru_cache(maxsize=1)  # a corpus may have gigabytes: one at a time
def _loaded(task: str) -> Any:
    try:
        import mteb

        loaded = mteb.get_task(task)
        loaded.load_data()
    except Exception as error:  # MTEB and the hub raise whatever they like
        said = f"MTEB cannot load {task}: {type(error).__name__}; give the judgements with --qrels"
        raise ResultError(said) from error
    return loaded


def _read_qrels(file: Path, split: str, subset: str) -> Qrels:
    rows = _in_json(file, split, subset) if file.suffix == ".json" else _in_columns(file)
    qrels: dict[str, dict[str, int]] = {}
    for query, document, relevance in rows:
        if isinstance(relevance, str):
            text = relevance.strip()
            number = float(text) if re.fullmatch(r"-?\d{1,9}", text) else None
        else:
            number = finite(relevance)
        if number is not None:
            qrels.setdefault(str(query), {})[str(document)] = int(number)
    if not qrels:
        raise ResultError(f"{shown(file)} holds no judgements")
    return qrels


def _in_json(file: Path, split: str, subset: str) -> Iterator[tuple[Any, Any, Any]]:
    data = read_json(file, MAX_QRELS_BYTES)
    data = data if isinstance(data, dict) else {}
    for key in (subset, split):
        inner = data.get(key)
        if not isinstance(inner, dict) or not all(isinstance(v, dict) for v in inner.values()):
            continue
        # a query may be called "test": what lies below a split has one level more
        if key == split or any(isinstance(v, dict) for part in inner.values() for v in part.values()):
            data = inner
    for query, documents in data.items():
        if isinstance(documents, dict):
            yield from ((query, document, relevance) for document, relevance in documents.items())


def _in_columns(file: Path) -> Iterator[tuple[str, str, str]]:
    try:
        text = read_bounded(file, MAX_QRELS_BYTES).decode("utf-8", errors="replace")
    except (OSError, ValueError) as error:
        raise ResultError(f"{shown(file)} is not read: {error}") from None
    for line in text.splitlines():
        cells = line.split() if "\t" not in line else next(csv.reader([line], delimiter="\t"))
        if len(cells) in {3, 4}:
            yield cells[0], cells[-2], cells[-1]


def _by_query(
    predictions: Mapping[str, Mapping[str, float]], qrels: Qrels, measure: str, recorded: float | None
) -> dict[str, float] | Reason:
    import pytrec_eval

    name = measure.replace(".", "_")
    # MTEB drops a query's own text from its candidates in some tasks and not in others: the recorded score tells
    without_self = {q: {d: s for d, s in docs.items() if d != q} for q, docs in predictions.items()}
    mean = 0.0
    for run in (predictions, without_self):
        result = pytrec_eval.RelevanceEvaluator(dict(qrels), {measure}).evaluate(dict(run))
        scores = {q: float(values[name]) for q, values in result.items()}
        if not scores:
            return Reason.of("no_common_query")
        mean = sum(scores.values()) / len(scores)
        if recorded is not None and abs(mean - recorded) <= _RECORDED:
            return scores
    return Reason.of("other_mean", found=mean, recorded=recorded)


def _file_for(files: Sequence[Predictions], row: Row) -> Predictions | None:
    """Picks the file that lies nearest to the row's result; None where two lie equally near."""
    fits = [p for p in files if p.task == row.task and p.subset in {None, row.subset}]
    if not fits or not row.source:
        return None
    source = os.path.abspath(row.source)  # noqa: PTH100 - links must stay as they were walked
    near = {p: len(os.path.commonpath([source, os.path.abspath(p.path)])) for p in fits}  # noqa: PTH100
    best = [p for p in fits if near[p] == max(near.values())]
    return best[0] if len(best) == 1 else None
