"""Python's garbage collector rests while the hosts are imported.

EvalScope, MTEB and sentence-transformers are thousands of modules that are there to stay. The collector looks through all of
them again and again: a quarter of the time that the imports take (10 instead of 14 s), and two seconds at the end of a process.
"""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from evalscope_vacc.hosts.entries import any_ours

_resting = False


def rest() -> None:
    """Lets the collector rest until :func:`work` is called, and has it leave out at the end what is there by then."""
    global _resting  # noqa: PLW0603 -- a process has one collector
    if gc.isenabled():
        _resting = True
        gc.disable()
        atexit.register(gc.freeze)


def work() -> None:
    """Lets it work again, where it rests because of us; what has been imported is left out from now on."""
    global _resting  # noqa: PLW0603 -- a process has one collector
    if _resting:
        _resting = False
        gc.freeze()
        gc.enable()


@contextmanager
def resting(config: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Lets it rest inside the block of a command until its run begins, which is where the imports are done.

    Args:
        config: ``{tool, models, eval}``; without a model of ours nobody would say when the run begins. None has one.
    """
    if config is None or any_ours(config.get("models") or config.get("model")):
        rest()
    try:
        yield
    finally:
        work()
