"""What a run reports to its watcher: its plan, the current task, and the progress of each call of MTEB."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Work:
    """One task of one model in one stage, as the plan of a run names it."""

    model: str
    task: str
    stage: str = ""


class Watcher:
    """Receives the progress of a run; the methods do nothing here.

    The methods are called in the thread of the run, between two answers: they must be quick and must not raise.
    """

    def lacks(self, tasks: Mapping[str, str], fetching: str) -> None:
        """The data of these tasks cannot be had, and why; ``fetching`` is the command that fetches them elsewhere."""

    def planned(self, folder: Path, work: Sequence[Work]) -> None:
        """Nothing was sent yet; ``work`` will be done, several at once perhaps, with its files in ``folder``."""

    def began(self, position: int) -> None:
        """The work at a position of the plan begins."""

    def moved(
        self, side: str, done: int, total: int | None, sent: int, tokens: int, *, position: int | None = None
    ) -> None:
        """An answer came.

        Args:
            side: "query", "document", "pair", or "" for a task without sides.
            done: Texts, or pairs, of this call of MTEB that have their answer; repeated and stored ones included.
            total: Texts, or pairs, of this call; None where that is not known.
            sent: Those of them that went to the server.
            tokens: As the server counted them; 0 where it does not say.
            position: Of the work in the plan; None for what began last, which is the only one at work.
        """

    def ended(self, position: int, results: Sequence[Any], why: str) -> None:
        """The work at a position ended: MTEB's ``TaskResult`` objects, and why it failed, or ""."""


_NOBODY = Watcher()
_watcher: ContextVar[Watcher] = ContextVar("watcher", default=_NOBODY)


def watcher() -> Watcher:
    """Returns the watcher of the current run."""
    return _watcher.get()


@contextmanager
def watched(by: Watcher) -> Iterator[None]:
    """Reports the runs inside the block to a watcher."""
    token = _watcher.set(by)
    try:
        yield
    finally:
        _watcher.reset(token)
