"""What a server does with long texts: where it cuts, what it keeps, and what it says. Answers decide, not token counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evalscope_vacc.checks.findings import Finding
from evalscope_vacc.checks.sameness import IDENTICAL, Asker, asker_of
from evalscope_vacc.checks.target import REFUSED, Target, cosines
from evalscope_vacc.checks.texts import CUT_LONG, CUT_SHORT, LONG_1, SHORT_EN, longer_than, of_words
from evalscope_vacc.errors import InputTooLongError
from evalscope_vacc.text.counters import LocalTokenizer

# LONG_1 in tokens, roughly; only a time is estimated with it
_LONG_TOKENS = 170
# a text that would keep the server busy longer than this is not sent
_PATIENCE_S = 8.0
_CUT_SAME = 1e-5
# tokens a word of our own English text, in usual tokenizers at most
_TOKENS_A_WORD = 1.25
_LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
_TEMPLATE_TOKENS = 130
_HALVINGS = 3
_LAST_WORDS = 4
# queries are seldom longer
_QUERY_TOKENS = 512
_QUESTION = "Which mill grinds on Monday?"


def check_truncation(target: Target) -> Iterator[Finding]:
    """A text that the server cuts to the tokens of its own beginning must get the vector of that beginning.

    That holds only when the server keeps the beginning and puts the end-of-sequence token behind it, which the vector
    of a last-token model is read from.
    """
    if not target.dialect.truncates:
        yield _cut_here(target)
        return
    short = target.embed([CUT_SHORT])
    tokens = short.tokens
    if tokens is None or tokens < 2:
        yield target.finding("truncation.uncounted")
        return
    try:
        cut = target.embed([CUT_LONG], truncate_to=tokens)
        whole = target.embed([CUT_LONG])
    except REFUSED as error:
        yield target.finding("truncation.refused" if target.counts else "truncation.impossible", error=error)
        return
    allowed = max(_CUT_SAME, target.tolerance.allowed)
    same, ignored = (float(cosines(cut.values, other.values)[0, 0]) for other in (short, whole))
    if 1 - same <= allowed:
        yield target.finding("truncation.ok", tokens=tokens)
        yield target.finding("end-token.ok")
    elif 1 - ignored <= allowed:
        yield target.finding("truncation.ignored", tokens=tokens)
    else:
        yield target.finding("truncation.partly", tokens=tokens)
        yield target.finding("end-token.lost", tokens=tokens, cosine=same)


def _cut_here(target: Target) -> Finding:
    return target.finding("truncation.here" if target.counts else "truncation.nobody", dialect=target.dialect.name)


def check_whole_texts(target: Target) -> Iterator[Finding]:
    """Whether a text within the limit is read whole: texts alike but for their end, or their beginning, must differ.

    Lengths double up to the limit. Where a difference is not seen, halving finds about where reading stops. A reranker's
    queries are tried, too.
    """
    asker = asker_of(target, _QUESTION)
    known = 0
    for tokens in _lengths(target):
        answers, (end, beginning) = _variants(asker, tokens)
        if end and beginning:
            if known:
                yield target.finding("whole-texts.alike", tokens=tokens, score=float(answers[0, 0]))
            # else the model ignores every difference; other findings say so
            return
        if end:
            low, high = _where(asker, known, tokens)
            yield target.finding("whole-texts.end", tokens=tokens, low=low, high=high)
            return
        if beginning:
            yield target.finding("whole-texts.beginning", tokens=tokens)
            return
        known = tokens
    unread = _unread_query(target, asker) if target.config.is_cross_encoder else None
    if unread is not None:
        yield target.finding("whole-texts.query", tokens=unread)
        return
    if known and known == _room(target) and not _reads_last_words(target, asker, known):
        yield target.finding("whole-texts.end", tokens=target.limit, low=int(known * 7 / 8), high=target.limit)
        return
    yield target.finding("whole-texts.ok" if known else "whole-texts.untried", tokens=known)


def _lengths(target: Target) -> list[int]:
    """Lengths in tokens to try: doubling up to just below the limit, no longer than patience allows."""
    room = _room(target)
    if room is None:
        return []
    most = int(_PATIENCE_S / 3 / max(target.second, 1e-3) * _LONG_TOKENS)
    return sorted({n for n in (*_LENGTHS, room) if 40 <= n <= min(room, most, _LENGTHS[-1])})


def _room(target: Target) -> int | None:
    """Tokens of a text that surely fits, or None where the limit is unknown."""
    return target.limit and target.limit - (_TEMPLATE_TOKENS if target.config.is_cross_encoder else 8)


def _variants(asker: Asker, tokens: int) -> tuple[NDArray[np.float64], tuple[bool, bool]]:
    """Answers, each asked for alone, to a text, the same with another end, and the same with another beginning.

    Also whether the second and the third are the first's.
    """
    words = int(tokens / _TOKENS_A_WORD)
    changed = max(4, words // 8)
    text, other = of_words(words), of_words(words, shift=17)
    texts = (text, text[:-changed] + other[-changed:], other[:changed] + text[changed:])
    answers = np.concatenate([asker.ask([" ".join(one)]) for one in texts]).astype(np.float64)
    gaps = asker.gaps(answers, answers)
    return answers, (bool(gaps[0, 1] <= IDENTICAL), bool(gaps[0, 2] <= IDENTICAL))


def _where(asker: Asker, read: int, unread: int) -> tuple[int, int]:
    """Between which lengths the end of a text stops to be read."""
    for _ in range(_HALVINGS):
        middle = (read + unread) // 2
        if middle < 16:
            break
        _, (end, _) = _variants(asker, middle)
        read, unread = (read, middle) if end else (middle, unread)
    # the last eighth of a text differs: reading stops somewhere before its end
    return int(read * 7 / 8), unread


def _unread_query(target: Target, asker: Asker) -> int | None:
    """Returns the length at which the end of a query is not read, or None."""
    one_document = replace(asker, ask=lambda queries: target.score(queries[0], [SHORT_EN]).values[:, None])
    for tokens in _lengths(target):
        if tokens > _QUERY_TOKENS or 2 * tokens > (_room(target) or 0):
            break
        _, (end, beginning) = _variants(one_document, tokens)
        if end and not beginning:
            return tokens
    return None


def _reads_last_words(target: Target, asker: Asker, tokens: int) -> bool:
    """Whether the last words of a text that fills the limit are read, where it is known how many words fit."""
    words = int(tokens / _TOKENS_A_WORD)
    counted = _counted(target, " ".join(of_words(words)))
    if counted is None or target.limit is None or counted > target.limit:
        return True
    words += int((target.limit - counted) / _TOKENS_A_WORD)
    texts = (of_words(words), [*of_words(words)[:-_LAST_WORDS], *of_words(words, shift=17)[-_LAST_WORDS:]])
    answers = np.concatenate([asker.ask([" ".join(one)]) for one in texts]).astype(np.float64)
    return bool(asker.gaps(answers, answers)[0, 1] > IDENTICAL)


def _counted(target: Target, text: str) -> int | None:
    """Returns the tokens of a text, or None where nobody counts them: some servers report characters or words."""
    if target.config.is_cross_encoder:
        return None
    if target.config.tokenizer:
        return LocalTokenizer(target.config.tokenizer).count(text)
    return target.embed([text]).tokens if target.counts else None


def check_long_texts(target: Target) -> Iterator[Finding]:
    """Texts past the limit: cut when asked, refused when not."""
    limit, longest = target.limit, target.facts.max_model_len if target.facts else None
    if limit is None or longest is None:
        return
    if _too_slow(target, limit):
        yield target.finding("long-texts.untried", limit=limit, seconds=_seconds(target, limit))
        return
    if target.dialect.truncates:
        try:
            cut = target.embed([longer_than(limit)], truncate_to=limit)
        except REFUSED as error:
            yield target.finding("long-texts.uncut", limit=limit, error=error)
            return
        if cut.tokens is not None and cut.tokens < limit:
            yield target.finding("long-texts.shorter", limit=limit, tokens=cut.tokens)
            return
    try:
        target.embed([longer_than(longest)])
    except InputTooLongError:
        yield target.finding("long-texts.ok", limit=limit, longest=longest)
    except REFUSED as error:
        yield target.finding("long-texts.refused", longest=longest, error=error)
    else:
        yield target.finding("long-texts.silent", longest=longest)


def check_long_pairs(target: Target) -> Iterator[Finding]:
    """What happens to a pair that is longer than the limit."""
    limit = target.limit
    if limit is None:
        return
    if target.template is not None:
        yield target.finding("long-texts.here" if target.counts else "long-texts.uncounted", limit=limit)
    elif target.templated:
        yield target.finding("long-texts.template", limit=limit)
    elif not target.dialect.truncates:
        yield _cut_here(target)
    elif _too_slow(target, limit):
        yield target.finding("long-texts.untried", limit=limit, seconds=_seconds(target, limit))
    else:
        try:
            scores = target.score(_QUESTION, [LONG_1, longer_than(limit)], cut=True).values
        except REFUSED as error:
            yield target.finding("long-texts.uncut", limit=limit, error=error)
        else:
            yield target.finding("long-texts.pair", limit=limit, scores=", ".join(f"{score:.4f}" for score in scores))


def _seconds(target: Target, tokens: int) -> float:
    return target.second * (tokens / _LONG_TOKENS) * 1.5


def _too_slow(target: Target, tokens: int) -> bool:
    return _seconds(target, tokens) > min(_PATIENCE_S, target.left_s / 3)
