"""What a run was asked for, so that half a run is not taken for a whole one.

A run writes ``vacc/asked.json`` before it sends anything. Runs of 0.1.0 left no such file: what they were asked for comes
from EvalScope's copy of their configuration; a task whose texts were sent and that has no result was asked for in any case.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from evalscope_vacc.errors import ResultError
from evalscope_vacc.files import read_bounded, write_whole
from evalscope_vacc.redact import clean
from evalscope_vacc.results.benchmarks import main_metric
from evalscope_vacc.results.files import read_json
from evalscope_vacc.results.model import AskedTask, tail_of
from evalscope_vacc.text.task import RERANKING

FILE = "asked.json"
MAX_BYTES = 16 << 20
MAX_TASKS = 20_000
LEVELS = 8
RETRIEVED = ("Retrieval", "InstructionRetrieval")


def record_asked(folder: Path, planned: Iterable[tuple[str, str, Any]]) -> None:
    """Writes down what a run is asked for; to be called before anything is sent.

    What the folder was asked for before stays, under the same model, stage and task once.

    Args:
        folder: The run's ``vacc`` folder.
        planned: Name of the model as its results are filed, stage, and MTEB's task.
    """
    entries = [
        AskedTask(
            model, stage, str(task.metadata.name), tuple(map(str, task.eval_splits)), tuple(map(str, task.hf_subsets or ())),
        )
        for model, stage, task in planned
    ]  # fmt: skip
    _write(folder, entries)


def record_failed(folder: Path, failed: Iterable[tuple[str, str, str, str]]) -> None:
    """Notes which of the asked tasks failed, and why: model, stage, task, reason."""
    known = {(entry.model, entry.stage, entry.task): entry for entry in _read(folder / FILE)}
    for model, stage, task, why in failed:
        entry = known.get((model, stage, task), AskedTask(model, stage, task))
        known[model, stage, task] = replace(entry, error=clean(why, limit=600))
    _write(folder, known.values())


def asked_of(paths: Sequence[str | Path]) -> tuple[AskedTask, ...] | None:
    """Returns what the runs at, above or below ``paths`` were asked for, or None where none left word of it.

    Args:
        paths: What the user gave; of a folder further down in a run, only what belongs there is asked for, and of a single
            file nothing.
    """
    found: dict[tuple[Path, str, str, str], AskedTask] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            continue
        for run in _runs(path.absolute()):
            for entry in _asked(run):
                if _lies_in(entry, run, path.absolute()):
                    found[run, entry.model, entry.stage, entry.task] = entry
    return tuple(sorted(found.values(), key=lambda e: (e.model, e.stage, e.task))) or None


def plan(models: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> Iterator[tuple[Mapping[str, Any], str, str]]:
    """Tells which model does which task in which stage, as the runs do.

    Args:
        models: Entries of ``models:``.
        tasks: Names.

    Yields:
        The model's entry, the stage and the task.
    """
    crossed = [model for model in models if is_cross_encoder(model)]
    encoders = [model for model in models if not is_cross_encoder(model)]
    kinds = {task: main_metric(task, None, {})[0] for task in tasks}
    two_stages = encoders and crossed and any(kind in RETRIEVED for kind in kinds.values())
    for model in encoders:
        for task in tasks:
            if not crossed or kinds[task] not in RERANKING:
                yield model, "stage1" if two_stages else "", task
    for model in crossed:
        for task in tasks:
            if kinds[task] in (*RERANKING, *RETRIEVED, ""):
                yield model, "stage2" if two_stages else "", task


def is_cross_encoder(model: Mapping[str, Any]) -> bool:
    """Tells whether an entry of ``models:`` is a cross-encoder's, by its own word or by the catalog's."""
    if isinstance(model.get("is_cross_encoder"), bool):
        return bool(model["is_cross_encoder"])
    from evalscope_vacc.catalog import find

    entry = find(str(model.get("model_name") or ""))
    return entry is not None and entry.is_cross_encoder


def _runs(path: Path) -> Iterator[Path]:
    """Yields the folders of the runs at or above a folder, else those below it."""
    for level in (path, *path.parents)[:LEVELS]:
        if (level / "vacc").is_dir() or (level / "configs").is_dir():
            yield level
            return
    # outputs/<time> of EvalScope, or <model>/<time>
    for pattern in ("*/vacc", "*/*/vacc"):
        yield from sorted(folder.parent for folder in path.glob(pattern) if folder.is_dir())


def _asked(run: Path) -> list[AskedTask]:
    entries = _read(run / "vacc" / FILE) or _configured(run)
    for model, task in _sent(run):
        if not any(entry.task == task and entry.is_for(model) for entry in entries):
            entries.append(AskedTask(model, "", task))
    return entries


def _lies_in(entry: AskedTask, run: Path, path: Path) -> bool:
    stage = run / entry.stage if entry.stage else run
    if path in (run, stage, stage / "results") or path in run.parents:
        return True
    parts = path.relative_to(stage).parts if stage in path.parents else ()
    return any(tail_of(part.replace("__", "/", 1)) == tail_of(entry.model) for part in parts)


def _read(path: Path) -> list[AskedTask]:
    if not path.is_file():
        return []
    try:
        data = read_json(path, MAX_BYTES)
    except ResultError:
        return []
    entries = data.get("tasks") if isinstance(data, dict) else None
    found = []
    for entry in (entries if isinstance(entries, list) else ())[:MAX_TASKS]:
        if isinstance(entry, dict) and isinstance(entry.get("task"), str):
            texts = (clean(str(entry.get(name) or ""), limit=600) for name in ("model", "stage", "task", "error"))
            model, stage, task, error = texts
            found.append(
                AskedTask(model, stage, task, _names(entry.get("splits")), _names(entry.get("subsets")), error)
            )
    return found


def _names(value: object) -> tuple[str, ...]:
    return tuple(clean(v, limit=200) for v in value if isinstance(v, str)) if isinstance(value, list) else ()


def _write(folder: Path, entries: Iterable[AskedTask]) -> None:
    known = {(entry.model, entry.stage, entry.task): entry for entry in [*_read(folder / FILE), *entries]}
    content = {"format": "evalscope-vacc/asked", "version": 1, "tasks": [asdict(entry) for entry in known.values()]}
    write_whole(folder / FILE, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def _configured(run: Path) -> list[AskedTask]:
    """Reads the configuration that EvalScope keeps beside its results."""
    evaluation, models = configured_run(run)
    names = evaluation.get("task_names") or evaluation.get("tasks")
    names = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    return [AskedTask(_filed(model), stage, task) for model, stage, task in plan(models, names[:MAX_TASKS])]


def configured_run(run: Path) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]]:
    """Returns ``eval:`` and ``models:`` of the newest configuration in ``<run>/configs``, or nothing."""
    content = task_config(run)
    given = content.get("eval_config")
    given = given if isinstance(given, Mapping) else {}
    evaluation = given.get("eval")
    models = given.get("models", given.get("model"))
    models = [models] if isinstance(models, Mapping) else models if isinstance(models, list) else []
    return (
        evaluation if isinstance(evaluation, Mapping) else {},
        [model for model in models if isinstance(model, Mapping)],
    )


def task_config(run: Path) -> dict[str, Any]:
    """Reads what EvalScope was run with, from ``<run>/configs``; nothing where that is not there."""
    import yaml

    for path in sorted((run / "configs").glob("*.yaml"), reverse=True) if (run / "configs").is_dir() else ():
        try:
            content = yaml.safe_load(read_bounded(path, MAX_BYTES // 4))
        except (OSError, ValueError, yaml.YAMLError, RecursionError):
            continue
        if isinstance(content, dict) and isinstance(content.get("eval_config"), dict):
            return content
    return {}


def _filed(model: Mapping[str, Any]) -> str:
    return clean(str(model.get("model_name") or model.get("model_name_or_path") or ""), limit=200)


def _sent(run: Path) -> Iterator[tuple[str, str]]:
    """Yields model and task of everything of which texts were sent."""
    path = run / "vacc" / "usage.json"
    if not path.is_file():
        return
    try:
        data = read_json(path, MAX_BYTES)
    except ResultError:
        return
    tasks = data.get("tasks") if isinstance(data, dict) else None
    for entry in tasks if isinstance(tasks, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("task"), str) and entry["task"]:
            yield clean(str(entry.get("model") or ""), limit=200), clean(entry["task"], limit=200)


def servers_of(paths: Sequence[str | Path]) -> dict[str, Mapping[str, Any]]:
    """Returns what the runs at, above or below ``paths`` wrote down of their servers, by model."""
    found: dict[str, Mapping[str, Any]] = {}
    for run in {run for path in map(Path, paths) if path.is_dir() for run in _runs(path.absolute())}:
        path = run / "vacc" / "server.json"
        try:
            data = read_json(path, MAX_BYTES) if path.is_file() else {}
        except ResultError:
            continue
        models = data.get("models") if isinstance(data, dict) else None
        for entry in models if isinstance(models, list) else ():
            if isinstance(entry, dict):
                found[clean(str(entry.get("name") or ""), limit=200)] = entry
    return found
