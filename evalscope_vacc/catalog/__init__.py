"""Served models that we know: kind, sizes, limits, instruction rules, and how to serve them.

The rows live in ``models.toml`` beside this file; plugins add theirs with the hook ``register_catalog_entries``. A
configuration takes its defaults from the entry that matches its served name; what it says itself always wins.
"""

from __future__ import annotations

import functools
import importlib
import logging
import sys
from collections.abc import Mapping
from importlib import resources
from typing import Any

from evalscope_vacc.catalog.schema import Entry, Kind, Pooling, ServeSpec, entry_from_mapping
from evalscope_vacc.errors import ConfigError
from evalscope_vacc.names import did_you_mean
from evalscope_vacc.plugins import Plugins, plugins

# the same parser under two names: in the standard library from Python 3.11 on
tomllib: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

logger = logging.getLogger(__name__)

__all__ = [
    "Entry",
    "Kind",
    "Pooling",
    "ServeSpec",
    "entries",
    "entry_from_mapping",
    "find",
    "get",
    "load_entries",
]


def entries() -> tuple[Entry, ...]:
    """Returns every known model: the built-in ones, then those of plugins."""
    return tuple(_by_key(plugins()).values())


@functools.lru_cache(maxsize=1)
def _by_key(found: Plugins) -> Mapping[str, Entry]:
    known = {_key(entry.name): entry for entry in _built_in()}
    for name, (entry, plugin) in found.catalog_entries().items():
        if not isinstance(entry, Entry) or _key(entry.name) != _key(name):
            logger.warning(
                "plugin %s registers %r in the catalog with something that is not an entry of that name", plugin, name
            )
        elif _key(name) in known:
            owner = known[_key(name)].source or "the built-in catalog"
            logger.warning("plugin %s adds the model %r to the catalog, which %s describes", plugin, name, owner)
        else:
            known[_key(name)] = entry.model_copy(update={"source": entry.source or plugin})
    return known


def find(served_name: str) -> Entry | None:
    """Returns the entry that a served model's name means, or None.

    Case does not matter, and neither does the organisation: ``qwen/qwen3-embedding-0.6b``,
    ``vacc/Qwen3-Embedding-0.6B`` and the folder ``/weights/Qwen3-Embedding-0.6B`` (what vLLM calls a model that was
    given no name) are all the same one. The folder names that the hubs' own caches use are understood too.
    """
    known = _by_key(plugins())
    return next((known[key] for key in _keys(served_name) if key in known), None)


def get(name: str) -> Entry:
    """Returns the entry that ``name`` means.

    Raises:
        ConfigError: There is none; the message names the nearest ones.
    """
    entry = find(name)
    if entry is None:
        known = _by_key(plugins())
        names = [entry.name for entry in known.values()]
        hint = did_you_mean(name.rpartition("/")[2], names, "`evalscope-vacc models` lists those that are.", most=3)
        raise ConfigError(f"{name!r} is not in the catalog; {hint}")
    return entry


def load_entries(text: str, *, where: str, source: str = "") -> tuple[Entry, ...]:
    """Reads the ``[[model]]`` tables of a catalog file.

    Args:
        text: The file's content, TOML.
        where: What errors call it.
        source: The plugin's name, "" for the built-in catalog.

    Raises:
        ConfigError: The text is no TOML, an entry is invalid, or a name occurs twice.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not valid TOML: {error}") from None
    rows = data.pop("model", [])
    if data or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"{where}: holds [[model]] tables only, seen {', '.join(data) or 'another kind of `model`'}")
    found: dict[str, Entry] = {}
    for number, row in enumerate(rows, 1):
        entry = entry_from_mapping(row, where=f"{where}, model {number}", source=source)
        if found.setdefault(_key(entry.name), entry) is not entry:
            raise ConfigError(f"{where}, model {number}: {entry.name} is there twice")
    return tuple(found.values())


@functools.cache
def _built_in() -> tuple[Entry, ...]:
    text = resources.files(__name__).joinpath("models.toml").read_text(encoding="utf-8")
    return load_entries(text, where="models.toml")


def _key(name: str) -> str:
    return name.strip().casefold()


def _keys(served_name: str) -> list[str]:
    """Returns what a served name may mean, the likeliest first."""
    parts = [part for part in served_name.replace("\\", "/").split("/") if part.strip()]
    keys = [_key(part) for part in parts[-1:]]
    # Hugging Face's cache: models--org--name/snapshots/<commit>
    keys += [_key(part.rsplit("--", 1)[-1]) for part in reversed(parts) if part.startswith("models--")]
    # ModelScope's cache writes a dot as three underscores
    keys += [key.replace("___", ".") for key in keys if "___" in key]
    return keys or [""]
