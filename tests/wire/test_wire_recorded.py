"""Every exchange recorded from vLLM 0.9.2, 0.11.0, 0.17.0 and 0.32.0, understood by the client."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from draining import drain
from recorded_server import MODELS, SERVERS, VERSIONS, RecordedServer, load, request_body

from evalscope_vacc.errors import (
    AuthenticationError,
    BadAnswerError,
    InputTooLongError,
    ModelNotServedError,
    RequestRefusedError,
    ServerError,
)
from evalscope_vacc.wire.dialects import get_dialect
from evalscope_vacc.wire.engine import Connection, Engine, Request
from evalscope_vacc.wire.parsing import read_score_list, read_vectors
from evalscope_vacc.wire.probe import probe

READERS: dict[str, Callable[[bytes, int], Any]] = {
    "embeddings": read_vectors,
    "score": read_score_list,
    "rerank": lambda body, n: read_score_list(body, n, key="results", value="relevance_score"),
}
# answers to fields that no dialect of ours sends: other number formats under the same shape, part of the results
NOT_OURS = ("float16", "bfloat16", "top_n-2", "embeddings-base64-big")


def asked_for(document: dict[str, Any]) -> int:
    """How many vectors or scores a recorded request asks for."""
    for name in ("input", "text_2", "documents", "items", "data_2"):
        value = document.get(name)
        if isinstance(value, list):
            return 1 if value and isinstance(value[0], int) else len(value)
        if value is not None:
            return len(value.get("content", [])) if isinstance(value, dict) else 1
    return 0


def words_of(document: Any) -> str:
    """The message of a recorded refusal, read independently of the client."""
    if isinstance(document.get("error"), dict):
        return document["error"]["message"]
    return document.get("message") or document.get("detail") or document["error"]


def numbers_of(document: dict[str, Any], kind: str) -> list[Any]:
    """The recorded numbers in input order, read independently of the client."""
    if kind == "rerank":
        return [row["relevance_score"] for row in sorted(document["results"], key=lambda row: row["index"])]
    rows = sorted(document["data"], key=lambda row: row["index"])
    if kind == "score":
        return [row["score"] for row in rows]
    found = []
    for row in rows:
        value = row["embedding"]
        if isinstance(value, str):
            data = base64.b64decode(value)
            found.append(list(struct.unpack(f"<{len(data) // 4}f", data)))
        else:
            found.append([struct.unpack("<f", struct.pack("<f", number))[0] for number in value])
    return found


@pytest.fixture(params=[(v, s) for v in VERSIONS for s in SERVERS], ids=lambda p: f"{p[0]}-{p[1]}")
def recorded(request: pytest.FixtureRequest, shared: Path) -> tuple[str, str, list[dict[str, Any]]]:
    version, server = request.param
    return version, server, load(shared, version, server)


def test_every_recorded_exchange_is_understood(recorded: tuple[str, str, list[dict[str, Any]]]) -> None:
    version, server, exchanges = recorded
    counts = {"numbers": 0, "refusals": 0, "errors with status 200": 0, "others": 0}
    with RecordedServer(exchanges) as replay:
        for exchange in exchanges:
            asked, response = exchange["request"], exchange["response"]
            authorization = asked["headers"].get("authorization", "")
            kind = asked["path"].rpartition("/")[2]
            name = exchange["name"]
            if asked["headers"].get("content-type") == "text/plain" or (kind == "embeddings" and "elided" in response):
                continue
            if any(part in name for part in NOT_OURS) or "elided" in response:
                continue
            key = authorization.removeprefix("Bearer ") or None
            with Engine(Connection((replay.base,), api_key=key, retries=0, wait_for_server_s=0)) as engine:
                reader = READERS.get(kind) if asked["method"] == "POST" else None
                n = asked_for(asked.get("json", {}))
                got: list[Any] = []

                def handle(request: Request, answer: Any, reader: Any = reader, n: int = n, got: list = got) -> None:
                    got.append(reader(answer.body, n))

                def ask(
                    reader: Any = reader,
                    asked: Any = asked,
                    exchange: Any = exchange,
                    n: int = n,
                    got: list = got,
                    engine: Engine = engine,
                    handle: Any = handle,
                ) -> None:
                    if reader is None:
                        got.append(engine.call(asked["method"], asked["path"], asked.get("json")))
                    else:
                        drain(engine, [Request(asked["path"], request_body(exchange), n)], handle)

                document = response.get("json")
                if response["status"] != 200:
                    with pytest.raises(RequestRefusedError) as caught:
                        ask()
                    assert caught.value.status == response["status"], name
                    said = words_of(document)
                    shown = caught.value.server_message
                    assert shown[:590] == said[:590], name
                    assert shown[:590] in str(caught.value), name
                    if response["status"] == 401:
                        assert isinstance(caught.value, AuthenticationError), name
                    if "wrong-model" in name:
                        assert isinstance(caught.value, ModelNotServedError), name
                    too_long = name.endswith(("-long", "-one-too-long", "score-max_tokens_per_doc"))
                    assert isinstance(caught.value, InputTooLongError) == too_long, (name, said)
                    counts["refusals"] += 1
                elif reader is None:
                    ask()
                    assert got[0].status == 200, name
                    counts["others"] += 1
                elif document is None or "error" in document or document.get("object") == "error":
                    # an error with status 200 (0.9.2, 0.11.0), or raw bytes that were not asked for by us
                    with pytest.raises(BadAnswerError) as bad:
                        ask()
                    if document is not None:
                        assert words_of(document)[:590] in str(bad.value), name
                        counts["errors with status 200"] += 1
                elif kind == "embeddings" and not document["data"]:
                    with pytest.raises(BadAnswerError, match="0 vectors came for 1 texts"):
                        ask()
                else:
                    ask()
                    assert got[0].values.tolist() == numbers_of(document, kind), name
                    usage = document["usage"]
                    assert got[0].tokens == usage.get("prompt_tokens", usage["total_tokens"]), name
                    counts["numbers"] += 1
    assert counts["refusals"] > 10
    assert counts["others"] > 5
    assert counts["numbers"] >= {"minilm": 2, "embedding-guarded": 6}.get(server, 15)
    refused_late = server.startswith("reranker") and version in {"0.9.2", "0.11.0"}
    assert counts["errors with status 200"] == (2 if refused_late else 0)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_dialect_asks_and_reads_embeddings(version: str, shared: Path) -> None:
    exchanges = load(shared, version, "embedding")
    one = next(e for e in exchanges if e["name"] == "embeddings-3-base64")
    asked = one["request"]["json"]
    path, body = get_dialect("auto").embeddings(asked["model"], asked["input"])
    with RecordedServer(exchanges) as replay, Engine(Connection((replay.base,), retries=0)) as engine:
        got: list[Any] = []
        drain(
            engine,
            [Request(path, body, 3)],
            lambda _, answer: got.append(get_dialect("vllm").read_embeddings(answer.body, 3)),
        )
    assert got[0].values.tolist() == numbers_of(one["response"]["json"], "embeddings")
    assert got[0].values.dtype == "float32"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("server", ["reranker", "reranker-template"])
@pytest.mark.parametrize(("name", "endpoint"), [("score-1-N", "score"), ("rerank-5", "rerank")])
def test_the_dialect_asks_and_reads_scores(version: str, server: str, name: str, endpoint: str, shared: Path) -> None:
    exchanges = load(shared, version, server)
    one = next(e for e in exchanges if e["name"] == name)
    asked = one["request"]["json"]
    dialect: Any = get_dialect("vllm")
    if endpoint == "rerank":
        dialect = dialect.fallback()
    documents = asked.get("text_2") or asked["documents"]
    path, body = dialect.scores(asked["model"], asked.get("text_1") or asked["query"], documents)
    with RecordedServer(exchanges) as replay, Engine(Connection((replay.base,), retries=0)) as engine:
        got: list[Any] = []
        drain(
            engine,
            [Request(path, body, len(documents))],
            lambda _, answer: got.append(dialect.read_scores(answer.body, len(documents))),
        )
    assert got[0].values.tolist() == numbers_of(one["response"]["json"], endpoint)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("server", SERVERS)
def test_the_probe_reads_version_models_and_limit(version: str, server: str, shared: Path) -> None:
    key = "sekret" if server == "embedding-guarded" else None
    exchanges = load(shared, version, server)
    # of the recorded requests with a key only /v1/models is asked by the probe; the rest is not guarded anyway
    for exchange in exchanges:
        if key and exchange["name"] in {"version", "auth-version-no-key", "auth-tokenize-no-key"}:
            exchange["request"]["headers"]["authorization"] = f"Bearer {key}"
    with (
        RecordedServer(exchanges) as replay,
        Engine(Connection((replay.base,), api_key=key, retries=0)) as engine,
    ):
        facts = probe(engine, MODELS[server])
    assert facts.version == version
    assert facts.served == (MODELS[server],)
    assert facts.max_model_len == (256 if server == "minilm" else 2048)
    assert facts.root == "MODEL_DIR"
    assert facts.serves(MODELS[server])
    assert not facts.serves("another")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_wrong_key_is_refused_and_not_shown(version: str, shared: Path) -> None:
    with RecordedServer(load(shared, version, "embedding-guarded")) as replay:
        connection = Connection((replay.base,), api_key="wrong", retries=0)
        with Engine(connection) as engine, pytest.raises(AuthenticationError) as caught:
            probe(engine, "qwen3-embedding")
    assert caught.value.server_message == "Unauthorized"
    assert isinstance(caught.value, ServerError)
    assert "wrong" not in str(caught.value).replace("wrong key", "")
