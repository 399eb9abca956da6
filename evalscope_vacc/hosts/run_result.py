"""What a run gave: a result per model and stage, on either generation of the hosts."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What came of one item of a plan; it can be pickled.

    Attributes:
        results: MTEB's ``TaskResult`` objects.
        why: Why it failed, or "".
        fatal: What every further item would meet too, or None.
    """

    results: tuple[Any, ...] = ()
    why: str = ""
    fatal: BaseException | None = None


@dataclass
class StageResult:
    """What one model scored in one stage.

    Attributes:
        model: Name of the model as its results are filed.
        stage: "" for a run of one stage, else "stage1" or "stage2".
        folder: Where MTEB wrote the results.
        task_results: MTEB's ``TaskResult`` of each finished task.
        failed: Task to reason, of those that did not finish.
    """

    model: str
    stage: str
    folder: Path
    task_results: list[Any] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass
class RunResult:
    """What a whole run gave.

    Attributes:
        output_folder: The run's folder.
        stages: One entry per model and stage, in the order in which they ran.
    """

    output_folder: Path
    stages: list[StageResult] = field(default_factory=list)

    def stage(self, model: str, stage: str, folder: Path) -> StageResult:
        """Returns the entry of a model and stage, which is added where it is missing."""
        for known in self.stages:
            if (known.model, known.stage) == (model, stage):
                return known
        self.stages.append(StageResult(model, stage, folder))
        return self.stages[-1]

    @property
    def task_results(self) -> list[Any]:
        """Every ``TaskResult``, in the order in which the tasks ran."""
        return [result for stage in self.stages for result in stage.task_results]

    @property
    def failed(self) -> dict[str, str]:
        """Task to reason."""
        return {task: why for stage in self.stages for task, why in stage.failed.items()}

    def rows(self) -> list[dict[str, Any]]:
        """One row per model, task, split and subset, with the main score."""
        rows = []
        for stage in self.stages:
            for result in stage.task_results:
                for split, scores in result.scores.items():
                    rows += [
                        {
                            "model": stage.model,
                            "stage": stage.stage,
                            "task": result.task_name,
                            "split": split,
                            "subset": score.get("hf_subset", "default"),
                            "main_score": score.get("main_score"),
                        }
                        for score in scores
                    ]
        return rows


# the results of the run in progress, for callers of run(): EvalScope itself returns nothing
last_result: ContextVar[RunResult | None] = ContextVar("last_result", default=None)
