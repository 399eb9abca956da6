"""Stores a model's answers while a task runs, and makes sure that stored answers are those of the same model."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from numpy.typing import NDArray

from evalscope_vacc.errors import StoreError
from evalscope_vacc.store import Kind, Scope, Store, make_identity

if TYPE_CHECKING:
    from evalscope_vacc.models.served import Served
    from evalscope_vacc.models.session import Session

logger = logging.getLogger(__name__)

_LIVE: WeakSet[Keeper] = WeakSet()


class Keeper:
    """The store of one served model, opened with the first task.

    A store that cannot be used is reported once, and the run continues without it.

    Args:
        served: The model.
        kind: "embedding" or "score".
        probe: Sends the store's fixed probe texts or pairs and returns the answers, float, shape (repeats, texts,
            dimensions) or (repeats, pairs); called once.

    Attributes:
        on: Whether answers are kept.
    """

    def __init__(self, served: Served, kind: Kind, probe: Callable[[Session], NDArray[Any]]) -> None:
        self._served = served
        self._kind = kind
        self._probe = probe
        self._answers: NDArray[Any] | None = None
        self._store: Store | None = None
        self._scopes: dict[str, Scope] = {}
        self._found = 0
        self._used: set[str] = set()
        self._announced: set[tuple[str, ...]] = set()
        self.on = served.config.store != "off"
        _LIVE.add(self)

    def scope(self, task: str, session: Session) -> Scope | None:
        """Returns the place of one task's entries, or None where the store is off or cannot be used.

        MTEB runs one task after the other, so an earlier one's file is not in use any more. Its entries stay until the
        run is done: one that is killed later is started again from its first task, in another folder.
        """
        if not self.on:
            return None
        if task not in self._scopes:
            # asked before anything is opened: what the server says of itself must not look like the store's fault
            identity = self._identity(session)
            if self._answers is None:
                self._answers = self._probe(session)
            try:
                self._scopes = {task: self._begin(task, identity, self._answers)}
            except StoreError as error:
                self.on = False
                logger.warning("%s. The run continues without the store: a restart sends every text again", error)
                return None
        return self._scopes[task]

    def _begin(self, task: str, identity: str, answers: NDArray[Any]) -> Scope:
        """Opens a task's place, and compares the server's answers with those kept in it.

        A store must never hide a change of the model.
        """
        store = self._open()
        for other in self._scopes.values():
            other.release()
        scope_id = self._scope_id(task)
        self._used.add(scope_id)
        scope = store.scope(scope_id, identity, label=f"{task or 'texts'}, {self._served.servers}")
        result = scope.admit_probe(answers)
        if result.state == "differs":
            logger.warning("%s: the stored answers are not this model's: %s", self._served.name, result.details)
        self._found = len(scope)
        if result.state == "ok" and self._found:
            logger.info("%s: continuing with %d stored answers (%s)", task or "texts", self._found, result.details)
        return scope

    def announce(self, session: Session, name: str, task: Any, split: str, subset: str, texts: int) -> None:
        """Says once for each part of a task, before it is sent, when its vectors will not fit into the store.

        Args:
            session: With the servers.
            name: Of the task, as :meth:`scope` gets it.
            task: What MTEB says of the task, which may be how many texts there are; or None.
            split: Of the task.
            subset: Of the task.
            texts: How many of them are about to be sent; MTEB hands over a corpus in parts.
        """
        scope = self.scope(name, session)
        if scope is None or self._answers is None or (name, split, subset) in self._announced:
            return
        self._announced.add((name, split, subset))
        missing = max(texts, _known_size(task, split, subset)) - self._found
        scope.store.announce(name or "texts", max(0, missing), self._answers.shape[-1])

    def finish(self, tasks: Iterable[str] = ()) -> None:
        """Says that the run is done: what was kept for resuming it is dropped.

        Args:
            tasks: Names of the run's tasks, those included whose results an earlier, unfinished run left.

        Raises:
            StoreError: Something that was kept cannot be removed.
        """
        self._scopes.clear()
        self._announced.clear()
        done = self._used | {self._scope_id(task) for task in tasks}
        self._used = set()
        if not done or self._served.config.store != "resume" or not self.on:
            return
        opened = self._store is None
        store = self._open()
        for scope_id in done:
            store.drop(scope_id)
        if opened:
            self.close()

    def close(self) -> None:
        """Writes what is on its way; what was kept for resuming stays."""
        self._scopes.clear()
        if self._store is not None:
            self._store.close()
            self._store = None

    def _open(self) -> Store:
        if self._store is None:
            given = self._served.config.store
            if given in ("resume", "reuse"):
                self._store = Store.open(mode=given)  # type: ignore[arg-type]
            else:
                self._store = Store.open(Path(given), mode="reuse")
        return self._store

    def _identity(self, session: Session) -> str:
        return make_identity(
            self._served.config.model_name,
            kind=self._kind,
            revision=self._served.config.revision,
            max_tokens=session.limit,
            server_model=json.dumps([session.facts.root, session.facts.max_model_len])
            + fields_key(session.config.extra_body),
        )

    def _scope_id(self, task: str) -> str:
        # nor the first stage ("first") of a cross-encoder: its pairs are in the keys
        settings = {key: value for key, value in self._served.settings.items() if key != "first"}
        run = json.dumps(
            [self._served.config.identity(), settings, self._served.scope, task], sort_keys=True, default=str
        )
        return hashlib.sha256(run.encode()).hexdigest()


def _known_size(task: Any, split: str, subset: str) -> int:
    """Returns how many texts a part of a task has by MTEB's descriptive statistics; 0 where it does not say."""
    known = getattr(task, "descriptive_stats", None) or {}
    part = known.get(split) or {}
    part = (part.get("hf_subset_descriptive_stats") or {}).get(subset) or part
    return int(part.get("num_samples") or 0)


def fields_key(fields: Mapping[str, Any]) -> str:
    """Returns what stands in an entry's key for the further fields of its request; "" for none."""
    return json.dumps(fields, sort_keys=True) if fields else ""


def finish_all() -> None:
    """Says that the run of everything that was evaluated is done, for hosts that do not say of which model."""
    for keeper in list(_LIVE):
        keeper.finish()
