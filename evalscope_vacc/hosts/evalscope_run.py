"""Runs RAGEval's MTEB tool on MTEB 2.x where one of the models is ours."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from evalscope_vacc.hosts import entries
from evalscope_vacc.hosts.bundle import in_use
from evalscope_vacc.hosts.cluster import RayLauncher, cluster
from evalscope_vacc.hosts.data import kind_of, load_data, registered_beside_mtebs, resolve_tasks, seed
from evalscope_vacc.hosts.first_stage import FirstStage, make_reranking
from evalscope_vacc.hosts.logs import verbosity
from evalscope_vacc.hosts.mteb import part_of_a_run
from evalscope_vacc.hosts.plan import Item, Kind, Plan
from evalscope_vacc.hosts.run import Engine, Hands, OneByOne, run
from evalscope_vacc.hosts.run_result import RunResult
from evalscope_vacc.hosts.spelling import EVAL_KEYS
from evalscope_vacc.hosts.workers import Setup, Workers, count_for
from evalscope_vacc.interrupts import second_kills

logger = logging.getLogger(__name__)


def run_tool(config: Any, template: ModuleType) -> RunResult:
    """Runs the tool's configuration and returns the results.

    Args:
        config: The checked configuration.
        template: EvalScope's ``task_template`` module.

    Raises:
        ConfigError: The models and tasks do not go together, before anything is sent.
        RunFailed: One or more tasks failed; the finished ones are kept and named.
    """
    with verbosity(getattr(config.eval, "verbosity", None)), second_kills():
        return run(NewerEngine(config.eval, config.models, template))


class NewerEngine(Engine):
    """MTEB 2.x, with EvalScope 1.8.1 and later.

    Args:
        evaluation: ``eval:``, every key an attribute.
        given: The models' entries.
        template: EvalScope's ``task_template`` module.
    """

    def __init__(self, evaluation: Any, given: Sequence[Any], template: ModuleType) -> None:
        self.template = template
        self._given = given
        super().__init__(evaluation, given)
        self._ready: dict[str, Any] = {}

    def load(self, entry: Any) -> Any:
        """Builds the model of an entry."""
        return entries.load(entry, self.out / "vacc") if entries.is_ours(entry) else self.template.load_model(entry)

    def all_tasks(self) -> list[Any]:
        """Returns new objects: MTEB changes a task that is reranked for good."""
        return resolve_tasks(self.evaluation, self.template)

    def hands(self, plan: Plan) -> Hands:
        """Returns worker processes where there are several items for models of ours, else this process."""
        wanted = getattr(self.evaluation, "workers", None)
        address = cluster()
        if not entries.all_ours(self._given):
            address, count = None, 1
        else:
            count = len(plan.items) if address else count_for(wanted, len(plan.items))
        registered = registered_beside_mtebs(self.tasks)
        if count > 1 and any(t.__module__ == "__main__" or "<locals>" in t.__qualname__ for t in registered.values()):
            logger.info("no workers: a task is defined in the program itself, which no other process may run again")
            address, count = None, 1
        if count == 1 and not address:
            return OneByOne(self)
        self._ready.clear()
        setup = Setup(
            type(self),
            {key: getattr(self.evaluation, key, None) for key in EVAL_KEYS},
            [entries.written(entry) for entry in self._given],
            self.earlier,
            registered,
            manifest.place if (manifest := in_use()) else None,
        )
        launcher = RayLauncher(address) if address else None
        if launcher is not None:
            count = min(count, wanted if isinstance(wanted, int) else launcher.processors)
        return Workers(setup, count, self._weight, self._record, launcher)

    def _weight(self, item: Item) -> int:
        """How many texts a task has, by MTEB's own statistics."""
        task = self.task(item.task)
        known = getattr(task.metadata, "descriptive_stats", None) or {}
        return sum(int((known.get(split) or {}).get("num_samples") or 0) for split in task.eval_splits)

    def _record(self, model: int, name: str, content: Sequence[Any]) -> None:
        """Records evidence that a worker has; what several say of one server is put together."""
        served = self.models[model].served
        if name == "server":
            served.record_server(**content[1])
        else:
            getattr(served.evidence, name)(*content)

    def kind(self, task: Any) -> Kind:
        """Says who can do a task."""
        return kind_of(task)

    def with_data(self, name: str) -> Any:
        """Returns a task with its data; those that were loaded last are kept until they are used."""
        self._ready.clear()
        task = next(task for task in self.all_tasks() if task.metadata.name == name)
        load_data(task)
        self._ready[name] = task
        return task

    def with_candidates(self, item: Item, first: FirstStage, folder: Path) -> Any:
        """Returns the item's task, as a reranking of the first ``eval.top_k`` predictions of each query."""
        task = self._ready.get(item.task) or self.with_data(item.task)
        self._ready.clear()
        make_reranking(task, first, self.evaluation.top_k, folder)
        return task

    def score(self, item: Item, task: Any, *, again: bool, candidates: Path | None) -> list[Any]:  # noqa: ARG002
        """Evaluates a task and returns MTEB's ``TaskResult`` objects."""
        import mteb
        from mteb.cache import ResultCache

        self._ready.clear()
        seed(task)
        quiet = {"show_progress_bar": False} if self.evaluation.verbosity == 0 else {}
        with part_of_a_run():
            results: list[Any] = mteb.evaluate(
                self.models[item.model],
                [task],
                cache=ResultCache(cache_path=item.out),
                overwrite_strategy="always" if again else "only-missing",
                encode_kwargs={**(self.evaluation.encode_kwargs or {}), **quiet} or None,
                prediction_folder=item.predictions,
                raise_error=True,
                **quiet,
            ).task_results
        return results

    def show(self, out: Path, model: Any, results: list[Any]) -> None:
        """Prints EvalScope's table."""
        self.template.show_results(str(out), model, results)
