"""Infinity with its default (empty) URL prefix; it cuts to the model's maximum by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalscope_vacc.wire.dialects.base import Dialect, cohere_pairs


class InfinityDialect(Dialect):
    """OpenAI's embeddings and Cohere's reranking, without /v1."""

    name = "infinity"
    embeddings_path = "/embeddings"
    scores_path = "/rerank"

    def pairs(self, model: str, query: str, documents: list[str]) -> dict[str, Any]:
        """Returns the body of /rerank."""
        return cohere_pairs(model, query, documents)

    def raw_scores(self) -> Mapping[str, Any]:
        """Returns ``raw_scores``."""
        return {"raw_scores": True}
