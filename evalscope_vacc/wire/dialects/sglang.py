"""SGLang: OpenAI's embeddings, and a /v1/rerank that answers with a bare list; its /v1/score is another API."""

from __future__ import annotations

from typing import Any

from evalscope_vacc.wire.dialects.base import Dialect, Introduction


class SglangDialect(Dialect):
    """It refuses texts that are too long; they are cut here, counted by its /tokenize where it has one."""

    name = "sglang"
    title = "SGLang"
    score_list = None
    score_field = "score"

    def recognises(self, said: Introduction) -> str:
        """By the owner that it gives its models."""
        return said.owned_by("sglang")

    def pairs(self, model: str, query: str, documents: list[str]) -> dict[str, Any]:
        """Returns the body of /v1/rerank."""
        return {"model": model, "query": query, "documents": documents}
