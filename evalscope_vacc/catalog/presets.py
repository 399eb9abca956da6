"""The tasks of each preset: one ordered list per model family, read from ``presets.toml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from evalscope_vacc.catalog import find
from evalscope_vacc.files import read_toml

FULL = "full"


@dataclass(frozen=True)
class Family:
    """The tasks that are evaluated of models that have published scores of the same ones.

    Attributes:
        name: Of the family.
        models: ``org/name`` on Hugging Face.
        tasks: Whole tasks, in the order in which larger presets take them up.
        full: Benchmarks that the preset "full" has beside the tasks.
        first_stage: Whose candidates rerankers were given for their scores; "" for encoders.
    """

    name: str
    models: tuple[str, ...]
    tasks: tuple[str, ...]
    full: tuple[str, ...] = ()
    first_stage: str = ""


@lru_cache(maxsize=1)
def _tables() -> Mapping[str, Any]:
    return MappingProxyType(read_toml(Path(__file__).with_suffix(".toml")))


def limits() -> Mapping[str, int]:
    """Returns preset to the most texts that it may have; "full" has no limit."""
    return dict(_tables()["presets"])


def families() -> tuple[Family, ...]:
    """Returns every family."""
    tables = {name: table for name, table in _tables().items() if name != "presets"}
    return tuple(
        Family(
            name,
            tuple(table["models"]),
            tuple(table["tasks"]),
            tuple(table.get("full", ())),
            table.get("first_stage", ""),
        )
        for name, table in tables.items()
    )


def family_of(model: str) -> Family | None:
    """Returns the family of a model by its name on Hugging Face or as it is served, or None."""
    entry = find(model)
    names = {model.casefold(), entry.huggingface.casefold() if entry else ""}
    return next((family for family in families() if names & {name.casefold() for name in family.models}), None)
