"""The plugin manager: loads the entry points of the group ``evalscope_vacc``, each on its own.

pluggy's own loader stops at the first entry point that raises; one broken plugin would then take the model type away
from everybody. Here it is reported and left out, with everything that it adds.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from evalscope_vacc import hookspecs
from evalscope_vacc.errors import ConfigError, PluginError
from evalscope_vacc.names import did_you_mean
from evalscope_vacc.redact import clean

logger = logging.getLogger(__name__)

BLOCK_VARIABLE = "EVALSCOPE_VACC_BLOCK_PLUGINS"
HOOKS = tuple(name for name in vars(hookspecs) if name.startswith("register_"))


class Plugins:
    """A typed face of the plugin manager. Every hook is called once, when the plugins are loaded.

    Attributes:
        broken: Name of each entry point that could not be used, and why.
    """

    def __init__(self, found: list[EntryPoint]) -> None:
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.broken: dict[str, str] = {}
        # hook -> name -> what is registered under it, and the plugin that does
        self._added: dict[str, dict[str, tuple[Any, str]]] = {hook: {} for hook in HOOKS}
        blocked = {name.strip() for name in os.environ.get(BLOCK_VARIABLE, "").split(",") if name.strip()}
        # our own first, so that a plugin that takes one of its names is the one that is told
        for entry in sorted(found, key=lambda e: (e.value != "evalscope_vacc.builtin", e.name)):
            if entry.name in blocked:
                continue
            try:
                self.manager.register(entry.load(), name=entry.name)
                self.manager.check_pending()
                added = {hook: self._call(hook, entry.name) for hook in HOOKS}
            except Exception as error:  # noqa: BLE001 -- whatever a stranger's plugin raises
                self._leave_out(entry.name, error)
            else:
                for hook, things in added.items():
                    self._added[hook].update(things)

    def _call(self, hook: str, plugin: str) -> dict[str, tuple[Any, str]]:
        """Calls one hook of one plugin and returns what it registers."""
        own: dict[str, tuple[Any, str]] = {}

        def register(name: str, thing: Any) -> None:
            if name in own or name in self._added[hook]:
                raise PluginError(f"{hook}: the name {name!r} is registered twice")
            own[name] = (thing, plugin)

        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            if implementation.plugin_name == plugin:
                implementation.function(*(register for _ in implementation.argnames))
        return own

    def _leave_out(self, name: str, error: Exception) -> None:
        reason = clean(f"{type(error).__name__}: {error}", limit=500)
        self.broken[name] = reason
        if self.manager.has_plugin(name):
            self.manager.unregister(name=name)
        logger.warning("plugin %s of the group evalscope_vacc is left out: %s", name, reason)

    def _things(self, hook: str) -> dict[str, Any]:
        return {name: thing for name, (thing, _) in self._added[hook].items()}

    def model_types(self) -> Mapping[str, Any]:
        """Name to function that builds a model from its entry."""
        return self._things("register_model_types")

    def model_type(self, kind: str) -> Callable[[Mapping[str, Any]], Any]:
        """Returns the function that builds models of one type from their entry.

        Raises:
            ConfigError: No plugin provides it; the nearest type is named, and which plugins are left out.
        """
        kinds = self.model_types()
        if kind in kinds:
            return kinds[kind]  # type: ignore[no-any-return]
        hint = did_you_mean(kind, kinds, f"known: {', '.join(sorted(kinds)) or 'none'}")
        broken = "".join(f"; plugin {name} is left out: {why}" for name, why in self.broken.items())
        raise ConfigError(f"model_type {kind!r} is provided by no plugin: {hint}{broken}")

    def instruction_profiles(self) -> Mapping[str, Any]:
        """Name to factory, of the profiles that plugins add."""
        return self._things("register_instruction_profiles")

    def rerank_templates(self) -> Mapping[str, Any]:
        """Name to template, of those that plugins add."""
        return self._things("register_rerank_templates")

    def dialects(self) -> Mapping[str, Any]:
        """Name to dialect, of those that plugins add."""
        return self._things("register_dialects")

    def catalog_entries(self) -> Mapping[str, tuple[Any, str]]:
        """Name to entry and plugin, of those that plugins add to the catalog."""
        return dict(self._added["register_catalog_entries"])


@lru_cache(maxsize=1)
def plugins() -> Plugins:
    """Returns the plugins of this environment, found once per process."""
    return Plugins(list(entry_points(group=hookspecs.PROJECT)))
