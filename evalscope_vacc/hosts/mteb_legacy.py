"""MTEB 1.x without EvalScope: ``mteb run -m vacc/NAME`` and ``mteb.MTEB(tasks=…).run(model)``.

mteb 1.x tells a cross-encoder neither the task nor the subset, hands it one small batch after the other, and knows none on
reranking tasks. The run of each task is wrapped for our models; every other model is left alone.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from evalscope_vacc.hosts.hooking import replace
from evalscope_vacc.hosts.mteb import part_of_a_run, run_is_done


def hook_evaluation(module: ModuleType) -> None:
    """``mteb.evaluation.MTEB`` (1.x)."""
    replace(module.MTEB, "_run_eval", _with_its_subset)
    replace(module.MTEB, "run", _until_done)


def _with_its_subset(original: Any) -> Any:
    def run_eval(
        task: Any,
        model: Any,
        split: str,
        output_folder: Any,
        subsets_to_run: Any = None,
        *,
        encode_kwargs: dict[str, Any],
        **kwargs: Any,
    ) -> Any:
        from evalscope_vacc.hosts.evalscope_legacy_evaluate import by_subset, whole_task_at_once
        from evalscope_vacc.hosts.evalscope_legacy_models import Face

        def run() -> Any:
            return original(task, model, split, output_folder, subsets_to_run, encode_kwargs=encode_kwargs, **kwargs)

        # a run of EvalScope's has prepared the task itself
        if not isinstance(model, Face) or "evaluate" in vars(task):
            return run()
        encode_kwargs = whole_task_at_once(model, encode_kwargs)
        with by_subset(task, model, Path(output_folder or "."), None, None):
            return run()

    return run_eval


def _until_done(original: Any) -> Any:
    def run(self: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        from evalscope_vacc.hosts.evalscope_legacy_models import Face

        with part_of_a_run():
            results = original(self, model, *args, **kwargs)
        # fewer where errors are passed over
        if isinstance(model, Face) and len(results) == len(self.tasks):
            run_is_done()
        return results

    return run
