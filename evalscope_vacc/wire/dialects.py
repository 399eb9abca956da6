"""What each kind of server wants to be asked, and how its answers read.

A dialect is stateless and knows nothing of connections: it turns texts into a path and a body, and a body into numbers.
Every server has its own shape for reranking; all of those shapes are here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, ClassVar, Protocol, runtime_checkable

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.wire.messages import encode_json
from evalscope_vacc.wire.parsing import Scores, Vectors, read_score_list, read_vectors

__all__ = [
    "DIALECTS",
    "Dialect",
    "InfinityDialect",
    "JinaDialect",
    "OpenAIDialect",
    "Scores",
    "TeiDialect",
    "Vectors",
    "VllmDialect",
    "get_dialect",
]


@runtime_checkable
class Dialect(Protocol):
    """A kind of server.

    Attributes:
        name: As it is written in the configuration.
        truncates: Whether ``truncate_to`` reaches the server. Where it does not, a text that is too long is refused
            by the server unless it was cut before.
    """

    @property
    def name(self) -> str:
        """As it is written in the configuration."""

    @property
    def truncates(self) -> bool:
        """Whether ``truncate_to`` reaches the server."""

    def embeddings(
        self, model: str, texts: Sequence[str], *, truncate_to: int | None = None, dimensions: int | None = None
    ) -> tuple[str, bytes]:
        """Returns path and JSON body that ask for the vectors of ``texts``.

        Args:
            model: Name under which the server serves the model.
            texts: The exact texts.
            truncate_to: Tokens that the server shall keep of each text; -1 = its own maximum; None = refuse.
            dimensions: Matryoshka size asked of the server; most callers slice instead.
        """

    def read_embeddings(self, answer_body: bytes, n: int) -> Vectors:
        """Returns the ``n`` vectors of an answer in the order of the texts.

        Raises:
            BadAnswerError: Anything is wrong with it.
            EngineDeadError: It says that the engine died.
        """

    def scores(
        self,
        model: str,
        query: str,
        documents: Sequence[str],
        *,
        truncate_to: int | None = None,
        instruction: str | None = None,
    ) -> tuple[str, bytes]:
        """Returns path and JSON body that ask for the scores of one query's documents.

        Args:
            model: Name under which the server serves the model.
            query: The exact first text of every pair.
            documents: The exact second texts.
            truncate_to: As in :meth:`embeddings`. On a server with a template it cuts the template's end off, and all
                documents get the same score: cut the document instead.
            instruction: For a server that applies the template itself (vLLM from 0.22).
        """

    def read_scores(self, body: bytes, n: int) -> Scores:
        """Returns the ``n`` scores of an answer in the order of the documents.

        Raises:
            BadAnswerError: Anything is wrong with it.
            EngineDeadError: It says that the engine died.
        """

    def fallback(self) -> Dialect | None:
        """Returns the dialect to try when the endpoint for scores does not exist, or None."""


class _Embeddings:
    """``POST /v1/embeddings`` as OpenAI defined it, with base64: bit-identical to float, a third of the bytes."""

    name = ""
    truncates = False
    _path = "/v1/embeddings"
    _format: ClassVar[Mapping[str, str]] = {"encoding_format": "base64"}

    def embeddings(
        self, model: str, texts: Sequence[str], *, truncate_to: int | None = None, dimensions: int | None = None
    ) -> tuple[str, bytes]:
        body: dict[str, Any] = {"model": model, "input": list(texts), **self._format}
        if dimensions is not None:
            body["dimensions"] = dimensions
        body.update(self._truncation(truncate_to))
        return self._path, encode_json(body)

    def read_embeddings(self, answer_body: bytes, n: int) -> Vectors:
        return read_vectors(answer_body, n)

    def _truncation(self, truncate_to: int | None) -> Mapping[str, Any]:
        _check_truncation(truncate_to)
        return {}

    def fallback(self) -> Dialect | None:
        return None


@dataclass(frozen=True)
class VllmDialect(_Embeddings):
    """vLLM 0.9.2 and later.

    Attributes:
        route: "score" asks /v1/score, which answers in input order in every version; "rerank" asks /v1/rerank, for
            servers that have no /v1/score.
    """

    route: str = "score"
    name = "vllm"
    truncates = True

    def scores(
        self,
        model: str,
        query: str,
        documents: Sequence[str],
        *,
        truncate_to: int | None = None,
        instruction: str | None = None,
    ) -> tuple[str, bytes]:
        """Asks for the scores of one query and many documents; see :meth:`Dialect.scores`."""
        body: dict[str, Any] = {"model": model}
        if self.route == "score":
            body.update(text_1=query, text_2=list(documents))
        else:
            body.update(query=query, documents=list(documents))
        if instruction is not None:
            body["instruction"] = instruction
        body.update(self._truncation(truncate_to))
        return f"/v1/{self.route}", encode_json(body)

    def read_scores(self, body: bytes, n: int) -> Scores:
        """Reads the scores in the order of the documents; see :meth:`Dialect.read_scores`."""
        if self.route == "score":
            return read_score_list(body, n)
        return read_score_list(body, n, key="results", value="relevance_score")

    def _truncation(self, truncate_to: int | None) -> Mapping[str, Any]:
        # Never truncation_side: "right" (0.32) drops the end-of-sequence token, whose vector is the answer of a
        # last-token model; without it every version keeps the beginning and that token. Never normalize: 400 from 0.26.
        _check_truncation(truncate_to)
        return {} if truncate_to is None else {"truncate_prompt_tokens": truncate_to}

    def fallback(self) -> Dialect | None:
        """Returns this dialect over /v1/rerank."""
        return replace(self, route="rerank") if self.route == "score" else None


@dataclass(frozen=True)
class OpenAIDialect(_Embeddings):
    """OpenAI's own API and servers that imitate no more than that: embeddings only."""

    name = "openai"

    def scores(
        self,
        model: str,  # noqa: ARG002
        query: str,  # noqa: ARG002
        documents: Sequence[str],  # noqa: ARG002
        *,
        truncate_to: int | None = None,  # noqa: ARG002
        instruction: str | None = None,  # noqa: ARG002
    ) -> tuple[str, bytes]:
        """Refuses: the API has no endpoint for scores."""
        raise ConfigError(_NO_SCORES)

    def read_scores(self, body: bytes, n: int) -> Scores:  # noqa: ARG002
        """Refuses: the API has no endpoint for scores."""
        raise ConfigError(_NO_SCORES)


@dataclass(frozen=True)
class TeiDialect(_Embeddings):
    """text-embeddings-inference: /v1/embeddings, and /rerank with a shape of its own.

    It cuts to the model's maximum or not at all, so only ``truncate_to=-1`` reaches it, and only for scores.
    """

    name = "tei"

    def scores(
        self,
        model: str,  # noqa: ARG002
        query: str,
        documents: Sequence[str],
        *,
        truncate_to: int | None = None,
        instruction: str | None = None,
    ) -> tuple[str, bytes]:
        """Asks for the scores of one query and many documents; see :meth:`Dialect.scores`."""
        _no_instruction(self.name, instruction)
        _check_truncation(truncate_to)
        body = {"query": query, "texts": list(documents), "truncate": truncate_to == -1}
        return "/rerank", encode_json(body)

    def read_scores(self, body: bytes, n: int) -> Scores:
        """Reads the scores in the order of the documents; see :meth:`Dialect.read_scores`."""
        return read_score_list(body, n, key=None)


class _CohereScores(_Embeddings):
    """Scores in the shape that Cohere introduced: results sorted by score, each with its position."""

    _rerank = "/v1/rerank"

    def scores(
        self,
        model: str,
        query: str,
        documents: Sequence[str],
        *,
        truncate_to: int | None = None,
        instruction: str | None = None,
    ) -> tuple[str, bytes]:
        """Asks for the scores of one query and many documents; see :meth:`Dialect.scores`."""
        _no_instruction(self.name, instruction)
        _check_truncation(truncate_to)
        body = {"model": model, "query": query, "documents": list(documents), "return_documents": False}
        return self._rerank, encode_json(body)

    def read_scores(self, body: bytes, n: int) -> Scores:
        """Reads the scores in the order of the documents; see :meth:`Dialect.read_scores`."""
        return read_score_list(body, n, key="results", value="relevance_score")


@dataclass(frozen=True)
class InfinityDialect(_CohereScores):
    """Infinity with its default (empty) URL prefix; it cuts to the model's maximum by itself."""

    name = "infinity"
    _path = "/embeddings"
    _rerank = "/rerank"


@dataclass(frozen=True)
class JinaDialect(_CohereScores):
    """Jina's API; its vectors are asked for as floats, the only form that is the same for all its models."""

    name = "jina"
    _format: ClassVar[Mapping[str, str]] = {"embedding_type": "float"}


DIALECTS: Mapping[str, Callable[[], Dialect]] = {
    "vllm": VllmDialect,
    "openai": OpenAIDialect,
    "tei": TeiDialect,
    "infinity": InfinityDialect,
    "jina": JinaDialect,
}

_NO_SCORES = (
    "the dialect 'openai' has no endpoint for scores: set dialect to vllm, tei, infinity or jina for a cross-encoder"
)


def get_dialect(name: str, extra: Mapping[str, Callable[[], Dialect]] | None = None) -> Dialect:
    """Returns a dialect by its name.

    Args:
        name: ``auto`` (vLLM), a name of :data:`DIALECTS` or one of ``extra``; case does not matter.
        extra: Dialects of plugins; they win over ours.

    Raises:
        ConfigError: There is none of this name.
    """
    known = {**DIALECTS, **(extra or {})}
    wanted = name.strip().lower()
    if wanted == "auto":
        wanted = "vllm"
    by_name = {key.lower(): make for key, make in known.items()}
    if wanted not in by_name:
        near = get_close_matches(wanted, by_name, n=1)
        hint = f"; did you mean {near[0]!r}" if near else ""
        raise ConfigError(f"unknown dialect {name!r}{hint}. There are: auto, {', '.join(sorted(by_name))}")
    return by_name[wanted]()


def _check_truncation(truncate_to: int | None) -> None:
    # 0 is answered with no vectors at all by vLLM 0.11 and ignored by 0.9.2
    if truncate_to is not None and truncate_to != -1 and truncate_to < 1:
        raise ConfigError(f"truncate_to must be -1 or at least 1, not {truncate_to}")


def _no_instruction(name: str, instruction: str | None) -> None:
    if instruction is not None:
        raise ConfigError(f"the dialect {name!r} cannot send an instruction with a request; put it into the query")
