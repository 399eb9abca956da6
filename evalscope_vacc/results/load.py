"""Reads result folders of EvalScope and MTEB, whatever their generation.

The layouts, all found by walking: mteb 2.x writes ``results/<org__name>/<revision>/[experiments/<name>/]<Task>.json``
beside a ``model_meta.json``; EvalScope puts that under ``<work_dir>/<timestamp>/``, in two-stage runs under ``stage1/``
and ``stage2/``; mteb 1.x writes ``<out>/<model>/<revision>/<Task>.json``. What a run was configured with comes from
``model_meta.json``'s ``experiment_kwargs`` and from the evidence in ``<run>/vacc/config.json``.

Files may come from anybody: sizes, counts and depths are bounded, links inside a folder are not followed, and whatever
cannot be read becomes a line in :attr:`Results.problems`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evalscope_vacc.errors import ResultError
from evalscope_vacc.messages import Reason
from evalscope_vacc.redact import clean
from evalscope_vacc.results.benchmarks import main_metric
from evalscope_vacc.results.evidence import (
    Folders,
    conditions_of,
    experiment_conditions,
    revision_conditions,
    without_first_stage,
)
from evalscope_vacc.results.files import finite, read_json, shown
from evalscope_vacc.results.model import Kind, Predictions, Results, Row, Run
from evalscope_vacc.text.task import RERANKING

MAX_FILES = 100_000
MAX_DEPTH = 16
MAX_ROWS = 1_000_000
MAX_NAME = 200
PREDICTIONS = "_predictions.json"
OWN_CANDIDATES = "the task's own candidates"

_STAGES: Mapping[str, Kind] = {"stage1": "encoder", "stage2": "cross-encoder"}
_NO_NAME = "no_model_name_available"  # what mteb 1.x calls a model object without metadata
_NOT_RESULTS = {"model_meta.json", "run_settings.json", "task_config.json"}
# "candidates" holds what a reranker was given, not what it made of it
_SKIPPED_FOLDERS = {"vacc", "logs", "configs", "reports", "candidates", "__pycache__", "node_modules"}


def load_results(paths: Sequence[str | Path]) -> Results:
    """Reads every result under ``paths``: folders at any level of a layout, or single task files.

    Raises:
        ResultError: A path does not exist, or there are more files or rows than a run can have.
    """
    rows: dict[str, tuple[Row, ...]] = {}
    predictions: dict[Path, Predictions] = {}
    problems: set[str] = set()
    folders = Folders()
    for path in sorted({Path(p) for p in paths}):
        if not path.exists():
            raise ResultError(f"there is no file or folder {shown(path)}; give a result folder or a task's JSON file")
        for file in _files(path):
            if file.name.endswith(PREDICTIONS):
                found = file.name.removesuffix(PREDICTIONS)
                predictions[file.resolve()] = Predictions(file, found)
                continue
            identity = str(file.resolve())
            if identity in rows:
                continue
            try:
                rows[identity] = _read_task(file, folders, path)
            except ResultError as error:
                problems.add(str(error))
            if sum(map(len, rows.values())) > MAX_ROWS:
                raise ResultError(
                    f"more than {MAX_ROWS:,} scores under {shown(path)}: no run has so many; give a deeper folder"
                )
    everything = sorted((row for part in rows.values() for row in part), key=_order)
    tasks = {row.task for row in everything}
    return Results(
        tuple(everything),
        tuple(_named(p, tasks) for _, p in sorted(predictions.items())),
        tuple(Reason.of("unreadable", text=text) for text in sorted(problems | folders.problems)),
        tuple(sorted(shown(Path(p)) for p in paths)),
    )


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    seen = 0
    base = len(path.parts)
    for folder, folders, names in os.walk(path, followlinks=False):
        here = Path(folder)
        deep = len(here.parts) - base >= MAX_DEPTH
        folders[:] = [] if deep else sorted(f for f in folders if f not in _SKIPPED_FOLDERS and not f.startswith("."))
        for name in sorted(names):
            seen += 1
            if seen > MAX_FILES:
                raise ResultError(f"more than {MAX_FILES:,} files under {shown(path)}: give the folder of one run")
            file = here / name
            # a named pipe or a device would block the reader for ever
            if name.endswith(".json") and name not in _NOT_RESULTS and not name.startswith(".") and file.is_file():
                yield file


def _read_task(file: Path, folders: Folders, given: Path) -> tuple[Row, ...]:
    data = read_json(file)
    if not isinstance(data, dict) or not isinstance(data.get("scores"), dict) or "task_name" not in data:
        if isinstance(data, dict) and "mteb_dataset_name" in data:
            raise ResultError(
                f"{shown(file)} was written by an mteb before 1.11, whose files cannot be read; run the task again"
            )
        if file == given:
            raise ResultError(f"{shown(file)} is not a task's result: it has no task_name and scores")
        return ()
    task = _name(data["task_name"], file, "task_name")
    run, folder_conditions = _run_of(file.parent, folders)
    digest = folder_conditions.get("first_stage")
    if digest:
        named = folders.first_stage(file.parent, task, digest) or digest
        folder_conditions = {**folder_conditions, "first_stage": named}
    recorded = conditions_of(folder_conditions, folders.evidence(file.parent, run, folder_conditions), run)
    # our own results name the first stage where there was one; without it such a task's own candidates were reranked
    own = run.model.casefold().startswith("vacc/") and main_metric(task, None, {})[0] in RERANKING
    if run.kind == "cross-encoder" and recorded.first_stage is None and own:
        recorded = replace(recorded, first_stage=OWN_CANDIDATES, assumed=(*recorded.assumed, "first_stage"))
    version, revision = _text(data.get("mteb_version")), _text(data.get("dataset_revision"))
    root = str(folders.root(file.parent) or given)
    rows: list[Row] = []
    for split, entries in data["scores"].items():
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ResultError(
                f"{shown(file)}: the scores of split {clean(str(split), limit=60)!r} are not a list of mappings"
            )
        for entry in entries:
            metrics = {k: v for k, raw in entry.items() if isinstance(k, str) and (v := finite(raw)) is not None}
            score = metrics.pop("main_score", None)
            kind, metric = main_metric(task, score, metrics)
            rows.append(
                Row(
                    run=run,
                    task=task,
                    split=_name(split, file, "split"),
                    subset=_name(entry.get("hf_subset", "default"), file, "hf_subset"),
                    metric=metric,
                    score=score,
                    type=kind,
                    # 2.26 records the version of each entry, because a file may be filled by several
                    mteb_version=_text(entry.get("mteb_version")) or version,
                    dataset_revision=revision,
                    conditions=recorded,
                    metrics=metrics,
                    source=str(file),
                    root=root,
                )
            )
    return tuple(rows)


def _run_of(folder: Path, folders: Folders) -> tuple[Run, Mapping[str, Any]]:
    """Tells model, revision and experiment from ``model_meta.json``, and from the path where that is silent."""
    meta = folders.meta(folder)
    experiment = folder.name if folder.parent.name == "experiments" else ""
    revision_folder = folder.parent.parent if experiment else folder
    model, revision = _text(meta.get("name")), _text(meta.get("revision"))
    if not model or model == _NO_NAME:
        folder_name = revision_folder.parent.name
        known = folder_name != _NO_NAME and (bool(meta) or "__" in folder_name)
        model = folder_name.replace("__", "/", 1) if known else ""
    if not revision and model:
        revision = revision_folder.name
    kwargs = meta.get("experiment_kwargs")
    settings = revision_conditions(clean(revision or "", limit=MAX_NAME))
    # a reranker's results name the candidates of each task: the same run has as many such folders as tasks
    run = Run(
        clean(model or "", limit=MAX_NAME),
        clean(without_first_stage(revision or ""), limit=MAX_NAME),
        clean(without_first_stage(experiment), limit=MAX_NAME),
        _kind(meta, revision_folder),
    )
    return run, {**settings, **(experiment_conditions(kwargs) if isinstance(kwargs, dict) else {})}


def _kind(meta: Mapping[str, Any], revision_folder: Path) -> Kind | None:
    types = meta.get("model_type")
    if meta.get("is_cross_encoder") is True or (isinstance(types, list) and "cross-encoder" in types):
        return "cross-encoder"
    # EvalScope's two stages, the folder being the one thing that tells: its API reranker is recorded as dense.
    # <stage>/[results/]<model>/<revision>: folders further up are the user's own and may be called anything
    above = revision_folder.absolute().parent.parent
    stage = above.parent.name if above.name == "results" else above.name
    if stage in _STAGES:
        return _STAGES[stage]
    return "encoder" if isinstance(types, list) and types else None


def _named(found: Predictions, tasks: set[str]) -> Predictions:
    """Splits ``<Task>_<subset>`` of mteb 1.x, which only the names of the tasks can do."""
    if found.task in tasks:
        return found
    best = max((task for task in tasks if found.task.startswith(f"{task}_")), key=len, default=None)
    return found if best is None else Predictions(found.path, best, found.task[len(best) + 1 :])


def _order(row: Row) -> tuple[str, ...]:
    return (row.task, row.split, row.subset, row.metric, row.run.label, row.run.kind or "", repr(row.score), row.source)


def _text(value: object) -> str | None:
    return clean(value, limit=MAX_NAME) if isinstance(value, str) and value else None


def _name(value: object, file: Path, what: str) -> str:
    if not isinstance(value, str) or not value or len(value) > MAX_NAME:
        raise ResultError(f"{shown(file)}: {what} is not a name of 1 to {MAX_NAME} characters")
    return clean(value, limit=MAX_NAME)
