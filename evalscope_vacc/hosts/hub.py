"""The hub that data come from: whether it answers, and what of a task lies in the cache.

``datasets`` asks the hub again and again for every configuration, minutes for one task, although all of it is cached.
Here it is asked once; where it does not answer, cached data are loaded as if ``HF_HUB_OFFLINE`` were set, and what is
not cached is named at once.
"""

from __future__ import annotations

import logging
import os
import shlex
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from evalscope_vacc.errors import DataError
from evalscope_vacc.hosts.bundle import in_use, source_of
from evalscope_vacc.hosts.hub_settings import offline
from evalscope_vacc.hosts.versions import installed
from evalscope_vacc.redact import clean, public_url

logger = logging.getLogger(__name__)

WAIT_S = 8.0
"""Longest wait for the hub's answer, the look-up of its name included."""
AT_ONCE = 8
"""Data sets that the hub is asked for at a time."""
# a plan of a hundred tasks does not ask a hundred times; one that was away for a moment is asked again soon
_KEPT_S = {True: 600.0, False: 60.0}
# what a proxy or a gateway says of a hub that it cannot reach
_NOT_REACHED = (502, 503, 504)
# what a mean of several tasks is made of may itself be a mean
_LEVELS = 3

_asked: dict[str, tuple[float, bool]] = {}
_lock = threading.Lock()


def endpoint() -> str:
    """Returns the address of the Hugging Face hub, or of the mirror that stands in for it."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT).rstrip("/")


def is_offline() -> bool:
    """Whether the user has switched the hub off (``HF_HUB_OFFLINE``, ``HF_DATASETS_OFFLINE``)."""
    import datasets
    from huggingface_hub import constants

    return bool(datasets.config.HF_HUB_OFFLINE or constants.HF_HUB_OFFLINE)


def reachable() -> bool:
    """Whether the hub answers. What it did is kept for a while; it is waited for at most `WAIT_S` seconds."""
    url = endpoint()
    with _lock:
        if url in _asked:
            at, answers = _asked[url]
            if time.monotonic() - at < _KEPT_S[answers]:
                return answers
        answers = _answers(url)
        _asked[url] = time.monotonic(), answers
    if not answers:
        logger.warning("the hub %s cannot be reached: data are loaded only from the cache", _shown())
    return answers


def forget() -> None:
    """Forgets the hub's answer, so that it is asked again."""
    with _lock:
        _asked.clear()


def _answers(url: str) -> bool:
    """Asks in a thread: the look-up of a name has no time limit of its own."""
    found: list[bool] = []

    def ask() -> None:
        request = urllib.request.Request(f"{url}/api/datasets?limit=1", method="HEAD")  # noqa: S310 -- the user's hub
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S):  # noqa: S310
                found.append(True)
        except urllib.error.HTTPError as error:
            found.append(error.code not in _NOT_REACHED)
            error.close()
        except urllib.error.URLError as error:
            # it was reached; what its certificate lacks is for the hub's own client to say
            found.append(isinstance(error.reason, ssl.SSLError))
        except (OSError, ValueError):
            found.append(False)

    thread = threading.Thread(target=ask, daemon=True, name="vacc-hub")
    thread.start()
    thread.join(WAIT_S)
    return bool(found and found[0])


# -- the cache -----------------------------------------------------------------------------------------------------------


def missing(tasks: Iterable[Any]) -> dict[str, str]:
    """Says which tasks would not find their data without the hub, and why; asks nobody.

    Args:
        tasks: MTEB's tasks; none of them is loaded.

    Returns:
        Task to the reason, in the order of the tasks. The data of an unknown task are taken to be available.
    """
    found = {task.metadata.name: next((why for part in leaves(task) if (why := _lacks(part))), "") for task in tasks}
    return {name: why for name, why in found.items() if why}


def lacking(tasks: Iterable[Any], hub: str, copies: Collection[str] = ()) -> dict[str, str]:
    """Says which tasks will not find their data, and why, before anything is loaded.

    What does not lie in the cache has to be on the hub, which is asked for it. Data from ModelScope, and those of tasks
    that are not MTEB's own, are taken to be available: nothing is known of them.

    Args:
        tasks: MTEB's tasks.
        hub: ``eval.hub``.
        copies: Names of the tasks that read a local copy.

    Returns:
        Task to the reason, in the order of the tasks.
    """
    if hub != "huggingface":
        return {}
    listed = [task for task in tasks if task.metadata.name not in copies]
    absent = missing(listed)
    if not absent or in_use():
        return absent
    if is_offline():
        return {name: f"{why}, and HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set" for name, why in absent.items()}
    if not reachable():
        return {name: f"{why}, and the hub {_shown()} cannot be reached" for name, why in absent.items()}
    sources = {t.metadata.name: [source_of(part) for part in leaves(t)] for t in listed if t.metadata.name in absent}
    known = sorted({source for found in sources.values() for source in found})
    with ThreadPoolExecutor(AT_ONCE) as pool:
        refused = dict(zip(known, pool.map(_refused, known), strict=True))
    return {name: why for name, found in sources.items() if (why := next(filter(None, map(refused.get, found)), ""))}


def fetching(tasks: Iterable[str]) -> str:
    """Returns the command that fetches what the data of tasks lack, for ``--data``."""
    carried = in_use()
    place = str(carried.place) if carried else "data.tar.zst"
    return shlex.join(["evalscope-vacc", "prefetch", "--tasks", ",".join(tasks), "--to", place])


def _refused(source: tuple[str, str]) -> str:
    """Returns why a hub that answers does not give a data set, or ""."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    path, revision = source
    try:
        HfApi(endpoint=endpoint()).dataset_info(path, revision=revision or None, timeout=WAIT_S)
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            return f"the hub {_shown()} asks for access to its data set {path}"
        if status in (404, 410):
            return f"the hub {_shown()} does not have its data set {path}" + (
                f" at {revision[:12]}" if revision else ""
            )
    except Exception as error:  # noqa: BLE001 -- the hub's client is of requests or of httpx, by its version
        # a transient error: the loader retries, and waits
        logger.debug("%s: %s", path, error)
    return ""


def _shown() -> str:
    return clean(public_url(endpoint()))


def missing_one(task: Any) -> str:
    """Returns why one task would not find its data without the hub, or ""."""
    return missing([task]).get(task.metadata.name, "")


def leaves(task: Any, level: int = 0) -> Iterator[Any]:
    """A task, or those whose mean it is."""
    parts = getattr(task.metadata, "tasks", None) or ()
    if not parts:
        yield task
    for part in parts if level < _LEVELS else ():
        yield from leaves(part, level + 1)


def _is_of_mteb(task: Any) -> bool:
    """Whether a task is MTEB's own; where others have their data from, nobody knows."""
    return type(task).__module__.startswith("mteb.")


def _lacks(task: Any) -> str:
    path, revision = source_of(task)
    if Path(path).exists() or not _is_of_mteb(task):
        return ""
    carried = in_use()
    if carried is not None and (why := carried.lacks(task)):
        return why
    if path.count("/") != 1:
        return ""
    cached = _configurations(path)
    if not cached:
        return f"its data set {path} is not in the cache"
    if str(installed()["mteb"]).startswith("1."):
        revision = ""  # most loaders of mteb 1.x take the newest
    at = {name for name, revisions in cached.items() if not revision or revision in revisions}
    if not at:
        others = sorted({one[:8] for revisions in cached.values() for one in revisions})
        return f"its data set {path} is in the cache at {', '.join(others)}, and the task is of {revision[:8]}"
    wanted = [names for names in _wanted(task) if not at.intersection(names)]
    return f"the cache of its data set {path} is incomplete: {' or '.join(wanted[0])} is missing" if wanted else ""


def _configurations(path: str) -> dict[str, set[str]]:
    """Returns the prepared configurations of a data set in the cache, each with the revisions that it is there at."""
    found: dict[str, set[str]] = {}
    for folder in prepared(path):
        found.setdefault(folder.parents[1].name, set()).add(folder.name)
    return found


def prepared(path: str) -> list[Path]:
    """Returns the folders of a data set in the cache, CONFIGURATION/VERSION/REVISION, that are whole."""
    import datasets
    from datasets.naming import camelcase_to_snakecase

    owner, _, name = path.partition("/")
    root = Path(datasets.config.HF_DATASETS_CACHE) / f"{owner}___{camelcase_to_snakecase(name)}"
    return sorted(info.parent for info in root.glob("*/*/*/dataset_info.json"))


def _prefer_revision(task: Any) -> None:
    """Has `datasets` take the task's own revision: offline it takes the folder that was changed last, whatever is asked."""
    path, revision = source_of(task)
    for folder in prepared(path):
        if folder.name == revision:
            os.utime(folder)


def _wanted(task: Any) -> list[tuple[str, ...]]:
    """The configurations that a task loads, each with its other names; nothing for a loader of its own."""
    from mteb import AbsTask

    own, metadata = type(task).load_data, task.metadata
    several = getattr(metadata, "is_multilingual", None) or getattr(task, "is_multilingual", False)
    if own is _retrieval_loader():
        wanted: list[tuple[str, ...]] = []
        for subset in task.hf_subsets if several else [""]:
            before = f"{subset}-" if subset else ""
            judgements = (f"{before}qrels",) if subset else ("default", "qrels")
            wanted += [(f"{before}corpus",), (f"{before}queries", "query"), judgements]
        return wanted
    if own is AbsTask.load_data and several:
        return [(subset,) for subset in task.hf_subsets]
    name = metadata.dataset.get("name")
    return [(name,)] if name else []


def _retrieval_loader() -> Any:
    import mteb

    if str(installed()["mteb"]).startswith("1."):
        return mteb.AbsTaskRetrieval.load_data
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    return AbsTaskRetrieval.load_data


# -- loading -------------------------------------------------------------------------------------------------------------


def load_offline_where_needed(task: Any) -> None:
    """Has a task load its data from the cache at once where the hub does not answer."""
    if not _is_of_mteb(task):
        return
    load = task.load_data

    def load_data(*args: Any, **kwargs: Any) -> None:
        if task.data_loaded or (not is_offline() and reachable()):
            load(*args, **kwargs)
            return
        if not is_offline() and (why := missing_one(task)):
            raise DataError(f"{why}, and the hub {_shown()} cannot be reached")
        _prefer_revision(task)
        with offline():
            load(*args, **kwargs)

    task.load_data = load_data
