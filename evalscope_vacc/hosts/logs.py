"""Makes our lines visible where a host shows its own."""

from __future__ import annotations

import logging

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
