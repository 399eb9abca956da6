"""Infinity; it cuts to the model's maximum by itself, and counts characters unless it is told to count tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalscope_vacc.wire.dialects.base import Dialect, Introduction, cohere_pairs


class InfinityDialect(Dialect):
    """OpenAI's embeddings and Cohere's reranking, without /v1 unless ``--url-prefix /v1`` put it there."""

    name = "infinity"
    title = "infinity"
    embeddings_path = "/embeddings"
    scores_path = "/rerank"

    def recognises(self, said: Introduction) -> str:
        """By the owner that it gives its models."""
        return said.owned_by("infinity")

    def at(self, said: Introduction) -> Dialect:
        """With the prefix under which its list of models was found."""
        prefix = said.models_path.removesuffix("/models")
        return self.changed(embeddings_path=f"{prefix}/embeddings", scores_path=f"{prefix}/rerank")

    def pairs(self, model: str, query: str, documents: list[str]) -> dict[str, Any]:
        """Returns the body of /rerank."""
        return cohere_pairs(model, query, documents)

    def raw_scores(self) -> Mapping[str, Any]:
        """Returns ``raw_scores``."""
        return {"raw_scores": True}
