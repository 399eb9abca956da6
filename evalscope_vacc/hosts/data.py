"""The tasks of a run, and where their data come from.

EvalScope's ModelScope loader is used for the kinds that it gets right. Reranking tasks (it drops ``top_ranked``),
multilingual ones (it loads one subset), those with several splits (it loads the first), those whose data are one
configuration of a larger set (it loads the default one) and those that prepare their data themselves go to MTEB's own
loader, which honours ``HF_ENDPOINT``; a line says so.
"""

from __future__ import annotations

import inspect
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.hosts import local_copy
from evalscope_vacc.hosts.custom_data import CustomData, CustomTask, custom_tasks, read_folder
from evalscope_vacc.hosts.hub import load_offline_where_needed
from evalscope_vacc.hosts.plan import Kind
from evalscope_vacc.hosts.spelling import CUSTOM_TASK
from evalscope_vacc.names import did_you_mean
from evalscope_vacc.results.benchmarks import is_benchmark, mteb_tasks, parts
from evalscope_vacc.text.task import RERANKING

logger = logging.getLogger(__name__)

RETRIEVAL = ("Retrieval", "InstructionRetrieval")
# what names a whole data set; anything else picks a part of it
WHOLE = {"path", "revision", "trust_remote_code"}


def resolve_tasks(evaluation: Any, template: ModuleType) -> list[Any]:
    """Returns the tasks of ``eval:``, filtered by its languages and splits, with data loaded from its hub.

    Args:
        evaluation: ``task_names``, ``benchmarks``, ``task_types``, ``languages``, ``custom_tasks``, ``dataset_paths``,
            ``splits``, ``hub``, ``limits``.
        template: EvalScope's ``task_template`` module, which patches loaders.

    Raises:
        ConfigError: No task, an unknown task (the nearest is named), or a split that a task does not have.
    """
    import mteb

    languages = list(evaluation.languages or []) or None
    tasks: list[Any] = []
    if evaluation.task_names:
        tasks += [named(name, languages) for name in evaluation.task_names]
    elif (evaluation.task_types or languages) and not evaluation.benchmarks:
        tasks += mteb.get_tasks(task_types=evaluation.task_types, languages=languages)
    tasks += of_benchmarks(evaluation.benchmarks, {task.metadata.name for task in tasks}, languages, _as_in)
    if evaluation.limits is not None:
        tasks = [part for task in tasks for part in _parts(task, languages)]
    copies = local_copy.folders(evaluation.dataset_paths, [task.metadata.name for task in tasks])
    for task in tasks:
        folder = copies.get(task.metadata.name)
        if folder is not None:
            _load_from_folder(task, folder)
        elif not _choose_loader(task, evaluation.hub, template):
            load_offline_where_needed(task)
    tasks += map(_custom, custom_tasks(evaluation.custom_tasks or [], is_known=_is_known, default=CUSTOM_TASK))
    if not tasks:
        raise ConfigError("eval: no task: give task_names, benchmarks, task_types, languages or custom_tasks")
    for task in tasks:
        choose_splits(task, evaluation.splits)
        if evaluation.limits is not None:
            after_load(task, partial(_cut, limit=evaluation.limits))
    return tasks


def named(name: str, languages: Sequence[str] | None = None, *, where: str = "eval.task_names") -> Any:
    """Returns MTEB's task of a name, of the languages where some are given.

    Raises:
        ConfigError: There is none; the nearest is named.
    """
    import mteb

    try:
        task = mteb.get_task(name)
    except KeyError:
        known = [task.metadata.name for task in mteb.get_tasks(exclude_superseded=False)]
        raise ConfigError(unknown_task(name, known, where)) from None
    return task.filter_languages(languages) if languages else task


def of_benchmarks(
    given: Iterable[str] | Mapping[str, Sequence[str]] | None,
    without: set[str],
    languages: Sequence[str] | None,
    make: Callable[[Any], Any],
) -> list[Any]:
    """Returns the tasks of benchmarks, with the benchmark's languages, subsets and splits.

    Args:
        given: MTEB's names of them, or aliases; or name to those of its tasks that are wanted.
        without: Names of tasks that are there already.
        languages: Only these, too.
        make: Makes a new task of a benchmark's, which is the same object for everybody.

    Raises:
        ConfigError: There is no such benchmark, or it shares a task with another one that takes other parts of it.
    """
    found: dict[str, Any] = {}
    for name, only in parts(given or ()).items():
        tasks = {task.metadata.name: task for task in mteb_tasks(name)}
        for part in only or ():
            if part not in tasks:
                raise ConfigError(f"eval.benchmarks: {name} has no task {part!r}: {did_you_mean(part, tasks)}")
        for task in tasks.values() if only is None else map(tasks.__getitem__, only):
            known = found.get(task.metadata.name)
            if known is not None and (known.eval_splits, known.hf_subsets) != (task.eval_splits, task.hf_subsets):
                raise ConfigError(
                    f"eval.benchmarks: {name} takes other parts of {task.metadata.name} than the benchmark before it: "
                    "evaluate them in runs of their own"
                )
            found[task.metadata.name] = task
    made = [make(task) for name, task in found.items() if name not in without]
    return [task for task in made if not languages or _speaks(task, languages)]


def _speaks(task: Any, languages: Sequence[str]) -> bool:
    """Leaves a task of a benchmark those of its subsets that are of the languages; False where there are none."""
    spoken = task.metadata.hf_subsets_to_langscripts
    kept = [
        subset
        for subset in task.hf_subsets
        if any(name == language or name.split("-")[0] == language for name in spoken[subset] for language in languages)
    ]
    task.hf_subsets = kept
    return bool(kept)


def _as_in(task: Any) -> Any:
    """A task as a benchmark has it, as a new object."""
    import mteb

    if _aggregated(task):
        return mteb.get_task(task.metadata.name)
    # a set: MTEB looks up each subset in it, and a task may have tens of thousands
    return mteb.get_task(task.metadata.name, eval_splits=list(task.eval_splits), hf_subsets=set(task.hf_subsets))


def _is_known(name: str) -> bool:
    import mteb

    try:
        mteb.get_task(name)
    except KeyError:
        return False
    return True


def registered_beside_mtebs(tasks: Iterable[Any]) -> dict[str, type]:
    """Returns the classes, by name, of those tasks that this process has registered and no other one knows."""
    # the package's attribute of this name is the function
    registry = getattr(import_module("mteb.get_tasks"), "_TASKS_REGISTRY", {})
    found = {task.metadata.name: type(task) for task in tasks}
    return {
        name: task
        for name, task in found.items()
        if registry.get(name) is task and not task.__module__.startswith("mteb.")
    }


def register(tasks: Mapping[str, type]) -> None:
    """Registers tasks by name, as they are in another process."""
    registry = getattr(import_module("mteb.get_tasks"), "_TASKS_REGISTRY", {})
    for name, task in tasks.items():
        registry.setdefault(name, task)


def seed(task: Any) -> None:
    """Seeds a task like a new one, so that its score does not depend on earlier tasks or on the process."""
    import numpy as np
    import torch

    for part in getattr(task, "tasks", None) or ():
        seed(part)
    task.rng_state, task.np_rng = random.Random(task.seed), np.random.default_rng(task.seed)  # noqa: S311
    random.seed(task.seed)
    np.random.seed(task.seed)  # scikit-learn draws from it, and some tasks
    torch.manual_seed(task.seed)


def unknown_task(name: str, known: Iterable[str], where: str) -> str:
    """Returns the message for an unknown task."""
    if is_benchmark(name):
        return f"{where}: {name!r} is a benchmark: write eval.benchmarks: [{name!r}] instead"
    return f"{where}: there is no task {name!r}: {did_you_mean(name, known, 'mteb.get_tasks() lists them')}"


def _aggregated(task: Any) -> list[str]:
    """The names of the tasks whose mean a task is; none where it has data of its own."""
    return [part.metadata.name for part in getattr(task.metadata, "tasks", None) or ()]


def _parts(task: Any, languages: list[str] | None) -> list[Any]:
    """A task, or the parts of an aggregated one: limits cut data, and an aggregated task has none."""
    names = _aggregated(task)
    if not names:
        return [task]
    logger.info("%s: its %d parts are evaluated one by one, because of eval.limits", task.metadata.name, len(names))
    return [named(name, languages) for name in names]


def choose_splits(task: Any, splits: Any) -> None:
    """``eval.splits``: task name to one split or a list, ``"*"`` for every task, or what holds for all.

    Raises:
        ConfigError: The task does not have such a split.
    """
    name, known = task.metadata.name, list(task.metadata.eval_splits)
    wanted = splits.get(name, splits.get("*")) if isinstance(splits, Mapping) else splits
    if not wanted:
        return
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    unknown = [one for one in names if one not in known]
    if unknown:
        raise ConfigError(f"eval.splits: {name} has the splits {', '.join(known)}, not {unknown[0]!r}")
    task.filter_eval_splits(names)


def _choose_loader(task: Any, hub: str, template: ModuleType) -> bool:
    """Has a task loaded from ModelScope where EvalScope's loader is right; returns whether it is."""
    metadata = task.metadata
    if hub != "modelscope" or not (getattr(metadata, "dataset", None) or {}).get("path"):
        return False
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
        return False
    template.patch_tasks_for_modelscope([task])
    after_load(task, _record_source)
    return True


def _load_from_folder(task: Any, folder: Path) -> None:
    """Has a task read a local copy: by its own loader as the hub's, or by our reader as a BEIR folder.

    Raises:
        ConfigError: The folder is of neither form, or a row of it cannot be used.
    """
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    name = task.metadata.name
    own = type(task).load_data
    if not local_copy.needs_reader(task, folder) or own is not AbsTaskRetrieval.load_data:
        if isinstance(task, AbsTaskRetrieval) and not local_copy.as_the_hub_has_it(folder):
            raise ConfigError(
                f"eval.dataset_paths: {name}: {folder} needs the README.md of its data set, which says where its corpus, "
                "queries and judgements are"
            )
        local_copy.point_at(task, folder)
        return
    local_copy.point_at(task, folder)
    data = read_folder(folder, task.eval_splits, published=True)
    data.check(f"eval.dataset_paths: {name}")
    for line in data.counted():
        logger.warning("%s: %s", name, line)
    missing = sorted(set(task.hf_subsets) - set(data.subsets))
    if missing:
        raise ConfigError(f"eval.dataset_paths: {name}: {folder} has no {missing[0]}, it has {', '.join(data.subsets)}")

    def load_data(num_proc: int | None = None, **_: Any) -> None:
        if not task.data_loaded:
            _take(task, data)
            _with_num_proc(task.dataset_transform, num_proc)

    task.load_data = load_data


def _custom(custom: CustomTask) -> Any:
    """Returns a custom task, as EvalScope describes it to MTEB."""
    from mteb import TaskMetadata
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    metadata = TaskMetadata(
        name=custom.name,
        description=f"Custom Retrieval task: {custom.name}",
        reference=None,
        dataset={"path": custom.name, "revision": "custom"},
        type="Retrieval",
        category="t2t",
        modalities=["text"],
        eval_splits=list(custom.splits),
        eval_langs=custom.languages,
        main_score="ndcg_at_10",
        date=None,
        domains=None,
        task_subtypes=None,
        license=None,
        annotations_creators=None,
        dialect=None,
        sample_creation=None,
        bibtex_citation="",
    )

    def load_data(self: Any, *_: Any, **__: Any) -> None:
        if not self.data_loaded:
            _take(self, custom.data)

    kind = type(f"CustomRetrieval_{custom.name}", (AbsTaskRetrieval,), {"metadata": metadata, "load_data": load_data})
    return kind()


def _take(task: Any, data: CustomData) -> None:
    """Gives a retrieval task data that were read, in the form of MTEB 2.x."""
    from datasets import Dataset

    task.dataset = {}
    corpora: dict[int, Any] = {}
    for part in data.parts:
        corpus = corpora.get(id(part.corpus))
        if corpus is None:
            # one object where splits share it
            corpus = corpora[id(part.corpus)] = Dataset.from_dict(_columns(part.corpus))
        task.dataset.setdefault(part.subset, {})[part.split] = {
            "corpus": corpus,
            "queries": Dataset.from_dict(_columns(part.queries)),
            "relevant_docs": {query: dict(documents) for query, documents in part.relevant.items()},
            "top_ranked": None,
        }
    task.data_loaded = True


def _columns(texts: Mapping[str, str]) -> dict[str, list[str]]:
    return {"id": list(texts), "text": list(texts.values())}


def _record_source(task: Any) -> None:
    """Notes that the data came from ModelScope, whose newest version is loaded, whatever revision MTEB names."""
    # EvalScope falls back to MTEB's loader where ModelScope has no copy; that one does honour the revision
    if getattr(task, "corpus", None) is not None or not hasattr(type(task), "convert_v1_dataset_format_to_v2"):
        dataset = {**task.metadata.dataset, "revision": "modelscope-master"}
        task.metadata = task.metadata.model_copy(update={"dataset": dataset})


def after_load(task: Any, change: Callable[[Any], None]) -> None:
    """Changes a task's data whenever they have been loaded."""
    load = task.load_data

    def load_data(*args: Any, **kwargs: Any) -> None:
        if not task.data_loaded:
            load(*args, **kwargs)
            change(task)

    task.load_data = load_data


def _cut(task: Any, limit: int) -> None:
    """``eval.limits``: the first queries of a retrieval task with the whole corpus, the first rows of the others."""
    if hasattr(task, "convert_v1_dataset_format_to_v2"):
        to_v2(task)
        for subset in task.dataset.values():
            for split in subset.values():
                _first_queries(split, limit)
    elif task.dataset is not None:
        first_rows(task, limit)


def load_data(task: Any) -> None:
    """Loads a retrieval task's data in the form of MTEB 2.x, where that has not been done."""
    if not task.data_loaded:
        task.load_data()
    to_v2(task)


def to_v2(task: Any) -> None:
    """Brings a retrieval task's data into the form of MTEB 2.x, where an older loader left the older one."""
    if getattr(task, "corpus", None) is None:
        return
    _with_num_proc(task.convert_v1_dataset_format_to_v2, None)


def _with_num_proc(step: Callable[..., None], num_proc: int | None) -> None:
    """Calls a step of MTEB's loading with the number of processes, where this release takes it."""
    if "num_proc" in inspect.signature(step).parameters:
        step(num_proc=num_proc)
    else:
        step()


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


def kind_of(task: Any) -> Kind:
    """Says who can do a task on MTEB 2.x.

    An aggregated retrieval task has no predictions of its own that could be reranked: an encoder does it alone.
    """
    if task.metadata.type in RERANKING:
        return "candidates"
    return "retrieval" if task.metadata.type in RETRIEVAL and not _aggregated(task) else "other"
