"""Jina's API; its vectors are asked for as floats, the only form that is the same for all its models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from evalscope_vacc.wire.dialects.base import Dialect, cohere_pairs


class JinaDialect(Dialect):
    """OpenAI's embeddings with a field of its own for the form, and Cohere's reranking."""

    name = "jina"
    encoding: ClassVar[Mapping[str, str]] = {"embedding_type": "float"}

    def pairs(self, model: str, query: str, documents: list[str]) -> dict[str, Any]:
        """Returns the body of /v1/rerank."""
        return cohere_pairs(model, query, documents)
