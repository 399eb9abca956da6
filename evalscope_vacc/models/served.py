"""What is known of a served model without its server: its name, its text rules, its settings, its evidence."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from evalscope_vacc.catalog import Entry
from evalscope_vacc.config import ModelConfig
from evalscope_vacc.errors import ConfigError
from evalscope_vacc.evidence import Evidence, new_run_folder
from evalscope_vacc.models.meta import build_meta, experiment_kwargs, result_name
from evalscope_vacc.plugins import plugins
from evalscope_vacc.text.instructions import TextRules, make_rules
from evalscope_vacc.wire.dialects import DIALECTS, Dialect, get_dialect

_OWN_FIELDS = (
    "experiment_kwargs", "revision", "loader_kwargs", "model_type", "is_cross_encoder", "max_tokens", "embed_dim",
    "use_instructions",
)  # fmt: skip


class Served:
    """One served model as it is configured; nothing here asks the server.

    Args:
        config: The complete configuration.
        folder: Where the evidence goes; default a new folder under ``$VACC_HOME``.
        scope: Names the unfinished run for the store, so that a run started again finds its own entries.

    Attributes:
        rules: What is put before a text.
        dialect: The protocol of the server, as configured; for ``auto`` the guess if nothing is recognised.
        families: Every dialect by name, for recognition.
        settings: What changes the scores and is part of the result's name.
        record: What the evidence says of the server; empty until a session was opened.
        checks: Returns whether the short check is made here, and by nobody else: of several worker processes one makes it.

    Raises:
        ConfigError: An unknown profile or dialect, or a missing dictionary.
    """

    def __init__(self, config: ModelConfig, *, folder: Path | None = None, scope: str = "") -> None:
        self.config = config
        self.scope = scope
        self.record: dict[str, Any] = {}
        self.checks: Callable[[], bool] = lambda: True
        self.settings: dict[str, Any] = experiment_kwargs(config)
        self.rules: TextRules = make_rules(config, extra=plugins().instruction_profiles())
        self.dialect: Dialect = get_dialect(config.dialect, extra=plugins().dialects())
        self.families = {name: make() for name, make in {**DIALECTS, **plugins().dialects()}.items()}
        self._folder = folder
        self._meta: Any = None

    @property
    def name(self) -> str:
        """The name that results, evidence and messages use."""
        return result_name(self.config.model_name)

    @property
    def servers(self) -> str:
        """The addresses as they may be printed."""
        return ", ".join(self.config.servers)

    def known_as(self, entry: Entry, why: str) -> None:
        """Takes over the rules of a catalog entry that only the server tells, for whatever nobody wrote.

        The result's name stays: what the server said goes to the evidence.

        Raises:
            ConfigError: The rules cannot be made (a missing dictionary).
        """
        self.config = self.config.known_as(entry, why)
        try:
            self.rules = make_rules(self.config, extra=plugins().instruction_profiles())
        except ConfigError as error:
            raise ConfigError(f"model {self.config.model_name!r} is {entry.name} ({why}): {error}") from None

    def settle(self, **settings: Any) -> None:
        """Adds what only the host knows (first stage, top_k) to the result's name."""
        self.settings = experiment_kwargs(self.config, **settings)
        self._meta = None

    @property
    def mteb_model_meta(self) -> Any:
        """MTEB's ``ModelMeta`` of this model."""
        if self._meta is None:
            self._meta = build_meta(self.config, settings=self.settings)
        return self._meta

    @mteb_model_meta.setter
    def mteb_model_meta(self, meta: Any) -> None:
        # MTEB puts every keyword of get_model() here, API keys included, and writes it to disk: keep our own. What it
        # made the meta of was the name alone: the keywords may have made a cross-encoder of it
        own = build_meta(self.config, settings=self.settings)
        update = {name: getattr(own, name) for name in _OWN_FIELDS if name in type(meta).model_fields}
        self._meta = meta.model_copy(update=update)

    @cached_property
    def evidence(self) -> Evidence:
        """The evidence of this run; its folder is made when something is written."""
        return Evidence(self._folder or new_run_folder())

    def record_server(self, **facts: Any) -> None:
        """Adds to what the evidence says of the server."""
        self.record.update(facts)
        self.evidence.server(self.name, self.record)
