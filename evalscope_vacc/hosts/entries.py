"""The entries of ``models:``: which are ours, what the user wrote in them, and the models built from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evalscope_vacc.config import MODEL_TYPE, configure, shown


def is_ours(entry: Any) -> bool:
    """Whether an entry names a model type of a plugin."""
    return bool(entry.get("model_type") if isinstance(entry, Mapping) else getattr(entry, "model_type", None))


def any_ours(entries: Any) -> bool:
    """Whether one of the entries names a model type of a plugin; a lone entry may stand without its list."""
    return any(map(is_ours, entries if isinstance(entries, (list, tuple)) else [entries]))


def all_ours(entries: Any) -> bool:
    """Whether every entry names a model type of a plugin."""
    return all(map(is_ours, entries))


def written(entry: Any) -> dict[str, Any]:
    """Returns what the user wrote of an entry: EvalScope's own defaults are not the user's word."""
    if isinstance(entry, Mapping):
        return dict(entry)
    return {name: getattr(entry, name) for name in entry.model_fields_set}


def without_secrets(entry: Any) -> Any:
    """Returns an entry as it may be written to disk; one that is not ours as it is."""
    return {name: shown(name, value) for name, value in entry.items()} if is_ours(entry) else entry


def load(entry: Any, folder: Path) -> Any:
    """Builds the model of an entry that is ours; what it leaves as evidence goes to ``folder``.

    Raises:
        ConfigError: No plugin provides the model type, or a key or value cannot be used.
    """
    from evalscope_vacc.models import from_config, load_model

    keys = written(entry)
    if keys.get("model_type") != MODEL_TYPE:
        return load_model(keys)
    return from_config(configure(keys), folder=folder)
