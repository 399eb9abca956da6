"""Runs RAGEval's MTEB tool on mteb 1.x where one of the models is ours.

The plan (who does which task, in which stage) is that of the newer line; only the calls of mteb differ.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.files import write_whole
from evalscope_vacc.hosts.evalscope_legacy_evaluate import Predictions, by_subset, candidate_file, whole_task_at_once
from evalscope_vacc.hosts.evalscope_legacy_models import face_of
from evalscope_vacc.hosts.evalscope_legacy_tasks import as_newer, forget_data, groups, resolve_tasks
from evalscope_vacc.hosts.evalscope_run import Run, set_verbosity
from evalscope_vacc.hosts.first_stage import FirstStage, check_against
from evalscope_vacc.hosts.logs import show_logs
from evalscope_vacc.hosts.mteb import part_of_a_run
from evalscope_vacc.hosts.run_result import RunResult
from evalscope_vacc.hosts.spelling import EVAL_KEYS, newer_eval
from evalscope_vacc.interrupts import second_kills
from evalscope_vacc.models import is_cross_encoder

logger = logging.getLogger(__name__)

BATCH = 32


def run_tool(entries: Sequence[Mapping[str, Any]], evaluation: Mapping[str, Any]) -> RunResult:
    """Runs the tool's configuration and returns the results.

    Args:
        entries: ``model:`` as the user wrote it.
        evaluation: ``eval:`` as the user wrote it, with EvalScope's ``output_folder``.

    Raises:
        ConfigError: The models and tasks do not go together, before anything is sent.
        RunFailed: One or more tasks failed; the finished ones are kept and named.
    """
    show_logs("evalscope")
    given = newer_eval(evaluation)
    defaults: dict[str, Any] = {
        "output_folder": "outputs",
        "overwrite_results": True,
        "hub": "modelscope",
        "verbosity": 2,
    }
    values: dict[str, Any] = {key: defaults.get(key) if given.get(key) is None else given[key] for key in EVAL_KEYS}
    set_verbosity(values["verbosity"])
    logger.info("eval.top_k: %s candidates go to a cross-encoder", values["top_k"])
    with second_kills():
        return LegacyRun(entries, SimpleNamespace(**values)).run()


class LegacyRun(Run):
    """One run on mteb 1.x.

    Args:
        entries: ``model:`` as the user wrote it.
        evaluation: ``eval:``, every key an attribute.
    """

    def __init__(self, entries: Sequence[Mapping[str, Any]], evaluation: Any) -> None:
        from evalscope.backend.rag_eval.cmteb import task_template

        super().__init__(evaluation, task_template, entries)
        self._candidates: dict[str, Path] = {}
        self._mteb: Any = None

    def _load(self, entry: Mapping[str, Any]) -> Any:
        if entry.get("model_type"):
            from evalscope_vacc.config import MODEL_TYPE, configure
            from evalscope_vacc.models import from_config, load_model

            if entry["model_type"] != MODEL_TYPE:
                return face_of(load_model(entry))
            return face_of(from_config(configure(entry), folder=self.out / "vacc"))
        from evalscope.backend.rag_eval import EmbeddingModel
        from evalscope.backend.rag_eval.cmteb import ModelArguments

        return EmbeddingModel.load(**ModelArguments(**entry).to_dict())

    # -- the plan ------------------------------------------------------------------------------------------------

    def _all_tasks(self) -> list[Any]:
        return resolve_tasks(self.evaluation)

    def _groups(self, stored: dict[str, FirstStage]) -> tuple[list[Any], list[Any], list[Any]]:
        found = groups(self.tasks)
        for task in found[1]:
            if task.metadata.name in stored:
                raise ConfigError(
                    f"{task.metadata.name} brings its own candidates, and MTEB 1.x reranks no others: remove it from "
                    "model_kwargs.task_name, or use MTEB 2.x"
                )
        return found

    def _task(self, name: str) -> Any:
        return next(task for task in self.tasks if task.metadata.name == name)

    def _with_data(self, name: str) -> Any:
        task = self._task(name)
        if not task.data_loaded:
            task.load_data()
        self._loaded[name] = task
        return as_newer(task)

    def _forget(self) -> None:
        for task in self._loaded.values():
            forget_data(task)
        super()._forget()

    def _to_rerank(self, name: str, first: FirstStage, folder: Path) -> Any:
        if name not in self._loaded:
            self._forget()
        newer = self._with_data(name)
        check_against(first, newer)
        for subset, splits in newer.dataset.items():
            for split, data in splits.items():
                ranking = first.ranking(subset, split, newer)
                chosen = {query: ranking[query] for query in data["queries"]["id"]}
                write_whole(candidate_file(folder, name, split, subset), json.dumps(chosen))
        self._candidates[name] = folder
        return self._task(name)

    # -- one model on some tasks ---------------------------------------------------------------------------------

    def _show(self, out: Path, model: Any, results: list[Any]) -> None:
        """EvalScope's table; it looks every task up in MTEB's registry, where EvalScope's own and custom ones are not."""
        from mteb.overview import TASKS_REGISTRY

        strangers = {task.metadata.name: type(task) for task in self.tasks if task.metadata.name not in TASKS_REGISTRY}
        TASKS_REGISTRY.update(strangers)
        try:
            self.template.show_results(str(out), model, results)
        finally:
            for name in strangers:
                TASKS_REGISTRY.pop(name, None)

    def _score(self, model: Any, task: Any, out: Path, predictions: Path | None, always: bool) -> list[Any]:
        """Evaluates one model on one task."""
        import mteb

        if self._mteb is None:
            # one object for the whole run: making one builds every task that mteb has
            self._mteb = mteb.MTEB(tasks=self.tasks)
        self._mteb.tasks = [task]
        reranks = is_cross_encoder(model)
        retrieval = task.metadata.type == "Retrieval"
        store = None
        if retrieval and predictions is not None:
            meta = model.mteb_model_meta
            file = predictions / f"{task.metadata.name}_predictions.json"
            store = Predictions(file, {"model_name": meta.name, "revision": meta.revision})
        extra: dict[str, Any] = {"save_predictions": True} if store is not None else {}
        encode_kwargs = whole_task_at_once(model, {"batch_size": BATCH, **(self.evaluation.encode_kwargs or {})})
        if reranks and retrieval:
            # not for an encoder: EvalScope passes it there too, and scores ndcg@10 on the first 5 documents
            extra["top_k"] = self.evaluation.top_k
        candidates = self._candidates.get(task.metadata.name) if reranks else None
        with part_of_a_run(), by_subset(task, model, out, store, candidates):
            results: list[Any] = self._mteb.run(
                model,
                verbosity=self.evaluation.verbosity,
                output_folder=str(out),
                overwrite_results=always,
                encode_kwargs=encode_kwargs,
                **extra,
            )
        if store is not None:
            store.write()
        return results
