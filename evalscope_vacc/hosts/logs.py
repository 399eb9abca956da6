"""Makes our lines visible where a host shows its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

ROOT = "evalscope_vacc"


def show_logs(beside: str | None = None) -> None:
    """Shows our log lines at INFO, through the handlers of the host's logger where it has some.

    Args:
        beside: Name of the host's logger, such as ``evalscope``; its handlers (console, log file) then take our lines.
    """
    ours = logging.getLogger(ROOT)
    if ours.level == logging.NOTSET:
        ours.setLevel(logging.INFO)
    theirs = logging.getLogger(beside).handlers if beside else []
    for handler in theirs:
        if handler not in ours.handlers:
            ours.addHandler(handler)
    if theirs:
        ours.propagate = False
    elif not ours.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        ours.addHandler(handler)


@contextmanager
def verbosity(level: int | None) -> Iterator[None]:
    """``eval.verbosity`` inside the block, as EvalScope documents it: 0 silent, 1 warnings, 2 information, 3 debug.

    Silent means no progress bars of the hosts either, and none of EvalScope's lines.
    """
    show_logs("evalscope")
    if level is None:
        yield
        return
    wanted = (logging.CRITICAL + 1, logging.WARNING, logging.INFO, logging.DEBUG)[level]
    loggers = [logging.getLogger(name) for name in ("mteb", ROOT, *(("evalscope",) if level == 0 else ()))]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(wanted)
    try:
        with _no_bars() if level == 0 else nullcontext():
            yield
    finally:
        for logger, was in zip(loggers, before, strict=True):
            logger.setLevel(was)


@contextmanager
def _no_bars() -> Iterator[None]:
    """Hides the progress bars of data sets, which are loaded inside the block."""
    import datasets
    from huggingface_hub import utils as hub

    shown = [bars for bars in (datasets, hub) if not bars.are_progress_bars_disabled()]
    for bars in shown:
        bars.disable_progress_bars()
    try:
        yield
    finally:
        for bars in shown:
            bars.enable_progress_bars()
