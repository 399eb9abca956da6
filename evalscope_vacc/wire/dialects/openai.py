"""OpenAI's own API, and servers that imitate no more than that: embeddings only."""

from __future__ import annotations

from evalscope_vacc.wire.dialects.base import Dialect


class OpenAIDialect(Dialect):
    """The base as it stands."""

    name = "openai"
