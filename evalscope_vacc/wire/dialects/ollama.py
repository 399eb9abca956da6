"""Ollama: OpenAI's embeddings over a server that cuts long texts without a word; no reranking."""

from __future__ import annotations

from evalscope_vacc.wire.dialects.base import Dialect, Introduction


class OllamaDialect(Dialect):
    """It does not tell how long a text may be, and has no /tokenize: set ``max_tokens`` and ``tokenizer``."""

    name = "ollama"
    title = "Ollama"

    def recognises(self, said: Introduction) -> str:
        """By the owner that it gives its models."""
        return said.owned_by("library")
