"""vLLM 0.9.2 and later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from evalscope_vacc.wire.dialects.base import Dialect, Introduction
from evalscope_vacc.wire.parsing import Scores, read_score_list


class VllmDialect(Dialect):
    """vLLM's /v1/embeddings, and /v1/score, which answers in the order of the documents in every version."""

    name = "vllm"
    title = "vLLM"
    truncates = True
    scores_path = "/v1/score"
    score_list = "data"
    score_field = "score"

    def recognises(self, said: Introduction) -> str:
        """By the owner that it gives its models."""
        return said.owned_by("vllm")

    def pairs(self, model: str, query: str, documents: list[str]) -> dict[str, Any]:
        """Returns the body of /v1/score."""
        return {"model": model, "text_1": query, "text_2": documents}

    def truncation(self, tokens: int | None, *, pairs: bool) -> Mapping[str, Any]:  # noqa: ARG002
        """Returns ``truncate_prompt_tokens``.

        Never ``truncation_side``: "right" (0.32) drops the end-of-sequence token, whose vector is the answer of a
        last-token model; without it every version keeps the beginning and that token. Never ``normalize``: 400 from
        0.26.
        """
        return {} if tokens is None else {"truncate_prompt_tokens": tokens}

    def instruction(self, text: str) -> Mapping[str, Any]:
        """Returns ``instruction``, which reaches the server's template from 0.22 on."""
        return {"instruction": text}

    def raw_scores(self) -> Mapping[str, Any]:
        """Returns ``use_activation``, which vLLM knows from 0.11.1 on; older ones ignore it."""
        return {"use_activation": False}

    def fallback(self) -> Dialect | None:
        """Returns this dialect over /v1/rerank."""
        return VllmRerankDialect()


class VllmRerankDialect(VllmDialect):
    """The same over /v1/rerank, for servers that have no /v1/score of this kind; sorted by score.

    What answers there is not known, so every usual form of the list is read.
    """

    scores_path = "/v1/rerank"
    score_list = "results"
    score_field = "relevance_score"

    def read_scores(self, body: bytes, n: int) -> Scores:
        """Returns the scores out of Cohere's, SGLang's or text-embeddings-inference's form."""
        got = read_score_list(body, n, key=("results", "data", None), value=("relevance_score", "score"))
        return got if self.counts else replace(got, tokens=None)

    def pairs(self, model: str, query: str, documents: list[str]) -> dict[str, Any]:
        """Returns the body of /v1/rerank."""
        return {"model": model, "query": query, "documents": documents}

    def fallback(self) -> Dialect | None:
        """Returns None: there is no third endpoint."""
        return None
