"""SiliconFlow: OpenAI's embeddings, 64 texts a request, and Cohere's reranking with an instruction beside the texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalscope_vacc.wire.dialects.base import Dialect, Introduction, cohere_pairs


class SiliconFlowDialect(Dialect):
    """As its documentation describes it."""

    name = "siliconflow"
    title = "SiliconFlow"
    max_batch = 64

    def recognises(self, said: Introduction) -> str:
        """By its hosts."""
        return said.at_host("api.siliconflow.cn", "api.siliconflow.com")

    def pairs(self, model: str, query: str, documents: list[str]) -> dict[str, Any]:
        """Returns the body of /v1/rerank."""
        return cohere_pairs(model, query, documents)

    def instruction(self, text: str) -> Mapping[str, Any]:
        """Returns ``instruction``, which its Qwen3-Reranker models read."""
        return {"instruction": text}
