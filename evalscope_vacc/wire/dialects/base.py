"""What a server family is: how it is recognised, and the paths, bodies and answers that its servers understand.

A dialect knows nothing of connections: it turns texts into a path and a body, and a body into numbers. The base class
composes requests in the order that all families share; a family says in its own file how it differs. What it says is
what the family's servers can be asked for; whether a server does it is seen by :mod:`evalscope_vacc.wire.trial`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.wire.messages import encode_json
from evalscope_vacc.wire.parsing import Scores, Vectors, read_count, read_score_list, read_tokens, read_vectors

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Introduction:
    """What a server says of itself before it is asked for anything.

    Attributes:
        server: Its address, as it may be printed.
        models: The entries of its list of models.
        models_path: Where that list is, or "" where there is none.
        headers: Headers of the answer that held the list, names in lower case.
        version: What /version answered.
        info: What /info answered.
        liveliness: What /health/liveliness answered.
    """

    server: str
    models: Sequence[Mapping[str, Any]] = ()
    models_path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    version: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    liveliness: str = ""

    def owned_by(self, name: str) -> str:
        """Says that the list of models names this owner; "" where it does not."""
        owners = {str(entry.get("owned_by", "")).lower() for entry in self.models}
        return f"{self.models_path} says owned_by: {name}" if name in owners else ""

    def at_host(self, *hosts: str) -> str:
        """Says that the address is one of these hosts, or lies under one; "" where it does not."""
        name = urlsplit(self.server).hostname or ""
        return next((f"the address is {name}" for host in hosts if name == host or name.endswith(f".{host}")), "")


class Dialect:
    """A server family; as it stands, OpenAI's embeddings API, which has no endpoint for scores.

    Attributes:
        name: As it is written in the configuration.
        title: As people call the family.
        truncates: Whether a request can ask to be cut to a number of tokens. Where it cannot, a text that is too long
            is refused by the server, or cut without a word, unless it was cut before.
        counts: Whether the server's token counts are believed.
        max_batch: Texts that the family's servers take in one request, where that is known.
        prefixes: Whether its servers put a model's own prefix before a text by themselves.
        embeddings_path: The endpoint for vectors.
        encoding: How vectors are asked for. In base64 they are bit-identical to floats and a third of the bytes.
        scores_path: The endpoint for scores.
        score_list: The answer's field that holds the list of scores; None = the answer is the list.
        score_field: The field of an entry of that list that holds the score.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    truncates: bool = False
    counts: bool = True
    max_batch: int | None = None
    prefixes: bool = False
    embeddings_path: str = "/v1/embeddings"
    encoding: Mapping[str, str] = {"encoding_format": "base64"}
    scores_path: str = "/v1/rerank"
    score_list: str | None = "results"
    score_field: str = "relevance_score"

    # -- recognition -------------------------------------------------------------------------------------------------

    def recognises(self, said: Introduction) -> str:  # noqa: ARG002
        """Returns why a server is of this family, or "" where nothing says so."""
        return ""

    def max_tokens(self, entry: Mapping[str, Any]) -> Any:
        """Returns what the model's entry in the list of models gives as its longest input, or None."""
        return entry.get("max_model_len")

    def at(self, said: Introduction) -> Dialect:  # noqa: ARG002
        """Returns the dialect for a server that it recognised, where paths differ from server to server."""
        return self

    def changed(self, **values: Any) -> Self:
        """Returns a copy with other attributes: what a server was seen to do in place of what its family can."""
        other = copy.copy(self)
        for name, value in values.items():
            setattr(other, name, value)
        return other

    # -- requests and answers, the same for all families ---------------------------------------------------------

    def embeddings(
        self,
        model: str,
        texts: Sequence[str],
        *,
        truncate_to: int | None = None,
        dimensions: int | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> tuple[str, bytes]:
        """Returns path and JSON body that ask for the vectors of ``texts``.

        Args:
            model: Name under which the server serves the model.
            texts: The exact texts.
            truncate_to: Tokens that the server shall keep of each text; -1 = its own maximum; None = refuse.
            dimensions: Matryoshka size asked of the server; most callers slice instead.
            extra: Further fields of the body; they win over the family's own.

        Raises:
            ConfigError: ``truncate_to`` is a number that servers ignore.
        """
        body: dict[str, Any] = {"model": model, "input": list(texts), **self.encoding}
        if dimensions is not None:
            body["dimensions"] = dimensions
        body.update(self.truncation(_checked(truncate_to), pairs=False))
        body.update(extra or {})
        return self.embeddings_path, encode_json(body)

    def read_embeddings(self, body: bytes, n: int) -> Vectors:
        """Returns the ``n`` vectors of an answer in the order of the texts.

        Raises:
            BadAnswerError: Anything is wrong with it.
            EngineDeadError: It says that the engine died.
        """
        got = read_vectors(body, n)
        return got if self.counts else replace(got, tokens=None)

    def scores(
        self,
        model: str,
        query: str,
        documents: Sequence[str],
        *,
        truncate_to: int | None = None,
        instruction: str | None = None,
        raw: bool = False,
        extra: Mapping[str, Any] | None = None,
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
            extra: As in :meth:`embeddings`.

        Raises:
            ConfigError: The family has no endpoint for scores, or cannot take an instruction or ``raw`` with a request.
        """
        body = self.pairs(model, query, list(documents))
        if instruction is not None:
            body.update(self.instruction(instruction))
        if raw:
            body.update(self.raw_scores())
        body.update(self.truncation(_checked(truncate_to), pairs=True))
        body.update(extra or {})
        return self.scores_path, encode_json(body)

    def read_scores(self, body: bytes, n: int) -> Scores:
        """Returns the ``n`` scores of an answer in the order of the documents.

        Raises:
            BadAnswerError: Anything is wrong with it.
            EngineDeadError: It says that the engine died.
        """
        got = read_score_list(body, n, key=self.score_list, value=self.score_field)
        return got if self.counts else replace(got, tokens=None)

    def counting(self, model: str, text: str) -> tuple[str, dict[str, Any]]:
        """Returns path and body that ask how many tokens a text has, special tokens included."""
        return "/tokenize", {"model": model, "prompt": text}

    def read_count(self, body: bytes) -> int:
        """Returns the number of tokens out of the answer.

        Raises:
            BadAnswerError: It holds none.
        """
        return read_count(body, "count")

    def read_tokens(self, body: bytes) -> tuple[int, ...]:
        """Returns the numbers of the tokens out of the same answer.

        Raises:
            BadAnswerError: It holds none.
        """
        return read_tokens(body, "tokens")

    # -- what a family may say differently -----------------------------------------------------------------------

    def pairs(self, model: str, query: str, documents: list[str]) -> dict[str, Any]:  # noqa: ARG002
        """Returns the body that asks for scores, without truncation and instruction."""
        raise ConfigError(
            f"the dialect {self.name!r} has no endpoint for scores: set dialect to that of your server for a "
            "cross-encoder, such as vllm, tei, infinity or jina"
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

    def side(self, model: str, side: str, task_type: str) -> Mapping[str, Any]:  # noqa: ARG002
        """Returns the fields that tell the server what a text is for.

        Args:
            model: Name under which the server serves the model.
            side: "query", "document", or "" in tasks that know no sides.
            task_type: MTEB's type of the task.
        """
        return {}

    def plain(self) -> Self:
        """Returns the dialect that asks for vectors as numbers."""
        base64 = self.encoding.get("encoding_format") == "base64"
        return self.changed(encoding={"encoding_format": "float"}) if base64 else self

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
