"""A query that is too long for its pair."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from evalscope_vacc.text.query import cut_query


@given(st.integers(0, 400), st.integers(0, 60), st.integers(1, 200))
def test_it_keeps_three_quarters_of_the_room_and_only_when_nothing_fits_beside_it(
    words: int, around: int, limit: int
) -> None:
    query = "q " * words

    def tokens(text: str) -> int:
        return around + len(text.split())

    cut = cut_query(query, tokens, limit)
    assert query.startswith(cut)
    if tokens(query) <= limit or limit - around < 2:
        assert cut == query
    else:
        assert tokens(cut) - around == (limit - around) * 3 // 4
