"""Xinference: OpenAI's embeddings and Cohere's reranking; it tells a model's length in its list of models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalscope_vacc.wire.dialects.base import Dialect, Introduction, cohere_pairs


class XinferenceDialect(Dialect):
    """Vectors are asked for as numbers, the only form that its API describes."""

    name = "xinference"
    title = "Xinference"
    encoding: Mapping[str, str] = {}

    def recognises(self, said: Introduction) -> str:
        """By the owner that it gives its models."""
        return said.owned_by("xinference")

    def max_tokens(self, entry: Mapping[str, Any]) -> Any:
        """The entry's ``max_tokens``."""
        return entry.get("max_tokens")

    def pairs(self, model: str, query: str, documents: list[str]) -> dict[str, Any]:
        """Returns the body of /v1/rerank."""
        return cohere_pairs(model, query, documents)
