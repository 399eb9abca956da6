"""How numbers are written, and the notes of a table; the words come from the catalogue of messages."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

from evalscope_vacc.messages import Words, messages
from evalscope_vacc.redact import clean
from evalscope_vacc.results.model import ComparedRow

__all__ = ["Words", "messages"]


def numbering() -> dict[str, int]:
    """Returns a mapping that gives notes their numbers, from 1 on, each text once."""
    return defaultdict(itertools.count(1).__next__)


def row_notes(row: ComparedRow, words: Words) -> list[str]:
    """Says everything that a line of the table needs a note for."""
    said = [words.say(reason) for reason in (*row.reasons, *row.notes)]
    if row.interval:
        ends = row.interval
        low, high = points(ends.low), points(ends.high)
        said.append(words("interval", where=where(row), low=low, high=high, p=ends.p_value, queries=ends.queries))
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


def many(number: float) -> str:
    """Writes a large number in thousands or millions."""
    if number >= 1e6:
        return f"{number / 1e6:,.1f} M"
    return f"{number / 1e3:,.0f} k" if number >= 1e4 else f"{number:,.0f}"


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
