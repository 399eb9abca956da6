"""Keeps secrets out of a page that will be sent around, whoever wrote the files that it is made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from evalscope_vacc.redact import MASK, clean, public_url

_SECRET_NAME = re.compile(r"(?i)(api[_-]?key|secret|password|passwd|authorization|cookie|credential|(^|[_-])token$)")
_REFERENCE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
_HARMLESS = {"", MASK, "EMPTY", "none", "null"}
_HEADERS = {"headers", "default_headers", "extra_headers"}
_ADDRESS = re.compile(r"(?i)^https?://")
MAX_TEXT = 4000
MAX_DEPTH = 12


class Cleaner:
    """Cleans texts, and whole configurations, of what must not be shown.

    Args:
        sources: Configurations; a value that stands under a secret's name in one of them is masked wherever it appears.
    """

    def __init__(self, sources: Iterable[Any] = ()) -> None:
        # a secret of one or two letters would mask half of the page
        self._secrets = tuple({s for source in sources for s in _secrets(source) if len(s) > 3})

    def text(self, text: object, limit: int = MAX_TEXT) -> str:
        """Returns a text without secrets and control characters, at most ``limit`` characters long."""
        shown = str(text)
        if _ADDRESS.match(shown) and len(shown.split()) == 1:
            try:
                shown = public_url(shown)
            except ValueError:  # brackets or a port that are none
                return MASK
        return clean(shown, self._secrets, limit)

    def value(self, value: Any, name: str = "", depth: int = 0) -> Any:
        """Returns plain data of the same shape; what stands under a secret's name, and every header, is masked."""
        if isinstance(value, (Mapping, list, tuple)) and depth >= MAX_DEPTH:
            return "…"
        if isinstance(value, Mapping):
            return {
                self.text(key, 200): MASK
                if name.casefold() in _HEADERS and item
                else self.value(item, str(key), depth + 1)
                for key, item in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self.value(item, name, depth + 1) for item in value]
        if value is None or isinstance(value, (bool, int, float)):
            return MASK if value and _SECRET_NAME.search(name) and not isinstance(value, bool) else value
        return MASK if _is_secret(name, str(value)) else self.text(value)


def _is_secret(name: str, text: str) -> bool:
    plain = text.strip()
    return bool(_SECRET_NAME.search(name)) and plain not in _HARMLESS and not _REFERENCE.fullmatch(plain)


def _secrets(value: Any, name: str = "", depth: int = 0) -> Iterator[str]:
    if depth > MAX_DEPTH:
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            if name.casefold() in _HEADERS and isinstance(item, str):
                yield item
            yield from _secrets(item, str(key), depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _secrets(item, name, depth + 1)
    elif isinstance(value, str) and _is_secret(name, value) and value.strip().strip("*"):
        yield value.strip()
