"""What a server is seen to do with two texts, whatever it accepts."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from embedding_answers import score, vector
from loopback_server import Got, LoopbackServer, Reply

from evalscope_vacc.errors import AuthenticationError, NotFiniteError, RequestRefusedError, ServerFaultError
from evalscope_vacc.wire.dialects import DIALECTS, get_dialect
from evalscope_vacc.wire.engine import Engine
from evalscope_vacc.wire.trial import FIRST, SECOND, Seen, try_pairs, try_texts

Serve = Callable[..., LoopbackServer]
Connect = Callable[..., Engine]
END = " [end]"


def server(
    *,
    cuts: str = "as asked",
    counts: str | None = "tokens",
    form: str = "right",
    longest: int = 100_000,
    path: str = "/v1/embeddings",
) -> Callable[[Got, Any], Reply]:
    """An embedding server that puts an end token behind every text and may do any of its duties wrongly."""

    def kept(text: str, keep: int | None) -> str:
        words = text.split()
        if keep is None or cuts == "ignored" or len(words) + 1 <= keep:
            return text + END
        if cuts == "the end is kept":
            return " ".join(words[1 - keep :]) + END
        if cuts == "the end token is lost":
            return " ".join(words[:keep])
        return " ".join(words[: keep - 1]) + END

    def answer(got: Got, sock: Any) -> Reply:
        if got.path != path:
            return Reply.of({"detail": "Not Found"}, 404)
        asked = got.json()
        keep = asked.get("truncate_prompt_tokens")
        if keep is not None and cuts == "the field is refused":
            return Reply.of({"error": {"message": "Extra inputs are not permitted: truncate_prompt_tokens"}}, 400)
        if keep is not None and keep > longest:
            words = f"truncate_prompt_tokens value ({keep}) is greater than max_model_len ({longest})."
            return Reply.of({"error": {"message": words}}, 400)
        packed = asked.get("encoding_format") == "base64"
        if packed and form == "refused":
            return Reply.of({"error": {"message": "Value must be a list, encoding_format"}}, 400)
        rows = []
        for index, text in enumerate(asked["input"]):
            values = vector(kept(text, keep)).astype("<f8" if form == "doubles" else "<f4")
            packed_values: Any = base64.b64encode(values.tobytes()).decode() if packed else values.tolist()
            if form == "NaN":
                packed_values = [float("nan")] * 16
            rows.append({"index": index, "embedding": packed_values})
        text = kept(asked["input"][0], keep)
        number = len(text) - len(END) if counts == "characters" else len(text.split())
        return Reply.of({"data": rows, "usage": {} if counts is None else {"prompt_tokens": number}})

    return answer


def tried(engine: Engine, name: str = "vllm", limit: int | None = 512, **more: Any) -> tuple[Any, Seen]:
    return try_texts(engine, get_dialect(name), "m", server=engine.servers[0], limit=limit, **more)


def test_a_server_that_cuts_as_asked_is_seen_to_with_two_texts(serve: Serve, connect: Connect) -> None:
    one = serve(server())
    dialect, seen = tried(connect(one))
    assert (seen.truncates, seen.base64, seen.counts, seen.width) == (True, True, "tokens", 16)
    assert [got.json()["input"] for got in one.requests] == [[FIRST], [SECOND]]
    assert seen.settled(dialect).truncates
    assert seen.settled(dialect).encoding == {"encoding_format": "base64"}


@pytest.mark.parametrize(
    ("cuts", "words"),
    [
        ("ignored", "ignored: asked to keep 16 tokens it read"),
        ("the end is kept", "not as needed"),
        ("the end token is lost", "not as needed"),
        ("the field is refused", "refused"),
    ],
)
@pytest.mark.parametrize("form", ["right", "refused", "doubles"])
def test_a_server_that_does_not_cut_as_needed_is_not_asked_to(
    cuts: str, words: str, form: str, serve: Serve, connect: Connect
) -> None:
    dialect, seen = tried(connect(serve(server(cuts=cuts, form=form))))
    settled = seen.settled(dialect)
    assert seen.truncates is not True
    assert words in seen.truncation
    assert not settled.truncates
    assert settled.encoding["encoding_format"] == ("base64" if form == "right" else "float")
    assert seen.width == 16


@pytest.mark.parametrize("form", ["refused", "doubles"])
def test_a_form_that_is_wrong_or_refused_gives_way_to_numbers(form: str, serve: Serve, connect: Connect) -> None:
    one = serve(server(form=form))
    dialect, seen = tried(connect(one))
    assert seen.base64 is False
    assert seen.settled(dialect).plain() is seen.settled(dialect) or seen.settled(dialect).encoding == {
        "encoding_format": "float"
    }
    assert len(one.requests) <= 4


def test_characters_are_not_taken_for_tokens(serve: Serve, connect: Connect) -> None:
    dialect, seen = tried(
        connect(serve(server(cuts="ignored", counts="characters", path="/embeddings"))), "infinity", None
    )
    assert dialect.name == "infinity"
    assert seen.counts == "characters"
    body = b'{"data": [{"index": 0, "embedding": [1.0]}], "usage": {"prompt_tokens": 30}}'
    assert seen.settled(dialect).read_embeddings(body, 1).tokens is None


@pytest.mark.parametrize("known", [True, False])
def test_without_counts_the_tokens_are_counted_elsewhere_or_nothing_is_claimed(
    known: bool, serve: Serve, connect: Connect
) -> None:
    count = (lambda text: len(text.split()) + 1) if known else None
    _, seen = tried(connect(serve(server(counts=None))), count=count)
    assert (seen.truncates, seen.counts) == (known, None)


def test_the_length_that_a_server_names_in_a_refusal_holds(serve: Serve, connect: Connect) -> None:
    _, seen = tried(connect(serve(server(longest=100))), limit=512)
    assert (seen.truncates, seen.limit) == (True, 100)


@pytest.mark.parametrize("name", sorted(set(DIALECTS) - {"dashscope"}))
def test_what_no_request_of_the_run_asks_for_is_not_tried(name: str, serve: Serve, connect: Connect) -> None:
    one = serve(server(path=get_dialect(name).embeddings_path, longest=5))
    _, seen = tried(connect(one), name, None)
    assert seen.truncates is None
    assert all("truncate_prompt_tokens" not in got.json() for got in one.requests)
    assert len(one.requests) <= 2


def test_an_endpoint_without_v1_is_found_where_the_server_is_only_guessed(serve: Serve, connect: Connect) -> None:
    engine = connect(serve(server(path="/embeddings")))
    dialect, seen = tried(engine, guess=True)
    assert (dialect.embeddings_path, seen.truncates) == ("/embeddings", True)
    with pytest.raises(RequestRefusedError, match="no such endpoint"):
        tried(engine)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply.of({"error": "Unauthorized"}, 401), AuthenticationError),
        (Reply.of({"error": {"message": "no"}}, 400), RequestRefusedError),
        (Reply.of({"error": {"message": "no"}}, 500), ServerFaultError),
    ],
)
def test_a_server_that_gives_nothing_is_an_error(
    reply: Reply, error: type[Exception], serve: Serve, connect: Connect
) -> None:
    one = serve(lambda got, sock: reply)
    with pytest.raises(error):
        tried(connect(one, retries=0))
    assert len(one.requests) <= 5


def test_what_is_not_finite_is_an_error(serve: Serve, connect: Connect) -> None:
    with pytest.raises(NotFiniteError):
        tried(connect(serve(server(form="NaN"))))


def pairs(cuts: str) -> Callable[[Got, Any], Reply]:
    """A cross-encoder that cuts the document."""

    def answer(got: Got, sock: Any) -> Reply:
        asked = got.json()
        query, document = asked["text_1"], asked["text_2"][0]
        keep = asked.get("truncate_prompt_tokens")
        if keep is not None and cuts == "refused":
            return Reply.of({"error": {"message": "no"}}, 422)
        room = keep - len(query.split()) if keep is not None else None
        if room is not None and cuts != "ignored":
            words = document.split()
            document = " ".join(words[-room:] if cuts == "the end is kept" else words[:room])
        usage = {"prompt_tokens": len(f"{query} {document}".split())} if cuts != "uncounted" else {}
        return Reply.of({"data": [{"index": 0, "score": score(query, document)}], "usage": usage})

    return answer


@pytest.mark.parametrize("cuts", ["as asked", "ignored", "the end is kept", "refused", "uncounted"])
def test_cutting_a_pair_is_seen_in_its_count_and_its_score(cuts: str, serve: Serve, connect: Connect) -> None:
    engine = connect(serve(pairs(cuts)))
    truncates, words = try_pairs(engine, get_dialect("vllm"), "m", server=engine.servers[0])
    assert truncates is (cuts == "as asked")
    assert words


def test_the_two_texts_are_what_their_purpose_needs() -> None:
    assert SECOND.startswith(FIRST + " ")
    assert len(SECOND.split()) > 512
    assert len(FIRST) > 4 * len(FIRST.split())
    assert not np.array_equal(vector(FIRST), vector(SECOND))
