"""The words of findings, by their codes; they stand in ``words.toml`` beside this file."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

# the same parser under two names: in the standard library from Python 3.11 on
tomllib: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

State = Literal["ok", "warning", "wrong"]


class Words(NamedTuple):
    """A finding's state, and what is said: what was seen, what follows for scores, what to do; with ``{}`` for figures."""

    state: State
    seen: str
    meaning: str = ""
    action: str = ""


def _words(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Words]:
    found: dict[str, Words] = {}
    for check, table in tables.items():
        found |= {f"{check}.{name}": Words(**words) for name, words in table.items() if name != "title"}
        # a request that was refused for a reason of the server's own, whatever it was to answer
        found[f"{check}.request"] = Words(
            "wrong", "{error}", "a run would be refused in the same way", "see the server's words"
        )
    return found


_TABLES: dict[str, Any] = tomllib.loads(
    (resources.files("evalscope_vacc.checks") / "words.toml").read_text(encoding="utf-8")
)

SIGNS: Mapping[str, str] = MappingProxyType(_TABLES.pop("signs"))
"""Of parity: what exceeds a threshold, and what the differences look like."""

# docs/checks.md lists each of these with its test; a test holds the two together
CHECKS: Mapping[str, str] = MappingProxyType({check: table["title"] for check, table in _TABLES.items()})
"""The questions, by their short names."""

WORDS: Mapping[str, Words] = MappingProxyType(_words(_TABLES))
"""The words of each finding, by its code."""
