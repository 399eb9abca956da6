"""What a model does on servers that are no vLLM: nothing is believed, and what only one of them has is sent."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedding_answers import embeddings, rerank, score, vectors
from loopback_server import Got, LoopbackServer, Reply
from served_model import ServedModel

from evalscope_vacc import VaccCrossEncoder, VaccEncoder
from evalscope_vacc.errors import ConfigError, ModelNotServedError
from evalscope_vacc.wire.trial import FIRST, SECOND

LONG = "word " * 40


@contextmanager
def changed(server: ServedModel, answer: Callable[[Got, Any, Callable[..., Any]], Any]) -> Iterator[ServedModel]:
    """A served model some of whose answers are others: ``answer(got, sock, inner)``."""
    with server:
        inner = server.answer
        server.answer = lambda got, sock: answer(got, sock, inner)
        yield server


def encoder(server: LoopbackServer, name: str = "some-model", path: str = "", **keys: Any) -> VaccEncoder:
    return VaccEncoder(name, api_base=server.base + path, store=keys.pop("store", "off"), retries=1, **keys)


def evidence(model: Any, file: str = "server.json") -> Any:
    return json.loads((model.served.evidence.folder / file).read_text())


def ignoring(got: Got, sock: Any, inner: Callable[..., Any]) -> Any:
    """A server that accepts the field for truncation and does nothing with it."""
    if got.path != "/v1/embeddings":
        return inner(got, sock)
    asked = got.json()
    answer = embeddings(asked)
    answer["usage"] = {"prompt_tokens": sum(len(text.split()) + 2 for text in asked["input"])}
    return Reply.of(answer)


def without_tokenize(got: Got, sock: Any, inner: Callable[..., Any]) -> Any:
    return Reply.of({"detail": "Not Found"}, 404) if got.path == "/tokenize" else ignoring(got, sock, inner)


def test_a_text_is_cut_here_where_the_server_only_accepts_the_wish(caplog: pytest.LogCaptureFixture) -> None:
    with changed(ServedModel(max_model_len=2000), ignoring) as server, caplog.at_level(logging.WARNING):
        model = encoder(server, max_tokens=20)
        got = model.encode([LONG, "short"])
    (sent,) = [text for text in server.texts() if text.startswith("word")]
    assert sent.split() == ["word"] * 18  # two of the twenty tokens are special
    np.testing.assert_array_equal(got, vectors([sent, "short"]))
    assert evidence(model)["models"][0]["seen"][0]["truncates"] is False
    assert evidence(model, "usage.json")["tasks"][0]["cut"] == 1
    assert "truncation by the server is ignored" in caplog.text
    assert all("truncate_prompt_tokens" not in body for body in server.bodies())


def test_without_a_way_to_count_a_text_that_may_be_too_long_stops_the_run() -> None:
    with changed(ServedModel(max_model_len=2000), without_tokenize) as server:
        model = encoder(server, max_tokens=20)
        assert len(model.encode(["short"])) == 1
        with pytest.raises(ConfigError, match="set `tokenizer:`"):
            model.encode([LONG])


def test_a_count_that_is_not_the_servers_own_cuts_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def without_special_tokens(got: Got, sock: Any, inner: Callable[..., Any]) -> Any:
        if got.path == "/tokenize":
            return Reply.of({"count": len(got.json()["prompt"].split())})
        return ignoring(got, sock, inner)

    with changed(ServedModel(max_model_len=2000), without_special_tokens) as server:
        model = encoder(server, max_tokens=20)
        with pytest.raises(ConfigError, match="set `tokenizer:`"):
            model.encode([LONG])
    assert "its /tokenize counts 15 tokens in a text, and the server reads 17" in caplog.text


def test_where_no_limit_is_known_the_number_of_cut_texts_is_not_either() -> None:
    def silent(got: Got, sock: Any, inner: Callable[..., Any]) -> Any:
        return Reply.of({"data": []}) if got.path == "/v1/models" else inner(got, sock)

    with changed(ServedModel(), silent) as server:
        model = encoder(server)
        model.encode(["short"])
    assert evidence(model, "usage.json")["tasks"][0]["cut"] is None


def test_two_texts_are_tried_once_a_run_however_much_is_sent() -> None:
    with ServedModel(max_model_len=2000) as server:
        model = encoder(server, batch_size=2)
        for _ in range(3):
            model.encode([f"text {i}" for i in range(20)])
    sent = [text for got in server.requests if got.path == "/v1/embeddings" for text in got.json()["input"]]
    assert (sent.count(FIRST), sent.count(SECOND)) == (1, 1)


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listed", ["other", "hosted/*"])
def test_a_name_that_is_not_listed_but_answered_to_is_a_warning(listed: str, caplog: pytest.LogCaptureFixture) -> None:
    def other(got: Got, sock: Any, inner: Callable[..., Any]) -> Any:
        return Reply.of({"data": [{"id": listed}]}) if got.path == "/v1/models" else inner(got, sock)

    with changed(ServedModel(), other) as server, caplog.at_level(logging.WARNING):
        assert len(encoder(server).encode(["a"])) == 1
    assert f"does not list 'some-model' (it lists {listed}), but answers requests" in caplog.text


def test_a_name_that_is_neither_listed_nor_answered_to_is_an_error() -> None:
    with ServedModel("this") as server, pytest.raises(ModelNotServedError, match="it serves 'this'"):
        encoder(server, "that").encode(["a"])


def rooted(root: str) -> Callable[..., Any]:
    def answer(got: Got, sock: Any, inner: Callable[..., Any]) -> Any:
        if got.path != "/v1/models":
            return inner(got, sock)
        return Reply.of({"data": [{"id": "some-model", "root": root, "max_model_len": 32768}]})

    return answer


@pytest.mark.parametrize(
    "root",
    ["/models/Qwen3-Embedding-0.6B", "/m/Qwen3-Embedding-0.6B/snapshots/abc", "/m/models--Qwen--Qwen3-Embedding-0.6B"],
)
def test_a_name_of_its_own_gets_the_rules_of_the_weights_that_the_server_tells(
    root: str, caplog: pytest.LogCaptureFixture
) -> None:
    with changed(ServedModel(dimensions=1024), rooted(root)) as server, caplog.at_level(logging.INFO):
        model = encoder(server, model_kwargs={"instruction_dict_path": "metadata"})
        model.encode(["how tall is it"], prompt_type="query")
    assert any(text.startswith("Instruct: ") for text in server.texts())
    assert (
        f"some-model is Qwen3-Embedding-0.6B (the server names its weights: {root}): its rules are used" in caplog.text
    )
    assert evidence(model, "config.json")["models"][0]["instruction_profile"] == "qwen-official"


def test_what_is_written_wins_over_the_weights_that_the_server_tells() -> None:
    with changed(ServedModel(dimensions=1024), rooted("Qwen3-Embedding-0.6B")) as server:
        encoder(server, instruction_profile="none").encode(["how tall is it"], prompt_type="query")
    assert server.texts() == ["how tall is it"]


def test_weights_of_the_other_kind_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with changed(ServedModel(), rooted("Qwen3-Reranker-0.6B")) as server, caplog.at_level(logging.WARNING):
        encoder(server).encode(["a"])
    assert "which is a reranker" in caplog.text


# -- fields that only one server has -----------------------------------------------------------------------------------


def test_further_fields_go_with_the_side_of_the_text(tmp_path: Path) -> None:
    with ServedModel() as server:
        model = encoder(
            server,
            extra_body={"normalized": True},
            extra_body_query={"input_type": "query"},
            extra_body_document={"input_type": "document"},
            store=str(tmp_path),
        )
        for side in ("query", "document", None):
            model.encode([f"{side} text"], prompt_type=side)
    fields = {body["input"][0]: (body.get("normalized"), body.get("input_type")) for body in server.bodies()}
    assert fields == {
        "query text": (True, "query"),
        "document text": (True, "document"),
        "None text": (True, None),
    }


def test_one_text_on_two_sides_is_stored_twice_where_the_fields_differ(tmp_path: Path) -> None:
    with ServedModel() as server:
        for _ in range(2):
            model = encoder(server, extra_body_query={"input_type": "query"}, store=str(tmp_path))
            for side in ("query", "document"):
                model.encode(["the same"], prompt_type=side)
            model.close()
    assert [body.get("input_type") for body in server.bodies()] == ["query", None]


def test_further_fields_are_part_of_the_result_s_name() -> None:
    with ServedModel() as server:
        settings = [
            encoder(server, **keys).served.settings
            for keys in ({}, {"extra_body": {"a": 1}}, {"extra_body_query": {"a": 1}}, {"extra_body": {"a": 2}})
        ]
    assert settings[0] == {}
    assert len({each["body"] for each in settings[1:]}) == 3


@pytest.mark.parametrize("field", ["input", "model", "documents"])
def test_what_a_request_is_about_cannot_be_a_further_field(field: str) -> None:
    with pytest.raises(ConfigError, match=f"must not hold {field}"):
        VaccEncoder("m", api_base="http://127.0.0.1:9", extra_body={field: "x"})


def test_a_size_that_is_asked_for_and_ignored_is_an_error() -> None:
    with ServedModel() as server, pytest.raises(ConfigError, match="vectors of 8 numbers, the server returns 16"):
        encoder(server, extra_body={"dimensions": 8}).encode(["a"])


def test_further_fields_go_with_pairs() -> None:
    with ServedModel(kind="cross-encoder") as server:
        model = VaccCrossEncoder("some-model", api_base=server.base, store="off", extra_body={"raw": True})
        model.predict(["q"], ["d"])
    assert all(got.json()["raw"] for got in server.requests if got.path == "/v1/score")


# -- hosted services, by the shapes that they document -----------------------------------------------------------------


def dashscope(got: Got, sock: Any) -> Reply:
    """Its native API."""
    if got.path.endswith("/text-embedding"):
        asked = got.json()
        texts, side = asked["input"]["texts"], asked["parameters"].get("text_type")
        if len(texts) > 10:
            words = "batch size is invalid, it should not be larger than 10.: input.contents"
            return Reply.of({"code": "InvalidParameter", "message": words}, 400)
        rows = [
            {"text_index": i, "embedding": vectors([f"{side}: {text}"])[0].tolist()} for i, text in enumerate(texts)
        ]
        return Reply.of({"output": {"embeddings": rows[::-1]}, "usage": {"total_tokens": 7}, "request_id": "r"})
    if got.path.endswith("/text-rerank"):
        asked = got.json()
        query = asked["input"]["query"] + asked["parameters"].get("instruct", "")
        rows = [
            {"index": i, "relevance_score": score(query, document)}
            for i, document in enumerate(asked["input"]["documents"])
        ]
        rows.sort(key=lambda row: -row["relevance_score"])
        return Reply.of({"output": {"results": rows}, "usage": {"total_tokens": 7}, "request_id": "r"})
    return Reply.of({"code": "NotFound", "message": "no such path"}, 404)


@pytest.mark.parametrize("path", ["", "/compatible-mode/v1", "/api/v1"])
def test_dashscope_gets_ten_texts_at_once_and_what_they_are_for(path: str) -> None:
    texts = [f"text {i}" for i in range(25)]
    with LoopbackServer(dashscope) as server:
        model = encoder(server, path=path, dialect="dashscope")
        for side in ("query", "document"):
            expected = vectors([f"{side}: {text}" for text in texts])
            np.testing.assert_allclose(model.encode(texts, prompt_type=side), expected, atol=1e-6)
    assert model.open().engine.usage.splits == 0


def test_dashscope_reranks_with_an_instruction() -> None:
    with LoopbackServer(dashscope) as server:
        model = VaccCrossEncoder(
            "qwen3-rerank", api_base=f"{server.base}/api/v1", dialect="dashscope", store="off",
            is_cross_encoder=True, extra_body={"instruct": " please"},
        )  # fmt: skip
        got = model.predict(["q"] * 3, ["a", "b", "c"])
    np.testing.assert_allclose(got, [score("q please", d) for d in "abc"], atol=1e-6)


def openai_form(refuse: Callable[[dict[str, Any]], str], path: str = "/v1") -> Callable[[Got, Any], Reply]:
    """A service that refuses some requests with words of its own."""

    def answer(got: Got, sock: Any) -> Reply:
        if got.path == f"{path}/embeddings":
            words = refuse(got.json())
            return (
                Reply.of({"error": {"message": words, "code": 400}}, 400) if words else Reply.of(embeddings(got.json()))
            )
        if got.path == f"{path}/rerank":
            return Reply.of(rerank(got.json()))
        return Reply.of({"error": {"message": "not found", "code": 404}}, 404)

    return answer


def test_jina_is_told_what_texts_are_for() -> None:
    with LoopbackServer(openai_form(lambda asked: "" if "task" in asked else "task is missing")) as server:
        model = encoder(server, "jina-embeddings-v3", dialect="jina", preflight=False)
        for side in ("query", "document", None):
            model.encode([f"{side} text"], prompt_type=side)
    tasks = {got.json()["input"][0]: got.json()["task"] for got in server.requests if got.path == "/v1/embeddings"}
    assert tasks["query text"] == "retrieval.query"
    assert tasks["document text"] == "retrieval.passage"
    assert tasks["None text"] == "text-matching"


def test_siliconflow_gets_no_more_than_it_takes_and_an_instruction() -> None:
    with LoopbackServer(openai_form(lambda asked: "too many" if len(asked["input"]) > 64 else "")) as server:
        texts = [f"text {i}" for i in range(100)]
        model = encoder(server, "bge-m3-x", dialect="siliconflow", batch_size=100)
        np.testing.assert_array_equal(model.encode(texts), vectors(texts))
    assert model.open().engine.usage.splits == 0


@pytest.mark.parametrize("path", ["/v1beta/openai", "/api/v3", "/compatible-mode/v1"])
def test_a_service_that_takes_no_base64_is_asked_for_numbers_after_one_refusal(path: str) -> None:
    def refuse(asked: dict[str, Any]) -> str:
        return "base64 is not supported" if asked.get("encoding_format") == "base64" else ""

    with LoopbackServer(openai_form(refuse, path)) as server:
        model = encoder(server, path=path, batch_size=4)
        texts = [f"text {i}" for i in range(40)]
        np.testing.assert_allclose(model.encode(texts), vectors(texts), atol=1e-6)
    refused = [
        g for g in server.requests if g.path.endswith("embeddings") and g.json().get("encoding_format") == "base64"
    ]
    assert len(refused) == 1


def test_a_query_of_the_address_goes_with_every_request(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    def azure(got: Got, sock: Any) -> Reply:
        seen.append(got.path)
        deployment = "/openai/deployments/small/embeddings?api-version=2024-10-21&sig=s3cretS3cret"
        return Reply.of(embeddings(got.json())) if got.path == deployment else Reply.of({"error": "no"}, 404)

    with LoopbackServer(azure) as server, caplog.at_level(logging.DEBUG):
        model = encoder(server, path="/openai/deployments/small?api-version=2024-10-21&sig=s3cretS3cret")
        np.testing.assert_array_equal(model.encode(["a"]), vectors(["a"]))
    assert all("api-version=2024-10-21" in path for path in seen)
    written = "".join(file.read_text() for file in model.served.evidence.folder.iterdir())
    assert "s3cret" not in written + caplog.text + repr(model.served.config)
