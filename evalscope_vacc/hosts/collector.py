"""Pauses Python's garbage collector while EvalScope, MTEB and sentence-transformers are imported.

Their thousands of modules stay until the process ends, and the collector would examine them again and again: a quarter of the
time that the imports take (10 instead of 14 s), and two seconds at the end of a process.
"""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from evalscope_vacc.hosts.entries import any_ours

_is_paused = False


@contextmanager
def paused(config: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Pauses the collector inside the block, at most until :func:`resume` is called; a run calls it when it begins.

    Args:
        config: ``{tool, models, eval}``. Without a model of ours no run of ours begins, and nothing is paused. None: what is
            imported inside the block is known.
    """
    global _is_paused  # noqa: PLW0603 -- a process has one collector
    if gc.isenabled() and (config is None or any_ours(config.get("models") or config.get("model"))):
        _is_paused = True
        gc.disable()
        atexit.register(gc.freeze)
    try:
        yield
    finally:
        resume()


def resume() -> None:
    """Resumes the collector if :func:`paused` paused it; what has been imported is never examined again."""
    global _is_paused  # noqa: PLW0603 -- a process has one collector
    if _is_paused:
        _is_paused = False
        gc.freeze()
        gc.enable()
