"""A whole served model on the loopback address whose answers depend on the text alone, and which keeps every request."""

from __future__ import annotations

import socket
from typing import Any

from embedding_answers import embeddings, rerank, scores
from loopback_server import Got, LoopbackServer, Reply

TEMPLATE_TOKENS = 100


class ServedModel(LoopbackServer):
    """Answers as vLLM does.

    Args:
        name: The served name.
        kind: "encoder" or "cross-encoder".
        template: For a cross-encoder: "none", "fixed" (a template of its own) or "instruction" (one that takes a
            request's instruction).
        max_model_len: Words that a text may have; longer ones are refused unless the request asks for truncation.
        dimensions: Size of a vector.
    """

    def __init__(
        self,
        name: str = "some-model",
        *,
        kind: str = "encoder",
        template: str = "none",
        max_model_len: int = 100_000,
        dimensions: int = 16,
        key: str | None = None,
    ) -> None:
        super().__init__(self._answer)
        self.name = name
        self.kind = kind
        self.template = template
        self.max_model_len = max_model_len
        self.dimensions = dimensions
        self.key = key

    def texts(self) -> list[str]:
        """Every text that an embedding was asked for, in the order of arrival, without our own probes."""
        sent: list[str] = []
        for got in self.requests:
            if got.path == "/v1/embeddings":
                given = got.json()["input"]
                sent += [given] if isinstance(given, str) else given
        return [text for text in sent if text not in self._probes()]

    def bodies(self) -> list[dict[str, Any]]:
        """Every request for embeddings, in the order of arrival, without our own probes."""
        asked = [got.json() for got in self.requests if got.path == "/v1/embeddings"]
        return [body for body in asked if not self._probes().issuperset(body["input"])]

    def pairs(self) -> list[tuple[str, str]]:
        """Every pair that a score was asked for, without our own probes."""
        return [
            (got.json()["text_1"], document)
            for got in self.requests
            if got.path == "/v1/score"
            for document in got.json()["text_2"]
            if not self._is_probe(got.json()["text_1"])
        ]

    @staticmethod
    def _is_probe(query: str) -> bool:
        """Whether a query is the template probe's, the store's or the preflight's, also inside a template."""
        from evalscope_vacc.checks.texts import SANITY_EN, SANITY_ZH
        from evalscope_vacc.store import PROBE_PAIRS
        from evalscope_vacc.wire.trial import QUERY

        ours = {pair[0] for pair in (*PROBE_PAIRS, *SANITY_EN, *SANITY_ZH)}
        return query in ("a", QUERY) or any(own in query for own in ours)

    @staticmethod
    def _probes() -> set[str]:
        from evalscope_vacc.checks.texts import PREFLIGHT_TEXTS
        from evalscope_vacc.store import PROBE_TEXTS
        from evalscope_vacc.wire.trial import FIRST, SECOND

        return {"a", FIRST, SECOND, *PROBE_TEXTS, *PREFLIGHT_TEXTS}

    def _answer(self, got: Got, sock: socket.socket) -> Reply:
        if self.key and got.path.startswith("/v1") and got.headers.get("authorization") != f"Bearer {self.key}":
            return Reply.of({"error": "Unauthorized"}, 401)
        if got.path == "/health":
            return Reply(content_type="")
        if got.path == "/version":
            return Reply.of({"version": "0.32.0"})
        if got.path == "/v1/models":
            return Reply.of({"data": [{"id": self.name, "root": "weights", "max_model_len": self.max_model_len}]})
        if got.path == "/tokenize":
            asked = got.json()
            if "inputs" in asked:  # text-embeddings-inference's form
                return Reply.of([[{"id": i} for i in range(self._tokens(text))] for text in asked["inputs"]])
            if "prompt" not in asked:
                return Reply.of({"detail": "prompt is missing"}, 422)
            return Reply.of({"count": self._tokens(asked["prompt"]), "max_model_len": self.max_model_len})
        if got.path in ("/v1/embeddings", "/v1/score", "/v1/rerank") and got.json().get("model") != self.name:
            message = f"The model `{got.json().get('model')}` does not exist."
            return Reply.of({"error": {"message": message, "type": "NotFoundError", "code": 404}}, 404)
        if got.path == "/v1/embeddings" and self.kind == "encoder":
            return self._embeddings(got.json())
        if got.path == "/v1/score":
            return self._scores(got.json())
        if got.path == "/v1/rerank":
            return Reply.of(rerank(got.json()))
        return Reply.of({"detail": "Not Found"}, 404)

    def _embeddings(self, request: dict[str, Any]) -> Reply:
        texts = [request["input"]] if isinstance(request["input"], str) else request["input"]
        if "truncate_prompt_tokens" not in request and any(self._tokens(t) > self.max_model_len for t in texts):
            message = f"This model's maximum context length is {self.max_model_len} tokens. Please reduce the length."
            return Reply.of({"error": {"message": message, "type": "BadRequestError", "code": 400}}, 400)
        keep = request.get("truncate_prompt_tokens", self.max_model_len)
        kept = [t if self._tokens(t) <= keep else " ".join(t.split()[: max(0, keep - 2)]) for t in texts]
        answer = embeddings({**request, "input": kept}, self.dimensions)
        answer["usage"]["prompt_tokens"] = sum(min(self._tokens(text), keep) for text in texts)
        return Reply.of(answer)

    def _scores(self, request: dict[str, Any]) -> Reply:
        keep = request.get("truncate_prompt_tokens")
        if keep is not None:
            room = max(0, keep - len(request["text_1"].split()))
            texts = [text if len(text.split()) <= room else " ".join(text.split()[:room]) for text in request["text_2"]]
            request = {**request, "text_2": texts}
        answer = scores(request)
        answer["usage"]["prompt_tokens"] = self._pair_tokens(request)
        return Reply.of(answer)

    @staticmethod
    def _tokens(text: str) -> int:
        return len(text.split()) + 2

    def _pair_tokens(self, request: dict[str, Any]) -> int:
        tokens = 0
        for document in request["text_2"]:
            tokens += len(request["text_1"].split()) + len(document.split())
            if self.template != "none":
                tokens += TEMPLATE_TOKENS
            if self.template == "instruction":
                tokens += len(str(request.get("instruction", "")).split())
        return tokens
