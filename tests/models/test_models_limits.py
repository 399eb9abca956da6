"""Texts that a server does not take as they are: empty ones, and longer ones than it says only when it refuses them."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import numpy as np
import pytest
from embedding_answers import score, vector
from loopback_server import Got, Reply
from served_model import ServedModel

from evalscope_vacc import VaccCrossEncoder, VaccEncoder
from evalscope_vacc.errors import ConfigError, RequestRefusedError, ServerError, TextError

OFF = {"store": "off", "preflight": "off"}


class Picky(ServedModel):
    """Refuses empty texts, as OpenAI does."""

    def _answer(self, got: Got, sock: socket.socket) -> Reply:
        if got.path in ("/v1/embeddings", "/v1/score"):
            body = got.json()
            texts = body["input"] if "input" in body else body["text_2"]
            if "" in texts:
                return Reply.of({"error": {"message": "input cannot be an empty string"}}, 400)
        return super()._answer(got, sock)


TEXTS = ["a", "", "b", "", *(f"text {n}" for n in range(40))]


@pytest.mark.parametrize("empty", ["error", "space", "skip-as-zero"])
def test_a_server_that_takes_empty_texts_gets_them_unless_something_else_is_asked_for(empty: str) -> None:
    with ServedModel() as server:
        out = VaccEncoder(server.name, api_base=server.base, empty=empty, **OFF).encode(TEXTS)
        sent = server.texts()
    expected = {"error": vector(""), "space": vector(" "), "skip-as-zero": np.zeros(16, np.float32)}[empty]
    for text, row in zip(TEXTS, out, strict=True):
        np.testing.assert_array_equal(row, vector(text) if text else expected)
    assert ("" in sent, " " in sent) == (empty == "error", empty == "space")


def test_a_server_that_refuses_an_empty_text_is_an_error_that_names_its_row() -> None:
    with Picky() as server, pytest.raises(RequestRefusedError, match=r"'' \(row 1\).*empty string"):
        VaccEncoder(server.name, api_base=server.base, **OFF).encode(TEXTS)


@pytest.mark.parametrize("empty", ["space", "skip-as-zero"])
def test_the_run_goes_on_where_empty_says_how_and_counts_them(empty: str, tmp_path: Path) -> None:
    with Picky() as server:
        model = VaccEncoder(server.name, api_base=server.base, empty=empty, folder=tmp_path, **OFF)
        assert len(model.encode(TEXTS)) == len(TEXTS)
    (row,) = json.loads((tmp_path / "usage.json").read_text())["tasks"]
    assert row["empty"] == 1, "of the different texts"


def test_zeros_for_empty_texts_also_where_vectors_are_cut_to_a_size() -> None:
    with ServedModel() as server:
        model = VaccEncoder(server.name, api_base=server.base, empty="skip-as-zero", dimensions=8, **OFF)
        out = model.encode(["a", ""])
    np.testing.assert_array_equal(out[1], np.zeros(8))
    np.testing.assert_allclose(np.linalg.norm(out[0]), 1, rtol=1e-6)


def test_a_call_of_empty_texts_alone_is_an_error_where_nothing_says_their_size() -> None:
    with ServedModel() as server:
        model = VaccEncoder(server.name, api_base=server.base, empty="skip-as-zero", **OFF)
        with pytest.raises(TextError, match="every text is empty"):
            model.encode(["", ""])


def test_an_empty_document_is_sent_as_a_space_where_that_is_asked_for() -> None:
    with Picky(kind="cross-encoder") as server:
        options = {"api_base": server.base, "is_cross_encoder": True, "rerank_template": "none", **OFF}
        got = VaccCrossEncoder(server.name, empty="space", **options).predict(["q", "q"], ["d", ""])
        np.testing.assert_allclose(got, [score("q", "d"), score("q", " ")], rtol=1e-6)
        with pytest.raises(RequestRefusedError, match="empty string"):
            VaccCrossEncoder(server.name, **options).predict(["q", "q"], ["d", ""])
        with pytest.raises(ConfigError, match="skip-as-zero is for encoders"):
            VaccCrossEncoder(server.name, empty="skip-as-zero", **options)


class Secretive(ServedModel):
    """Does not publish its limit, and names it when it refuses a text; ``obeys``: it cuts where it is told to."""

    obeys = True

    def _answer(self, got: Got, sock: socket.socket) -> Reply:
        if got.path == "/v1/models":
            return Reply.of({"data": [{"id": self.name}]})
        if got.path == "/tokenize":
            return Reply.of({"detail": "Not Found"}, 404)
        return super()._answer(got, sock)

    def _embeddings(self, request: dict) -> Reply:
        if not self.obeys:
            request.pop("truncate_prompt_tokens", None)
        return super()._embeddings(request)


LONG = ["short", "word " * 700, *(f"text {n}" for n in range(70)), "longer " * 900]


def test_a_limit_that_a_server_names_in_a_refusal_is_learnt(caplog: pytest.LogCaptureFixture) -> None:
    with Secretive(max_model_len=512) as server:
        model = VaccEncoder(server.name, api_base=server.base, dialect="vllm", **OFF)
        out = model.encode(LONG)
        np.testing.assert_array_equal(out[2], vector("text 0"))
        bodies = [got.json() for got in server.requests if got.path == "/v1/embeddings"]
    assert len(out) == len(LONG)
    assert bodies[-1]["truncate_prompt_tokens"] == 512
    assert caplog.text.count("takes at most 512 tokens") == 1


def test_a_limit_that_is_named_and_cannot_be_met_says_what_to_set() -> None:
    server = Secretive(max_model_len=512)
    server.obeys = False
    with server, pytest.raises((ServerError, ConfigError), match="max_tokens|tokenizer"):
        VaccEncoder(server.name, api_base=server.base, dialect="vllm", **OFF).encode(LONG)
