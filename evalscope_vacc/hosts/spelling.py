"""The older spelling of EvalScope's RAGEval configuration (1.3 to 1.8.0), read as the newer one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.names import did_you_mean
from evalscope_vacc.task_file import TOP_K

logger = logging.getLogger(__name__)

EVAL_KEYS = (
    "task_names",
    "benchmarks",
    "task_types",
    "languages",
    "custom_tasks",
    "dataset_paths",
    "output_folder",
    "overwrite_results",
    "limits",
    "hub",
    "top_k",
    "splits",
    "encode_kwargs",
    "verbosity",
    "workers",
)
TOOLS = ("mteb", "ragas", "clip_benchmark")
OLDER_EVAL_KEYS = ("tasks", "dataset_path")
CUSTOM_TASK = "CustomRetrieval"
Count = int | Literal["auto"]
AUTO: Literal["auto"] = "auto"


def check_shape(config: Mapping[str, Any]) -> None:
    """Checks that a RAGEval configuration has its three parts, each of the right kind.

    Raises:
        ConfigError: It does not; the key is named.
    """
    tool = config.get("tool")
    if str(tool).lower() not in TOOLS:
        raise ConfigError(f"tool is {tool!r}: {did_you_mean(tool, TOOLS, f'it is one of {list(TOOLS)}')}")
    if str(tool).lower() != "mteb":
        return
    models = config.get("models") or config.get("model")
    if not isinstance(models, list) or not models:
        found = "none" if models is None else type(models).__name__
        raise ConfigError(f"models: expected a list, each entry with a hyphen before its first key, found {found}")
    evaluation = config.get("eval")
    if evaluation is None or isinstance(evaluation, (list, str, int, float)):
        found = "none" if evaluation is None else type(evaluation).__name__
        raise ConfigError(f"eval: expected keys such as task_names, found {found}")


def newer_spelling(data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns ``{tool, models, eval}`` as EvalScope 1.14 spells it.

    ``model:`` becomes ``models:``, ``eval.tasks`` becomes ``eval.task_names``, ``eval.dataset_path`` the data of the
    custom task. ``eval.top_k`` is 100 where it is not given: Qwen's published reranking scores are of the top 100, and
    EvalScope's own 10 (5 before 1.8.1) hides most of what a cross-encoder can do.

    Raises:
        ConfigError: An unknown key of ``eval``, with the nearest one, or both spellings at once.
    """
    data = dict(data)
    if "model" in data:
        if data.get("models"):
            raise ConfigError("eval_config has both model and models: they mean the same; keep one")
        data["models"] = data.pop("model")
    evaluation = data.get("eval")
    if not isinstance(evaluation, Mapping):
        return data
    data["eval"] = newer_eval(evaluation)
    return data


def newer_eval(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The part of :func:`newer_spelling` for ``eval:``."""
    given = dict(evaluation)
    for key in given:
        if key not in EVAL_KEYS and key not in OLDER_EVAL_KEYS:
            hint = did_you_mean(key, [*EVAL_KEYS, *OLDER_EVAL_KEYS], f"the keys are {', '.join(EVAL_KEYS)}")
            raise ConfigError(f"eval: unknown key {key!r}: {hint}")
    if "tasks" in given:
        if given.get("task_names"):
            raise ConfigError("eval has both tasks and task_names: they mean the same; keep one")
        given["task_names"] = given.pop("tasks")
    for key in ("task_names", "benchmarks"):
        if isinstance(given.get(key), str):
            given[key] = [given[key]]
    benchmarks = given.get("benchmarks")
    if not isinstance(benchmarks, (list, Mapping, type(None))) or (
        isinstance(benchmarks, Mapping) and not all(isinstance(tasks, list) for tasks in benchmarks.values())
    ):
        raise ConfigError(
            "eval.benchmarks: expected a list of names, or a mapping of name to a list of its tasks, such as "
            "{'MTEB(eng, v2)': [SciFact, STSBenchmark]}"
        )
    path = given.pop("dataset_path", None)
    if path is not None:
        given |= _custom_task(path, given.get("task_names") or [], given.get("custom_tasks"))
    if given.get("top_k") is None:
        given["top_k"] = TOP_K
    for key in ("limits", "top_k"):
        number = given.get(key)
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
            raise ConfigError(f"eval.{key} is {number!r}: write a whole number above 0, or leave the key out")
    paths = given.get("dataset_paths")
    if paths is not None and not (isinstance(paths, Mapping) and all(isinstance(path, str) for path in paths.values())):
        raise ConfigError(
            f"eval.dataset_paths: expected a mapping of task to folder, such as {{T2Retrieval: /data/T2Retrieval}}, found "
            f"{type(paths).__name__}"
        )
    verbosity = given.get("verbosity")
    if verbosity is not None and verbosity not in (0, 1, 2, 3):
        raise ConfigError(f"eval.verbosity is {verbosity!r}: it goes from 0 (silent) to 3 (debug)")
    given["workers"] = read_count(given.get("workers"), "eval.workers")
    return given


def read_count(value: Any, where: str) -> Count | None:
    """Returns a number of workers as it was written.

    Raises:
        ConfigError: It is none.
    """
    if value is None or value == AUTO:
        return value  # type: ignore[no-any-return]
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ConfigError(f"{where} is {value!r}: write a whole number above 0, or auto")
    return number


def _custom_task(path: Any, names: list[str], custom: Any) -> dict[str, Any]:
    """Returns what ``eval.dataset_path`` means: the data of the custom task, which may stand among the tasks' names."""
    others = [name for name in names if name != CUSTOM_TASK]
    if custom:
        raise ConfigError("eval has both dataset_path and custom_tasks: write the folder as data_path of a custom task")
    if others and CUSTOM_TASK not in names:
        raise ConfigError(
            f"eval.dataset_path is the folder of the custom task {CUSTOM_TASK}, not a copy of {others[0]}: for a local copy "
            f"write eval.dataset_paths: {{{others[0]}: {path}}}; for data of your own add {CUSTOM_TASK} to the tasks"
        )
    return {"task_names": others or None, "custom_tasks": [{"name": CUSTOM_TASK, "data_path": str(path)}]}
