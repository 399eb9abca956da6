"""``evalscope eval`` ends in one line where something of ours is wrong, as our own command does."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

from evalscope_vacc.exits import ends_in_one_line
from evalscope_vacc.hosts.collector import paused
from evalscope_vacc.hosts.hooking import replace
from evalscope_vacc.hosts.workers import of_a_command, started_ahead


def hook_eval_command(module: ModuleType) -> None:
    """``evalscope.cli.start_eval``: the command itself; calls from Python get the exception."""

    def make(original: Any) -> Any:
        def execute(self: Any) -> Any:
            with ends_in_one_line(), ExitStack() as stack:
                if str(getattr(self.args, "eval_backend", "")).lower() == "rageval":
                    ours = _read_file(getattr(self.args, "eval_config", None))
                    if ours is not None:
                        stack.enter_context(of_a_command())
                        stack.enter_context(paused(ours))
                        stack.enter_context(started_ahead(ours))
                return original(self)

        return execute

    replace(module.EvalCMD, "execute", make)


def _read_file(name: str | None) -> Mapping[str, Any] | None:
    """Reads the file of a configuration of ours as strictly as our command does: EvalScope takes the last of two keys.

    Returns:
        ``{tool, models, eval}``; None where it is not of ours.

    Raises:
        ConfigError: It is not what it should be.
    """
    from evalscope_vacc.hosts.entry import task_config
    from evalscope_vacc.task_file import read_config

    try:
        ours = name is not None and "model_type" in Path(name).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None  # no such file: EvalScope says so itself
    if not ours:
        return None
    inner = task_config({"eval_config": read_config(Path(str(name)))})["eval_config"]
    return inner if isinstance(inner, Mapping) else None
