"""What a server family is: the paths, bodies and answers that its servers understand.

A dialect knows nothing of connections: it turns texts into a path and a body, and a body into numbers. The base class
composes requests in the order that all families share; a family says in its own file how it differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.wire.messages import encode_json
from evalscope_vacc.wire.parsing import Scores, Vectors, read_score_list, read_vectors


class Dialect:
    """A server family; as it stands, OpenAI's embeddings API, which has no endpoint for scores.

    Attributes:
        name: As it is written in the configuration.
        truncates: Whether ``truncate_to`` reaches the server. Where it does not, a text that is too long is refused
            by the server unless it was cut before.
        embeddings_path: The endpoint for vectors.
        prefixes: Whether its servers put a model's own prefix before a text by themselves.
        encoding: How vectors are asked for. In base64 they are bit-identical to floats and a third of the bytes.
        scores_path: The endpoint for scores.
        score_list: The answer's field that holds the list of scores; None = the answer is the list.
        score_field: The field of an entry of that list that holds the score.
    """

    name: ClassVar[str] = ""
    truncates: ClassVar[bool] = False
    prefixes: ClassVar[bool] = False
    embeddings_path: ClassVar[str] = "/v1/embeddings"
    encoding: ClassVar[Mapping[str, str]] = {"encoding_format": "base64"}
    scores_path: ClassVar[str] = "/v1/rerank"
    score_list: ClassVar[str | None] = "results"
    score_field: ClassVar[str] = "relevance_score"

    # -- requests and answers, the same for all families ---------------------------------------------------------

    def embeddings(
        self, model: str, texts: Sequence[str], *, truncate_to: int | None = None, dimensions: int | None = None
    ) -> tuple[str, bytes]:
        """Returns path and JSON body that ask for the vectors of ``texts``.

        Args:
            model: Name under which the server serves the model.
            texts: The exact texts.
            truncate_to: Tokens that the server shall keep of each text; -1 = its own maximum; None = refuse.
            dimensions: Matryoshka size asked of the server; most callers slice instead.

        Raises:
            ConfigError: ``truncate_to`` is a number that servers ignore.
        """
        body: dict[str, Any] = {"model": model, "input": list(texts), **self.encoding}
        if dimensions is not None:
            body["dimensions"] = dimensions
        body.update(self.truncation(_checked(truncate_to), pairs=False))
        return self.embeddings_path, encode_json(body)

    def read_embeddings(self, body: bytes, n: int) -> Vectors:
        """Returns the ``n`` vectors of an answer in the order of the texts.

        Raises:
            BadAnswerError: Anything is wrong with it.
            EngineDeadError: It says that the engine died.
        """
        return read_vectors(body, n)

    def scores(
        self,
        model: str,
        query: str,
        documents: Sequence[str],
        *,
        truncate_to: int | None = None,
        instruction: str | None = None,
        raw: bool = False,
    ) -> tuple[str, bytes]:
        """Returns path and JSON body that ask for the scores of one query's documents.

        Args:
            model: Name under which the server serves the model.
            query: The exact first text of every pair.
            documents: The exact second texts.
            truncate_to: As in :meth:`embeddings`. On a server with a template it cuts the template's end off, and all
                documents get the same score: cut the document instead.
            instruction: For a server that applies the template itself (vLLM from 0.22).
            raw: Ask for scores before the activation.

        Raises:
            ConfigError: The family has no endpoint for scores, or cannot take an instruction or ``raw`` with a request.
        """
        body = self.pairs(model, query, list(documents))
        if instruction is not None:
            body.update(self.instruction(instruction))
        if raw:
            body.update(self.raw_scores())
        body.update(self.truncation(_checked(truncate_to), pairs=True))
        return self.scores_path, encode_json(body)

    def read_scores(self, body: bytes, n: int) -> Scores:
        """Returns the ``n`` scores of an answer in the order of the documents.

        Raises:
            BadAnswerError: Anything is wrong with it.
            EngineDeadError: It says that the engine died.
        """
        return read_score_list(body, n, key=self.score_list, value=self.score_field)

    # -- what a family may say differently -----------------------------------------------------------------------

    def pairs(self, model: str, query: str, documents: list[str]) -> dict[str, Any]:  # noqa: ARG002
        """Returns the body that asks for scores, without truncation and instruction."""
        raise ConfigError(
            f"the dialect {self.name!r} has no endpoint for scores: set dialect to vllm, tei, infinity or jina for a "
            "cross-encoder"
        )

    def truncation(self, tokens: int | None, *, pairs: bool) -> Mapping[str, Any]:  # noqa: ARG002
        """Returns the fields that ask the server to cut to so many tokens; a family that cannot cut has none."""
        return {}

    def instruction(self, text: str) -> Mapping[str, Any]:  # noqa: ARG002
        """Returns the field that carries an instruction beside the texts."""
        raise ConfigError(f"the dialect {self.name!r} cannot send an instruction with a request; put it into the query")

    def raw_scores(self) -> Mapping[str, Any]:
        """Returns the field that asks for scores before the activation (logits), which do not saturate."""
        raise ConfigError(f"the dialect {self.name!r} cannot ask for scores before the activation: remove raw_scores")

    def fallback(self) -> Dialect | None:
        """Returns the dialect to try when the endpoint for scores does not exist, or None."""
        return None


def cohere_pairs(model: str, query: str, documents: list[str]) -> dict[str, Any]:
    """Returns the body that Cohere introduced: its answer is sorted by score, each entry with its position."""
    return {"model": model, "query": query, "documents": documents, "return_documents": False}


def _checked(truncate_to: int | None) -> int | None:
    # 0 is answered with no vectors at all by vLLM 0.11 and ignored by 0.9.2
    if truncate_to is not None and truncate_to != -1 and truncate_to < 1:
        raise ConfigError(f"truncate_to must be -1 or at least 1, not {truncate_to}")
    return truncate_to
