"""Whether obvious questions find their answers: what a model of random weights must fail.

Random weights turn texts that share words into similar vectors, as a bag of words does, and make all texts alike. Of
questions that share no word with their answers they find one or two in twelve, all-MiniLM-L6-v2 twelve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evalscope_vacc.checks.findings import Finding
from evalscope_vacc.checks.target import Target
from evalscope_vacc.checks.texts import BY_WORDS, SANITY_EN, SANITY_ZH
from evalscope_vacc.messages import Reason

QUESTIONS: Mapping[str, Sequence[tuple[str, str]]] = {"en": SANITY_EN, "zh": SANITY_ZH}
_GOOD = 0.75
# mean cosine between texts about different things: random weights make 0.8 to 1, trained ones up to 0.75 (E5)
_ALIKE = 0.78
_EQUAL = 1e-6


def judge(target: Target, tables: Mapping[str, NDArray[np.float64]], *, alike: float | None = None) -> Finding:
    """Judges similarities or scores, of each language shape (questions, answers), both in one order.

    The catalog may say which languages the model knows. ``alike`` is the mean cosine between texts about different things,
    where there are vectors.
    """
    if max(float(np.ptp(table)) for table in tables.values()) < _EQUAL:
        return target.finding("sanity.same", value=float(next(iter(tables.values())).flat[0]))
    right = {code: table.argmax(axis=1) == np.arange(len(table)) for code, table in tables.items()}
    found = tuple(Reason.of(f"found_{code}", right=int(r.sum()), questions=len(r)) for code, r in right.items())
    spoken = set(target.entry.languages) if target.entry else set()
    known = [code for code in right if not spoken or spoken & {code, "multilingual"}] or list(right)
    # the shares that are found by common words, and by meaning alone
    by_words = [float(right[code][:BY_WORDS].mean()) for code in known]
    by_meaning = [float(right[code][BY_WORDS:].mean()) for code in known]
    if min(*by_words, *by_meaning) >= _GOOD:
        return target.finding("sanity.ok", seen=found)
    if max(by_words) <= 0.5:
        return target.finding("sanity.chance", seen=found)
    if max(by_meaning) > 0.5:
        return target.finding("sanity.weak", seen=found)
    if alike is not None and alike > _ALIKE:
        return target.finding("sanity.random", seen=found, alike=alike)
    return target.finding("sanity.words", seen=found)
