"""MTEB: ``vacc/NAME`` is a model that it knows, for every NAME.

MTEB has a registry but no plugins, and a name that is known only from the command line cannot be in a registry. So its
look-up by name is wrapped: ours are answered here, every other one goes on as before.
"""

from __future__ import annotations

import functools
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from types import ModuleType
from typing import Any

from evalscope_vacc import endpoints
from evalscope_vacc.config import keys, named_keys
from evalscope_vacc.errors import NoAddressError
from evalscope_vacc.hosts.hooking import replace
from evalscope_vacc.hosts.logs import show_logs
from evalscope_vacc.models.meta import OF_THE_RUN, build_meta, experiment_kwargs, first_stage_digest


def load_served(model_name: str, revision: str | None = None, **kwargs: Any) -> Any:
    """MTEB's loader of ``vacc/NAME``.

    Args:
        model_name: ``vacc/NAME``.
        revision: The meta's revision.
        **kwargs: Every key of a model's entry, and what MTEB adds: its device, its ``embed_dim`` (``dimensions``), and
            the short keys of the result's name, which repeat what the configuration says.
    """
    from evalscope_vacc.hosts.evalscope_legacy_models import for_installed_mteb
    from evalscope_vacc.models import from_config

    show_logs()
    return for_installed_mteb(from_config(endpoints.endpoint_config(model_name, _options(revision, kwargs))))


def _options(revision: str | None, kwargs: dict[str, Any]) -> dict[str, Any]:
    # some short names are keys of the configuration, too: of those, only the digest of `prompts` is no value
    repeated = {*named_keys(), *OF_THE_RUN, "device", "embed_dim"} - set(keys())
    if isinstance(kwargs.get("prompts"), str):
        repeated.add("prompts")
    options = {key: value for key, value in kwargs.items() if key not in repeated}
    if kwargs.get("embed_dim") is not None:
        options["dimensions"] = kwargs["embed_dim"]
    if revision is not None and "__" not in revision:
        options["revision"] = revision
    return options


def _loader(model_name: str, revision: str | None) -> Any:
    """The loader as the installed MTEB calls it: 1.x gives it no name, and takes the name of a partial's function."""
    if version("mteb").startswith("1."):
        return functools.partial(load_served, model_name, revision)
    return load_served


def served_meta(model_name: str, revision: str | None = None) -> Any:
    """Returns the ``ModelMeta`` of ``vacc/NAME``, named as its results will be."""
    options = {} if revision is None else {"revision": revision}
    loader = _loader(model_name, revision)
    try:
        config = endpoints.endpoint_config(model_name, options)
    except NoAddressError:
        # the address may still come as a keyword of get_model(); without one, loading says what is missing
        config = endpoints.endpoint_config(model_name, {**options, "api_base": "http://localhost"})
        if revision is None:
            return build_meta(config, loader=loader).model_copy(update={"revision": None})
    return build_meta(config, loader=loader, settings=experiment_kwargs(config))


def _one(original: Any) -> Any:
    def get_model_meta(model_name: str, revision: str | None = None, *args: Any, **kwargs: Any) -> Any:
        if not endpoints.is_ours(model_name):
            return original(model_name, revision, *args, **kwargs)
        meta = served_meta(model_name, revision)
        extra = kwargs.get("experiment_kwargs")
        return (
            meta.model_copy(update={"experiment_kwargs": {**(meta.experiment_kwargs or {}), **extra}})
            if extra
            else meta
        )

    return get_model_meta


def _many(original: Any) -> Any:
    def get_model_metas(model_names: Any = None, *args: Any, **kwargs: Any) -> Any:
        if model_names is not None:
            model_names = list(model_names)
        found = list(original(model_names, *args, **kwargs))
        known = {meta.name for meta in found}
        # older releases look into the registry only
        found += [served_meta(n) for n in model_names or () if endpoints.is_ours(n) and n not in known]
        return found

    return get_model_metas


def hook_get_model_meta(module: ModuleType) -> None:
    """Wraps MTEB's look-up of models: ``mteb.models.get_model_meta`` (2.x), ``mteb.models.overview`` (1.x)."""
    replace(module, "get_model_meta", _one, ("mteb.models", "mteb"))
    replace(module, "get_model_metas", _many, ("mteb.models", "mteb"))


class _Nested(threading.local):
    depth = 0


_nested = _Nested()


@contextmanager
def part_of_a_run() -> Iterator[None]:
    """What ``mteb.evaluate`` finishes inside the block is a part of a longer run: its stored answers are kept."""
    _nested.depth += 1
    try:
        yield
    finally:
        _nested.depth -= 1


def run_is_done() -> None:
    """Drops what was stored for resuming, unless what is done is a part of a longer run."""
    keeping = sys.modules.get("evalscope_vacc.models.keeping")
    if keeping is not None and not _nested.depth:
        keeping.finish_all()


def _candidates(task: Any) -> str | None:
    """8 hex digits of the candidates that ``convert_to_reranking`` gave to a task, or None where it was not called."""
    if getattr(task, "_previous_results_model_meta", None) is None:
        return None
    ranked = {
        subset: {split: data.get("top_ranked") for split, data in splits.items()}
        for subset, splits in (task.dataset or {}).items()
    }
    return first_stage_digest(json.dumps(ranked, sort_keys=True, default=str))


def _each_by_its_candidates(original: Any, model: Any, tasks: Any, *args: Any, **kwargs: Any) -> Any:
    """Evaluates, with the candidates of a converted task in the name of its result.

    MTEB files a reranked task under the task's name alone: the cached score of other candidates would come back.
    """
    served = getattr(model, "served", None)
    listed = list(tasks) if isinstance(tasks, (list, tuple)) else [tasks]
    firsts = [_candidates(task) for task in listed] if served is not None else []
    if served is None or not any(firsts):
        return original(model, tasks, *args, **kwargs)
    results = []
    try:
        for task, first in zip(listed, firsts, strict=True):
            served.settle(**({} if first is None else {"first": first, "top_k": task._top_k}))  # noqa: SLF001
            results.append(original(model, [task], *args, **kwargs))
    finally:
        served.settle()
    exceptions = [problem for result in results for problem in getattr(result, "exceptions", None) or ()]
    return results[0].model_copy(
        update={
            "task_results": [scored for result in results for scored in result.task_results],
            "exceptions": exceptions or None,
        }
    )


def hook_evaluate(module: ModuleType) -> None:
    """``mteb.evaluate`` (2.x): when it returns, its tasks are done, and what was stored for resuming them is dropped.

    It calls itself for aggregated tasks, and a run of EvalScope's calls it once for each task: the outermost counts.
    """

    def make(original: Any) -> Any:
        def evaluate(*args: Any, **kwargs: Any) -> Any:
            outermost = not _nested.depth
            with part_of_a_run():
                result = _each_by_its_candidates(original, *args, **kwargs) if outermost else original(*args, **kwargs)
            if not getattr(result, "exceptions", None):
                run_is_done()
            return result

        return evaluate

    replace(module, "evaluate", make, ("mteb",))
