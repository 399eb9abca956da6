"""Whether characters are lost or replaced before the model: two texts have different vectors exactly where their tokens differ.

What stands before a model (a gateway, a cleaning step of a serving framework) may take characters away or replace them. The
texts then still have vectors, and scores that look right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain

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


Tokens = Mapping[str, tuple[int, ...]]
"""From a text to the numbers of its tokens."""


@dataclass
class _Seen:
    """Kinds of characters for which a server's answers contradict the tokens."""

    told_apart: int = 0
    lost: list[Reason] = field(default_factory=list)
    changed: list[Reason] = field(default_factory=list)
    counted: list[Reason] = field(default_factory=list)
    gap: float = 0.0  # largest difference of vectors whose tokens are the same


def check_characters(target: Target) -> Iterator[Finding]:
    """Compares pairs of texts that differ in only one kind of character.

    A kind that the tokenizer does not tell apart must not change the vector; another one must. With a tokenizer of the user's,
    which may be a similar model's, what is wrong is a warning.
    """
    tokens = _tokens(target) if target.alone is not None and target.counts else None
    # some servers list other tokens than the model's, or count something else
    if tokens is None or not _fits(target.embed([_PLAIN]), tokens[_PLAIN]):
        yield target.finding("characters.untold")
        return
    seen = _compared(target, tokens)
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


def _compared(target: Target, tokens: Tokens) -> _Seen:
    """Compares the vectors of every pair with its tokens."""
    seen = _Seen()
    for name, pair in CHARACTERS.items():
        kind = Reason(f"characters_{name}")
        first, second = (tokens[text] for text in pair)
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
    """Whether the server's token count, if it reports one, is the number of tokens."""
    return got.tokens in (None, len(tokens))


def _tokens(target: Target) -> Tokens | None:
    """Returns the tokens of every text, from the user's tokenizer or the server; None if the server does not list them."""
    turned = " ".join(reversed(_PLAIN.split()))
    texts = dict.fromkeys([_PLAIN, turned, *chain.from_iterable(CHARACTERS.values())])
    if target.config.tokenizer:
        ids = LocalTokenizer(target.config.tokenizer).ids
        return {text: ids(text) for text in texts}
    found: dict[str, tuple[int, ...]] = {}
    try:
        for text in texts:
            path, payload = target.dialect.counting(target.config.model_name, text)
            answer = target.call("POST", path, payload, describe="a text of the check")
            found[text] = target.dialect.read_tokens(answer.body)
    except EngineDeadError:
        raise
    except (*REFUSED, ServerFaultError):
        return None
    # some servers list as many numbers as there are tokens, whatever the tokens
    return None if found[_PLAIN] == found[turned] else found
