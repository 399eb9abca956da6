"""What the hosts' tests share."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def evaluate(evaluating_in: Callable[[Path], Callable[..., Any]], tmp_path: Path) -> Callable[..., Any]:
    """Runs an unmodified EvalScope in this process: ``evaluate(models, tasks, **eval)``; returns our result."""
    return evaluating_in(tmp_path)


@pytest.fixture(scope="session")
def evaluating_in() -> Callable[[Path], Callable[..., Any]]:
    """Makes ``evaluate`` for a folder in which its runs leave their files."""
    pytest.importorskip("evalscope")
    from evalscope_vacc.demo.tasks import register

    register()
    return _evaluating_in


def _evaluating_in(folder: Path) -> Callable[..., Any]:
    numbers = itertools.count(1)

    def run(models: list[dict[str, Any]], tasks: list[str], **evaluation: Any) -> Any:
        from evalscope_vacc import run as run_evalscope

        # a folder a run: EvalScope names its own by the second, and two quick runs would share it
        work_dir = evaluation.pop("work_dir", str(folder / f"work{next(numbers)}"))
        entries = [{"model_type": "vacc_api", "store": "off", "preflight": "off", **entry} for entry in models]
        config = {"tool": "MTEB", "models": entries, "eval": {"task_names": tasks, "hub": "huggingface", **evaluation}}
        return run_evalscope({"eval_backend": "RAGEval", "eval_config": config, "work_dir": work_dir})

    return run
