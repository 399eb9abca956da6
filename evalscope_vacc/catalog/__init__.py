"""Served models that we know: kind, sizes, limits, instruction rules, and how to serve them.

The rows live in ``models.toml`` beside this file; plugins add theirs with :func:`register`. A configuration takes its
defaults from the entry whose name its served name matches, and always wins over it.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import sys
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

from evalscope_vacc.catalog.schema import Entry, Kind, Pooling, ServeSpec, entry_from_mapping
from evalscope_vacc.errors import ConfigError, PluginError

# the same parser under two names: in the standard library from Python 3.11 on
tomllib: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

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
    "register",
    "unregister",
]

_added: dict[str, Entry] = {}


def entries(extra: Iterable[Entry] = ()) -> tuple[Entry, ...]:
    """Returns every known model: the built-in ones, then the registered ones, then ``extra``."""
    return (*_built_in(), *_added.values(), *extra)


def find(served_name: str, extra: Iterable[Entry] = ()) -> Entry | None:
    """Returns the entry that a served model's name means, or None.

    Case does not matter, and neither does the organisation: ``qwen/qwen3-embedding-0.6b``,
    ``vacc/Qwen3-Embedding-0.6B`` and the folder ``/weights/Qwen3-Embedding-0.6B`` (what vLLM calls a model that was
    given no name) are all the same one. The folder names that the hubs' own caches use are understood too.
    """
    wanted = _keys(served_name)
    by_key = {_key(entry.name): entry for entry in reversed(entries(extra))}
    return next((by_key[key] for key in wanted if key in by_key), None)


def get(name: str, extra: Iterable[Entry] = ()) -> Entry:
    """Returns the entry that ``name`` means.

    Raises:
        ConfigError: There is none; the message names the nearest ones.
    """
    extra = tuple(extra)
    entry = find(name, extra)
    if entry is None:
        known = {_key(e.name): e.name for e in entries(extra)}
        near = [known[k] for k in difflib.get_close_matches(_keys(name)[0] if name else "", known, 3, 0.5)]
        hint = f"did you mean {' or '.join(near)}?" if near else "`evalscope-vacc models` lists those that are."
        raise ConfigError(f"{name!r} is not in the catalog; {hint}")
    return entry


def register(entry: Entry | Mapping[str, Any], *, source: str = "plugin") -> Entry:
    """Adds a model, as a plugin does.

    Args:
        entry: An entry, or a mapping with its keys.
        source: Who adds it; named in errors and shown by ``evalscope-vacc models NAME``.

    Returns:
        The entry as it was added. Adding an equal one again changes nothing.

    Raises:
        ConfigError: The mapping is no valid entry; the message names entry and key.
        PluginError: The name is taken by a different entry.
    """
    if not isinstance(entry, Entry):
        entry = entry_from_mapping(entry, where=source, source=source)
    key = _key(entry.name)
    taken = next((e for e in entries() if _key(e.name) == key), None)
    if taken is not None and taken != entry:
        owner = taken.source or "the built-in catalog"
        raise PluginError(f"{source} adds the model {entry.name!r} to the catalog, which {owner} already describes")
    if taken is None:
        _added[key] = entry
    return entry


def unregister(name: str) -> None:
    """Takes a registered model out again; built-in ones stay. An unknown name changes nothing."""
    _added.pop(_key(name), None)


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
        raise ConfigError(f"{where}: no valid TOML: {error}") from None
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
