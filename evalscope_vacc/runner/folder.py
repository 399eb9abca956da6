"""The folder of a run: a new one, or that of the same run where an earlier start did not get to its end."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.files import read_bounded, write_whole
from evalscope_vacc.hosts.folder import TIMESTAMP, give_back, take_folder

OUTPUTS = Path("outputs")
LATEST = "latest"
STATE = Path("vacc") / "run.json"
MAX_BYTES = 4 << 20
FORMAT = "evalscope-vacc/run"


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, which no other run has meanwhile.

    Attributes:
        path: The folder.
        identity: 16 hex digits of what the run is: its configuration and plan, and the servers.
        tasks: The tasks that an earlier start of this run chose; empty for a new run.
    """

    path: Path
    identity: str
    tasks: tuple[str, ...] = ()

    def note(self, tasks: Sequence[str], *, finished: bool) -> None:
        """Says how the run stands."""
        content = {
            "format": FORMAT,
            "version": 1,
            "identity": self.identity,
            "tasks": list(tasks),
            "finished": finished,
        }
        write_whole(self.path / STATE, json.dumps(content, indent=1) + "\n")

    def release(self) -> None:
        """Lets other runs have the folder."""
        give_back(self.path)


def identity_of(what: Mapping[str, Any]) -> str:
    """Returns 16 hex digits of plain values."""
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:16]


def folder_for(name: str, identity: str, work_dir: Path | None = None) -> RunFolder:
    """Returns the folder of an unfinished run of this identity, else a new one: ``<work_dir>/<name>/<date>_<time>``.

    Args:
        name: Of the model, as it is served.
        identity: What the run is, see :func:`identity_of`.
        work_dir: Default ``outputs``.

    Raises:
        ConfigError: It cannot be made.
    """
    base = Path(os.path.abspath(work_dir or OUTPUTS))  # noqa: PTH100 -- resolve() would follow links
    models = base / (name.replace("/", "__").strip(". ") or "model")
    try:
        found = _unfinished(models, identity) or _new(models, identity)
        _point_to(found.path, base / LATEST)
    except OSError as error:
        raise ConfigError(
            f"{base} cannot be written: {error.strerror or error}: name another folder by --work-dir"
        ) from None
    return found


def _unfinished(models: Path, identity: str) -> RunFolder | None:
    for state, path in _states(models):
        if state.get("identity") == identity and state.get("finished") is False and take_folder(path, new=False):
            tasks = state.get("tasks")
            return RunFolder(path, identity, tuple(map(str, tasks if isinstance(tasks, list) else ())))
    return None


def _states(models: Path) -> Iterator[tuple[Mapping[str, Any], Path]]:
    """Yields the runs of a model, the newest first."""
    for file in sorted(models.glob(f"*/{STATE}"), reverse=True):
        with suppress(OSError, ValueError, RecursionError):
            content = json.loads(read_bounded(file, MAX_BYTES))
            if isinstance(content, dict) and content.get("format") == FORMAT:
                yield content, file.parents[1]


def _new(models: Path, identity: str) -> RunFolder:
    moment = time.time()
    while True:
        path = models / time.strftime(TIMESTAMP, time.localtime(moment))
        if take_folder(path, new=True):
            return RunFolder(path, identity)
        moment += 1


def _point_to(run: Path, link: Path) -> None:
    """Makes ``outputs/latest`` point to the run; a system without links, or something else of that name, does without."""
    if link.exists() and not link.is_symlink():
        return
    new = link.with_name(f".{LATEST}.{os.getpid()}")
    with suppress(OSError, NotImplementedError):
        new.unlink(missing_ok=True)
        new.symlink_to(os.path.relpath(run, link.parent), target_is_directory=True)
        new.replace(link)
