"""Every sentence that a person reads of checks and results: a code and its figures, and their words in English and Chinese.

The catalogue stands in ``view/messages.toml``; checks say theirs in logs and errors, too, so it is read from down here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.files import read_toml
from evalscope_vacc.redact import clean

LANGUAGES = ("en", "zh")
MOST_NAMED = 5


@dataclass(frozen=True)
class Reason:
    """Something to be said: a code of the catalogue, and the figures that its sentence needs.

    A figure may be a reason itself, or several: they are said in the same language.
    """

    code: str
    args: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, code: str, **args: Any) -> Reason:
        """Makes one of keywords."""
        return cls(code, tuple(args.items()))

    def __lt__(self, other: Reason) -> bool:
        return repr(self) < repr(other)


@lru_cache(maxsize=1)
def messages() -> Mapping[str, tuple[str, ...]]:
    """Returns the catalogue: code to sentence in each language."""
    return {code: tuple(said) for code, said in _leaves() if isinstance(said, list)}


@lru_cache(maxsize=1)
def states() -> Mapping[str, str]:
    """Returns how bad each finding is, by its code, where it is bad: "warning" or "wrong"."""
    return {code.removesuffix(".state"): said for code, said in _leaves() if isinstance(said, str)}


@lru_cache(maxsize=1)
def _leaves() -> tuple[tuple[str, Any], ...]:
    sections = read_toml(Path(__file__).parent / "view" / "messages.toml")
    return tuple(leaf for section in sections.values() for leaf in _below(section, ""))


def _below(table: Mapping[str, Any], before: str) -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _below(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


class Words:
    """Says things in one language.

    Args:
        language: "en" or "zh".

    Raises:
        ConfigError: The language is not known.
    """

    def __init__(self, language: str = "en") -> None:
        if language not in LANGUAGES:
            raise ConfigError(f"--lang {language!r} is not known; give one of {', '.join(LANGUAGES)}")
        self.language = language
        self._messages = {code: said[LANGUAGES.index(language)] for code, said in messages().items()}

    def __call__(self, code: str, **args: Any) -> str:
        """Returns the sentence of a code, its blanks filled.

        Raises:
            KeyError: There is no such code.
        """
        said = self._messages[code.replace(" ", "_")]
        return said.format(**{name: self._figure(name, value) for name, value in args.items()}) if args else said

    def __contains__(self, code: str) -> bool:
        return code in self._messages

    def say(self, reason: Reason | None) -> str:
        """Returns the sentence of a reason; names come from files that anybody may have written, and are cleaned."""
        return "" if reason is None else clean(self(reason.code, **dict(reason.args)), limit=600)

    def _figure(self, name: str, value: Any) -> Any:
        if isinstance(value, Reason):
            return self(value.code, **dict(value.args))
        if isinstance(value, tuple):
            return self.some(self._figure("", part) for part in value)
        if name == "setting":
            return self._messages.get(f"setting_{value}", value)
        return value

    def some(self, names: Iterable[str], most: int = MOST_NAMED) -> str:
        """Lists names, and how many more there are."""
        listed = list(names)
        text = self("comma").join(listed[:most])
        return text if len(listed) <= most else self("and_more", list=text, count=len(listed) - most)

    def duration(self, seconds: float | None) -> str:
        """Writes a duration with the two units that matter."""
        if seconds is None:
            return ""
        whole = round(seconds)
        days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
        if whole < 60:
            return self("in_seconds", seconds=f"{seconds:.0f}" if seconds >= 10 or not seconds else f"{seconds:.1f}")
        if days:
            return self("in_days", days=days, hours=hours)
        if hours:
            return self("in_hours", hours=hours, minutes=minutes)
        return self("in_minutes", minutes=minutes, seconds=whole % 60)


ENGLISH = Words()
"""What logs and errors are written in."""
