"""Cutting a query that leaves no room for a document beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from evalscope_vacc.text.truncation import cut_text

_SHARE = 0.75
"""Of the room that a query and a document share, a query that is cut keeps this much: what the packages FlagEmbedding and
mxbai-rerank leave it, too."""


@dataclass(frozen=True)
class _Beside:
    """Counts a query's own tokens where it stands: those of the pair without a document, less what is there anyway."""

    pair_tokens: Callable[[str], int]
    around: int

    def count(self, text: str) -> int:
        return self.pair_tokens(text) - self.around

    def count_pair(self, text_1: str, text_2: str) -> int:
        return self.count(text_1 + text_2)


def cut_query(query: str, pair_tokens: Callable[[str], int], limit: int) -> str:
    """Returns the beginning of a query that leaves a quarter of its pair's room to the document.

    A query beside which at least an empty document fits stays whole: then only documents are cut.

    Args:
        query: The bare query.
        pair_tokens: Query to the tokens of its pair with an empty document, template, instruction and all.
        limit: Tokens of the pair.
    """
    if pair_tokens(query) <= limit:
        return query
    around = pair_tokens("")
    if limit - around < 2:
        # not even two tokens beside the template: whoever cuts the document says so
        return query
    return cut_text(query, int((limit - around) * _SHARE), _Beside(pair_tokens, around)).text
