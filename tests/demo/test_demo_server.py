"""The demo server answers as vLLM does, with the vectors that the weights give."""

from __future__ import annotations

import base64
import http.client
import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_process import ask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalscope_vacc.demo import DemoServer

MODEL = "all-MiniLM-L6-v2"
SEP = 102

# texts that tokenize to very different lengths, some beyond 256 tokens
words = st.sampled_from(["fox", "bread", "Hallbrook", "法国的首都", "naïve", "ticket-office", "🦊", "a", "1,024.5"])
texts = st.lists(words, max_size=12).map(" ".join) | st.text(st.characters(blacklist_categories=("Cs",)), max_size=40)
long_texts = st.builds(lambda parts, times: " ".join(parts) + " the fox" * times, st.lists(words), st.integers(0, 200))
few = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def embed(server: DemoServer, prompts: Any, **fields: Any) -> tuple[np.ndarray, int]:
    body = {"model": MODEL, "input": prompts, "encoding_format": "base64", **fields}
    status, answer = ask(server.url, "/v1/embeddings", body)
    assert status == 200, answer
    assert [item["index"] for item in answer["data"]] == list(range(len(answer["data"])))
    vectors = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in answer["data"]]
    return np.stack(vectors), answer["usage"]["prompt_tokens"]


def tokens(server: DemoServer, text: str) -> list[int]:
    status, answer = ask(server.url, "/tokenize", {"model": MODEL, "prompt": text})
    assert status == 200, answer
    assert answer["count"] == len(answer["tokens"])
    return answer["tokens"]


def count(server: DemoServer, name: str) -> int:
    _, text = ask(server.url, "/metrics")
    return int(dict(line.split() for line in text.splitlines())[name])


def recorded(shared: Path) -> list[dict[str, Any]]:
    content = json.loads((shared / "data" / "vllm_recorded" / "vllm-0.32.0.json").read_text("utf-8"))
    return [exchange for exchange in content["exchanges"] if exchange["server"] == "minilm"]


# what this server does not do, and refuses or ignores where vLLM answers
LEFT_OUT = {
    "embeddings-bytes": 400,
    "embeddings-bytes-float16": 400,
    "embeddings-bytes_only": 400,
    "embeddings-base64-float16": 400,
    "embeddings-base64-bfloat16": 400,
    "embeddings-base64-float16-big": 400,
    "embeddings-messages": 400,
    "tokenize-messages": 400,
}
NOT_SERVED = ("/metrics", "/pooling", "/classify")


def test_every_recorded_request_is_answered_as_vllm_answered_it(demo_server: DemoServer, shared: Path) -> None:
    checked = 0
    for exchange in recorded(shared):
        request, expected = exchange["request"], exchange["response"]
        if request["path"] in NOT_SERVED:
            continue
        body = request.get("json", request.get("text"))
        status, answer = ask(
            demo_server.url, request["path"], body, headers=request["headers"], method=request["method"]
        )
        name = exchange["name"]
        assert status == LEFT_OUT.get(name, expected["status"]), (name, answer)
        checked += 1
        if name not in LEFT_OUT:
            same(name, answer, expected.get("json", ""))
    assert checked > 60


def same(name: str, ours: Any, theirs: Any) -> None:
    """Compares shapes, numbers and messages; identifiers, times and addresses differ by nature."""
    if isinstance(theirs, dict):
        assert isinstance(ours, dict), (name, ours)
        for key in theirs:
            if key in ("id", "created", "root", "owned_by", "permission", "version") or theirs[key] is None:
                continue
            if key == "model" and name.endswith("-no-model"):
                continue  # the first served name, which is another here
            if key == "data" and name == "models":
                assert [model["id"] for model in ours["data"]][-1:] == [model["id"] for model in theirs["data"]]
                continue
            assert key in ours, (name, key)
            same(name, ours[key], theirs[key])
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs), (name, ours)
        for our, their in zip(ours, theirs, strict=True):
            same(name, our, their)
    elif isinstance(theirs, float):
        assert math.isclose(ours, theirs, abs_tol=2e-6), (name, ours, theirs)
    elif isinstance(theirs, str) and "validation error" in theirs:
        # vLLM lists every branch of its union types; the kind of mistake and the field must agree
        kind = theirs.split("'type': '")[1].split("'")[0] if "'type': '" in theirs else theirs
        assert "validation error" in ours, (name, ours)
        assert kind in ours, (name, ours, theirs)
    elif isinstance(theirs, str) and len(theirs) == 2048:
        left, right = (np.frombuffer(base64.b64decode(text), "<f4") for text in (ours, theirs))
        assert np.abs(left - right).max() < 2e-6
    elif isinstance(theirs, str) and "does not exist. Valid aliases" in theirs:
        assert ours.startswith(theirs.split("Valid")[0]), (name, ours)
    else:
        assert ours == theirs, name


@pytest.mark.slow
@few
@given(batch=st.lists(texts, min_size=1, max_size=12))
def test_a_text_gets_the_same_vector_alone_and_in_any_batch(demo_server: DemoServer, batch: list[str]) -> None:
    vectors, used = embed(demo_server, batch)
    assert used == sum(len(tokens(demo_server, text)) for text in batch)
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6
    for text, vector in zip(batch, vectors, strict=True):
        # token ids are remembered apart from texts, so this is encoded again, alone
        alone, _ = embed(demo_server, tokens(demo_server, text))
        assert np.abs(alone[0] - vector).max() < 1e-6


@few
@given(text=long_texts, limit=st.integers(1, 256))
def test_truncation_keeps_the_beginning_and_the_end_token(demo_server: DemoServer, text: str, limit: int) -> None:
    whole = tokens(demo_server, text)
    vector, used = embed(demo_server, text, truncate_prompt_tokens=limit)
    assert used == min(len(whole), limit)
    kept = whole if len(whole) <= limit else [*whole[: limit - 1], SEP] if limit > 1 else whole[:1]
    expected, _ = embed(demo_server, kept)
    assert np.abs(expected - vector).max() < 1e-6


def test_truncation_side_right_loses_the_end_token_and_left_keeps_the_end_of_the_text(demo_server: DemoServer) -> None:
    text = "one two three four five six seven eight nine ten eleven twelve"
    whole = tokens(demo_server, text)
    right, _ = embed(demo_server, text, truncate_prompt_tokens=8, truncation_side="right")
    left, _ = embed(demo_server, text, truncate_prompt_tokens=8, truncation_side="left")
    assert np.abs(right - embed(demo_server, whole[:8])[0]).max() < 1e-6
    assert np.abs(left - embed(demo_server, [whole[0], *whole[-7:]])[0]).max() < 1e-6


def test_a_remembered_truncated_text_is_still_refused_without_truncation(demo_server: DemoServer) -> None:
    text = "remembered fox " * 200
    embed(demo_server, text, truncate_prompt_tokens=-1)
    status, answer = ask(demo_server.url, "/v1/embeddings", {"model": MODEL, "input": ["short", text]})
    assert status == 400
    assert answer["error"]["message"].startswith("This model's maximum context length is 256 tokens. However, ")


def test_a_refused_batch_encodes_nothing(demo_server: DemoServer) -> None:
    before = count(demo_server, "vacc_demo_texts_encoded_total")
    body = {"model": MODEL, "input": ["never seen before, one", "never " * 300]}
    assert ask(demo_server.url, "/v1/embeddings", body)[0] == 400
    assert count(demo_server, "vacc_demo_texts_encoded_total") == before


def test_what_was_encoded_once_is_not_encoded_again(demo_server: DemoServer) -> None:
    query, documents = "asked twice", [f"document {n} of those asked twice" for n in range(5)]
    vectors, _ = embed(demo_server, [query, *documents])
    before = count(demo_server, "vacc_demo_texts_encoded_total")
    again, _ = embed(demo_server, [query, *documents, query])
    ask(demo_server.url, "/v1/score", {"model": MODEL, "text_1": query, "text_2": documents})
    ask(demo_server.url, "/v1/rerank", {"model": MODEL, "query": query, "documents": documents})
    assert count(demo_server, "vacc_demo_texts_encoded_total") == before
    assert (again[:-1] == vectors).all()


def test_float_and_base64_are_the_same_vector(demo_server: DemoServer) -> None:
    vectors, _ = embed(demo_server, ["the same in both formats"])
    _, answer = ask(demo_server.url, "/v1/embeddings", {"input": ["the same in both formats"]})
    assert (np.asarray(answer["data"][0]["embedding"], dtype="float32") == vectors[0]).all()


@pytest.mark.parametrize("path", ["/v1/score", "/score"])
def test_scores_are_cosines_in_input_order(demo_server: DemoServer, path: str) -> None:
    query, documents = "a fox", ["a dog", "a fox", "法国的首都是巴黎。", "a dog"]
    vectors, _ = embed(demo_server, [query, *documents])
    _, answer = ask(demo_server.url, path, {"model": MODEL, "text_1": query, "text_2": documents})
    scores = [item["score"] for item in answer["data"]]
    assert [item["index"] for item in answer["data"]] == [0, 1, 2, 3]
    assert np.abs(vectors[1:].astype("float64") @ vectors[0].astype("float64") - scores).max() < 1e-9
    _, pairs = ask(demo_server.url, path, {"text_1": documents, "text_2": documents})
    assert all(abs(item["score"] - 1) < 1e-6 for item in pairs["data"])


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v2/rerank"])
def test_reranking_sorts_by_score_and_names_the_input_position(demo_server: DemoServer, path: str) -> None:
    documents = ["bread is baked", "a fox ran", "foxes run", "法国"]
    _, answer = ask(demo_server.url, path, {"query": "a running fox", "documents": documents})
    _, scored = ask(demo_server.url, "/v1/score", {"text_1": "a running fox", "text_2": documents})
    by_position = {item["index"]: item["relevance_score"] for item in answer["results"]}
    assert by_position == {item["index"]: item["score"] for item in scored["data"]}
    ranked = [item["relevance_score"] for item in answer["results"]]
    assert ranked == sorted(ranked, reverse=True)
    assert all(item["document"]["text"] == documents[item["index"]] for item in answer["results"])
    _, two = ask(demo_server.url, path, {"query": "a running fox", "documents": documents, "top_n": 2})
    assert two["results"] == answer["results"][:2]


def test_each_served_name_is_known_and_others_are_not(demo_server: DemoServer) -> None:
    _, models = ask(demo_server.url, "/v1/models")
    assert tuple(model["id"] for model in models["data"]) == demo_server.names
    assert {model["max_model_len"] for model in models["data"]} == {256}
    assert all(Path(model["root"]).is_dir() for model in models["data"])
    for name in demo_server.names:
        assert ask(demo_server.url, "/v1/embeddings", {"model": name, "input": "a fox"})[0] == 200
    status, answer = ask(demo_server.url, "/v1/embeddings", {"model": "nobody", "input": "a fox"})
    assert (status, answer["error"]["message"]) == (404, "The model `nobody` does not exist.")


@pytest.mark.slow
def test_requests_at_the_same_time_get_their_own_vectors(demo_server: DemoServer) -> None:
    batches = [[f"request {r} text {t} " + "word " * ((r * 7 + t * 13) % 60) for t in range(8)] for r in range(10)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda batch: embed(demo_server, batch)[0], batches))
    for batch, vectors in zip(batches, together, strict=True):
        for text, vector in list(zip(batch, vectors, strict=True))[::5]:
            assert np.abs(embed(demo_server, tokens(demo_server, text))[0] - vector).max() < 1e-6


def test_a_connection_is_kept_also_after_refusals_and_takes_chunked_bodies(demo_server: DemoServer) -> None:
    port = int(demo_server.url.rsplit(":", 1)[1])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.connect()
    sock = connection.sock
    kind = {"content-type": "application/json"}
    for path, body, status in (
        ("/v1/embeddings", b'{"input": "a fox"}', 200),
        ("/v1/embeddings", b'{"input": ', 400),
        ("/nope", b"{}", 404),
        ("/v1/score", b'{"text_1": "a", "text_2": []}', 400),
    ):
        connection.request("POST", path, body, kind)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
        assert connection.sock is sock
    pieces = (piece for piece in (b'{"inp', b'ut": "a fox"}'))
    connection.request("POST", "/v1/embeddings", pieces, kind, encode_chunked=True)
    answer = connection.getresponse()
    assert json.loads(answer.read())["usage"]["prompt_tokens"] == 4
    assert connection.sock is sock
    connection.close()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "body.input"),
        ({"input": None}, "body.input"),
        ({"input": [1, "a"]}, "body.input"),
        ({"input": "a", "truncate_prompt_tokens": "8"}, "body.truncate_prompt_tokens"),
        ({"input": "a", "truncate_prompt_tokens": -2}, "body.truncate_prompt_tokens"),
        ({"input": "a", "encoding_format": "int8"}, "body.encoding_format"),
        ([], "body"),
        ("{", "body.1"),
    ],
)
def test_a_wrong_field_is_named_and_the_text_is_not_repeated(demo_server: DemoServer, body: Any, param: str) -> None:
    status, answer = ask(demo_server.url, "/v1/embeddings", body)
    assert status == 400
    assert answer["error"]["param"] == param
    assert "validation error" in answer["error"]["message"]


def test_half_a_surrogate_pair_is_refused(demo_server: DemoServer) -> None:
    status, answer = ask(demo_server.url, "/v1/embeddings", r'{"input": "\ud800 fox"}')
    assert status == 400
    assert "surrogate" in answer["error"]["message"]
