"""Writes a run into EvalScope's own reports, so that its dashboard, tables and HTML page show it.

EvalScope lists what lies under ``<run>/reports/<model>/<dataset>.json`` and nothing else; its RAGEval backend writes
nothing there. One file for each task is written here, with the task's main score, through EvalScope's own ``Report``
class, whose shape differs: before the metric semantics came, a metric is a name; since then it has an identity, says
how it is displayed, and one metric is the report's headline.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalscope_vacc.files import replacing

if TYPE_CHECKING:
    from evalscope_vacc.hosts.run_result import RunResult

logger = logging.getLogger(__name__)

MAX_SEGMENT = 150
_UNSAFE = re.compile(r"[^\w.@+=-]+")
_AMBIGUOUS = {"score", "overall", "total_score"}  # names that EvalScope's MetricIdentity refuses


@dataclass(frozen=True)
class _Score:
    """The main score of one split and subset; ``samples`` is None where nobody says how many there were."""

    split: str
    subset: str
    value: float
    samples: int | None


@dataclass(frozen=True)
class _Task:
    """One report: a task as one model scored it."""

    model: str
    name: str
    kind: str
    metric: str
    scores: tuple[_Score, ...]
    description: str

    @property
    def mean(self) -> float:
        """As MTEB takes it: every split and subset counts the same."""
        return math.fsum(score.value for score in self.scores) / len(self.scores)


def write_reports(result: RunResult, config: Any = None) -> list[Path]:
    """Writes one report for each task and model, and EvalScope's HTML page beside them.

    A report is an addition to a run that is already over and kept, so nothing that goes wrong here is raised: it is
    logged as a warning.

    Args:
        result: What the run gave.
        config: The tool's configuration, or its ``eval`` part; says whether the tasks were cut to fewer samples.

    Returns:
        The files written, in the order of the results.
    """
    folder = Path(result.output_folder) / "reports"
    limit = getattr(getattr(config, "eval", config), "limits", None)
    written: list[Path] = []
    for model, task_result, name in _numbered(result):
        try:
            task = _read(model, task_result, name, limit if isinstance(limit, int) else None)
            if task is None:
                logger.warning("%s: no report for EvalScope's pages, a main score is missing or not finite", name)
                continue
            path = folder / segment(model) / f"{segment(name)}.json"
            _save(_report(task), path)
            written.append(path)
        except Exception as error:
            logger.warning("%s: no report for EvalScope's pages: %s", name, error)
            logger.debug("%s", name, exc_info=error)
    if written:
        _html(folder)
    return written


def segment(name: str) -> str:
    """Makes one path segment of a model's or task's name; EvalScope globs below it, so nothing special may stay."""
    text = _UNSAFE.sub("_", name.replace("/", "__").replace("\\", "__"))[:MAX_SEGMENT]
    return f"_{text}" if text.strip(".") == "" else text


def _numbered(result: RunResult) -> Iterator[tuple[str, Any, str]]:
    """A reranker scores a task once a first stage: the second and later times get a number."""
    seen: dict[tuple[str, str], int] = {}
    for stage in result.stages:
        for task_result in stage.task_results:
            name = str(task_result.task_name)
            count = seen[stage.model, name] = seen.get((stage.model, name), 0) + 1
            yield stage.model, task_result, name if count == 1 else f"{name} ({count})"


def _read(model: str, task_result: Any, name: str, limit: int | None) -> _Task | None:
    from evalscope_vacc.results.benchmarks import main_metric
    from evalscope_vacc.results.files import finite

    task_name = str(task_result.task_name)
    sizes = _sizes(task_result)
    scores: list[_Score] = []
    kind = metric = ""
    for split, entries in task_result.scores.items():
        for entry in entries:
            value = finite(entry.get("main_score"))
            if value is None:
                return None
            metrics = {k: v for k, raw in entry.items() if k != "main_score" and (v := finite(raw)) is not None}
            kind, metric = main_metric(task_name, value, metrics)
            subset = str(entry.get("hf_subset", "default"))
            samples = sizes.get((split, subset))
            if samples and limit:
                samples = min(samples, limit)
            scores.append(_Score(str(split), subset, value, samples))
    if not scores:
        return None
    facts = [
        f"MTEB task {task_name}" + (f" ({kind})" if kind else ""),
        f"main score: {metric}",
        f"dataset revision: {getattr(task_result, 'dataset_revision', None) or 'not recorded'}",
        f"mteb {getattr(task_result, 'mteb_version', None) or 'of an unknown version'}",
    ]
    if limit:
        facts.append(f"cut to {limit} samples: not comparable with published scores")
    return _Task(model, name, kind, metric, tuple(scores), "; ".join(facts) + ".")


def _sizes(task_result: Any) -> dict[tuple[str, str], int]:
    """Returns samples by split and subset out of MTEB's own statistics, nothing for a task that has none."""
    try:
        statistics = task_result.task.metadata.descriptive_stats or {}
    except Exception:  # noqa: BLE001 -- a task of the user's own is not in MTEB's registry
        return {}
    found: dict[tuple[str, str], int] = {}
    for split, whole in statistics.items():
        if not isinstance(whole, Mapping):
            continue
        parts = whole.get("hf_subset_descriptive_stats")
        for subset, part in (parts if isinstance(parts, Mapping) else {"default": whole}).items():
            number = part.get("num_queries") or part.get("num_samples") if isinstance(part, Mapping) else None
            if isinstance(number, int):
                found[str(split), str(subset)] = number
    return found


def _report(task: _Task) -> Any:
    from evalscope.report.report import Category, Metric, Report, Subset

    try:
        from evalscope.api.metric.semantics import MetricIdentity, MetricSemantics
    except ImportError:
        MetricIdentity = None  # noqa: N806
    known = [score.samples for score in task.scores if score.samples]
    # older versions weigh the subsets by their samples, which MTEB does not: there, several count one each
    exact = len(known) == len(task.scores) and (MetricIdentity is not None or len(task.scores) == 1)
    splits = dict.fromkeys(score.split for score in task.scores)
    categories = [
        Category(
            name=(split,),
            subsets=[
                Subset(name=score.subset, score=score.value, num=score.samples if exact and score.samples else 1)
                for score in task.scores
                if score.split == split
            ],
        )
        for split in splits
    ]
    common = {
        "name": f"{segment(task.model)}@{task.name}",
        "dataset_name": task.name,
        "dataset_pretty_name": task.name,
        "dataset_description": task.description,
        "model_name": task.model,
    }
    if MetricIdentity is None:
        return Report(metrics=[Metric(name=task.metric, categories=categories)], **common)
    identity = MetricIdentity(name=canonical(task.metric), aggregation="mean")
    semantics = MetricSemantics(
        semantic_id=f"mteb.{identity.name}.points",
        metric_name=task.metric,
        kind="quality",
        direction="higher_is_better",
        # MTEB publishes every main score times 100, correlations included; the range is the axis of EvalScope's charts
        value_range={"min": -1.0 if task.mean < 0 else 0.0, "max": 1.0},
        display_kind="number",
        display_multiplier=100.0,
        display_precision=2,
    )
    metric = Metric(identity=identity, semantics=semantics, score=task.mean, categories=categories)
    return Report(metrics=[metric], primary_metric_identity=identity, **common)


def canonical(metric: str) -> str:
    """Spells a metric the way EvalScope's identities must be: lower case, digits and underscores."""
    name = re.sub(r"[^a-z0-9_]+", "_", metric.lower()).strip("_")
    if not name or name in _AMBIGUOUS:
        return "main_score"
    return name if name[0].isalpha() else f"m_{name}"


def _save(report: Any, path: Path) -> None:
    with replacing(path) as part:
        report.to_json(str(part))


def _html(folder: Path) -> None:
    """EvalScope writes this page after each of its own runs, and its dashboard links to it."""
    try:
        from evalscope.report import gen_html_report_file
    except ImportError:
        return
    try:
        gen_html_report_file(str(folder))
    except Exception as error:
        logger.warning("EvalScope's HTML report could not be written: %s", error)
        logger.debug("HTML report", exc_info=error)
