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
        """By the headers that it adds to every answer."""
        named = next((name for name in said.headers if name.startswith("x-litellm-")), "")
        return f"its answers have the header {named}" if named else ""

    def pairs(self, model: str, query: str, documents: list[str]) -> dict[str, Any]:
        """Returns the body of /v1/rerank."""
        return cohere_pairs(model, query, documents)

    def fallback(self) -> None:
        """Returns None: it has no other endpoint."""
