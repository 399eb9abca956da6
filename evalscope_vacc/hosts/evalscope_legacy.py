"""EvalScope 1.3.0 to 1.8.0: one seam, ``RAGEvalBackendManager.run_mteb``, and a mask over the configuration it prints.

On this line EvalScope hands plain dictionaries around. Those with ``model_type`` are taken before EvalScope's own
dataclass, which knows no such key, sees them; the others reach EvalScope unchanged. On EvalScope 1.8.1 and later
both hooks return at once.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from evalscope_vacc.errors import HostError
from evalscope_vacc.hosts.entries import any_ours, without_secrets
from evalscope_vacc.hosts.hooking import is_hooked, replace
from evalscope_vacc.hosts.spelling import check_shape
from evalscope_vacc.hosts.versions import check

logger = logging.getLogger(__name__)

FIRST_NEWER = (1, 8, 1)
# module that RAGEval imports whatever it is asked to do, to what pip must be told
NEEDED = {"langchain_openai": "'langchain-openai<0.4'", "oss2": "oss2"}


def hook_backend_manager(module: ModuleType) -> None:
    """``evalscope.backend.rag_eval.backend_manager``: runs with one of our models are run by us."""
    manager = module.RAGEvalBackendManager
    if len(inspect.signature(manager.run_mteb).parameters) != 2 or is_hooked(manager.run_mteb):
        return
    problem = check() or _lacking()
    if problem:
        # EvalScope's next import is the one that fails, with a message about something else
        logger.warning("%s", problem)
    replace(manager, "run_mteb", _by_us)
    replace(manager, "run", _either_spelling)


def _by_us(original: Any) -> Any:
    def run_mteb(model_args: Any, eval_args: Any) -> Any:
        if not any_ours(model_args):
            return original(model_args, eval_args)
        problem = check()
        if problem:
            raise HostError(problem)
        from evalscope_vacc.hosts.evalscope_legacy_run import run_tool

        return run_tool(model_args, eval_args)

    return run_mteb


def _either_spelling(original: Any) -> Any:
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        config = self.config_d
        entries = config.get("models") or config.get("model") if isinstance(config, Mapping) else None
        if any_ours(entries):
            check_shape(config)
            # a copy: EvalScope takes `tool` out of the user's own dictionary, which then cannot be run again
            self.config_d = {**{k: v for k, v in config.items() if k != "models"}, "model": entries}
        return original(self, *args, **kwargs)

    return run


def hook_config(module: ModuleType) -> None:
    """``evalscope.config``: what EvalScope writes and prints of a task's configuration holds no secrets of ours."""

    def make(original: Any) -> Any:
        def to_dict(self: Any) -> dict[str, Any]:
            result: dict[str, Any] = original(self)
            config = result.get("eval_config")
            if isinstance(config, Mapping):
                result["eval_config"] = {
                    key: [without_secrets(entry) for entry in value]
                    if key in ("model", "models") and isinstance(value, list)
                    else value
                    for key, value in config.items()
                }
            return result

        return to_dict

    if _version() < FIRST_NEWER:
        replace(module.TaskConfig, "to_dict", make)


def _lacking() -> str | None:
    """Says which packages EvalScope's RAGEval of this line imports without asking for them."""
    from importlib.util import find_spec

    lacking = [name for module, name in NEEDED.items() if find_spec(module) is None]
    return (
        f"RAGEval needs packages that EvalScope does not install: pip install {' '.join(lacking)}" if lacking else None
    )


def _version() -> tuple[int, ...]:
    from evalscope.version import __version__

    found = re.match(r"(\d+)\.(\d+)\.(\d+)", __version__)
    return tuple(int(part) for part in found.groups()) if found else FIRST_NEWER
