"""Ctrl-C: the first one stops a run in order, a second one ends the process at once.

Python's own handler raises ``KeyboardInterrupt`` at every Ctrl-C, wherever the program happens to be: a second one would
only cut short what the first one began.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def _may_change() -> bool:
    """Whether the handler is Python's own, and ours to change: a program with one of its own decides by itself."""
    return (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )


@contextmanager
def second_kills() -> Iterator[None]:
    """The first Ctrl-C inside the block raises ``KeyboardInterrupt``, the next one ends the process."""
    if not _may_change():
        yield
        return

    def first(_: int, __: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def next_kills() -> Iterator[None]:
    """Inside the block, which stops what a first Ctrl-C interrupted, the next one ends the process."""
    if not _may_change():
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
