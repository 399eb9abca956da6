"""A whole server made of recorded answers: texts that were never recorded get answers in the recorded shape.

Every body, error and status is the recorded one of that vLLM version; only the vectors, scores and token counts of
texts that are not in the recording are put in, by the sound server's model. What a version accepts, refuses, ignores
or reports follows from the recording.
"""

from __future__ import annotations

import base64
import copy
import json
import socket
import zlib
from pathlib import Path
from typing import Any

from loopback_server import Got, Reply
from recorded_server import MODELS, load, reply_of
from sound_server import SoundServer

TEMPLATE = {"0.9.2": "none", "0.11.0": "none", "0.17.0": "fixed", "0.32.0": "instruction"}


class RecordedModel(SoundServer):
    """One server of one recorded vLLM version, by its name in the recording."""

    def __init__(self, shared: Path, version: str, server: str) -> None:
        kind = "encoder" if server.startswith(("embedding", "minilm")) else "cross-encoder"
        super().__init__(
            MODELS[server],
            kind=kind,
            version=version,
            template=TEMPLATE[version] if server == "reranker-template" else "none",
            max_model_len=256 if server == "minilm" else 2048,
            size=384 if server == "minilm" else 64,
        )
        self.guarded = server == "embedding-guarded"
        exchanges = load(shared, version, server)
        self._by_name: dict[str, dict[str, Any]] = {}
        for exchange in exchanges:
            self._by_name.setdefault(exchange["name"], exchange)
        plain = load(shared, version, "embedding")
        for exchange in plain:
            # the guarded server was asked little more than for its key
            self._by_name.setdefault(exchange["name"], exchange)

    def recorded(self, name: str) -> Reply:
        return reply_of(self._by_name[name])

    def shape(self, name: str) -> dict[str, Any]:
        return copy.deepcopy(self._by_name[name]["response"]["json"])

    def _answer(self, got: Got, sock: socket.socket) -> Reply | None:
        if self.guarded and got.path.startswith("/v1/") and got.headers.get("authorization") != "Bearer sekret":
            return self.recorded("auth-models-no-key" if got.method == "GET" else "auth-embeddings-no-key")
        if got.method == "GET":
            names = {"/v1/models": "auth-models-right-key" if self.guarded else "models", "/version": "version"}
            return self.recorded({**names, "/health": "health"}.get(got.path, "unknown-route"))
        request = got.json()
        if got.path == "/tokenize":
            shape = self.shape("tokenize" if not self.guarded else "auth-tokenize-no-key")
            tokens = [zlib.crc32(token.encode()) for token in self.tokens(request["prompt"])]
            return Reply.of({**shape, "count": len(tokens), "tokens": tokens})
        if got.path == "/v1/embeddings":
            return self._recorded_embeddings(request)
        if got.path == "/v1/score":
            return self._recorded_scores(request)
        return self.recorded("unknown-route")

    def _recorded_embeddings(self, request: dict[str, Any]) -> Reply:
        if self.kind == "cross-encoder":
            return self.recorded("embeddings-on-reranker-base64-list")
        if request["model"] != self.name:
            return self.recorded("embeddings-wrong-model")
        texts, keep = request["input"], request.get("truncate_prompt_tokens")
        if keep is not None and keep > self.max_model_len:
            return self.recorded("embeddings-truncate-over-max")
        if keep is None and any(len(self.tokens(text)) > self.max_model_len for text in texts):
            return self.recorded("embeddings-long" if len(texts) == 1 else "embeddings-batch-one-too-long")
        plain = request["encoding_format"] == "float"
        packed_name = "embeddings-1-base64" if "embeddings-1-base64" in self._by_name else "embeddings-3-base64"
        answer = self.shape("embeddings-1-float" if plain else packed_name)
        row = answer["data"][0]
        answer["data"] = []
        for index, text in enumerate(texts):
            value = self.vector(text, keep)
            packed = value.tolist() if plain else base64.b64encode(value.astype("<f4").tobytes()).decode()
            answer["data"].append({**row, "index": index, "embedding": packed})
        self._count(answer, sum(len(self.tokens(text, keep)) for text in texts))
        return Reply.of(answer)

    def _recorded_scores(self, request: dict[str, Any]) -> Reply:
        embedding = self.kind == "encoder"
        answer = self.shape("score-on-embedding" if embedding else "score-1-N")
        sound = json.loads(self._scores(request).body)
        if "data" not in sound:
            return self.recorded("score-too-long")
        row = answer["data"][0]
        answer["data"] = [{**row, "index": new["index"], "score": new["score"]} for new in sound["data"]]
        self._count(answer, sound["usage"]["prompt_tokens"])
        return Reply.of(answer)

    @staticmethod
    def _count(answer: dict[str, Any], tokens: int) -> None:
        # which counts a version reports is its own affair; how many there are is ours
        for name in ("prompt_tokens", "total_tokens"):
            if name in answer["usage"]:
                answer["usage"][name] = tokens
