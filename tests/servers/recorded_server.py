"""Replays the exchanges that were recorded from real vLLM servers, over real HTTP."""

from __future__ import annotations

import base64
import json
import socket
from collections import defaultdict
from pathlib import Path
from typing import Any

from loopback_server import Got, LoopbackServer, Reply

VERSIONS = ("0.9.2", "0.11.0", "0.17.0", "0.32.0")
SERVERS = ("embedding", "reranker", "reranker-template", "minilm", "embedding-guarded")
MODELS = {
    "embedding": "qwen3-embedding",
    "reranker": "qwen3-reranker",
    "reranker-template": "qwen3-reranker",
    "minilm": "minilm",
    "embedding-guarded": "qwen3-embedding",
}


def load(shared: Path, version: str, server: str) -> list[dict[str, Any]]:
    """The exchanges of one server."""
    text = (shared / "data" / "vllm_recorded" / f"vllm-{version}.json").read_text(encoding="utf-8")
    return [exchange for exchange in json.loads(text)["exchanges"] if exchange["server"] == server]


def reply_of(exchange: dict[str, Any]) -> Reply:
    """The recorded answer, as bytes."""
    response = exchange["response"]
    if "json" in response:
        body = json.dumps(response["json"], ensure_ascii=False, separators=(",", ":")).encode()
    elif "base64" in response:
        body = base64.b64decode(response["base64"])
    else:
        body = response["text"].encode()
    headers = {name: value for name, value in response["headers"].items() if name != "content-type"}
    return Reply(response["status"], body, response["headers"].get("content-type", ""), headers)


def request_body(exchange: dict[str, Any]) -> bytes:
    """The recorded request's body."""
    request = exchange["request"]
    if "json" in request:
        return json.dumps(request["json"]).encode()
    return request.get("text", "").encode()


class RecordedServer(LoopbackServer):
    """Answers a recorded request with its recorded answer, in recorded order where one was sent several times.

    A request that was never recorded gets status 599, which fails the test that made it.
    """

    def __init__(self, exchanges: list[dict[str, Any]]) -> None:
        super().__init__(self._replay)
        self._replies: dict[tuple[str, str, str, str], list[Reply]] = defaultdict(list)
        for exchange in exchanges:
            if "elided" in exchange["response"]:
                # its vectors were left out of the recording: it is no real answer
                continue
            request = exchange["request"]
            headers = {name.lower(): value for name, value in request["headers"].items()}
            key = self._key(request["method"], request["path"], request_body(exchange), headers)
            self._replies[key].append(reply_of(exchange))

    @staticmethod
    def _key(method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[str, str, str, str]:
        try:
            text = json.dumps(json.loads(body), sort_keys=True) if body else ""
        except ValueError:
            text = body.decode()
        kind = headers.get("content-type", "") if body else ""
        return method, path, f"{kind} {text}", headers.get("authorization", "")

    def _replay(self, got: Got, sock: socket.socket) -> Reply:
        replies = self._replies.get(self._key(got.method, got.path, got.body, got.headers))
        if not replies:
            return Reply.of({"error": "this request was not recorded"}, 599)
        return replies.pop(0) if len(replies) > 1 else replies[0]
