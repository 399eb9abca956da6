"""First-stage results: reads stored predictions of MTEB 1.x and 2.x, and turns a retrieval task into a reranking one.

Everything is checked before anything is sent: a wrong file would otherwise rerank the wrong candidates and give a number
that looks right.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.files import read_bounded, write_whole
from evalscope_vacc.hosts.data import load_data
from evalscope_vacc.hosts.plan import PREDICTIONS

MAX_BYTES = 4 << 30
META = "mteb_model_meta"
MAKERS = "made_by.json"

Ranking = Mapping[str, Mapping[str, float]]  # query id -> document id -> score


@dataclass(frozen=True)
class FirstStage:
    """The stored predictions of one task.

    Attributes:
        path: The file.
        model: Name of the model that made them, where the file says it.
        digest: 8 hex digits of the file's content; part of the result's name.
        content: subset -> split -> query -> document -> score; MTEB 1.x files have neither subset nor split, and are
            kept under "".
    """

    path: Path
    model: str
    digest: str
    content: Mapping[str, Mapping[str, Ranking]]

    def ranking(self, subset: str, split: str, task: Any) -> Ranking:
        """Returns the predictions of one subset and split.

        Raises:
            ConfigError: The file has none for them.
        """
        if "" in self.content:
            if sum(len(splits) for splits in task.dataset.values()) != 1:
                raise ConfigError(
                    f"{self.path}: a file of MTEB 1.x holds one subset and split, but {task.metadata.name} is evaluated on "
                    f"several ({', '.join(task.dataset)}): choose one by eval.splits or languages, or give a file of MTEB 2.x"
                )
            return self.content[""][""]
        splits = self.content.get(subset)
        if splits is None or split not in splits:
            have = ", ".join(f"{a}/{b}" for a, inner in self.content.items() for b in inner)
            raise ConfigError(
                f"{self.path}: no predictions for {task.metadata.name} {subset}/{split}; it has {have or 'none'}"
            )
        return splits[split]


def read_first_stage(path: Path) -> FirstStage:
    """Reads a prediction file of MTEB 1.x or 2.x; the one that was read last is remembered.

    Raises:
        ConfigError: It is missing, too large, no JSON, or of neither format; the place is named.
    """
    return _read(path, path.stat().st_mtime_ns if path.exists() else None)


def predictions_in(folder: Path, task: str) -> Path:
    """Returns the prediction file of a task that a run left; a path that is no folder is that file.

    Raises:
        ConfigError: The run left none, or more than one.
    """
    if not folder.is_dir():
        return folder
    for pattern in (f"{task}{PREDICTIONS}", f"{task}_*{PREDICTIONS}"):
        # what a second stage was given, and made of it, is not what a first stage found
        found = [path for path in sorted(folder.rglob(pattern)) if not {"candidates", "stage2"} & set(path.parts)]
        if len(found) == 1:
            return found[0]
        if found:
            several = ", ".join(map(str, found[:3]))
            raise ConfigError(f"{folder}: more than one file holds predictions of {task}: {several}: name one of them")
    raise ConfigError(
        f"{folder}: no predictions of {task}: an embedding run leaves a file {task}{PREDICTIONS} for each retrieval task"
    )


def forget_first_stages() -> None:
    """Frees what is remembered: such a file may have a gigabyte."""
    _read.cache_clear()


@lru_cache(maxsize=1)
def _read(path: Path, _changed: int | None) -> FirstStage:
    try:
        raw = read_bounded(path, MAX_BYTES)
        content = json.loads(raw)
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: there is no such prediction file; an embedding run saves one per retrieval task"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a prediction file: {error}") from None
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{path}: not a prediction file: expected an object of queries or subsets")
    digest = hashlib.sha256(raw).hexdigest()[:8]
    meta = content.pop(META, None)
    model = str(meta.get("model_name", "")) if isinstance(meta, dict) else ""
    first = next(iter(content.values()), None)
    inner = next(iter(first.values()), None) if isinstance(first, dict) else None
    if meta is None and isinstance(first, dict) and (inner is None or isinstance(inner, (int, float))):
        return FirstStage(path, model, digest, {"": {"": _checked(content, path, "")}})
    subsets: dict[str, dict[str, Ranking]] = {}
    for subset, splits in content.items():
        if not isinstance(splits, dict):
            raise ConfigError(f"{path}: {subset}: expected splits, found {type(splits).__name__}")
        subsets[subset] = {split: _checked(ranking, path, f"{subset}/{split}") for split, ranking in splits.items()}
    if not subsets:
        raise ConfigError(f"{path}: holds no predictions")
    return FirstStage(path, model, digest, subsets)


def maker_of(model: Any) -> str:
    """Returns 8 hex digits that change with whatever changes a model's predictions: name, revision and settings."""
    meta = getattr(model, "mteb_model_meta", None)
    parts = [str(getattr(meta, name, None)) for name in ("name", "revision", "experiment_kwargs")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


class PredictionFile:
    """The prediction file of one task in a folder, and which model, with which settings, wrote it last.

    MTEB names the file by task alone: where a folder is used again, by another model or with other settings, a cached
    score would go together with somebody else's candidates.

    Args:
        folder: Folder of the predictions.
        task: The task's name.
    """

    def __init__(self, folder: Path, task: str) -> None:
        self.path = folder / f"{task}{PREDICTIONS}"
        self._notes = folder / MAKERS
        self._task = task
        self._before = self._stamp()

    def is_by(self, maker: str) -> bool:
        """Whether the file is there and this model wrote it."""
        return self._before is not None and self._makers().get(self._task) == maker

    def discard(self) -> None:
        """Removes the file: MTEB adds to what is there, and keeps the older model's name on it."""
        self.path.unlink(missing_ok=True)

    def note(self, maker: str) -> None:
        """Says who wrote the file, where it was written since this object was made."""
        if self._stamp() in (None, self._before):
            return
        lock = FileLock(self._notes.with_suffix(".lock"))  # another process may note its own at the same time
        with suppress(NotImplementedError):  # the file system has no locks
            lock.acquire()
        try:
            makers = {**self._makers(), self._task: maker}
            write_whole(self._notes, json.dumps(makers, indent=1) + "\n")
        finally:
            lock.release()

    def _stamp(self) -> int | None:
        return self.path.stat().st_mtime_ns if self.path.exists() else None

    def _makers(self) -> dict[str, Any]:
        try:
            makers = json.loads(self._notes.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return makers if isinstance(makers, dict) else {}


def _checked(ranking: Any, path: Path, where: str) -> Ranking:
    if not isinstance(ranking, dict):
        raise ConfigError(f"{path}: {where}: expected queries, found {type(ranking).__name__}")
    for query, documents in ranking.items():
        if not isinstance(documents, dict):
            raise ConfigError(f"{path}: {where}: query {query!r}: expected documents, found {type(documents).__name__}")
        for document, score in documents.items():
            if isinstance(score, bool) or not isinstance(score, (int, float)) or not math.isfinite(score):
                raise ConfigError(f"{path}: {where}: query {query!r}, document {document!r}: {score!r} is not a score")
    return ranking


def check_against(first: FirstStage, task: Any) -> None:
    """Checks that the predictions are of this task: every query has candidates, every candidate is in the corpus.

    Raises:
        ConfigError: They are not; the query or document is named.
    """
    name = task.metadata.name
    for subset, splits in task.dataset.items():
        for split, data in splits.items():
            ranking = first.ranking(subset, split, task)
            queries = [str(q) for q in data["queries"]["id"]]
            missing = [q for q in queries if q not in ranking]
            if missing:
                raise ConfigError(
                    f"{first.path}: {len(missing)} of {len(queries)} queries of {name} {subset}/{split} have no predictions, "
                    f"the first is {missing[0]!r}: is this the file of another task, or of a run with limits?"
                )
            corpus = set(data["corpus"]["id"])
            for query in queries:
                stranger = next((d for d in ranking[query] if d not in corpus), None)
                if stranger is not None:
                    raise ConfigError(
                        f"{first.path}: query {query!r}: document {stranger!r} is not in the corpus of {name} {subset}/{split}"
                    )


def make_reranking(task: Any, first: FirstStage, top_k: int, folder: Path) -> None:
    """Turns a retrieval task into a reranking of the first ``top_k`` predictions.

    Args:
        task: The task; it is changed.
        first: Its predictions.
        top_k: Candidates per query; ties are cut in the order of the file, as MTEB does.
        folder: Where the predictions go in the form that MTEB reads.
    """
    load_data(task)
    check_against(first, task)
    content: dict[str, Any] = {META: {"model_name": first.model, "revision": first.digest}}
    for subset, splits in task.dataset.items():
        wanted = content[subset] = {}
        for split, data in splits.items():
            ranking = first.ranking(subset, split, task)
            wanted[split] = {str(q): ranking[str(q)] for q in data["queries"]["id"]}
    path = folder / f"{task.metadata.name}{PREDICTIONS}"
    write_whole(path, json.dumps(content))
    task.convert_to_reranking(top_ranked_path=str(path), top_k=top_k)
