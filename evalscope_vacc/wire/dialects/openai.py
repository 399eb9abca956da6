"""OpenAI's own API, and servers that imitate no more than that: embeddings only."""

from __future__ import annotations

from evalscope_vacc.wire.dialects.base import Dialect, Introduction


class OpenAIDialect(Dialect):
    """The base as it stands."""

    name = "openai"
    title = "OpenAI's API"

    def recognises(self, said: Introduction) -> str:
        """By the hosts of OpenAI, Azure, Google, Volcengine and Zhipu, which speak OpenAI's form."""
        return said.at_host(
            "api.openai.com",
            "openai.azure.com",
            "generativelanguage.googleapis.com",
            "volces.com",
            "bigmodel.cn",
        )
