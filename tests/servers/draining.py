"""Sends everything and hands every answer on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from evalscope_vacc.wire.engine import Answer, Engine, Request


def drain(engine: Engine, requests: Iterable[Request], handle: Callable[[Request, Answer], Any]) -> None:
    """Sends all requests; ``handle`` reads each answer in this thread."""
    for _ in engine.stream(requests, handle):
        pass
