"""What MTEB, EvalScope and our own hosts expect of both kinds of model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from numpy.typing import NDArray

from evalscope_vacc.config import ModelConfig, configure
from evalscope_vacc.models.keeping import Keeper
from evalscope_vacc.models.served import Served

if TYPE_CHECKING:
    from typing_extensions import Self

DEFAULT_BATCH = 32


class VaccModel(ABC):
    """One served model, of which the hosts see the protocol of its kind."""

    _keeps: ClassVar[Literal["embedding", "score"]]

    @classmethod
    def from_config(cls, config: ModelConfig, *, folder: Path | None = None, scope: str = "") -> Self:
        """Builds the model from a complete configuration; the evidence goes to ``folder``."""
        model = cls.__new__(cls)
        model._setup(config, folder=folder, scope=scope)  # noqa: SLF001 -- its own
        return model

    def _configure(self, **given: Any) -> None:
        """Sets the model up from the keywords of its constructor."""
        where = f"{type(self).__name__}({given['model_name']!r})"
        self._setup(configure({key: value for key, value in given.items() if value is not None}, where=where))

    def _setup(self, config: ModelConfig, *, folder: Path | None = None, scope: str = "") -> None:
        self.served = Served(config, folder=folder, scope=scope)
        self._keeper = Keeper(self.served, self._keeps, self._probe)

    @abstractmethod
    def _probe(self) -> NDArray[Any]:
        """Asks for the store's fixed texts or pairs."""

    @property
    def mteb_model_meta(self) -> Any:
        """MTEB's ``ModelMeta``; what is set is cleaned of addresses and keys first."""
        return self.served.mteb_model_meta

    @mteb_model_meta.setter
    def mteb_model_meta(self, meta: Any) -> None:
        self.served.mteb_model_meta = meta

    def finish(self, tasks: Iterable[str] = ()) -> None:
        """Says that the run is done: what was stored for resuming it is dropped.

        Args:
            tasks: Names of its tasks, those included that this model had not to do again.
        """
        self._keeper.finish(tasks)

    def close(self, *, sync: bool = True) -> None:
        """Closes the connections and the store; what was stored for resuming stays.

        Args:
            sync: Whether the store is forced to the disk, too, against a failure of the machine; that takes a moment.
        """
        self._keeper.close(sync=sync)
        self.served.close()

    def _how(self, encode_kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Batch size and progress bar: the model's entry decides, else MTEB's ``encode_kwargs``."""
        config = self.served.config
        return {
            "batch_size": config.batch_size or encode_kwargs.get("batch_size") or DEFAULT_BATCH,
            "shown": bool(encode_kwargs.get("show_progress_bar", True)) and config.show_progress_bar,
        }
