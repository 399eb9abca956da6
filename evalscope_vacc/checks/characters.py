"""Whether characters are lost or replaced before the model: two texts have different vectors exactly where their tokens differ.

What stands before a model (a gateway, a cleaning step of a serving framework) may take characters away or replace them. The
texts then still have vectors, and scores that look right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from evalscope_vacc.checks.findings import Finding
from evalscope_vacc.checks.sameness import IDENTICAL
from evalscope_vacc.checks.target import REFUSED, Got, Target, cosines
from evalscope_vacc.checks.texts import CHARACTERS
from evalscope_vacc.errors import EngineDeadError, ServerFaultError
from evalscope_vacc.messages import Reason
from evalscope_vacc.text.counters import LocalTokenizer

# has no character that anything takes away
_PLAIN = "one lamp stands here"
# sentence-transformers lower-cases where sentence_bert_config.json says so, whatever the tokenizer is
_FOLDED = ("capitals",)


Ids = Callable[[str], tuple[int, ...]]
"""From a text to the numbers of its tokens."""


@dataclass
class _Seen:
    """The kinds of characters in which a server's answers and the tokens do not fit together."""

    told_apart: int = 0
    lost: list[Reason] = field(default_factory=list)
    changed: list[Reason] = field(default_factory=list)
    counted: list[Reason] = field(default_factory=list)
    gap: float = 0.0  # largest difference of vectors whose tokens are the same


def check_characters(target: Target) -> Iterator[Finding]:
    """Compares pairs of texts that differ in one kind of character alone.

    A kind that the tokenizer does not tell apart must not change the vector; another one must. With a tokenizer of the user's,
    which may be a similar model's, what is wrong is a warning.
    """
    seen = None
    if target.alone is not None and target.counts:
        try:
            seen = _compared(target, _ids(target))
        except EngineDeadError:
            raise
        except (*REFUSED, ServerFaultError):
            pass  # no tokens, or no answers to compare them with
    if seen is None:
        yield target.finding("characters.untold")
        return
    wrong = {
        "characters.lost": seen.lost,
        "characters.changed": seen.changed,
        "characters.counted": seen.counted,
    }
    for code, kinds in wrong.items():
        if kinds:
            found = target.finding(code, kinds=tuple(kinds), gap=seen.gap)
            yield replace(found, softened=bool(target.config.tokenizer))
    if not any(wrong.values()):
        yield target.finding("characters.ok", count=len(CHARACTERS), apart=seen.told_apart)


def _compared(target: Target, ids: Ids) -> _Seen | None:
    """Compares every pair; None where the tokens that are known are not those of the model."""
    # some servers list as many numbers as there are tokens, whatever the tokens; others count something else
    turned = " ".join(reversed(_PLAIN.split()))
    if ids(_PLAIN) == ids(turned) or not _fits(target.embed([_PLAIN]), ids(_PLAIN)):
        return None
    seen = _Seen()
    for name, pair in CHARACTERS.items():
        kind = Reason(f"characters_{name}")
        first, second = map(ids, pair)
        got, other = (target.embed([text]) for text in pair)
        apart = float(np.maximum(1 - cosines(got.values, other.values)[0, 0], 0.0))
        seen.told_apart += first != second
        if first == second and apart > target.tolerance.allowed:
            seen.changed.append(kind)
            seen.gap = max(seen.gap, apart)
        elif name in _FOLDED:
            continue
        elif first != second and apart <= IDENTICAL:
            seen.lost.append(kind)
        elif not (_fits(got, first) and _fits(other, second)):
            seen.counted.append(kind)
    return seen


def _fits(got: Got, tokens: tuple[int, ...]) -> bool:
    """Whether a server counts as many tokens as there are, where it counts any."""
    return got.tokens in (None, len(tokens))


def _ids(target: Target) -> Ids:
    """Tokens by the user's tokenizer, or as the server lists them."""
    if target.config.tokenizer:
        return LocalTokenizer(target.config.tokenizer).ids

    @cache
    def told(text: str) -> tuple[int, ...]:
        path, payload = target.dialect.counting(target.config.model_name, text)
        return target.dialect.read_tokens(target.call("POST", path, payload, describe="a text of the check").body)

    return told
