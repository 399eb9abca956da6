"""``eval.dataset_paths``: a local copy of the data of one of MTEB's tasks, instead of a hub's."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.hosts.custom_data import SUFFIXES, has_tables

logger = logging.getLogger(__name__)

_CARD = "README.md"
# what a data set's card says of its configurations, without which `datasets` cannot tell a corpus from queries
_CONFIGURATIONS = re.compile(r"\A---\n.*?^(?:configs|dataset_info):.*?^---", re.DOTALL | re.MULTILINE)
_DATA = (*SUFFIXES, ".json", ".jsonl.zst", ".arrow")
_BLOCK = 1 << 20


def folders(given: Any, names: list[str]) -> dict[str, Path]:
    """Returns the folder of each task that has a local copy.

    Args:
        given: ``eval.dataset_paths``, or None.
        names: The run's tasks.

    Raises:
        ConfigError: A task that the run does not have, or a folder without data.
    """
    if not isinstance(given, Mapping):
        return {}
    found = {}
    for name, path in given.items():
        if name not in names:
            raise ConfigError(f"eval.dataset_paths has {name}, which eval.task_names does not: add it there")
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise ConfigError(f"eval.dataset_paths: {name}: there is no folder {folder}")
        if not any(file.name.endswith(_DATA) for file in folder.rglob("*")):
            raise ConfigError(f"eval.dataset_paths: {name}: {folder} holds no data, neither parquet nor jsonl")
        found[name] = folder.absolute()
    return found


def as_the_hub_has_it(folder: Path) -> bool:
    """Whether a folder is a copy of a hub's: with the card that says where each configuration is."""
    card = folder / _CARD
    return card.is_file() and bool(_CONFIGURATIONS.search(card.read_text(encoding="utf-8", errors="replace")))


def needs_reader(task: Any, folder: Path) -> bool:
    """Whether a folder holds a retrieval task's three tables without the card, as BEIR's archives do."""
    return task.metadata.type == "Retrieval" and not as_the_hub_has_it(folder) and has_tables(folder)


def point_at(task: Any, folder: Path) -> None:
    """Has a task's own loader read a folder, and its results say which data they are of."""
    dataset = {**task.metadata.dataset, "path": str(folder), "revision": f"local-{_digest(folder)}"}
    task.metadata = task.metadata.model_copy(update={"dataset": dataset})
    logger.info("%s: its data are read from %s", task.metadata.name, folder)


def _digest(folder: Path) -> str:
    """Returns a short text that changes with the data."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if not file.is_file() or not file.name.endswith(_DATA):
            continue
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()[:16]
