"""The Python API: runs EvalScope unchanged, and returns its scores."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from evalscope_vacc.errors import ConfigError, HostError
from evalscope_vacc.hosts.autoload import activate
from evalscope_vacc.hosts.bundle import in_use
from evalscope_vacc.hosts.spelling import check_shape
from evalscope_vacc.hosts.versions import check, installed
from evalscope_vacc.task_file import read_config

if TYPE_CHECKING:
    from evalscope_vacc.hosts.run_result import RunResult
    from evalscope_vacc.hosts.spelling import Count

DEFAULT_HUB = "modelscope"
"""EvalScope's own default of ``eval.hub``."""


def task_config(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a whole task configuration from either of the two forms.

    Raises:
        ConfigError: It is for another backend.
    """
    given = dict(given)
    if "eval_config" not in given and {"tool", "eval", "models", "model"} & set(given):
        work_dir = given.pop("work_dir", None)
        given = {"eval_backend": "RAGEval", "eval_config": given}
        if work_dir:
            given["work_dir"] = work_dir
    backend = given.setdefault("eval_backend", "RAGEval")
    if str(getattr(backend, "value", backend)).lower() != "rageval":
        raise ConfigError(f"eval_backend is {backend}: served embedding and rerank models are evaluated by RAGEval")
    if isinstance(given.get("eval_config"), (str, Path)):
        given["eval_config"] = read_config(Path(given["eval_config"]))
    inner = given.get("eval_config")
    if isinstance(inner, Mapping):
        check_shape(inner)
        if in_use() and inner.get("eval"):
            given["eval_config"] = {**inner, "eval": {**inner["eval"], "hub": "huggingface"}}
    return given


def tasks_of(evaluation: Mapping[str, Any]) -> list[Any]:
    """Returns MTEB's tasks of ``eval:``, as a run of it would have them; none of their data are loaded.

    Raises:
        ConfigError: No task, an unknown task (the nearest is named), or a split that a task does not have.
        HostError: EvalScope and MTEB are of versions that do not go together.
    """
    activate()
    problem = check()
    if problem:
        raise HostError(problem)
    from evalscope_vacc.hosts.spelling import EVAL_KEYS, newer_eval

    given = newer_eval(evaluation)
    wanted = SimpleNamespace(**{key: given.get(key) for key in EVAL_KEYS})
    wanted.hub = wanted.hub or DEFAULT_HUB
    if str(installed()["mteb"]).startswith("1."):
        from evalscope_vacc.hosts import evalscope_legacy_tasks

        return evalscope_legacy_tasks.resolve_tasks(wanted)
    from evalscope_vacc.hosts.data import resolve_tasks

    return resolve_tasks(wanted, import_module("evalscope.backend.rag_eval.mteb.task_template"))


def run(task_config_or_file: Any, *, workers: Count | None = None) -> RunResult:
    """Runs an EvalScope RAGEval configuration and returns the results; ``run_task`` writes them where it always does.

    Args:
        task_config_or_file: EvalScope's ``TaskConfig``, a dictionary, or the path of a YAML or JSON file; a whole task
            configuration, or the RAGEval file with ``tool``, ``models`` and ``eval``.
        workers: Worker processes, instead of ``eval.workers``: a number, or "auto" for two where there are several tasks
            and the memory for them. Without either there is none: the tasks are evaluated here, one after the other.

    Returns:
        The results by model and stage, with MTEB's ``TaskResult`` objects.

    Raises:
        ConfigError: The configuration cannot be used.
        HostError: EvalScope and MTEB are of versions that do not go together.
        RunFailed: A task failed.
        ServerError: The server could not be used.
    """
    activate()
    problem = check()
    if problem:
        raise HostError(problem)
    from evalscope_vacc.hosts.cluster import cluster
    from evalscope_vacc.hosts.run_result import last_result
    from evalscope_vacc.hosts.workers import started_ahead

    given, inner = task_config_or_file, None
    if isinstance(given, (str, Path)):
        given = read_config(Path(given))
    if isinstance(given, Mapping):
        given = task_config(given)
        inner = given.get("eval_config")
        if workers is not None and isinstance(inner, Mapping):
            inner = given["eval_config"] = {**inner, "eval": {**(inner.get("eval") or {}), "workers": workers}}
    token = last_result.set(None)
    try:
        # on a cluster nobody here needs what it imports
        with started_ahead(inner if isinstance(inner, Mapping) and not cluster() else {}):
            from evalscope.run import run_task

            run_task(given)
        result = last_result.get()
    finally:
        last_result.reset(token)
    if result is None:
        raise ConfigError(
            "no model of this configuration is of model_type vacc_api: EvalScope ran it and keeps the results"
        )
    return result
