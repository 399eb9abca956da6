"""Whether the data of a task can be had, before anything is sent: in the cache, or on the hub that answers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from evalscope_vacc.redact import clean

TIMEOUT_S = 10.0
AT_ONCE = 8
# what a mean of several tasks is made of may itself be a mean
_LEVELS = 3
# who asks for access, or forbids it, will not change its mind when the data are loaded
_REFUSED = {401, 403, 404, 410}


def lacking(tasks: Iterable[Any], hub: str) -> dict[str, str]:
    """Says which tasks will not find their data, and why.

    A data set of Hugging Face is at hand when its hub answers for it or when it lies in a cache. What loads its data in a
    way that nothing is known of (ModelScope, a task that is not MTEB's own) is taken to be at hand.

    Args:
        tasks: MTEB's tasks; none of them is loaded.
        hub: ``eval.hub``.

    Returns:
        Task to the reason, in the order of the tasks.
    """
    if hub != "huggingface":
        return {}
    wanted = {task.metadata.name: sorted(set(_sources(task))) for task in tasks}
    sources = sorted({source for found in wanted.values() for source in found})
    with ThreadPoolExecutor(AT_ONCE) as pool:
        why = dict(zip(sources, pool.map(_why_not, sources), strict=True))
    return {name: reason for name, found in wanted.items() if (reason := next(filter(None, map(why.get, found)), ""))}


def _sources(task: Any, level: int = 0) -> Iterator[tuple[str, str]]:
    """The data sets of a task, as (path, revision)."""
    parts = getattr(task.metadata, "tasks", None) or ()
    for part in parts if level < _LEVELS else ():
        yield from _sources(part, level + 1)
    if parts or not type(task).__module__.startswith("mteb."):
        return
    dataset: Mapping[str, Any] = getattr(task.metadata, "dataset", None) or {}
    path = str(dataset.get("path") or "")
    if path.count("/") == 1 and not Path(path).exists():
        yield path, str(dataset.get("revision") or "")


def _why_not(source: tuple[str, str]) -> str:
    """Returns why a data set cannot be had, or ""."""
    path, revision = source
    import datasets
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    if _cached(path, Path(datasets.config.HF_DATASETS_CACHE), Path(constants.HF_HUB_CACHE)):
        return ""
    if datasets.config.HF_HUB_OFFLINE or constants.HF_HUB_OFFLINE:
        return f"its data set {path} is not in the cache, and HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set"
    hub = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    try:
        HfApi(endpoint=hub).dataset_info(path, revision=revision or None, timeout=TIMEOUT_S)
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status not in _REFUSED:
            return ""  # a hub that has a bad moment: the loader asks again, and waits
        what = "asks for access to" if status in (401, 403) else "does not have"
        return f"{clean(hub)} {what} its data set {path}" + (
            f" at {revision[:12]}" if status == 404 and revision else ""
        )
    except Exception as error:  # noqa: BLE001 -- the hub's client is of requests or of httpx, by its version
        return f"its data set {path} is not in the cache, and {clean(hub)} cannot be reached ({type(error).__name__})"
    return ""


def _cached(path: str, prepared: Path, downloaded: Path) -> bool:
    """Whether a data set lies in the cache, prepared by ``datasets`` or as it was downloaded."""
    return (prepared / path.replace("/", "___")).is_dir() or any(
        (downloaded / f"datasets--{path.replace('/', '--')}" / "snapshots").glob("*/*")
    )
