"""One server under examination: how it is asked, by the check, before a run and for parity, and what is known of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalscope_vacc.catalog import Entry, find
from evalscope_vacc.checks.findings import Finding
from evalscope_vacc.checks.tolerance import Tolerance
from evalscope_vacc.config import DEFAULT_BATCH, ModelConfig
from evalscope_vacc.errors import BadAnswerError, ConfigError, EngineDeadError, RequestRefusedError, ServerFaultError
from evalscope_vacc.plugins import plugins
from evalscope_vacc.redact import clean
from evalscope_vacc.text.templates import RerankTemplate
from evalscope_vacc.wire.dialects import Dialect, get_dialect
from evalscope_vacc.wire.engine import Answer, Connection, Engine
from evalscope_vacc.wire.probe import RerankFacts, ServerFacts
from evalscope_vacc.wire.refusals import with_context

# one request of a check; a server that needs longer for a few short texts is reported as slow
REQUEST_S = 15.0
REFUSED = (RequestRefusedError, BadAnswerError)


class OutOfTimeError(Exception):
    """The time of the check is used up."""


class NothingMoreError(Exception):
    """What was found makes further questions pointless."""


Answers = NDArray[Any]
"""Vectors, float32 of shape (texts, dimensions), or scores, float64 of shape (pairs,)."""


@dataclass(frozen=True)
class Got:
    """What one request brought."""

    values: Answers
    tokens: int | None
    seconds: float


@dataclass
class Target:
    """One server of a model."""

    config: ModelConfig
    engine: Engine
    server: str  # its address as it may be printed
    dialect: Dialect  # its protocol; the configured one until the server is probed
    several: bool = False  # whether the model has further servers; findings then name theirs
    until: float | None = None  # Monotonic time at which the check has to be over; None = no limit
    facts: ServerFacts | None = None  # what it says of itself, once asked
    rerank: RerankFacts | None = None  # how it serves a reranker, once asked
    template: RerankTemplate | None = None  # the template that is applied here
    instruction: str | None = None  # what travels beside the texts, where the server's template takes an instruction
    second: float = 0.0  # seconds that a text of :data:`~evalscope_vacc.checks.texts.LONG_1`'s length took
    # how far two answers to one text may differ, by the number format that it computes in
    tolerance: Tolerance = field(default_factory=Tolerance)
    answered: int = 0  # answers with vectors or scores so far
    size: int = 0  # numbers of a vector; 0 before the first
    alone: NDArray[Any] | None = None  # answers to compare between servers, shape (texts, d)
    took: int | None = None  # texts of the largest request that it answered, where it refused a larger one

    @classmethod
    def at(cls, config: ModelConfig, engine: Engine, **more: Any) -> Target:
        """The one server that an engine is connected to, with the configured dialect."""
        dialect = get_dialect(config.dialect, extra=plugins().dialects())
        return cls(config, engine, engine.servers[0], dialect, **more)

    @property
    def entry(self) -> Entry | None:
        """The catalog's entry of the served name."""
        return find(self.config.model_name)

    @property
    def limit(self) -> int | None:
        """Limit of a text (or a pair) on this server, in tokens; None if it is unknown."""
        known = [n for n in (self.config.max_tokens, self.facts.max_model_len if self.facts else None) if n]
        return min(known) if known else None

    @property
    def most(self) -> int | None:
        """Texts, or pairs, that a request may have; None if it is unknown."""
        said = self.facts.max_batch if self.facts else None
        family = None if self.config.is_cross_encoder else self.dialect.max_batch
        return min(filter(None, (said, family, self.took)), default=None)

    @property
    def batch(self) -> int:
        """Texts, or pairs, of a run's full request."""
        size = self.config.batch_size or DEFAULT_BATCH
        return min(size, self.most or size)

    @property
    def counts(self) -> bool:
        """Whether tokens can be counted, here or by the server."""
        return bool(self.config.tokenizer) or (self.facts is not None and self.facts.tokenize)

    @property
    def templated(self) -> bool:
        """Whether the server puts each pair into a template of its own."""
        return self.rerank is not None and self.rerank.template == "server"

    @property
    def left_s(self) -> float:
        """Seconds left."""
        return float("inf") if self.until is None else self.until - time.monotonic()

    def finding(self, code: str, **args: Any) -> Finding:
        """A finding about this server, its texts cleaned for printing."""
        secrets = self.engine.secrets
        shown = {
            name: clean(str(value), secrets, 700) if isinstance(value, (str, Exception)) else value
            for name, value in args.items()
        }
        return Finding(code, shown, self.server if self.several else "")

    def call(self, method: str, path: str, payload: Mapping[str, Any] | None = None, *, describe: str = "") -> Answer:
        """Asks once; raises OutOfTimeError where the time is used up, ServerError where there is no 2xx answer."""
        if self.until is None:
            return self.engine.call(method, path, payload, server=self.server, describe=describe)
        left = self.left_s
        if left <= 0:
            raise OutOfTimeError
        patience = max(0.5, min(REQUEST_S, left))
        return self.engine.call(method, path, payload, server=self.server, timeout_s=patience, describe=describe)

    def embed(self, texts: Sequence[str], *, truncate_to: int | None = None, plain: bool = False) -> Got:
        """Vectors of exact texts as a run asks for them, cut to ``truncate_to`` tokens, as numbers (``plain``) or base64.

        Raises:
            ServerError: There are none.
        """
        return self._in_parts(texts, lambda some: self._embed(some, truncate_to=truncate_to, plain=plain))

    def _embed(self, texts: Sequence[str], *, truncate_to: int | None, plain: bool) -> Got:
        model = self.config.model_name
        fields = {**self.dialect.side(model, "document", ""), **self.config.body_fields("document")}
        further: dict[str, Any] = {"extra": fields} if fields else {}
        path, body = self.dialect.embeddings(model, texts, truncate_to=truncate_to, **further)
        payload = {**json.loads(body), **({"encoding_format": "float"} if plain else {})}

        def read(answer: bytes) -> Any:
            got = self.dialect.read_embeddings(answer, len(texts))
            size = got.values.shape[1]
            if self.size not in (0, size):
                raise BadAnswerError(f"a vector has {size} numbers, another one of this server had {self.size}")
            self.size = size
            return got

        return self._ask(path, payload, read, "a text of the check")

    def _in_parts(self, texts: Sequence[str], ask: Callable[[Sequence[str]], Got]) -> Got:
        """Asks for no more texts in a request than it may have."""
        most = self.most or len(texts)
        parts = [ask(texts[i : i + most]) for i in range(0, len(texts), most)]
        counts = [part.tokens for part in parts if part.tokens is not None]
        return Got(
            np.concatenate([part.values for part in parts]),
            sum(counts) if len(counts) == len(parts) else None,
            sum(part.seconds for part in parts),
        )

    def score(
        self,
        query: str,
        documents: Sequence[str],
        *,
        raw: bool = False,
        cut: bool = False,
        instruction: str | None = None,
    ) -> Got:
        """Scores of one query's documents as a run asks for them: template and instruction (or another one) included.

        The texts are bare. ``raw`` leaves out both; ``cut`` lets the server cut to the limit. Raises ServerError where
        there are none.
        """
        return self._in_parts(
            documents, lambda some: self._score(query, some, raw=raw, cut=cut, instruction=instruction)
        )

    def _score(self, query: str, documents: Sequence[str], *, raw: bool, cut: bool, instruction: str | None) -> Got:
        template = None if raw else self.template
        further: dict[str, Any] = {"extra": self.config.extra_body} if self.config.extra_body else {}
        path, body = self.dialect.scores(
            self.config.model_name,
            query if template is None else template.query(query, None),
            documents if template is None else [template.document(document) for document in documents],
            truncate_to=self.limit if cut and self.dialect.truncates else None,
            instruction=None if raw else instruction or self.instruction,
            raw=self.config.raw_scores,
            **further,
        )
        read = self.dialect.read_scores
        return self._ask(path, json.loads(body), lambda answer: read(answer, len(documents)), "a pair of the check")

    def _ask(self, path: str, payload: Mapping[str, Any], read: Callable[[bytes], Any], describe: str) -> Got:
        answer = self.call("POST", path, payload, describe=describe)
        try:
            got = read(answer.body)
        except BadAnswerError as error:
            raise with_context(error, answer, path, self.engine.secrets) from None
        self.answered += 1
        return Got(got.values, got.tokens, answer.seconds)

    def answers(self, *, pairs: bool) -> bool:
        """Whether texts get vectors, or pairs scores, at all; raises ServerError where it cannot be reached, or is dead."""
        try:
            if pairs:
                self.score("a", ["b"], raw=True)
            else:
                self.embed(["a"])
        except EngineDeadError:
            raise
        except (*REFUSED, ServerFaultError, ConfigError):
            return False
        return True


def connect(config: ModelConfig, base: str, *, concurrency: int | None = None) -> Engine:
    """Connections to one server with the patience of a check: one repetition, no waiting."""
    connection = Connection.of(
        config,
        bases=(base,),
        timeout_s=min(config.timeout_s, REQUEST_S),
        retries=1,
        wait_for_server_s=0,
        max_concurrency=concurrency or config.max_concurrency,
    )
    return Engine(connection, backoff_s=0.2)


def unit(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Vectors of shape (n, d), scaled to length 1, as float64."""
    values = np.asarray(vectors, np.float64)
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


def cosines(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Cosine of every pair, float64, shape (n1, n2), of float vectors of shapes (n1, d) and (n2, d)."""
    return np.asarray(unit(first) @ unit(second).T)
