"""Whether every character reaches the model: two texts have different vectors exactly where their tokens differ.

What stands before a model (a gateway, a cleaning step of a serving framework) may take characters away or replace them. The
texts then still have vectors, and scores that look right.
"""

from __future__ import annotations

from collections.abc import Iterator

from evalscope_vacc.checks.findings import Finding
from evalscope_vacc.checks.sameness import IDENTICAL, asker_of
from evalscope_vacc.checks.target import REFUSED, Target
from evalscope_vacc.checks.texts import CHARACTERS
from evalscope_vacc.messages import Reason
from evalscope_vacc.text.counters import LocalTokenizer


def check_characters(target: Target) -> Iterator[Finding]:
    """Compares pairs of texts that are alike but for one kind of character.

    Nothing is said of a kind that the tokenizer itself does not tell apart, as one for lower case alone treats capitals.
    """
    asker = asker_of(target)
    tokenizer = LocalTokenizer(target.config.tokenizer) if target.config.tokenizer else None
    lost, changed = [], []
    gap = 0.0
    for name, (text, other) in CHARACTERS.items():
        if tokenizer is not None:
            tokens, others = tokenizer.ids(text), tokenizer.ids(other)
        else:
            try:
                tokens, others = _told(target, text), _told(target, other)
            except REFUSED:
                yield target.finding("characters.untold")
                return
        vectors = asker.ask([text, other])
        apart = float(asker.gaps(vectors, vectors)[0, 1])
        if tokens == others and apart > target.tolerance.allowed:
            changed.append(Reason(f"characters_{name}"))
            gap = max(gap, apart)
        elif tokens != others and apart <= IDENTICAL:
            lost.append(Reason(f"characters_{name}"))
    if lost:
        yield target.finding("characters.lost", kinds=tuple(lost))
    if changed:
        yield target.finding("characters.changed", kinds=tuple(changed), gap=gap)
    if not lost and not changed:
        yield target.finding("characters.ok", count=len(CHARACTERS))


def _told(target: Target, text: str) -> tuple[int, ...]:
    """The tokens of a text as the server reports them."""
    path, payload = target.dialect.counting(target.config.model_name, text)
    return target.dialect.read_tokens(target.call("POST", path, payload, describe="a text of the check").body)
