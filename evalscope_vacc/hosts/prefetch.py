"""Fetches what a run will load, so that it can be carried to a machine that reaches no hub."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from evalscope_vacc.errors import DataError, VaccError
from evalscope_vacc.files import write_whole
from evalscope_vacc.hosts.bundle import (
    MANIFEST,
    PROMPTS,
    Manifest,
    Rows,
    TaskData,
    digests,
    is_archive,
    pack,
    read_manifest,
    source_of,
    unpack,
)
from evalscope_vacc.hosts.entry import tasks_of
from evalscope_vacc.hosts.hub import endpoint, lacking, leaves, missing_one, prepared
from evalscope_vacc.hosts.hub_settings import cache_in
from evalscope_vacc.hosts.spelling import CUSTOM_TASK, newer_eval
from evalscope_vacc.hosts.versions import installed
from evalscope_vacc.redact import clean, public_url
from evalscope_vacc.text.counters import LocalTokenizer
from evalscope_vacc.text.dictionary import default_dictionary_path, fetch

HUB = "huggingface"
"""The hub, or the mirror at HF_ENDPOINT. ModelScope's client knows neither a task's revision nor an offline mode."""
DICTIONARY = "task_prompts.json"
_WAIT_S = 10.0


@dataclass(frozen=True)
class Wanted:
    """What is to be fetched.

    Attributes:
        evaluation: ``eval:`` as EvalScope takes it.
        tokenizers: Names on the hub.
        dictionary: Whether a run cannot do without the instruction dictionary.
    """

    evaluation: Mapping[str, Any]
    tokenizers: Sequence[str] = ()
    dictionary: bool = False


@dataclass(frozen=True)
class Fetched:
    """One thing that was asked for.

    Attributes:
        name: A task, a tokenizer, or the instruction dictionary.
        rows: That were loaded; None for what was there.
        seconds: That it took.
        why: Why it could not be had, or "".
        needed: Whether that makes the whole incomplete.
    """

    name: str
    rows: int | None = None
    seconds: float = 0.0
    why: str = ""
    needed: bool = True


Told = Callable[[int, int, "str | Fetched"], None]
"""Is told position, number and name of what begins, and then how it ended."""


def folder_of(to: Path) -> Path:
    """Returns the folder that is filled: of an archive one beside it, which is there until the archive is whole."""
    return to.with_name(f"{to.name}.parts") if is_archive(to) else to


def prefetch(wanted: Wanted, to: Path | None, told: Told = lambda *_: None) -> tuple[Manifest, list[Fetched]]:
    """Has every task of a run load itself, and writes down what came; what is in ``to`` is not loaded again.

    Args:
        wanted: What.
        to: A folder or an archive; None is this machine's cache, without a manifest.
        told: See :data:`Told`.

    Returns:
        What is there now, and everything that was asked for, with the reason where it could not be had.

    Raises:
        ConfigError: There is no such task.
        DataError: The archive that is there is damaged.
    """
    if to is None:
        return _fill(wanted, None, told)
    folder = folder_of(to).absolute()
    if is_archive(to) and to.exists() and not folder.exists():
        unpack(to, folder)
    with cache_in(folder):
        manifest, fetched = _fill(wanted, folder, told)
    if is_archive(to):
        if manifest.tasks and (not to.exists() or read_manifest(to).files != manifest.files):
            pack(folder, manifest, to)
        shutil.rmtree(folder)
    return manifest, fetched


def _fill(wanted: Wanted, folder: Path | None, told: Told) -> tuple[Manifest, list[Fetched]]:
    manifest = Manifest()
    if folder is not None and (folder / MANIFEST).exists():
        manifest = read_manifest(folder, unfinished=True)
    tasks = _tasks(wanted.evaluation)
    lacks = lacking(tasks, HUB)
    steps: list[tuple[str, Callable[[], int | None]]] = [
        *((task.metadata.name, partial(_load, task, manifest, lacks.get(task.metadata.name, ""))) for task in tasks),
        *((name, partial(_tokenizer, name, manifest)) for name in wanted.tokenizers),
        (DICTIONARY, partial(_dictionary, folder)),
    ]
    manifest.hub, manifest.versions = public_url(endpoint()), installed()
    manifest.files.clear()
    fetched: list[Fetched] = []
    with _without_copies():
        for position, (name, step) in enumerate(steps):
            told(position, len(steps), name)
            fetched.append(_one(name, step, needed=name != DICTIONARY or wanted.dictionary))
            told(position, len(steps), fetched[-1])
            if folder is not None:
                manifest.write(folder)  # what came is known, should this be stopped
    if folder is not None:
        manifest.files.update(digests(folder))
        manifest.write(folder)
    return manifest, fetched


def _tasks(evaluation: Mapping[str, Any]) -> list[Any]:
    """The tasks whose data come from the hub."""
    given = newer_eval(evaluation)
    local = [CUSTOM_TASK, *(given.pop("dataset_paths", None) or ())]
    given |= {"custom_tasks": None, "limits": None}
    given["task_names"] = [name for name in given.get("task_names") or () if name not in local]
    return [task for task in tasks_of({**given, "hub": HUB}) if task.metadata.name not in local]


def _one(name: str, step: Callable[[], int | None], *, needed: bool) -> Fetched:
    began = time.monotonic()
    try:
        return Fetched(name, step(), time.monotonic() - began)
    except Exception as error:  # noqa: BLE001 -- what one data set lacks does not stop the others
        kind = "" if isinstance(error, VaccError) else f"{type(error).__name__}: "
        why = clean(" ".join(f"{kind}{error}".split()), limit=500)
        return Fetched(name, None, time.monotonic() - began, why, needed)


def _load(task: Any, manifest: Manifest, why: str) -> int | None:
    """Loads a task, or those whose mean it is, and returns its rows; None where all of them are there."""
    if why:
        raise DataError(why)
    rows = None
    for part in leaves(task):
        if not manifest.lacks(part) and not missing_one(part):
            continue
        path, revision = source_of(part)
        part.load_data()
        data = _rows(path, revision)
        before = manifest.tasks.get(part.metadata.name)
        same = before is not None and (before.dataset, before.revision) == (path, revision)
        manifest.tasks[part.metadata.name] = TaskData(
            dataset=path,
            revision=revision,
            subsets=sorted({*(part.hf_subsets or ()), *(before.subsets if before and same else ())}),
            splits=sorted({*part.eval_splits, *(before.splits if before and same else ())}),
            data=data,
        )
        rows = (rows or 0) + sum(row.rows for row in data)
        part.dataset, part.data_loaded = None, False
    return rows


def _rows(path: str, revision: str) -> list[Rows]:
    """What the cache has of a data set, at its revision where that is known there."""
    found = [
        Rows(configuration=folder.parents[1].name, revision=folder.name, split=name, rows=split["num_examples"])
        for folder in prepared(path)
        for name, split in json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))["splits"].items()
    ]
    return [row for row in found if row.revision == revision] or found


def _tokenizer(name: str, manifest: Manifest) -> int | None:
    if name in manifest.tokenizers:
        return None
    LocalTokenizer(name)
    manifest.tokenizers.append(name)
    return 0


def _dictionary(folder: Path | None) -> int | None:
    kept = default_dictionary_path()
    target = kept if folder is None else folder / PROMPTS / kept.name
    if target.is_file():
        return None
    if kept.is_file():
        write_whole(target, kept.read_bytes())
    else:
        fetch(destination=target, timeout_s=_WAIT_S)
    return 0


@contextmanager
def _without_copies() -> Iterator[None]:
    """What a loader makes of its data is made again in a moment: a copy of it is nothing to carry."""
    import datasets

    caching = datasets.is_caching_enabled()
    datasets.disable_caching()
    try:
        yield
    finally:
        if caching:
            datasets.enable_caching()
