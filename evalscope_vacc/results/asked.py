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

from evalscope_vacc.files import read_bounded, write_whole
from evalscope_vacc.redact import clean
from evalscope_vacc.results.benchmarks import main_metric
from evalscope_vacc.results.files import levels, listed
from evalscope_vacc.results.model import AskedTask, tail_of
from evalscope_vacc.text.task import RERANKING

FILE = "asked.json"
MAX_CONFIG_BYTES = 4 << 20
MAX_TASKS = 20_000
RETRIEVED = ("Retrieval", "InstructionRetrieval")


def record_asked(folder: Path, planned: Iterable[tuple[str, str, Any]]) -> None:
    """Writes down what a run is asked for, in its ``vacc`` folder, before anything is sent.

    Planned are the name of the model as its results are filed, the stage, and MTEB's task. What the folder was asked for
    before stays, under the same model, stage and task once.
    """
    entries = (
        AskedTask(
            model, stage, str(task.metadata.name), tuple(map(str, task.eval_splits)), tuple(map(str, task.hf_subsets or ())),
        )
        for model, stage, task in planned
    )  # fmt: skip
    _write(folder, [*_recorded(folder), *entries])


def record_failed(folder: Path, failed: Iterable[tuple[str, str, str, str]]) -> None:
    """Notes which of the asked tasks failed, and why: model, stage, task, reason."""
    known = {(entry.model, entry.stage, entry.task): entry for entry in _recorded(folder)}
    for model, stage, task, why in failed:
        entry = known.get((model, stage, task), AskedTask(model, stage, task))
        known[model, stage, task] = replace(entry, error=clean(why, limit=600))
    _write(folder, known.values())


def _write(folder: Path, entries: Iterable[AskedTask]) -> None:
    known = {(entry.model, entry.stage, entry.task): asdict(entry) for entry in entries}
    content = {"format": "evalscope-vacc/asked", "version": 1, "tasks": list(known.values())}
    write_whole(folder / FILE, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def _recorded(folder: Path) -> list[AskedTask]:
    found = []
    for entry in listed(folder / FILE, "tasks")[:MAX_TASKS]:
        if isinstance(entry.get("task"), str):
            names = [clean(str(entry.get(name) or ""), limit=600) for name in ("model", "stage", "task", "error")]
            splits, subsets = (_names(entry.get(name)) for name in ("splits", "subsets"))
            found.append(AskedTask(names[0], names[1], names[2], splits, subsets, names[3]))
    return found


def _names(value: object) -> tuple[str, ...]:
    return tuple(clean(v, limit=200) for v in value if isinstance(v, str)) if isinstance(value, list) else ()


def asked_of(paths: Sequence[str | Path]) -> tuple[AskedTask, ...] | None:
    """Returns what the runs at, above or below ``paths`` were asked for, or None where none of them recorded it.

    Of a folder further down in a run, only what belongs there is asked for, and of a single file nothing.
    """
    found: dict[tuple[Path, str, str, str], AskedTask] = {}
    for path, run in _runs(paths):
        for entry in _asked(run):
            if _lies_in(entry, run, path):
                found[run, entry.model, entry.stage, entry.task] = entry
    return tuple(sorted(found.values(), key=lambda e: (e.model, e.stage, e.task))) or None


def servers_of(paths: Sequence[str | Path]) -> dict[str, Mapping[str, Any]]:
    """Returns what the runs at, above or below ``paths`` wrote down of their servers, by model."""
    entries = [entry for _, run in _runs(paths) for entry in listed(run / "vacc" / "server.json", "models")]
    return {clean(str(entry.get("name") or ""), limit=200): entry for entry in entries}


def plan(models: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> Iterator[tuple[Mapping[str, Any], str, str]]:
    """Tells which model (an entry of ``models:``) does which task in which stage, as the runs do."""
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


def task_config(run: Path) -> dict[str, Any]:
    """Reads what EvalScope was run with, the newest file in ``<run>/configs``; nothing where that is not there."""
    import yaml

    for path in sorted((run / "configs").glob("*.yaml"), reverse=True) if (run / "configs").is_dir() else ():
        try:
            content = yaml.safe_load(read_bounded(path, MAX_CONFIG_BYTES))
        except (OSError, ValueError, yaml.YAMLError, RecursionError):
            continue
        if isinstance(content, dict) and isinstance(content.get("eval_config"), dict):
            return content
    return {}


def _runs(paths: Sequence[str | Path]) -> Iterator[tuple[Path, Path]]:
    """Yields each given folder with the folder of the run at or above it, else with those of the runs below it."""
    for path in (Path(given).absolute() for given in paths if Path(given).is_dir()):
        above = (level for level in levels(path) if (level / "vacc").is_dir() or (level / "configs").is_dir())
        run = next(above, None)
        if run:
            yield path, run
            continue
        # outputs/<time> of EvalScope, or <model>/<time>
        for pattern in ("*/vacc", "*/*/vacc"):
            yield from ((path, folder.parent) for folder in sorted(path.glob(pattern)) if folder.is_dir())


def _asked(run: Path) -> list[AskedTask]:
    entries = _recorded(run / "vacc") or _configured(run)
    for sent in listed(run / "vacc" / "usage.json", "tasks"):
        model, task = (clean(str(sent.get(name) or ""), limit=200) for name in ("model", "task"))
        if task and not any(entry.task == task and entry.is_for(model) for entry in entries):
            entries.append(AskedTask(model, "", task))
    return entries


def _configured(run: Path) -> list[AskedTask]:
    """Reads the configuration that EvalScope keeps beside its results."""
    given = task_config(run).get("eval_config", {})
    evaluation, models = given.get("eval"), given.get("models", given.get("model"))
    evaluation = evaluation if isinstance(evaluation, Mapping) else {}
    names = evaluation.get("task_names") or evaluation.get("tasks")
    names = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    models = [models] if isinstance(models, Mapping) else models if isinstance(models, list) else []
    models = [model for model in models if isinstance(model, Mapping)]
    return [
        AskedTask(clean(str(model.get("model_name") or model.get("model_name_or_path") or ""), limit=200), stage, task)
        for model, stage, task in plan(models, names[:MAX_TASKS])
    ]


def _lies_in(entry: AskedTask, run: Path, path: Path) -> bool:
    stage = run / entry.stage if entry.stage else run
    if path in (run, stage, stage / "results") or path in run.parents:
        return True
    parts = path.relative_to(stage).parts if stage in path.parents else ()
    return any(tail_of(part.replace("__", "/", 1)) == tail_of(entry.model) for part in parts)
