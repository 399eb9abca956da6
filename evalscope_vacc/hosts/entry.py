"""Our Python entry: runs EvalScope as it is, and returns what it scored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalscope_vacc.errors import ConfigError, HostError
from evalscope_vacc.hosts.autoload import activate
from evalscope_vacc.hosts.spelling import check_shape
from evalscope_vacc.hosts.versions import check
from evalscope_vacc.task_file import read_config

if TYPE_CHECKING:
    from evalscope_vacc.hosts.run_result import RunResult


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
    if isinstance(given.get("eval_config"), Mapping):
        check_shape(given["eval_config"])
    return given


def run(task_config_or_file: Any) -> RunResult:
    """Runs an EvalScope RAGEval configuration and returns the results; ``run_task`` writes them where it always does.

    Args:
        task_config_or_file: EvalScope's ``TaskConfig``, a dictionary, or the path of a YAML or JSON file; a whole task
            configuration, or the RAGEval file with ``tool``, ``models`` and ``eval``.

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
    from evalscope.run import run_task

    from evalscope_vacc.hosts.run_result import last_result

    given = task_config_or_file
    if isinstance(given, (str, Path)):
        given = read_config(Path(given))
    if isinstance(given, Mapping):
        given = task_config(given)
    token = last_result.set(None)
    try:
        run_task(given)
        result = last_result.get()
    finally:
        last_result.reset(token)
    if result is None:
        raise ConfigError(
            "no model of this configuration is of model_type vacc_api: EvalScope ran it and keeps the results"
        )
    return result
