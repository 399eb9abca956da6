"""What MTEB, EvalScope and our own hosts expect of both kinds of model."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from evalscope_vacc.config import DEFAULT_BATCH, ModelConfig, configure
from evalscope_vacc.models.keeping import Keeper
from evalscope_vacc.models.served import Served
from evalscope_vacc.models.session import Session, open_session
from evalscope_vacc.redact import clean

if TYPE_CHECKING:
    from typing_extensions import Self


class VaccModel(ABC):
    """One served model, of which the hosts see the protocol of its kind.

    Args:
        config: The complete configuration; None = made from ``given``, the keys that were written.
        folder: Where the evidence goes; default a new folder under ``$VACC_HOME``.
        scope: Names the unfinished run for the store.

    Attributes:
        served: The model as it is configured.
    """

    _keeps: ClassVar[Literal["embedding", "score"]]

    def __init__(self, config: ModelConfig | None, folder: Path | None, scope: str, **given: Any) -> None:
        if config is None:
            where = f"{type(self).__name__}({given['model_name']!r})"
            config = configure({key: value for key, value in given.items() if value is not None}, where=where)
        self._check_kind(config)
        self.served = Served(config, folder=folder, scope=scope)
        self._keeper = Keeper(self.served, self._keeps, self._probe)
        self._session: Session | None = None
        self._opening = threading.Lock()

    @classmethod
    def from_config(cls, config: ModelConfig, *, folder: Path | None = None, scope: str = "") -> Self:
        """Builds the model from a complete configuration; the evidence goes to ``folder``."""
        return cls(config.model_name, config=config, folder=folder, scope=scope)  # type: ignore[misc, arg-type]

    @abstractmethod
    def _check_kind(self, config: ModelConfig) -> None:
        """Refuses a configuration of the other kind of model."""

    @abstractmethod
    def _probe(self, session: Session) -> NDArray[Any]:
        """Asks for the store's fixed texts or pairs."""

    def open(self) -> Session:
        """Asks the servers what they are, the first time; :meth:`close` ends the session.

        Raises:
            ServerError: A server cannot be reached, refuses the key, or does not serve the model.
            ConfigError: The servers are not alike, or the template would be applied on both sides.
        """
        with self._opening:
            if self._session is None:
                self._session = open_session(self.served)
            return self._session

    def close(self) -> None:
        """Closes the connections and the store; what was stored for resuming stays."""
        self._keeper.close()
        if self._session is not None:
            self._session.close()
            self._session = None

    def finish(self, tasks: Iterable[str] = ()) -> None:
        """Says that the run is done: what was stored for resuming it is dropped.

        Args:
            tasks: Names of its tasks, those included that this model had not to do again.
        """
        self._keeper.finish(tasks)

    @property
    def mteb_model_meta(self) -> Any:
        """MTEB's ``ModelMeta``; what is set is cleaned of addresses and keys first."""
        return self.served.mteb_model_meta

    @mteb_model_meta.setter
    def mteb_model_meta(self, meta: Any) -> None:
        self.served.mteb_model_meta = meta

    def _how(self, encode_kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Batch size and progress bar: the model's entry decides, else MTEB's ``encode_kwargs``."""
        config = self.served.config
        return {
            "batch_size": config.batch_size or encode_kwargs.get("batch_size") or DEFAULT_BATCH,
            "shown": bool(encode_kwargs.get("show_progress_bar", True)) and config.show_progress_bar,
        }

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError(
            "a served model holds connections and a key and cannot be pickled; create it in the other process"
        )


class Table:
    """Answers by index, in memory that grows as it must.

    Args:
        expected: Answers that will come at most, or None where that is not known.

    Attributes:
        filled: Answers that have come.
    """

    def __init__(self, expected: int | None) -> None:
        self.filled = 0
        self._expected = expected or 0
        self._rows: NDArray[np.float32] | None = None

    def put(self, indices: NDArray[np.intp], values: NDArray[Any]) -> None:
        """Keeps answers: ``values[i]`` (a number or a vector) belongs to ``indices[i]``; each index comes once."""
        if not len(indices):
            return
        needed = int(indices.max()) + 1
        if self._rows is None or needed > len(self._rows):
            before = self._rows
            size = max(needed, self._expected, 0 if before is None else 2 * len(before))
            self._rows = np.empty((size, *values.shape[1:]), np.float32)
            if before is not None:
                self._rows[: len(before)] = before
        self._rows[indices] = values
        self.filled += len(indices)

    def rows(self) -> NDArray[np.float32]:
        """Returns the answers in the order of their indices, shape (filled,) or (filled, dimensions)."""
        return np.empty(0, np.float32) if self._rows is None else self._rows[: self.filled]


def quote(text: str) -> str:
    """A text as it may stand in a message."""
    return repr(clean(text, limit=80))
