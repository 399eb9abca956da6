"""text-embeddings-inference: /v1/embeddings, and /rerank with a shape of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalscope_vacc.wire.dialects.base import Dialect


class TeiDialect(Dialect):
    """It cuts to the model's maximum or not at all, so only ``truncate_to=-1`` reaches it, and only for scores."""

    name = "tei"
    scores_path = "/rerank"
    score_list = None
    score_field = "score"

    def pairs(self, model: str, query: str, documents: list[str]) -> dict[str, Any]:  # noqa: ARG002
        """Returns the body of /rerank; a server has one model."""
        return {"query": query, "texts": documents}

    def truncation(self, tokens: int | None, *, pairs: bool) -> Mapping[str, Any]:
        """Returns ``truncate``, for scores."""
        return {"truncate": tokens == -1} if pairs else {}

    def raw_scores(self) -> Mapping[str, Any]:
        """Returns ``raw_scores``."""
        return {"raw_scores": True}
