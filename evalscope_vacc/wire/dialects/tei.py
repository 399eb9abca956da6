"""text-embeddings-inference: /v1/embeddings, and /rerank with a shape of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalscope_vacc.wire.dialects.base import Dialect, Introduction
from evalscope_vacc.wire.parsing import read_count, read_tokens


class TeiDialect(Dialect):
    """It cuts to the model's maximum or not at all, so only ``truncate_to=-1`` reaches it, and only for scores."""

    name = "tei"
    title = "text-embeddings-inference"
    scores_path = "/rerank"
    score_list = None
    score_field = "score"

    def recognises(self, said: Introduction) -> str:
        """By /info, where it describes itself."""
        return "/info tells max_client_batch_size" if "max_client_batch_size" in said.info else ""

    def pairs(self, model: str, query: str, documents: list[str]) -> dict[str, Any]:  # noqa: ARG002
        """Returns the body of /rerank; a server has one model."""
        return {"query": query, "texts": documents}

    def truncation(self, tokens: int | None, *, pairs: bool) -> Mapping[str, Any]:
        """Returns ``truncate``, for scores."""
        return {"truncate": tokens == -1} if pairs else {}

    def raw_scores(self) -> Mapping[str, Any]:
        """Returns ``raw_scores``."""
        return {"raw_scores": True}

    def counting(self, model: str, text: str) -> tuple[str, dict[str, Any]]:  # noqa: ARG002
        """Returns path and body of its own /tokenize."""
        return "/tokenize", {"inputs": [text], "add_special_tokens": True}

    def read_count(self, body: bytes) -> int:
        """Returns the length of the only text's list of tokens."""
        return read_count(body, None)

    def read_tokens(self, body: bytes) -> tuple[int, ...]:
        """Returns the numbers out of the only text's list of tokens."""
        return read_tokens(body, None)
