"""LiteLLM's proxy, a gateway: what it passes on, and what it drops without a word, depends on what is behind it."""

from __future__ import annotations

from typing import Any

from evalscope_vacc.wire.dialects.base import Introduction, cohere_pairs
from evalscope_vacc.wire.dialects.vllm import VllmDialect


class LiteLlmDialect(VllmDialect):
    """OpenAI's embeddings, with vLLM's field for truncation where it comes through, and Cohere's reranking."""

    name = "litellm"
    title = "LiteLLM"
    scores_path = "/v1/rerank"
    score_list = "results"
    score_field = "relevance_score"

    def recognises(self, said: Introduction) -> str:
        """By its cheap health endpoint: its list of models shows nothing of it."""
        return "/health/liveliness says that it is alive" if "alive" in said.liveliness else ""

    def pairs(self, model: str, query: str, documents: list[str]) -> dict[str, Any]:
        """Returns the body of /v1/rerank."""
        return cohere_pairs(model, query, documents)

    def fallback(self) -> None:
        """Returns None: it has no other endpoint."""
