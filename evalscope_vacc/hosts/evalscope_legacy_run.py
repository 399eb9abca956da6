"""Runs RAGEval's MTEB tool on mteb 1.x where one of the models is ours."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from evalscope_vacc.files import write_whole
from evalscope_vacc.hosts import entries
from evalscope_vacc.hosts.evalscope_legacy_evaluate import Predictions, by_subset, candidate_file, whole_task_at_once
from evalscope_vacc.hosts.evalscope_legacy_models import face_of
from evalscope_vacc.hosts.evalscope_legacy_tasks import as_newer, forget_data, kind_of, resolve_tasks
from evalscope_vacc.hosts.first_stage import FirstStage, check_against
from evalscope_vacc.hosts.logs import verbosity
from evalscope_vacc.hosts.mteb import part_of_a_run
from evalscope_vacc.hosts.plan import PREDICTIONS, Item, Kind
from evalscope_vacc.hosts.run import Engine, run
from evalscope_vacc.hosts.run_result import RunResult
from evalscope_vacc.hosts.spelling import EVAL_KEYS, newer_eval
from evalscope_vacc.interrupts import second_kills
from evalscope_vacc.models import is_cross_encoder

logger = logging.getLogger(__name__)

BATCH = 32
DEFAULTS: Mapping[str, Any] = {
    "output_folder": "outputs",
    "overwrite_results": True,
    "hub": "modelscope",
    "verbosity": 2,
}


def run_tool(models: Sequence[Mapping[str, Any]], evaluation: Mapping[str, Any]) -> RunResult:
    """Runs the tool's configuration and returns the results.

    Args:
        models: ``model:`` as the user wrote it.
        evaluation: ``eval:`` as the user wrote it, with EvalScope's ``output_folder``.

    Raises:
        ConfigError: The models and tasks do not go together, before anything is sent.
        RunFailed: One or more tasks failed; the finished ones are kept and named.
    """
    given = newer_eval(evaluation)
    values = {key: DEFAULTS.get(key) if given.get(key) is None else given[key] for key in EVAL_KEYS}
    with verbosity(values["verbosity"]), second_kills():
        if values["workers"] not in (None, 1):
            logger.info("eval.workers: on this generation of hosts the tasks are evaluated one after the other")
        logger.info("eval.top_k: %s candidates go to a cross-encoder", values["top_k"])
        return run(LegacyEngine(SimpleNamespace(**values), models))


class LegacyEngine(Engine):
    """mteb 1.x, with EvalScope 1.3.0 to 1.8.0."""

    def __init__(self, evaluation: Any, given: Sequence[Any]) -> None:
        super().__init__(evaluation, given)
        self._ready: Any = None
        self._mteb: Any = None

    def load(self, entry: Any) -> Any:
        """Builds the model of an entry."""
        if entries.is_ours(entry):
            return face_of(entries.load(entry, self.out / "vacc"))
        from evalscope.backend.rag_eval import EmbeddingModel
        from evalscope.backend.rag_eval.cmteb import ModelArguments

        return EmbeddingModel.load(**ModelArguments(**entry).to_dict())

    def all_tasks(self) -> list[Any]:
        """Returns the tasks of ``eval:``."""
        return resolve_tasks(self.evaluation)

    def kind(self, task: Any) -> Kind:
        """Says who can do a task."""
        return kind_of(task)

    def with_data(self, name: str) -> Any:
        """Returns what the checks need of a task whose data are loaded; they are kept until another task is done."""
        task = self.task(name)
        self._keep_only(task)
        if not task.data_loaded:
            task.load_data()
        self._ready = task
        return as_newer(task)

    def _keep_only(self, task: Any) -> None:
        """Frees the data that were loaded for a check, where they are another task's."""
        if self._ready is not None and self._ready is not task:
            forget_data(self._ready)
        self._ready = None

    def with_candidates(self, item: Item, first: FirstStage, folder: Path) -> Any:
        """Writes the candidates in the form of mteb 1.x and returns the item's task."""
        newer = self.with_data(item.task)
        check_against(first, newer)
        for subset, splits in newer.dataset.items():
            for split, data in splits.items():
                ranking = first.ranking(subset, split, newer)
                chosen = {query: ranking[query] for query in data["queries"]["id"]}
                write_whole(candidate_file(folder, item.task, split, subset), json.dumps(chosen))
        return self.task(item.task)

    def score(self, item: Item, task: Any, *, again: bool, candidates: Path | None) -> list[Any]:
        """Evaluates a task and returns mteb's ``TaskResult`` objects."""
        import mteb

        self._keep_only(task)
        model = self.models[item.model]
        retrieval = task.metadata.type == "Retrieval"
        store = None
        extra: dict[str, Any] = {}
        if retrieval and item.predictions is not None:
            meta = model.mteb_model_meta
            file = item.predictions / f"{item.task}{PREDICTIONS}"
            store = Predictions(file, {"model_name": meta.name, "revision": meta.revision})
            extra["save_predictions"] = True
        if retrieval and is_cross_encoder(model):
            # not for an encoder: EvalScope passes it there too, and scores ndcg@10 on the first 5 documents
            extra["top_k"] = self.evaluation.top_k
        if self._mteb is None:
            # one object for the whole run: making one builds every task that mteb has
            self._mteb = mteb.MTEB(tasks=self.tasks)
        self._mteb.tasks = [task]
        quiet = {"show_progress_bar": False} if self.evaluation.verbosity == 0 else {}
        encode_kwargs = {"batch_size": BATCH, **(self.evaluation.encode_kwargs or {}), **quiet}
        with part_of_a_run(), by_subset(task, model, item.out, store, candidates):
            results: list[Any] = self._mteb.run(
                model,
                verbosity=self.evaluation.verbosity,
                output_folder=str(item.out),
                overwrite_results=again,
                encode_kwargs=whole_task_at_once(model, encode_kwargs),
                **extra,
            )
        if store is not None:
            store.write()
        return results

    def show(self, out: Path, model: Any, results: list[Any]) -> None:
        """Prints EvalScope's table, which looks every task up in mteb's registry: EvalScope's own are not there."""
        from evalscope.backend.rag_eval.cmteb import task_template
        from mteb.overview import TASKS_REGISTRY

        strangers = {task.metadata.name: type(task) for task in self.tasks if task.metadata.name not in TASKS_REGISTRY}
        TASKS_REGISTRY.update(strangers)
        try:
            task_template.show_results(str(out), model, results)
        finally:
            for name in strangers:
                TASKS_REGISTRY.pop(name, None)
