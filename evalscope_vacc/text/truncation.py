"""Cutting texts to a limit in tokens, exactly: what is sent is what was counted."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evalscope_vacc.errors import TextTooLongError
from evalscope_vacc.redact import clean
from evalscope_vacc.text.counters import CountingFunction, LocalTokenizer, TokenCounter
from evalscope_vacc.text.templates import RerankTemplate

__all__ = [
    "SPECIAL_OF_A_PAIR",
    "CountingFunction",
    "Cut",
    "LocalTokenizer",
    "TokenCounter",
    "cut_document",
    "cut_text",
    "fits_by_bytes",
]

SPECIAL_OF_A_PAIR = 5
"""The most tokens that a pair has beside its texts': XLM-RoBERTa's four, and the second text's word start."""

_WORD_START = 1
"""Tokenizers in the manner of sentencepiece mark the first word's start, which may be a token of its own."""
_UNKNOWN_GROWTH = 11
"""The most that any character has grown under normalisation so far (U+FDFA, NFKD, in bytes)."""

_LONGEST_WORD = 64
_FIRST_IDEOGRAPH = "\u2e80"
"""From here on, scripts write no spaces: each character is a stop."""
_WORDS_TRIED = 8


@dataclass(frozen=True)
class Cut:
    """A text as it may be sent.

    Attributes:
        text: The text, cut or not.
        tokens: Its tokens (those of the whole pair for a document), or None where its bytes showed that it fits.
        was_cut: Whether anything was cut.
    """

    text: str
    tokens: int | None
    was_cut: bool


class _Weights(dict[str, int]):
    """Character to the most tokens that it can become, filled as characters are met."""

    def __missing__(self, character: str) -> int:
        weight = self[character] = _weight(character)
        return weight


def _weight(character: str) -> int:
    size = len(character.encode("utf-8", "surrogatepass"))
    if unicodedata.category(character) == "Cn":
        # a tokenizer may know a newer Unicode than this Python, with a decomposition for it
        return size * _UNKNOWN_GROWTH
    forms = {character, character.lower()}
    # decomposed: composing gives no form more bytes. NFKD need not be the longest, it can swap a character for ASCII
    for form in ("NFD", "NFKD"):
        spread = unicodedata.normalize(form, character)
        forms.add(spread)
        forms.update(unicodedata.normalize(form, cased) for cased in (spread.lower(), spread.casefold()))
    return max(len(form.encode("utf-8", "surrogatepass")) for form in forms)


_weights = _Weights()


def fits_by_bytes(text: str, limit: int, special: int = 2) -> bool:
    """Returns whether a text certainly has at most ``limit`` tokens; False says nothing.

    A token is at least one byte of the text after the tokenizer's normalisation, whether it is made of bytes
    (byte-level BPE, or byte fallback) or of characters (WordPiece, sentencepiece). Normalisation can lengthen a text:
    U+FDFA, 3 bytes, becomes 18 characters and 33 bytes under NFKC. So each character counts the most bytes that it has
    in any of the Unicode normal forms, lower-cased or case-folded or not; composing never makes it more.

    Args:
        text: The text, or several joined.
        limit: Tokens, special tokens included.
        special: Special tokens that the server adds; `SPECIAL_OF_A_PAIR` for two texts joined.
    """
    room = limit - special - _WORD_START
    if len(text) > room:
        return False
    return text.isascii() or sum(map(_weights.__getitem__, text)) <= room


def cut_text(text: str, limit: int, counter: TokenCounter) -> Cut:
    """Returns the longest beginning of a text that has at most ``limit`` tokens; the text itself where it fits.

    Args:
        text: The whole text, instruction and all.
        limit: Tokens, special tokens included.
        counter: Counts as the server does.

    Raises:
        TextTooLongError: Not even the empty text fits.
    """
    if fits_by_bytes(text, limit):
        return Cut(text, None, was_cut=False)
    tokens = counter.count(text)
    if tokens <= limit:
        return Cut(text, tokens, was_cut=False)
    empty = counter.count("")
    if empty > limit:
        raise TextTooLongError(f"the limit of {limit} tokens leaves no room beside {empty} special tokens")
    length, tokens = _longest(text, lambda n: counter.count(text[:n]), limit, empty, tokens, counter)
    return Cut(text[:length], tokens, was_cut=True)


def cut_document(
    query_text: str, document: str, template: RerankTemplate | None, limit: int, counter: TokenCounter
) -> Cut:
    """Returns a document as it is sent (``text_2``), shortened so that the pair has at most ``limit`` tokens.

    The query, and what the template puts around the document, stay whole; a server that truncates would remove the
    template's end first, after which every document of a query gets the same score.

    Args:
        query_text: The query as it is sent (``text_1``), template applied.
        document: The bare document.
        template: Puts the document into its text; None sends it bare.
        limit: Tokens of the pair, special tokens included.
        counter: Counts as the server does.

    Raises:
        TextTooLongError: The pair does not fit even with an empty document.
    """

    def sent(length: int) -> str:
        return document[:length] if template is None else template.document(document[:length])

    whole = sent(len(document))
    if fits_by_bytes(query_text + whole, limit, SPECIAL_OF_A_PAIR):
        return Cut(whole, None, was_cut=False)
    tokens = counter.count_pair(query_text, whole)
    if tokens <= limit:
        return Cut(whole, tokens, was_cut=False)
    empty = counter.count_pair(query_text, sent(0))
    if empty > limit:
        raise TextTooLongError(
            f"the query and the template have {empty} tokens, the limit is {limit}: no room for a document "
            f"(the text begins {clean(query_text, limit=80)!r}); raise max_tokens, or shorten the query"
        )
    length, tokens = _longest(
        document, lambda n: counter.count_pair(query_text, sent(n)), limit, empty, tokens, counter
    )
    return Cut(sent(length), tokens, was_cut=True)


def _longest(
    text: str, tokens_of: Callable[[int], int], limit: int, empty: int, full: int, counter: TokenCounter
) -> tuple[int, int]:
    """Returns the characters that can stay, and the tokens then.

    Every length that is returned was counted, since a cut can join or split what stood at its end: the tokens of a
    beginning are not the beginning of the tokens.

    Args:
        text: What is cut.
        tokens_of: Tokens with the first n characters of it.
        limit: Tokens allowed.
        empty: ``tokens_of(0)``, within the limit.
        full: ``tokens_of(len(text))``, above it.
        counter: For its token ends, where it has them.
    """
    low, high = (0, empty), (len(text), full)
    ends = _ends(text, counter)
    room = limit - empty
    if ends is not None and 0 < room < len(ends) and 0 < ends[room - 1] < len(text):
        # right unless the cut changes the tokens before it
        length = ends[room - 1]
        tokens = tokens_of(length)
        if tokens == limit:
            return length, tokens
        if tokens < limit:
            low = length, tokens
        else:
            high = length, tokens
    low, high = _between(low, high, tokens_of, limit)
    # half a word can have more tokens than the whole, so the search may have stopped short of words that fit
    words = 0
    while words < _WORDS_TRIED:
        stop = _next_stop(text, low[0])
        if stop in (high[0], len(text)):
            break
        tokens = tokens_of(stop)
        if tokens > limit:
            return _between(low, (stop, tokens), tokens_of, limit)[0] if words else low
        low = stop, tokens
        words += 1
    return low


def _between(
    low: tuple[int, int], high: tuple[int, int], tokens_of: Callable[[int], int], limit: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns neighbouring lengths, each with its tokens: one that fits and one that does not.

    Args:
        low: A length that fits, and its tokens.
        high: A greater length that does not, and its tokens.
        tokens_of: Tokens of a length.
        limit: Tokens allowed.
    """
    fitted = False
    turn = 0
    while high[0] - low[0] > 1:
        turn += 1
        if turn % 3 == 0:
            # bounds the number of counts whatever the text
            length = (low[0] + high[0]) // 2
        else:
            # straight line between the two known points; one token beyond it after a hit, so as to come from both sides
            per_token = (high[0] - low[0]) / (high[1] - low[1])
            length = low[0] + round((limit - low[1] + (1 if fitted else 0.5)) * per_token)
        length = min(max(length, low[0] + 1), high[0] - 1)
        tokens = tokens_of(length)
        fitted = tokens <= limit
        if fitted:
            low = length, tokens
        else:
            high = length, tokens
    return low, high


def _next_stop(text: str, position: int) -> int:
    """Returns where the next word or sign after ``position`` ends, or the word that ``position`` splits."""
    end = position
    while end < len(text) and text[end].isspace():
        end += 1
    start = end
    while end < len(text) and end - start < _LONGEST_WORD and text[end].isalnum() and text[end] < _FIRST_IDEOGRAPH:
        end += 1
    return end if end > start else min(start + 1, len(text))


def _ends(text: str, counter: TokenCounter) -> Sequence[int] | None:
    token_ends = getattr(counter, "token_ends", None)
    return None if token_ends is None else token_ends(text)
