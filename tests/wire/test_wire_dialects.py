"""What is asked of each kind of server, and which answers are refused."""

from __future__ import annotations

import base64
import contextlib
import json
import random
import struct
from typing import Any

import numpy as np
import pytest
from embedding_answers import embeddings, rerank, score, scores, vectors
from hypothesis import given
from hypothesis import strategies as st

from evalscope_vacc.errors import BadAnswerError, ConfigError, EngineDeadError, VaccError
from evalscope_vacc.wire.dialects import DIALECTS, Dialect, get_dialect
from evalscope_vacc.wire.parsing import read_score_list, read_vectors
from evalscope_vacc.wire.refusals import read_error

TEXTS = ["one", "two", "drei", "四"]


def body_of(document: Any) -> bytes:
    return json.dumps(document).encode()


def wide(n: int = 4, dimensions: int = 64, **request: Any) -> dict[str, Any]:
    """An answer whose vectors are long enough for the quick path."""
    return embeddings({"model": "m", "input": TEXTS[:n], "encoding_format": "base64", **request}, dimensions)


# -- what is asked ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_keeps_the_protocol(name: str) -> None:
    dialect = get_dialect(name)
    assert isinstance(dialect, Dialect)
    assert dialect.name == name
    assert get_dialect(name.upper()).name == name


def test_vllm_is_asked_for_base64_and_for_nothing_it_should_not_be_asked() -> None:
    path, body = get_dialect("auto").embeddings("m", TEXTS, truncate_to=512)
    assert path == "/v1/embeddings"
    assert json.loads(body) == {
        "model": "m",
        "input": TEXTS,
        "encoding_format": "base64",
        "truncate_prompt_tokens": 512,
    }
    _, body = get_dialect("vllm").embeddings("m", TEXTS, truncate_to=None)
    assert json.loads(body) == {"model": "m", "input": TEXTS, "encoding_format": "base64"}


def test_vllm_is_asked_for_scores_of_one_query_and_many_documents() -> None:
    dialect = get_dialect("vllm")
    path, body = dialect.scores("m", "q", TEXTS, instruction="judge")
    assert path == "/v1/score"
    assert json.loads(body) == {"model": "m", "text_1": "q", "text_2": TEXTS, "instruction": "judge"}
    other = dialect.fallback()
    assert other is not None
    path, body = other.scores("m", "q", TEXTS, truncate_to=-1)
    assert path == "/v1/rerank"
    assert json.loads(body) == {"model": "m", "query": "q", "documents": TEXTS, "truncate_prompt_tokens": -1}
    assert other.fallback() is None


@pytest.mark.parametrize(
    ("name", "path", "body"),
    [
        ("tei", "/rerank", {"query": "q", "texts": TEXTS, "truncate": False}),
        ("infinity", "/rerank", {"model": "m", "query": "q", "documents": TEXTS, "return_documents": False}),
        ("jina", "/v1/rerank", {"model": "m", "query": "q", "documents": TEXTS, "return_documents": False}),
    ],
)
def test_the_others_are_asked_for_scores_in_their_own_shape(name: str, path: str, body: dict[str, Any]) -> None:
    dialect = get_dialect(name)
    asked, document = dialect.scores("m", "q", TEXTS)
    assert (asked, json.loads(document)) == (path, body)
    with pytest.raises(ConfigError):
        dialect.scores("m", "q", TEXTS, instruction="judge")


@pytest.mark.parametrize("name", ["vllm", "openai", "tei", "infinity", "jina"])
def test_every_dialect_reads_what_it_asked_for(name: str) -> None:
    dialect = get_dialect(name)
    _, body = dialect.embeddings("m", TEXTS, truncate_to=None)
    got = dialect.read_embeddings(body_of(embeddings(json.loads(body))), 4)
    assert got.values.tolist() == vectors(TEXTS).tolist()
    if name == "openai":
        with pytest.raises(ConfigError, match="no endpoint for scores"):
            dialect.scores("m", "q", TEXTS)
        return
    _, body = dialect.scores("m", "q", TEXTS)
    asked = json.loads(body)
    if name == "vllm":
        answer: Any = scores(asked)
    else:
        answer = rerank({"query": "q", "documents": TEXTS})
        if name == "tei":
            answer = [{"index": row["index"], "score": row["relevance_score"]} for row in answer["results"]]
    assert dialect.read_scores(body_of(answer), 4).values.tolist() == [score("q", text) for text in TEXTS]


def test_a_lone_surrogate_is_sent_as_an_escape() -> None:
    _, body = get_dialect("vllm").embeddings("m", ["a\ud800b", "中"], truncate_to=None)
    assert json.loads(body)["input"] == ["a\ud800b", "中"]


@pytest.mark.parametrize("wrong", [0, -2])
def test_a_truncation_that_servers_ignore_or_answer_with_nothing_is_refused(wrong: int) -> None:
    with pytest.raises(ConfigError):
        get_dialect("vllm").embeddings("m", TEXTS, truncate_to=wrong)


class TwoLists(Dialect):
    """A server family of somebody else, in one place."""

    name = "two-lists"
    embeddings_path = "/vectors"
    scores_path = "/judge"
    score_list = "judged"
    score_field = "value"

    def pairs(self, model: str, query: str, documents: list[str]) -> dict[str, Any]:
        return {"question": query, "answers": documents}


def test_a_family_of_somebody_else_is_one_class() -> None:
    dialect = get_dialect("two-lists", {"two-lists": TwoLists})
    path, body = dialect.embeddings("m", TEXTS)
    assert (path, json.loads(body)["input"]) == ("/vectors", TEXTS)
    path, body = dialect.scores("m", "q", TEXTS[:2])
    assert (path, json.loads(body)) == ("/judge", {"question": "q", "answers": TEXTS[:2]})
    answer = {"judged": [{"index": 1, "value": 0.25}, {"index": 0, "value": 0.5}]}
    assert dialect.read_scores(body_of(answer), 2).values.tolist() == [0.5, 0.25]
    with pytest.raises(ConfigError, match="'two-lists' cannot send an instruction"):
        dialect.scores("m", "q", TEXTS, instruction="judge")


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("vllm", {"count": 3, "max_model_len": 512, "tokens": [101, 7, 102], "token_strs": None}),
        ("llamacpp", {"tokens": [101, 7, 102]}),
        ("llamacpp", {"tokens": [{"id": 101, "piece": ""}, {"id": 7, "piece": "a"}, {"id": 102, "piece": ""}]}),
        ("tei", [[{"id": 101, "text": "[CLS]"}, {"id": 7, "start": 0, "stop": 1}, {"id": 102}]]),
    ],
)
def test_the_tokens_of_a_text_are_read(name: str, answer: Any) -> None:
    assert get_dialect(name).read_tokens(body_of(answer)) == (101, 7, 102)


@pytest.mark.parametrize(
    "answer", [{}, {"count": 3}, {"tokens": []}, {"tokens": ["a"]}, {"tokens": [{}]}, [], [[1], [2]], [[True]]]
)
@pytest.mark.parametrize("name", ["vllm", "llamacpp", "tei"])
def test_an_answer_without_tokens_is_an_error(name: str, answer: Any) -> None:
    with pytest.raises(BadAnswerError, match="holds no tokens"):
        get_dialect(name).read_tokens(body_of(answer))


def test_an_unknown_dialect_names_the_nearest_and_plugins_win() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'infinity'"):
        get_dialect("infinty")
    own = get_dialect("tei")
    assert get_dialect("Mine", {"mine": lambda: own}) is own
    assert get_dialect("vllm", {"vllm": lambda: own}) is own


# -- what is read -----------------------------------------------------------------------------------------------------


@given(st.permutations(range(4)), st.sampled_from(["base64", "float"]), st.sampled_from([1, 3, 16, 36, 64, 65]))
def test_vectors_come_back_in_the_order_of_the_texts(order: list[int], form: str, dimensions: int) -> None:
    answer = wide(encoding_format=form, dimensions=dimensions)
    answer["data"] = [answer["data"][i] for i in order]
    got = read_vectors(body_of(answer), 4)
    assert got.values.tobytes() == vectors(TEXTS, dimensions).tobytes()
    assert got.values.dtype == np.float32
    assert got.tokens == 4


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=80))
def test_base64_and_floats_give_the_same_bits(numbers: list[float]) -> None:
    exact = np.array([numbers], dtype=np.float32)
    as_text = {"data": [{"index": 0, "embedding": base64.b64encode(exact.tobytes()).decode()}]}
    as_floats = {"data": [{"index": 0, "embedding": numbers}]}
    if not exact.any():
        for document in (as_text, as_floats):
            with pytest.raises(BadAnswerError, match="nothing but zeros"):
                read_vectors(body_of(document), 1)
        return
    assert read_vectors(body_of(as_text), 1).values.tobytes() == exact.tobytes()
    assert read_vectors(body_of(as_floats), 1).values.tobytes() == exact.tobytes()


def test_the_result_does_not_depend_on_what_else_the_answer_holds() -> None:
    """Escapes, and strings that look like the marks of the quick path, take the ordinary path."""
    expected = vectors(TEXTS, 64).tobytes()
    for extra in ({"note": 'a "quoted" word \\ \u2028'}, {"note": "@0"}, {"@1": "@2"}, {"note": "x" * 500}):
        assert read_vectors(body_of({**extra, **wide()}), 4).values.tobytes() == expected
    hostile = wide()
    hostile["data"][1]["embedding"] = "@0"
    with pytest.raises(BadAnswerError, match="vector 1 is not base64"):
        read_vectors(body_of(hostile), 4)


@given(st.permutations(range(4)))
def test_scores_come_back_in_the_order_of_the_documents(order: list[int]) -> None:
    expected = [score("q", text) for text in TEXTS]
    for answer, key, value in (
        (scores({"text_1": "q", "text_2": TEXTS}), "data", "score"),
        (rerank({"query": "q", "documents": TEXTS}), "results", "relevance_score"),
    ):
        answer[key] = [answer[key][i] for i in order]
        got = read_score_list(body_of(answer), 4, key=key, value=value)
        assert got.values.tolist() == expected
        assert got.values.dtype == np.float64
        assert got.tokens == 8


def broken_vectors() -> dict[str, tuple[Any, str]]:
    """Answers that are wrong, and a word of what is said about them."""

    def change(position: int = 1, **fields: Any) -> dict[str, Any]:
        answer = wide()
        answer["data"][position].update(fields)
        return answer

    def encoded(values: Any) -> str:
        return base64.b64encode(np.asarray(values, "<f4").tobytes()).decode()

    good = vectors(TEXTS, 64)
    nan, inf, zero = good[1].copy(), good[1].copy(), np.zeros(64)
    nan[3], inf[7] = np.nan, -np.inf
    missing = wide()
    del missing["data"][1]["index"]
    without = wide()
    del without["data"][1]["embedding"]
    return {
        "one vector too few": ({**wide(), "data": wide()["data"][:3]}, "3 vectors came for 4 texts"),
        "one vector too many": ({**wide(), "data": [*wide()["data"], wide()["data"][0]]}, "5 vectors came for 4"),
        "no vectors": ({**wide(), "data": []}, "0 vectors came for 4"),
        "index twice": (change(index=0), "index 0 occurs twice"),
        "index out of range": (change(index=4), "index 4, outside of 0 to 3"),
        "index negative": (change(index=-1), "index -1, outside"),
        "index as text": (change(index="1"), "has no index"),
        "index as truth": (change(index=True), "has no index"),
        "index missing": (missing, "has no index"),
        "other size": (change(embedding=encoded(good[1][:63])), "vector 1 has 63 dimensions"),
        "NaN": (change(embedding=encoded(nan)), r"vector 1 holds nan \(at dimension 3\)"),
        "infinity": (change(embedding=encoded(inf)), r"vector 1 holds -inf \(at dimension 7\)"),
        "zeros": (change(embedding=encoded(zero)), "vector 1 holds nothing but zeros"),
        "not base64": (change(embedding="?" * 344), "vector 1 is not base64"),
        "base64 with a hole": (change(embedding="?" + encoded(good[1])[1:]), "vector 1 is not base64"),
        "base64 cut": (change(embedding=encoded(good[1])[:-4]), r"vector 1 has 25[0-9] bytes|other"),
        "empty text": (change(embedding=""), "vector 1 is not base64"),
        "null": (change(embedding=None), "vector 1 is null or missing"),
        "missing": (without, "vector 1 is null or missing"),
        "object": (change(embedding={}), "vector 1 is an object"),
        "empty list": (change(embedding=[]), "vector 1 is an empty list"),
        "text among numbers": (change(embedding=[*good[1].tolist()[:-1], "1.5"]), "holds a string among"),
        "truth among numbers": (change(embedding=[*good[1].tolist()[:-1], True]), "holds true or false among"),
        "too large": (change(embedding=[*good[1].tolist()[:-1], 1e39]), "vector 1 holds inf"),
        "much too large": (change(embedding=[*good[1].tolist()[:-1], 10**400]), "too large"),
        "entry is no object": ({**wide(), "data": [1, 2, 3, 4]}, "entry 0 of 'data' is a number"),
        "data is no list": ({**wide(), "data": {}}, "no list 'data'"),
        "no data": ({"object": "list"}, "no list 'data'"),
        "a list": ([], "an empty list, not an object"),
        "a number": (7, "a number, not an object"),
    }


@pytest.mark.parametrize("case", broken_vectors())
def test_wrong_vectors_are_refused(case: str) -> None:
    answer, words = broken_vectors()[case]
    with pytest.raises(BadAnswerError, match=words):
        read_vectors(body_of(answer), 4)


def test_very_small_and_very_large_numbers_are_numbers() -> None:
    """Their squares under- and overflow, which must not make them zero or infinite."""
    for value in (1e-38, 1e-44, 3e38):
        got = read_vectors(body_of({"data": [{"index": 0, "embedding": [value] * 40}]}), 1)
        assert got.values[0, 0] == np.float32(value)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"data": [{"index": 0, "score": 0.5}]}, "1 scores came for 2 documents"),
        ({"data": [{"index": 0, "score": 0.5}] * 2}, "index 0 occurs twice"),
        ({"data": [{"index": 0, "score": 0.5}, {"index": 1}]}, "score 1 is null or missing"),
        ({"data": [{"index": 0, "score": 0.5}, {"index": 1, "score": "0.5"}]}, "score 1 is a string"),
        ({"data": [{"index": 0, "score": 0.5}, {"index": 1, "score": True}]}, "score 1 is true or false"),
        ({"data": [{"index": 0, "score": 0.5}, {"index": 1, "score": [0.5]}]}, "score 1 is a list"),
        ({"data": [{"index": 0, "score": 0.5}, {"index": 1, "score": float("nan")}]}, "score 1 is nan"),
        ({"data": [{"index": 0, "score": float("inf")}, {"index": 1, "score": 1}]}, "score 0 is inf"),
        ({"data": [{"index": 0, "score": 10**400}, {"index": 1, "score": 1}]}, "score 0 is inf"),
        ({"data": [{"index": 2, "score": 0.5}, {"index": 1, "score": 1}]}, "index 2, outside of 0 to 1"),
        ({"results": [{"index": 0, "relevance_score": 0.5}, {"index": 1, "relevance_score": 0.5}]}, "no list 'data'"),
    ],
)
def test_wrong_scores_are_refused(answer: Any, words: str) -> None:
    with pytest.raises(BadAnswerError, match=words):
        read_score_list(body_of(answer), 2)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"object": "error", "message": "flat words", "code": 400}, "flat words"),
        ({"error": {"message": "nested words", "type": "x", "code": 404}}, "nested words"),
        ({"error": "Unauthorized"}, "Unauthorized"),
        ({"detail": "Not Found"}, "Not Found"),
        (
            {"detail": [{"loc": ["body", "input"], "msg": "Field required", "input": "secret text"}]},
            "body.input: Field",
        ),
        ({"message": "only a message"}, "only a message"),
        ({"error": {"code": 7}}, '"code": 7'),
        ({"error": ["a", "b"]}, '"a", "b"'),
        ({"error": {}, "object": "error"}, "without a message"),
        ("just words", "just words"),
    ],
)
def test_every_shape_of_error_is_read_with_any_status(document: Any, message: str) -> None:
    assert message in read_error(400, body_of(document), "application/json")
    assert "secret text" not in read_error(400, body_of(document))
    for read in (read_vectors, read_score_list):
        with pytest.raises(BadAnswerError, match="an error came with status 200") as caught:
            read(body_of(document), 1)
        assert message in str(caught.value)


def test_a_page_of_html_is_shortened_to_its_words() -> None:
    page = (
        b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title><script>evil()</script></head><body>x</body></html>"
    )
    assert read_error(502, page, "text/html") == "a page of HTML: 502 Bad Gateway"
    assert (
        read_error(502, b"<html><body><p>No <b>title</b> &amp; so</p></body></html>") == "a page of HTML: No title & so"
    )
    assert read_error(500, b"plain words", "text/plain") == "plain words"
    assert read_error(500, b"", "text/plain") == ""
    with pytest.raises(BadAnswerError, match="502 Bad Gateway") as caught:
        read_vectors(page, 1)
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("document", "retryable"),
    [
        ({"error": {"message": "busy", "code": 503}}, True),
        ({"object": "error", "message": "slow down", "code": 429}, True),
        ({"object": "error", "message": "no such thing", "code": 400}, False),
        ({"error": {"message": "no code"}}, False),
    ],
)
def test_an_error_with_status_200_is_asked_again_by_its_own_code(document: Any, retryable: bool) -> None:
    with pytest.raises(BadAnswerError) as caught:
        read_vectors(body_of(document), 1)
    assert caught.value.retryable is retryable


def test_a_dead_engine_is_recognised_in_a_200() -> None:
    words = "EngineCore encountered an issue. See stack trace (above) for the root cause."
    for document in ({"error": {"message": words, "code": 400}}, {"object": "error", "message": words}):
        with pytest.raises(EngineDeadError):
            read_vectors(body_of(document), 1)


def test_a_long_error_message_is_read_whole_and_shown_short() -> None:
    with pytest.raises(BadAnswerError) as caught:
        read_vectors(body_of({"error": {"message": "begin " + "x" * 5000, "code": 400}}), 1)
    assert "begin" in str(caught.value)
    assert len(str(caught.value)) < 800


# -- hostile input ----------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["data", "results", "index", "embedding", "score", "relevance_score", "error", "message"])
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
entries = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "index": st.integers(-1, 4) | json_values,
            "embedding": st.lists(st.floats() | json_values, max_size=4) | st.text(max_size=300) | json_values,
            "score": st.floats() | json_values,
            "relevance_score": st.floats() | json_values,
        },
    ),
    max_size=4,
)
documents = st.builds(
    lambda key, rows, usage: {key: rows, "usage": usage}, st.sampled_from(["data", "results"]), entries, json_values
)


def read_everything(body: bytes, n: int) -> None:
    for name in DIALECTS:
        dialect = get_dialect(name)
        readers = [dialect.read_embeddings] + ([dialect.read_scores] if name != "openai" else [])
        for read in readers:
            try:
                got = read(body, n)
            except VaccError:
                continue
            assert len(got.values) == n
            assert np.isfinite(got.values).all()
    with contextlib.suppress(VaccError):
        read_score_list(body, n, key=None)
    assert isinstance(read_error(500, body, "text/html"), str)
    assert isinstance(read_error(200, body), str)


@given(st.binary(max_size=400), st.integers(0, 4))
def test_no_bytes_raise_anything_but_our_errors(body: bytes, n: int) -> None:
    read_everything(body, n)


@given(documents | json_values, st.integers(0, 4))
def test_no_document_raises_anything_but_our_errors(document: Any, n: int) -> None:
    read_everything(json.dumps(document).encode("utf-8", "surrogatepass"), n)


@given(st.randoms(use_true_random=False), st.integers(1, 6))
def test_damaged_answers_are_read_right_or_refused(rng: random.Random, times: int) -> None:
    """Bytes changed, dropped, doubled in a good answer: either the very same vectors or a refusal.

    A change of a base64 character into another one cannot be noticed by anybody; those are left out.
    """
    body = bytearray(body_of(wide()))
    marks = [i for i, byte in enumerate(body) if byte in b'{}[]",:@']
    for _ in range(times):
        place = rng.choice(marks)
        if place < len(body):
            body[place : place + 1] = rng.choice([b"", b"@", b'"', b"\\", b"\x00", b"}", b"\xff"])
    try:
        got = read_vectors(bytes(body), 4)
    except VaccError:
        return
    assert got.values.tobytes() == vectors(TEXTS, 64).tobytes()


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"9" * 10_000,
        b'"' * 9999,
        b"\xff\xfe{\x00}\x00",
        b"nan",
        b"NaN",
        b"-Infinity",
    ],
)
def test_bodies_that_upset_parsers(body: bytes) -> None:
    read_everything(body, 1)


def test_struct_of_the_base64_is_little_endian() -> None:
    data = struct.pack("<40f", *range(1, 41))
    got = read_vectors(body_of({"data": [{"index": 0, "embedding": base64.b64encode(data).decode()}]}), 1)
    assert got.values[0].tolist() == [float(i) for i in range(1, 41)]
