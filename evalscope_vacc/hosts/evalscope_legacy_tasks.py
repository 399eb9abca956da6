"""The tasks of a run on mteb 1.x: which they are, where their data come from, and what mteb 1.38 gets wrong in them.

Data sources are EvalScope's: on ModelScope its own ``cmteb`` tasks where it has them, its ModelScope loader for MTEB's
simple tasks, and MTEB's own loader (which honours ``HF_ENDPOINT``) for everything else.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from evalscope_vacc.errors import ConfigError, HostError
from evalscope_vacc.hosts import local_copy
from evalscope_vacc.hosts.custom_data import DEFAULT_SUBSET, CustomTask, custom_tasks
from evalscope_vacc.hosts.data import after_load, choose_splits, first_rows, of_benchmarks, unknown_task
from evalscope_vacc.hosts.hub import load_offline_where_needed
from evalscope_vacc.hosts.plan import Kind
from evalscope_vacc.hosts.spelling import CUSTOM_TASK

logger = logging.getLogger(__name__)

HUBS = ("modelscope", "huggingface")
# labels of tasks whose range mteb 1.38 forgot: evaluating them raises a KeyError there
SCORE_RANGES = {"QBQTC": (0, 2)}


def resolve_tasks(evaluation: Any) -> list[Any]:
    """Returns the tasks of ``eval:``, filtered by its languages and splits, with data loaded from its hub.

    Args:
        evaluation: ``task_names``, ``benchmarks``, ``task_types``, ``languages``, ``custom_tasks``, ``dataset_paths``,
            ``splits``, ``hub``, ``limits``.

    Raises:
        ConfigError: No task, an unknown task or hub, or a split that a task does not have.
    """
    import mteb

    if evaluation.hub not in HUBS:
        raise ConfigError(f"eval.hub is {evaluation.hub!r}: it is {' or '.join(HUBS)}")
    languages = list(evaluation.languages or []) or None
    tasks: list[Any] = []
    copies = evaluation.dataset_paths or {}
    if evaluation.task_names:
        tasks += [
            _named(name, "huggingface" if name in copies else evaluation.hub, languages)
            for name in evaluation.task_names
        ]
    elif (evaluation.task_types or languages) and not evaluation.benchmarks:
        found = mteb.get_tasks(task_types=evaluation.task_types, languages=languages)
        tasks += [_named(task.metadata.name, evaluation.hub, languages) for task in found]
    named = {task.metadata.name for task in tasks}
    tasks += of_benchmarks(evaluation.benchmarks, named, languages, partial(_as_in, hub=evaluation.hub))
    for name, folder in local_copy.folders(copies, [task.metadata.name for task in tasks]).items():
        _read_copy(next(task for task in tasks if task.metadata.name == name), folder)
    tasks += map(_custom, custom_tasks(evaluation.custom_tasks or [], is_known=_is_known, default=CUSTOM_TASK))
    if not tasks:
        raise ConfigError("eval: no task: give tasks (task_names), benchmarks, task_types, languages, or dataset_path")
    for task in tasks:
        choose_splits(task, evaluation.splits)
        _mend(task)
        if evaluation.limits is not None:
            after_load(task, partial(_cut, limit=evaluation.limits))
    return tasks


def kind_of(task: Any) -> Kind:
    """Says who can do a task on mteb 1.x."""
    kinds: dict[str, Kind] = {
        "Retrieval": "retrieval",
        "Reranking": "own candidates only",
        "InstructionRetrieval": "own candidates only",
    }
    return kinds.get(task.metadata.type, "other")


def _named(name: str, hub: str, languages: list[str] | None) -> Any:
    import mteb
    from evalscope.backend.rag_eval.cmteb.base import load_data as theirs
    from evalscope.backend.rag_eval.cmteb.tasks import CLS_CUSTOM, CLS_DICT
    from mteb.overview import TASKS_REGISTRY

    if name in CLS_CUSTOM:
        return CLS_CUSTOM[name]()
    if name not in TASKS_REGISTRY and name not in CLS_DICT:
        raise ConfigError(unknown_task(name, [*TASKS_REGISTRY, *CLS_DICT], "eval.tasks"))
    if name in CLS_DICT and (hub == "modelscope" or name not in TASKS_REGISTRY):
        task = CLS_DICT[name]()
        task.load_data = partial(_load_as_evalscope, task, theirs, hub)
        return task
    task = mteb.get_task(name, languages=languages)
    own = _own_loader(task, theirs)
    if hub == "modelscope":
        why = None
        if own is not mteb.AbsTask.load_data:
            why = "it loads its data in a way of its own"
        elif task.is_multilingual:
            why = "its subsets would be lost"
        if why is None:
            task.load_data = partial(_load_as_evalscope, task, theirs, hub)
            return task
        logger.info("%s: loaded by MTEB's own loader, not from ModelScope (%s); HF_ENDPOINT names a mirror", name, why)
    task.load_data = partial(own, task)
    load_offline_where_needed(task)
    return task


def _as_in(task: Any, hub: str) -> Any:
    """A task as a benchmark has it, as a new object."""
    made = _named(task.metadata.name, hub, None)
    made.filter_eval_splits(list(task.eval_splits))
    made.hf_subsets = list(task.hf_subsets)
    return made


def _load_as_evalscope(task: Any, load: Any, hub: str, **_: Any) -> None:
    # without `limits`: EvalScope's would cut the corpus of a retrieval task
    load(task, hub=hub)


def _own_loader(task: Any, theirs: Any) -> Any:
    """MTEB's own ``load_data``: a run of EvalScope's own models replaces it in the class, for the whole process."""
    for cls in type(task).__mro__:
        found = vars(cls).get("load_data")
        if found is None:
            continue
        if found is not theirs:
            return found
        if "def load_data" in inspect.getsource(cls):
            raise HostError(
                f"{task.metadata.name}: EvalScope has replaced this task's own way to load its data, in this process: "
                "evaluate the served model in a new one"
            )
    raise HostError(f"{task.metadata.name}: this task cannot load data")


def _read_copy(task: Any, folder: Path) -> None:
    """Has a task's own loader read a local copy.

    Raises:
        ConfigError: The folder is not as the hub has it: mteb 1.x puts titles before texts in ways that differ by task.
    """
    if task.metadata.type == "Retrieval" and not local_copy.as_the_hub_has_it(folder):
        raise ConfigError(
            f"eval.dataset_paths: {task.metadata.name}: with mteb 1.x {folder} needs the README.md of its data set, as the "
            "hub has it"
        )
    local_copy.point_at(task, folder)


def _is_known(name: str) -> bool:
    from evalscope.backend.rag_eval.cmteb.tasks import CLS_DICT
    from mteb.overview import TASKS_REGISTRY

    return name in TASKS_REGISTRY or name in CLS_DICT


def _custom(custom: CustomTask) -> Any:
    """Returns EvalScope's custom task with our data: its main score and its rule about a query's own id are kept."""
    from evalscope.backend.rag_eval.cmteb.tasks import CLS_CUSTOM

    def load_data(self: Any, **_: Any) -> None:
        if self.data_loaded:
            return
        self.corpus, self.queries, self.relevant_docs = {}, {}, {}
        for part in custom.data.parts:
            corpus = {document: {"text": text} for document, text in part.corpus.items()}
            relevant = {query: dict(documents) for query, documents in part.relevant.items()}
            for table, value in (
                (self.corpus, corpus),
                (self.queries, dict(part.queries)),
                (self.relevant_docs, relevant),
            ):
                (table if part.subset == DEFAULT_SUBSET else table.setdefault(part.subset, {}))[part.split] = value
        self.data_loaded = True

    kind = type("CustomRetrieval", (CLS_CUSTOM[CUSTOM_TASK],), {"load_data": load_data})
    task = kind(dataset_path=str(custom.data.folder))
    several = custom.data.subsets != [DEFAULT_SUBSET]
    changes: dict[str, Any] = {"name": custom.name, "eval_splits": list(custom.splits)}
    if several:
        changes["eval_langs"] = custom.languages
    task.metadata = task.metadata.model_copy(update=changes)
    if several:
        task.is_multilingual, task.hf_subsets = True, custom.data.subsets
    return task


def _mend(task: Any) -> None:
    """Gives a similarity task the range of its labels where mteb forgot it; the host's class stays as it is."""
    bounds = SCORE_RANGES.get(task.metadata.name)
    if bounds and task.metadata.type == "STS" and "min_score" not in task.metadata_dict:
        kind = type(task)
        task.__class__ = type(kind.__name__, (kind,), {"min_score": bounds[0], "max_score": bounds[1]})


# -- data --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """One subset and split of a retrieval task."""

    subset: str
    split: str
    queries: Any
    corpus: Any
    relevant: Any


def parts(task: Any) -> Iterator[Part]:
    """Yields the evaluated subsets and splits of a retrieval task whose data are loaded."""
    for subset in task.hf_subsets if task.is_multilingual else ["default"]:
        inner = [
            data[subset] if task.is_multilingual else data for data in (task.queries, task.corpus, task.relevant_docs)
        ]
        for split in task.eval_splits:
            yield Part(subset, split, *(data[split] for data in inner))


def as_newer(task: Any) -> Any:
    """Returns what the checks of first-stage results need of a loaded retrieval task, in the shape of MTEB 2.x."""
    dataset: dict[str, dict[str, Any]] = {}
    for part in parts(task):
        ids = {"queries": {"id": list(part.queries)}, "corpus": {"id": list(part.corpus)}}
        dataset.setdefault(part.subset, {})[part.split] = ids
    return SimpleNamespace(metadata=task.metadata, dataset=dataset)


def forget_data(task: Any) -> None:
    """Frees a retrieval task's data; they are loaded again when they are needed."""
    for name in ("corpus", "queries", "relevant_docs"):
        vars(task).pop(name, None)
    task.data_loaded = False


def _cut(task: Any, limit: int) -> None:
    """``eval.limits``: the first queries of a retrieval task with the whole corpus, the first rows of the others."""
    if task.metadata.type == "Retrieval":
        for part in list(parts(task)):
            _first_queries(task, part, limit)
    elif task.dataset is not None:
        first_rows(task, limit)
    else:
        logger.warning("%s: limits does not apply to %s tasks", task.metadata.name, task.metadata.type)


def _first_queries(task: Any, part: Part, limit: int) -> None:
    kept = dict(list(part.queries.items())[:limit])
    relevant = {query: documents for query, documents in part.relevant.items() if query in kept}
    for data, value in ((task.queries, kept), (task.relevant_docs, relevant)):
        (data[part.subset] if task.is_multilingual else data)[part.split] = value
