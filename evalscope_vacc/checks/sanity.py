"""Whether obvious questions find their answers: what a model of random weights must fail.

Random weights turn texts that share words into similar vectors, as a bag of words does, and make all texts alike. Of
questions that share no word with their answers they find one or two in twelve, all-MiniLM-L6-v2 twelve.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalscope_vacc.checks.findings import Finding
from evalscope_vacc.checks.target import Target, cosines
from evalscope_vacc.checks.texts import BY_WORDS, SANITY_EN, SANITY_ZH

_NAMES = {"en": "English", "zh": "Chinese"}
_GOOD = 0.75
# mean cosine between texts about different things: random weights make 0.8 to 1, trained ones up to 0.75 (E5)
_ALIKE = 0.78
_EQUAL = 1e-6

Table = NDArray[np.float64]


@dataclass(frozen=True)
class _Language:
    """Shares of the questions of a language that find their answer, by common words and by meaning alone."""

    code: str
    right: int
    questions: int
    by_words: float
    by_meaning: float

    @property
    def shown(self) -> str:
        return f"{_NAMES[self.code]}: {self.right} of {self.questions}"

    @property
    def good(self) -> bool:
        return min(self.by_words, self.by_meaning) >= _GOOD


def questions() -> Mapping[str, Sequence[tuple[str, str]]]:
    """Questions and answers by language."""
    return {"en": SANITY_EN, "zh": SANITY_ZH}


def judge_vectors(target: Target, asked: Sequence[tuple[str, NDArray[np.float32], NDArray[np.float32]]]) -> Finding:
    """Judges vectors of questions and of their answers, by language."""
    tables = {code: cosines(left, right) for code, left, right in asked}
    documents = np.concatenate([right for _, _, right in asked])
    between = cosines(documents, documents)[~np.eye(len(documents), dtype=bool)]
    return judge(target, tables, alike=float(between.mean()))


def judge(target: Target, tables: Mapping[str, Table], *, alike: float | None = None) -> Finding:
    """Judges similarities or scores, of each language a table (questions, answers) in one order.

    Args:
        target: The server; the catalog may say which languages its model knows.
        tables: By language.
        alike: Mean cosine between texts about different things, where there are vectors.
    """
    if max(float(np.ptp(table)) for table in tables.values()) < _EQUAL:
        return target.finding("sanity.same", value=float(next(iter(tables.values())).flat[0]))
    found = [_language(code, table) for code, table in tables.items()]
    seen = ", ".join(one.shown for one in found)
    spoken = target.entry.languages if target.entry else ()
    judged = [one for one in found if _knows(spoken, one.code)] or found
    if all(one.good for one in judged):
        return target.finding("sanity.ok", seen=seen)
    if not any(one.by_words > 0.5 for one in judged):
        return target.finding("sanity.chance", seen=seen)
    if any(one.by_meaning > 0.5 for one in judged):
        return target.finding("sanity.weak", seen=seen)
    if alike is not None and alike > _ALIKE:
        return target.finding("sanity.random", seen=seen, alike=alike)
    return target.finding("sanity.words", seen=seen)


def _language(code: str, table: Table) -> _Language:
    right = table.argmax(axis=1) == np.arange(len(table))
    return _Language(code, int(right.sum()), len(right), float(right[:BY_WORDS].mean()), float(right[BY_WORDS:].mean()))


def _knows(languages: Iterable[str], code: str) -> bool:
    spoken = set(languages)
    return not spoken or code in spoken or "multilingual" in spoken
