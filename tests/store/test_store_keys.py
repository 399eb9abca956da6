"""Under which key an answer is found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalscope_vacc.store import make_identity, text_key, text_keys

IDENTITY = make_identity("m", kind="embedding", revision="r", max_tokens=512, server_model="root/m@4096")
texts = st.lists(st.text(max_size=40), min_size=1, max_size=3)


@given(texts, texts)
def test_two_lists_of_texts_never_share_a_key(one: list[str], other: list[str]) -> None:
    assert (text_key(IDENTITY, *one) == text_key(IDENTITY, *other)) == (one == other)


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_pair_is_not_its_joined_text(query: str, document: str) -> None:
    pair = text_key(IDENTITY, query, document)
    assert pair != text_key(IDENTITY, query + document)
    assert (pair == text_key(IDENTITY, query + document, "")) == (document == "")
    assert (pair == text_key(IDENTITY, document, query)) == (query == document)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "n"},
        {"kind": "score"},
        {"revision": "s"},
        {"max_tokens": 511},
        {"max_tokens": None},
        {"server_model": ""},
    ],
)
def test_each_part_of_the_identity_changes_the_key(change: dict) -> None:
    parts = {
        "model": "m",
        "kind": "embedding",
        "revision": "r",
        "max_tokens": 512,
        "server_model": "root/m@4096",
        **change,
    }
    other = make_identity(parts.pop("model"), **parts)
    assert text_key(other, "text") != text_key(IDENTITY, "text")


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=()), max_size=9), max_size=9))
def test_many_keys_are_the_single_keys_also_for_half_characters(some: list[str]) -> None:
    assert text_keys(IDENTITY, some) == [text_key(IDENTITY, text) for text in some]


def test_a_key_is_the_same_in_every_process_and_release() -> None:
    assert text_key("{}", "a", "b").hex() == KNOWN_KEY


# what a store written today is read with for ever; a change here makes every kept answer unreachable
KNOWN_KEY = "665c944fbcb2e0f5ffe25881cc5ed32b"
