"""From MTEB's task metadata to what the text rules know, on every MTEB that is supported (1.38.20, and 2.7 on)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from evalscope_vacc.text.task import Side, TaskInfo


def task_info(task: Any) -> TaskInfo:
    """Returns what the text rules need to know of a task.

    Args:
        task: ``TaskMetadata`` (what MTEB 2.x hands to a model), a task object or class, or a task's name (what MTEB 1.x
            hands over). A name that no task has gives a ``TaskInfo`` with that name alone.
    """
    default: str | None = None
    if isinstance(task, str):
        found = _task_class(task)
        if found is None:
            return TaskInfo(name=task)
        task = found
    if hasattr(task, "metadata"):
        default, task = _prompt_of(task), task.metadata
    name = str(task.name)
    prompt = getattr(task, "prompt", None)
    if isinstance(prompt, Mapping):
        prompt = {str(getattr(side, "value", side)): text for side, text in prompt.items()}
    return TaskInfo(
        name=name,
        type=str(getattr(task, "type", "") or ""),
        prompt=prompt or None,
        default_prompt=default or _default_prompt(name),
    )


def side_of(prompt_type: Any) -> Side | None:
    """Returns the side that MTEB's ``PromptType`` means; MTEB called ``document`` ``passage`` up to 1.38.35.

    Raises:
        ValueError: It is neither of them.
    """
    if prompt_type is None:
        return None
    value = str(getattr(prompt_type, "value", prompt_type))
    if value == "query":
        return "query"
    if value in {"document", "passage"}:
        return "document"
    raise ValueError(f"prompt_type {value!r} is neither query nor document")


def _default_prompt(name: str) -> str | None:
    """Returns the instruction of a task's abstract class."""
    task = _task_class(name)
    return None if task is None else _prompt_of(task)


def _prompt_of(task: Any) -> str | None:
    # some abstract classes only declare the attribute
    return getattr(task, "abstask_prompt", None) or None


@lru_cache(maxsize=4096)
def _cached_task_class(name: str) -> Any:
    for task in _task_classes():
        if getattr(getattr(task, "metadata", None), "name", None) == name and _prompt_of(task):
            return task
    raise KeyError(name)  # not cached: a task may be defined later


def _task_class(name: str) -> Any:
    try:
        return _cached_task_class(name)
    except KeyError:
        pass
    return next((t for t in _task_classes() if getattr(getattr(t, "metadata", None), "name", None) == name), None)


def _task_classes() -> Iterator[Any]:
    """Yields every task class that is loaded: MTEB's own before those that others derived from them.

    The registry knows only MTEB's own tasks; a user's task, or a mock, is a subclass like any other.
    """
    import mteb

    level = [mteb.AbsTask]
    seen: set[Any] = set()
    ours: list[Any] = []
    theirs: list[Any] = []
    while level:
        below = [task for parent in level for task in parent.__subclasses__() if task not in seen]
        seen.update(below)
        for task in dict.fromkeys(below):
            (ours if task.__module__.partition(".")[0] == "mteb" else theirs).append(task)
        level = list(dict.fromkeys(below))
    yield from ours
    yield from theirs
