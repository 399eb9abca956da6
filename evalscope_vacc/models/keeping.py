"""What a model keeps of its answers while a task runs, and how it makes sure that they are still the same model's."""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from evalscope_vacc.errors import StoreError
from evalscope_vacc.store import ProbeResult, Scope, Store, make_identity, text_key, text_keys

if TYPE_CHECKING:
    from evalscope_vacc.models.served import Served
    from evalscope_vacc.models.session import Session

logger = logging.getLogger(__name__)

BLOCK = 4096
"""Keys that are looked up at once: enough for the store's speed, little memory."""

Positions = NDArray[np.intp]
_LIVE: WeakSet[Keeper] = WeakSet()


class Keeper:
    """The store of one served model, opened with the first task.

    Args:
        served: The model.
        kind: "embedding" or "score".
        probe: Sends the store's fixed probe texts or pairs and returns the answers, float, shape (repeats, texts,
            dimensions) or (repeats, pairs); called once.
    """

    def __init__(self, served: Served, kind: str, probe: Callable[[Session], NDArray[Any]]) -> None:
        self._served = served
        self._kind = kind
        self._probe = probe
        self._answers: NDArray[Any] | None = None
        self._store: Store | None = None
        self._scopes: dict[str, Scope] = {}
        self._used: set[str] = set()
        self.on = served.config.store != "off"
        _LIVE.add(self)

    def scope(self, task: str, session: Session) -> Scope | None:
        """Returns the place of one task's entries, or None where the store is off.

        MTEB runs one task after the other, so an earlier one's file is not in use any more. Its entries stay until the
        run is done: one that is killed later is started again from its first task, in another folder.
        """
        if not self.on:
            return None
        for other in [name for name in self._scopes if name != task]:
            self._scopes.pop(other).release()
        if task not in self._scopes:
            scope_id = self._scope_id(task)
            self._used.add(scope_id)
            scope = self._open().scope(
                scope_id, self._identity(session), label=f"{task or 'texts'}, {self._served.servers}"
            )
            result = self._admit(scope, session)
            self._scopes[task] = scope
            if result.state == "ok" and len(scope):
                logger.info("%s: going on with %d stored answers (%s)", task or "texts", len(scope), result.details)
        return self._scopes[task]

    def finish(self, tasks: Iterable[str] = ()) -> None:
        """Says that the run is done: what was kept for resuming it is dropped.

        Args:
            tasks: Names of the run's tasks, those included whose results an earlier, unfinished run left.
        """
        self._scopes.clear()
        done = self._used | {self._scope_id(task) for task in tasks}
        self._used = set()
        if not done or self._served.config.store != "resume":
            return
        opened = self._store is None
        store = self._open()
        for scope_id in done:
            store.drop(scope_id)
        if opened:
            self.close(sync=False)

    def close(self, *, sync: bool = True) -> None:
        """Writes what is on its way; what was kept for resuming stays.

        Args:
            sync: Whether to force it to the disk, too, against a failure of the machine; that takes a moment.
        """
        self._scopes.clear()
        if self._store is not None:
            self._store.close(sync=sync)
            self._store = None

    def _open(self) -> Store:
        if self._store is None:
            given = self._served.config.store
            if given in ("resume", "reuse"):
                self._store = Store.open(mode=given)  # type: ignore[arg-type]
            else:
                self._store = Store.open(Path(given), mode="reuse")
        return self._store

    def _admit(self, scope: Scope, session: Session) -> ProbeResult:
        """Compares the server's answers with the stored ones: a store must never hide a change of the model."""
        if self._answers is None:
            self._answers = self._probe(session)
        result = scope.admit_probe(self._answers)
        if result.state == "differs":
            logger.warning("%s: the stored answers are not this model's: %s", self._served.name, result.details)
        return result

    def _identity(self, session: Session) -> str:
        return make_identity(
            self._served.config.model_name,
            kind=self._kind,  # type: ignore[arg-type]
            revision=self._served.config.revision,
            max_tokens=session.limit,
            server_model=json.dumps([session.facts.root, session.facts.max_model_len]),
        )

    def _scope_id(self, task: str) -> str:
        # nor the first stage ("first") of a cross-encoder: its pairs are in the keys
        settings = {key: value for key, value in self._served.settings.items() if key != "first"}
        run = json.dumps(
            [self._served.config.identity(), settings, self._served.scope, task], sort_keys=True, default=str
        )
        return hashlib.sha256(run.encode()).hexdigest()


def stored_vectors(scope: Scope | None, texts: Sequence[str]) -> tuple[Positions, NDArray[np.float32]]:
    """Returns (positions of the texts that are stored, their vectors float32 (n, d)); at most a block of texts."""
    if scope is None:
        return np.empty(0, np.intp), np.empty((0, 0), np.float32)
    return scope.get_vectors(text_keys(scope.identity, texts))


def keep_vectors(scope: Scope | None, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
    """Stores the vectors of some texts; the array must not be changed afterwards."""
    if scope is not None:
        scope.put_vectors(text_keys(scope.identity, texts), vectors, copy=False)


def _pair_keys(scope: Scope, query: str, documents: Sequence[str], instruction: str | None) -> list[bytes]:
    beside = () if instruction is None else (instruction,)
    return [text_key(scope.identity, query, document, *beside) for document in documents]


def stored_scores(
    scope: Scope | None, query: str, documents: Sequence[str], instruction: str | None
) -> dict[int, float]:
    """Returns position to score, of the documents whose score is stored."""
    if scope is None:
        return {}
    positions, scores = scope.get_scores(_pair_keys(scope, query, documents, instruction))
    return dict(zip(positions.tolist(), scores.tolist(), strict=True))


def keep_scores(
    scope: Scope | None, query: str, documents: Sequence[str], instruction: str | None, scores: NDArray[np.float64]
) -> None:
    """Stores the scores of one query's documents."""
    if scope is not None:
        scope.put_scores(_pair_keys(scope, query, documents, instruction), scores)


def finish_all() -> None:
    """Says that the run of everything that was evaluated is done, for hosts that do not say of which model."""
    for keeper in list(_LIVE):
        keeper.finish()


@atexit.register
def _close_all() -> None:
    for keeper in list(_LIVE):
        with suppress(StoreError):
            keeper.close(sync=False)
