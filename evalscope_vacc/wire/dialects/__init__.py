"""Server families, one file each, found by the name that is written in the configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.names import did_you_mean
from evalscope_vacc.wire.dialects.base import Dialect, Introduction
from evalscope_vacc.wire.dialects.dashscope import DashScopeDialect
from evalscope_vacc.wire.dialects.infinity import InfinityDialect
from evalscope_vacc.wire.dialects.jina import JinaDialect
from evalscope_vacc.wire.dialects.litellm import LiteLlmDialect
from evalscope_vacc.wire.dialects.llamacpp import LlamaCppDialect
from evalscope_vacc.wire.dialects.ollama import OllamaDialect
from evalscope_vacc.wire.dialects.openai import OpenAIDialect
from evalscope_vacc.wire.dialects.sglang import SglangDialect
from evalscope_vacc.wire.dialects.siliconflow import SiliconFlowDialect
from evalscope_vacc.wire.dialects.tei import TeiDialect
from evalscope_vacc.wire.dialects.vllm import VllmDialect
from evalscope_vacc.wire.dialects.xinference import XinferenceDialect
from evalscope_vacc.wire.parsing import Scores, Vectors

__all__ = ["DIALECTS", "Dialect", "Introduction", "Scores", "Vectors", "VllmDialect", "get_dialect"]

DIALECTS: Mapping[str, Callable[[], Dialect]] = {
    family.name: family
    for family in (
        VllmDialect, SglangDialect, InfinityDialect, TeiDialect, LlamaCppDialect, LiteLlmDialect, XinferenceDialect,
        OllamaDialect, OpenAIDialect, JinaDialect, SiliconFlowDialect, DashScopeDialect,
    )
}  # fmt: skip
"""Every family, in the order in which they are asked whether a server is one of theirs."""


def get_dialect(name: str, extra: Mapping[str, Callable[[], Dialect]] | None = None) -> Dialect:
    """Returns a dialect by its name.

    Args:
        name: ``auto`` (vLLM's, until the server is known), a name of :data:`DIALECTS` or one of ``extra``; case does
            not matter.
        extra: Dialects of plugins; they win over ours.

    Raises:
        ConfigError: There is none of this name.
    """
    by_name = {key.lower(): make for key, make in {**DIALECTS, **(extra or {})}.items()}
    wanted = name.strip().lower()
    if wanted == "auto":
        wanted = "vllm"
    if wanted not in by_name:
        known = f"there are auto, {', '.join(sorted(by_name))}"
        raise ConfigError(f"unknown dialect {name!r}: {did_you_mean(wanted, by_name, known)}")
    return by_name[wanted]()
