"""The words: one catalogue of messages by code, and how numbers are written."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.redact import clean
from evalscope_vacc.results.model import ComparedRow, Reason

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LANGUAGES = ("en", "zh")
MOST_NAMED = 5


@lru_cache(maxsize=1)
def messages() -> Mapping[str, tuple[str, ...]]:
    """Returns the catalogue: code to sentence in each language."""
    sections = tomllib.loads((Path(__file__).parent / "messages.toml").read_text(encoding="utf-8"))
    return {code: tuple(said) for section in sections.values() for code, said in section.items()}


class Words:
    """Says things in one language.

    Args:
        language: "en" or "zh".

    Raises:
        ConfigError: The language is not known.
    """

    def __init__(self, language: str = "en") -> None:
        if language not in LANGUAGES:
            msg = f"--lang {language!r} is not known; give one of {', '.join(LANGUAGES)}"
            raise ConfigError(msg)
        self.language = language
        self._messages = {code: said[LANGUAGES.index(language)] for code, said in messages().items()}

    def __call__(self, code: str, **args: Any) -> str:
        """Returns the sentence of a code, its blanks filled.

        Raises:
            KeyError: There is no such code.
        """
        said = self._messages[code.replace(" ", "_")]
        return said.format(**args) if args else said

    def say(self, reason: Reason | None) -> str:
        """Returns the sentence of a reason; names come from files that anybody may have written, and are cleaned."""
        if reason is None:
            return ""
        args = {name: self._figure(name, value) for name, value in reason.args}
        return clean(self(reason.code, **args), limit=600)

    def _figure(self, name: str, value: Any) -> Any:
        if isinstance(value, tuple):
            return self.some(value)
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


class Notes:
    """Numbers notes, each text once."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def number(self, text: str) -> int:
        """Returns the number of a note."""
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def row_notes(row: ComparedRow, words: Words) -> list[str]:
    """Says everything that a line of the table needs a note for."""
    said = [words.say(reason) for reason in (*row.reasons, *row.notes)]
    if row.interval:
        ends = row.interval
        said.append(
            words("interval", where=where(row), low=points(ends.low), high=points(ends.high), p=ends.p_value,
                  queries=ends.queries)
        )  # fmt: skip
    return [clean(text, limit=600) for text in said if text]


def where(row: ComparedRow) -> str:
    """Names task, split and subset; a subset that is called "default" says nothing."""
    return " · ".join(part for part in (row.task, row.split, row.subset) if part and part != "default")


def percent(value: float | None) -> str:
    """Writes a fraction as a score in points."""
    return "" if value is None else f"{100 * value:.2f}"


def points(fraction: float | None) -> str:
    """Writes a difference in points with its sign; a minus is a minus, not a hyphen."""
    if fraction is None:
        return ""
    rounded = round(100 * fraction, 3) + 0.0  # a difference of 1e-7 is not a minus zero
    return "0.000" if rounded == 0 else f"{rounded:+.3f}".replace("-", "\N{MINUS SIGN}")


def allowed(tolerance: float | None) -> str:
    """Writes a tolerance in points."""
    return "" if tolerance is None else f"±{100 * tolerance:.3g}"


def share(value: float | None) -> str:
    """Writes a share of the reference, never rounded up to a mark that it does not reach."""
    if value is None:
        return ""
    shown = round(100 * value, 2)
    if any(100 * value < limit <= shown for limit in (99.0, 99.9)):
        shown = math.floor(1e4 * value) / 100
    return f"{shown:.2f} %"


def count(number: float | None) -> str:
    """Writes a whole number; one that is not known is left out."""
    return "" if number is None else f"{number:,.0f}"


def many(number: float | None) -> str:
    """Writes a large number in thousands or millions."""
    if number is None:
        return ""
    return (
        f"{number / 1e6:,.1f} M" if number >= 1e6 else f"{number / 1e3:,.0f} k" if number >= 1e4 else f"{number:,.0f}"
    )


def rate(value: float | None) -> str:
    """Writes a rate per second."""
    return "" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def size(count_: float) -> str:
    """Writes a number of bytes."""
    for unit in ("B", "KiB", "MiB"):
        if count_ < 1024:
            return f"{count_:.0f} {unit}" if unit == "B" else f"{count_:.1f} {unit}"
        count_ /= 1024
    return f"{count_:.1f} GiB"
