"""The tasks of a run on mteb 1.x: which they are, where their data come from, and what mteb 1.38 gets wrong in them.

Data sources are EvalScope's: on ModelScope its own ``cmteb`` tasks where it has them, its ModelScope loader for MTEB's
simple tasks, and MTEB's own loader (which honours ``HF_ENDPOINT``) for everything else.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

from evalscope_vacc.errors import ConfigError, HostError
from evalscope_vacc.hosts.data import after_load, choose_splits, first_rows, of_benchmarks, unknown_task
from evalscope_vacc.hosts.plan import Kind
from evalscope_vacc.hosts.spelling import CUSTOM_TASK

logger = logging.getLogger(__name__)

HUBS = ("modelscope", "huggingface")
# labels of tasks whose range mteb 1.38 forgot: evaluating them raises a KeyError there
SCORE_RANGES = {"QBQTC": (0, 2)}


def resolve_tasks(evaluation: Any) -> list[Any]:
    """Returns the tasks of ``eval:``, filtered by its languages and splits, with data loaded from its hub.

    Args:
        evaluation: ``task_names``, ``benchmarks``, ``task_types``, ``languages``, ``custom_tasks``, ``splits``, ``hub``,
            ``limits``.

    Raises:
        ConfigError: No task, an unknown task or hub, or a split that a task does not have.
    """
    import mteb

    if evaluation.hub not in HUBS:
        raise ConfigError(f"eval.hub is {evaluation.hub!r}: it is {' or '.join(HUBS)}")
    languages = list(evaluation.languages or []) or None
    tasks: list[Any] = []
    if evaluation.task_names:
        tasks += [_named(name, evaluation.hub, languages) for name in evaluation.task_names]
    elif (evaluation.task_types or languages) and not evaluation.benchmarks:
        found = mteb.get_tasks(task_types=evaluation.task_types, languages=languages)
        tasks += [_named(task.metadata.name, evaluation.hub, languages) for task in found]
    named = {task.metadata.name for task in tasks}
    tasks += of_benchmarks(evaluation.benchmarks, named, languages, partial(_as_in, hub=evaluation.hub))
    tasks += [_custom(custom) for custom in evaluation.custom_tasks or []]
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


def _custom(given: Any) -> Any:
    from evalscope.backend.rag_eval.cmteb.tasks import CLS_CUSTOM

    if not isinstance(given, Mapping) or not given.get("data_path"):
        raise ConfigError("eval.custom_tasks: each needs a data_path: the folder of corpus.jsonl, queries.jsonl, qrels")
    name = given.get("name", CUSTOM_TASK)
    if name != CUSTOM_TASK:
        raise ConfigError(f"eval.custom_tasks: EvalScope up to 1.8.0 has one custom task, {CUSTOM_TASK}, not {name!r}")
    task = CLS_CUSTOM[CUSTOM_TASK](dataset_path=str(given["data_path"]))
    if given.get("eval_splits"):
        task.metadata = task.metadata.model_copy(update={"eval_splits": list(given["eval_splits"])})
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
