"""Which tasks a run has, and where their data come from, as MTEB means them.

EvalScope's ModelScope loader is used for the kinds that it gets right. Reranking tasks (it drops ``top_ranked``),
multilingual ones (it loads one subset), those with several splits (it loads the first), those whose data are one
configuration of a larger set (it loads the default one) and those that prepare their data themselves go to MTEB's own
loader, which honours ``HF_ENDPOINT``; a line says so.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping, Sequence
from types import ModuleType
from typing import Any

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.text.task import RERANKING

logger = logging.getLogger(__name__)

RETRIEVAL = ("Retrieval", "InstructionRetrieval")
# what names a whole data set; anything else picks a part of it
WHOLE = {"path", "revision", "trust_remote_code"}


def resolve_tasks(evaluation: Any, template: ModuleType) -> list[Any]:
    """Returns the tasks of ``eval:``, filtered by its languages and splits, with data loaded from its hub.

    Args:
        evaluation: ``task_names``, ``task_types``, ``languages``, ``custom_tasks``, ``splits``, ``hub``, ``limits``.
        template: EvalScope's ``task_template`` module, which builds custom tasks and patches loaders.

    Raises:
        ConfigError: No task, an unknown task (the nearest is named), or a split that a task does not have.
    """
    import mteb

    languages = list(evaluation.languages or []) or None
    tasks: list[Any] = []
    if evaluation.task_names:
        tasks += [_named(mteb, name, languages) for name in evaluation.task_names]
    elif evaluation.task_types or languages:
        tasks += mteb.get_tasks(task_types=evaluation.task_types, languages=languages)
    for custom in evaluation.custom_tasks or []:
        from evalscope.backend.rag_eval.mteb.custom_task import build_custom_task

        tasks.append(build_custom_task(custom))
    if not tasks:
        raise ConfigError("eval: no task: give task_names, task_types, languages or custom_tasks")
    if evaluation.limits is not None:
        tasks = [part for task in tasks for part in _parts(mteb, task, languages)]
    for task in tasks:
        _choose_splits(task, evaluation.splits)
        _choose_loader(task, evaluation.hub, template)
        if evaluation.limits is not None:
            _limit_after_load(task, evaluation.limits)
    return tasks


def _named(mteb: Any, name: str, languages: list[str] | None) -> Any:
    try:
        task = mteb.get_task(name)
    except KeyError as error:
        raise ConfigError(f"eval.task_names: {str(error.args[0]).strip()}") from None
    return task.filter_languages(languages) if languages else task


def _aggregated(task: Any) -> list[str]:
    """The names of the tasks whose mean a task is; none where it has data of its own."""
    return [part.metadata.name for part in getattr(task.metadata, "tasks", None) or ()]


def _parts(mteb: Any, task: Any, languages: list[str] | None) -> list[Any]:
    """A task, or the parts of an aggregated one: limits cut data, and an aggregated task has none."""
    names = _aggregated(task)
    if not names:
        return [task]
    logger.info("%s: its %d parts are evaluated one by one, because of eval.limits", task.metadata.name, len(names))
    return [_named(mteb, name, languages) for name in names]


def _choose_splits(task: Any, splits: Any) -> None:
    """``eval.splits``: task name to one split or a list, or ``"*"`` for every task."""
    if not splits:
        return
    if not isinstance(splits, Mapping):
        splits = {"*": splits}
    wanted = splits.get(task.metadata.name, splits.get("*"))
    if not wanted:
        return
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    known = list(task.metadata.eval_splits)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"eval.splits: {task.metadata.name} has the splits {', '.join(known)}, not {unknown[0]!r}")
    task.filter_eval_splits(names)


def _choose_loader(task: Any, hub: str, template: ModuleType) -> None:
    metadata = task.metadata
    if hub != "modelscope" or not (getattr(metadata, "dataset", None) or {}).get("path"):
        return
    from mteb import AbsTask
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    own_load = type(task).load_data not in (AbsTask.load_data, AbsTaskRetrieval.load_data)
    why = None
    if _aggregated(task):
        why = "it is the mean of other tasks"
    elif own_load:
        why = "it loads its data in a way of its own"
    elif metadata.type in (*RERANKING, "InstructionRetrieval"):
        why = "its candidates or instructions would be lost"
    elif set(metadata.dataset) - WHOLE:
        why = "it is a part of a larger set, which would be lost"
    elif metadata.is_multilingual:
        why = "its subsets would be lost"
    elif len(task.eval_splits) > 1 or (
        metadata.type in RETRIEVAL and list(task.eval_splits) != list(metadata.eval_splits)[:1]
    ):
        why = "its splits would be lost"
    if why is not None:
        logger.info(
            "%s: loaded by MTEB's own loader, not from ModelScope (%s); HF_ENDPOINT names a mirror", metadata.name, why
        )
        return
    template.patch_tasks_for_modelscope([task])
    _record_source(task)


def _record_source(task: Any) -> None:
    """Notes that the data came from ModelScope, whose newest version is loaded, whatever revision MTEB names."""
    load = task.load_data

    def load_data(*args: Any, **kwargs: Any) -> None:
        if task.data_loaded:
            return
        load(*args, **kwargs)
        # EvalScope falls back to MTEB's loader where ModelScope has no copy; that one does honour the revision
        if getattr(task, "corpus", None) is not None or not hasattr(type(task), "convert_v1_dataset_format_to_v2"):
            dataset = {**task.metadata.dataset, "revision": "modelscope-master"}
            task.metadata = task.metadata.model_copy(update={"dataset": dataset})

    task.load_data = load_data


def _limit_after_load(task: Any, limit: int) -> None:
    """``eval.limits``: the first queries of a retrieval task with the whole corpus, the first rows of the others."""
    load = task.load_data

    def load_data(*args: Any, **kwargs: Any) -> None:
        if task.data_loaded:
            return
        load(*args, **kwargs)
        if hasattr(task, "convert_v1_dataset_format_to_v2"):
            to_v2(task)
            for subset in task.dataset.values():
                for split in subset.values():
                    _first_queries(split, limit)
        elif task.dataset is not None:
            first_rows(task, limit)

    task.load_data = load_data


def to_v2(task: Any) -> None:
    """Brings a retrieval task's data into the form of MTEB 2.x, where an older loader left the older one."""
    if getattr(task, "corpus", None) is None:
        return
    import inspect

    convert = task.convert_v1_dataset_format_to_v2
    if "num_proc" in inspect.signature(convert).parameters:
        convert(num_proc=None)
    else:
        convert()


def _first_queries(split: Any, limit: int) -> None:
    queries = split["queries"]
    if len(queries) <= limit:
        return
    split["queries"] = queries.select(range(limit))
    kept = set(split["queries"]["id"])
    split["relevant_docs"] = {q: docs for q, docs in split["relevant_docs"].items() if q in kept}
    if split.get("top_ranked"):
        split["top_ranked"] = {q: docs for q, docs in split["top_ranked"].items() if q in kept}


def first_rows(task: Any, limit: int) -> None:
    """Cuts the splits that are evaluated; what a classifier is trained on stays whole."""

    def cut(splits: Any) -> None:
        for name in task.eval_splits:
            if name in splits and hasattr(splits[name], "select"):
                splits[name] = splits[name].select(range(min(limit, len(splits[name]))))

    if any(name in task.dataset for name in task.eval_splits):
        cut(task.dataset)
    else:
        for subset in task.dataset.values():
            cut(subset)


def pairs_to_rerank(tasks: Sequence[Any], stored: Container[str] = ()) -> tuple[list[Any], list[Any], list[Any]]:
    """Splits tasks into retrieval, reranking, and the others.

    An aggregated retrieval task is one of the others: it has no predictions of its own that could be reranked. A
    reranking task that stored predictions are named for counts as retrieval: those, not its own candidates, are meant.
    """
    retrieval = [
        t
        for t in tasks
        if (t.metadata.type in RETRIEVAL and not _aggregated(t))
        or (t.metadata.type in RERANKING and t.metadata.name in stored)
    ]
    reranking = [t for t in tasks if t.metadata.type in RERANKING and t not in retrieval]
    others = [t for t in tasks if t not in retrieval and t not in reranking]
    return retrieval, reranking, others
