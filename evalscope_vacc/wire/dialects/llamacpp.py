"""llama.cpp's llama-server. It ignores the model's name, ``dimensions`` and ``truncate_prompt_tokens``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalscope_vacc.wire.dialects.base import Dialect, Introduction, cohere_pairs
from evalscope_vacc.wire.parsing import read_count


class LlamaCppDialect(Dialect):
    """OpenAI's embeddings and Jina's reranking; texts are cut here, counted by its /tokenize."""

    name = "llamacpp"
    title = "llama.cpp"

    def recognises(self, said: Introduction) -> str:
        """By the owner that it gives its models, or its name in the headers."""
        named = said.headers.get("server", "").lower() == "llama.cpp"
        return said.owned_by("llamacpp") or ("it calls itself llama.cpp" if named else "")

    def max_tokens(self, entry: Mapping[str, Any]) -> Any:
        """The context of a slot where it tells it, else the one that the model was trained with."""
        meta = entry.get("meta")
        meta = meta if isinstance(meta, Mapping) else {}
        return meta.get("n_ctx") or meta.get("n_ctx_train")

    def pairs(self, model: str, query: str, documents: list[str]) -> dict[str, Any]:
        """Returns the body of /v1/rerank; its scores are logits."""
        return cohere_pairs(model, query, documents)

    def counting(self, model: str, text: str) -> tuple[str, dict[str, Any]]:  # noqa: ARG002
        """Returns path and body of /tokenize, which does not know the field of vLLM's."""
        return "/tokenize", {"content": text, "add_special": True}

    def read_count(self, body: bytes) -> int:
        """Returns the length of its list of tokens."""
        return read_count(body, "tokens")
