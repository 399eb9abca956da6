"""Whether every character reaches the model: two texts have different vectors exactly where their tokens differ.

What stands before a model (a gateway, a cleaning step of a serving framework) may take characters away or replace them. The
texts then still have vectors, and scores that look right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from evalscope_vacc.checks.findings import Finding
from evalscope_vacc.checks.sameness import IDENTICAL, asker_of
from evalscope_vacc.checks.target import REFUSED, Target
from evalscope_vacc.checks.texts import CHARACTERS, SHORT_EN
from evalscope_vacc.messages import Reason
from evalscope_vacc.text.counters import LocalTokenizer


def check_characters(target: Target) -> Iterator[Finding]:
    """Compares pairs of texts that are alike but for one kind of character.

    Nothing is said of a kind that the tokenizer itself does not tell apart, as one for lower case alone treats capitals.
    """
    texts = dict.fromkeys(text for pair in CHARACTERS.values() for text in pair)
    tokens = _tokens(target, [*texts, SHORT_EN, " ".join(reversed(SHORT_EN.split()))])
    if tokens is None:
        yield target.finding("characters.untold")
        return
    asker = asker_of(target)
    lost, changed = [], []
    gap = 0.0
    for name, pair in CHARACTERS.items():
        vectors = asker.ask(pair)
        apart = float(asker.gaps(vectors, vectors)[0, 1])
        first, second = (tokens[text] for text in pair)
        if first == second and apart > target.tolerance.allowed:
            changed.append(Reason(f"characters_{name}"))
            gap = max(gap, apart)
        elif first != second and apart <= IDENTICAL:
            lost.append(Reason(f"characters_{name}"))
    if lost:
        yield target.finding("characters.lost", kinds=tuple(lost))
    if changed:
        yield target.finding("characters.changed", kinds=tuple(changed), gap=gap)
    if not lost and not changed:
        yield target.finding("characters.ok", count=len(CHARACTERS))


def _tokens(target: Target, texts: Sequence[str]) -> dict[str, tuple[int, ...]] | None:
    """The tokens of texts, by the tokenizer or the server's.

    None where there are none, or where the last two texts, which have the same words in another order, have the same tokens.
    """
    if target.config.tokenizer:
        ids = LocalTokenizer(target.config.tokenizer).ids
        return {text: ids(text) for text in texts}
    found = {}
    with suppress(*REFUSED):
        for text in texts:
            path, payload = target.dialect.counting(target.config.model_name, text)
            answer = target.call("POST", path, payload, describe="a text of the check")
            found[text] = target.dialect.read_tokens(answer.body)
    # some servers list as many numbers as there are tokens, whatever the tokens
    made_up = len(found) < len(texts) or found[texts[-1]] == found[texts[-2]]
    return None if made_up else found
