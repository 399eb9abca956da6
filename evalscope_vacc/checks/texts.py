"""The texts that checks send; they stand in ``texts.toml``, which says what each of them is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evalscope_vacc.files import read_toml

_TEXTS: dict[str, Any] = read_toml(Path(__file__).with_suffix(".toml"))

SHORT_EN: str = _TEXTS["short_en"]
SHORT_ZH: str = _TEXTS["short_zh"]
LONG_1, LONG_2 = (_TEXTS["long_head"] + end for end in _TEXTS["long_ends"])
CUT_SHORT: str = _TEXTS["cut_short"]
CUT_LONG: str = CUT_SHORT + _TEXTS["cut_rest"]
POOL: tuple[str, ...] = (LONG_1, SHORT_EN, SHORT_ZH, LONG_2, *_TEXTS["pool"])
STRANGE: tuple[str, ...] = tuple(_TEXTS["strange"])
SENTENCES: dict[str, list[str]] = _TEXTS["sentences"]

BY_WORDS = 5
SANITY_EN, SANITY_ZH = (tuple((q, a) for q, a in _TEXTS["questions"][code]) for code in ("en", "zh"))
"""Questions and their answers; the first :data:`BY_WORDS` share words with them."""

PREFLIGHT_TEXTS: tuple[str, ...] = (*SANITY_EN[0], *SANITY_ZH[0], LONG_1)
"""Everything that the short form sends, as it stands: to an encoder as texts, to a cross-encoder as queries and documents."""


def numbered(number: int, kind: str = "text") -> str:
    """A text of some forty tokens that begins unlike every other one, so that no cache helps to answer it."""
    return (
        f"{number * 7919 % 1000} crates, {kind} {number}: the inventory of this shelf lists seeds, string, two lanterns "
        f"and a box of {number + 3} candles, counted twice before the store was closed for the winter."
    )


def longer_than(tokens: int) -> str:
    """A text that has more than ``tokens`` tokens in every usual tokenizer: as many words, and a word is one or more."""
    words = LONG_1.split()
    repeated = words * (tokens // len(words) + 2)
    return " ".join(repeated[: tokens + 64])


def of_words(count: int, *, shift: int = 0) -> list[str]:
    """Words of plain English, about five tokens to four words; another ``shift`` gives other words at every place."""
    words = (LONG_1 + _TEXTS["long_ends"][1]).split()
    return [words[(shift + place) % len(words)] for place in range(count)]
