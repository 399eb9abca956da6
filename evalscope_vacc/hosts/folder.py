"""The folder of a run: it can be written, its file system takes the names, and it belongs to one run at a time."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.files import replacing
from evalscope_vacc.hosts.entries import any_ours
from evalscope_vacc.hosts.hooking import replace
from evalscope_vacc.hosts.plan import PREDICTIONS, Plan

logger = logging.getLogger(__name__)

LOCK = ".vacc.lock"
TIMESTAMP = "%Y%m%d_%H%M%S"
ROOM = 1 << 20
"""Bytes that a run's folder must take: results, evidence and logs of a small run."""


def check_folder(folder: Path) -> None:
    """Writes a file into a run's folder and removes it again.

    Raises:
        ConfigError: The folder cannot be made or written, or the disk is full.
    """
    try:
        with replacing(folder / f".{ROOM}.probe") as part, part.open("wb") as file:
            file.write(bytes(ROOM))
            file.flush()
            os.fsync(file.fileno())
        (folder / f".{ROOM}.probe").unlink()
    except OSError as error:
        raise ConfigError(
            f"work_dir: {folder} cannot be written: {error.strerror or error}: name another folder"
        ) from None


def check_names(folder: Path, plan: Plan) -> None:
    """Checks that the names of models and tasks can be names of files.

    Raises:
        ConfigError: One is too long.
    """
    try:
        most = os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):
        most = 255
    for item in plan.items:
        parts = [("model_name", item.name.replace("/", "__")), ("the task's name", f"{item.task}{PREDICTIONS}")]
        if item.predictions is not None:
            parts.append(("model_name", item.predictions.name))
        for key, part in parts:
            if len(os.fsencode(part)) > most:
                raise ConfigError(
                    f"{key}: {part[:60]!r}… makes a name of {len(os.fsencode(part))} bytes, and a file's may have {most}: "
                    "choose a shorter one"
                )


# -- one run at a time ---------------------------------------------------------------------------------------------------

_held: dict[Path, object] = {}


def take_folder(folder: Path, *, new: bool) -> bool:
    """Whether the folder belongs to this run from now on, until :func:`give_back` or the end of the process.

    Args:
        folder: The run's folder; it is made.
        new: Whether no other run may have used it before.

    Raises:
        OSError: It cannot be made or written.
    """
    from filelock import FileLock, Timeout

    try:
        (folder / "vacc").mkdir(parents=True, exist_ok=not new)
    except FileExistsError:
        return False
    if folder in _held:
        return True
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    except NotImplementedError:
        logger.warning(
            "the file system of %s has no locks: two simultaneous runs in this folder would mix their files", folder
        )
        return True
    _held[folder] = lock
    return True


def give_back(folder: Path) -> None:
    """Lets other runs have the folder."""
    lock: Any = _held.pop(folder, None)
    if lock is not None:
        # the file stays: who has it open already would lock a file that nobody else sees
        lock.release()


def hook_run(module: ModuleType) -> None:
    """``evalscope.run``: each run of ours has its folder for itself.

    EvalScope names a folder by the second: two runs that start together would write into the same files. The later one
    gets the next second's. A folder that the user named is refused while another run is in it.
    """
    replace(module, "setup_work_directory", _of_its_own)
    replace(module, "run_single_task", _until_its_end)


def _of_its_own(original: Any) -> Any:
    def setup_work_directory(task_cfg: Any, *args: Any, **kwargs: Any) -> Any:
        config = task_cfg.eval_config
        entries = [
            config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
            for name in ("models", "model")
        ]
        if not any(map(any_ours, entries)):
            return original(task_cfg, *args, **kwargs)
        stamped = not task_cfg.use_cache and not getattr(task_cfg, "no_timestamp", False)
        try:
            outputs = original(task_cfg, *args, **kwargs)
            while not take_folder(_absolute(task_cfg.work_dir), new=stamped):
                if not stamped:
                    raise ConfigError(
                        f"work_dir: another run is writing into {task_cfg.work_dir}: wait for its end, or name another folder"
                    )
                task_cfg.use_cache = str(_a_second_later(Path(task_cfg.work_dir)))
                try:
                    outputs = original(task_cfg, *args, **kwargs)
                finally:
                    task_cfg.use_cache = None
        except OSError as error:
            raise ConfigError(
                f"work_dir: {task_cfg.work_dir} cannot be written: {error.strerror or error}: name another folder"
            ) from None
        return outputs

    return setup_work_directory


def _until_its_end(original: Any) -> Any:
    def run_single_task(task_cfg: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(task_cfg, *args, **kwargs)
        finally:
            give_back(_absolute(task_cfg.work_dir))

    return run_single_task


def _absolute(folder: str) -> Path:
    return Path(os.path.abspath(folder))  # noqa: PTH100 -- resolve() would follow links


def _a_second_later(folder: Path) -> Path:
    """The folder that EvalScope would have named a second later."""
    then = datetime.strptime(folder.name, TIMESTAMP) + timedelta(seconds=1)  # noqa: DTZ007 -- as EvalScope names it
    return folder.with_name(then.strftime(TIMESTAMP))
