"""The short form of the check: before every run, once for its servers, in a handful of small requests."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from evalscope_vacc.checks import grain, rules, scores, vectors
from evalscope_vacc.checks.connection import from_error
from evalscope_vacc.checks.findings import Finding, Report
from evalscope_vacc.checks.target import Target, cosines
from evalscope_vacc.checks.texts import PREFLIGHT_TEXTS
from evalscope_vacc.config import ModelConfig
from evalscope_vacc.errors import (
    AuthenticationError,
    BadAnswerError,
    ConfigError,
    ModelNotServedError,
    NotFiniteError,
    RequestRefusedError,
    ServerError,
)
from evalscope_vacc.text.truncation import fits_by_bytes
from evalscope_vacc.wire.dialects import Dialect
from evalscope_vacc.wire.engine import Engine
from evalscope_vacc.wire.probe import RerankFacts, ServerFacts

logger = logging.getLogger(__name__)


def preflight(
    config: ModelConfig,
    engine: Engine,
    dialect: Dialect,
    facts: Sequence[ServerFacts],
    rerank: Sequence[RerankFacts] = (),
) -> Report:
    """Looks at the servers of a model before its first task, over the connections and with the patience of the run.

    Only what makes every score wrong or impossible stops the run; everything else is logged as a warning.

    Args:
        config: The model.
        engine: The connections.
        dialect: How the servers are spoken to.
        facts: What the servers said of themselves, in the order of the addresses.
        rerank: How they serve a reranker, in the same order; empty for an encoder.

    Returns:
        The findings.

    Raises:
        ServerError: A server cannot be reached or fails, refuses the key, or answers with a number that is not finite.
        ConfigError: Vectors of another size than ``dimensions`` or the catalog say.
    """
    start = time.monotonic()
    found: list[Finding] = []
    targets: list[Target] = []
    for number, shown in enumerate(engine.servers):
        target = Target(config, engine, shown, dialect, several=len(config.bases) > 1, facts=facts[number])
        if config.is_cross_encoder:
            target.rerank = rerank[number]
            target.dialect = rerank[number].dialect(dialect)
            found += _cross_encoder(target, rerank[number])
        else:
            found += _encoder(target)
        targets.append(target)
    found += _alike(targets)
    for finding in found:
        if finding.state != "ok":
            logger.warning("%s: %s", config.model_name, finding.line())
    kind = "cross-encoder" if config.is_cross_encoder else "encoder"
    return Report(config.model_name, engine.servers, kind, tuple(found), time.monotonic() - start)


def _texts(target: Target) -> list[str]:
    """Those that the server takes for sure."""
    limit = target.limit
    if limit is None or target.dialect.truncates:
        return list(PREFLIGHT_TEXTS)
    return [text for text in PREFLIGHT_TEXTS if fits_by_bytes(text, limit)] or [PREFLIGHT_TEXTS[0]]


def _encoder(target: Target) -> Iterator[Finding]:
    texts = _texts(target)
    limit = target.limit if target.dialect.truncates else None
    try:
        packed = target.embed(texts, truncate_to=limit).values
        alone = target.embed(texts[-1:], truncate_to=limit).values
    except (RequestRefusedError, BadAnswerError) as error:
        yield _tolerated(target, error, "kind")
        return
    size = vectors.size_finding(target, packed.shape[1])
    if size.state == "wrong":
        raise ConfigError(
            f"model {target.config.model_name!r} on {target.server}: {size.seen}; {size.meaning}: {size.action} "
            "(preflight: off goes on regardless)"
        )
    for finding in vectors.check_size(target, packed):
        yield _no_stop(finding)
    for finding in rules.check_prefix(target):
        yield _no_stop(finding)
    target.memory["vectors"] = packed
    if packed.shape == alone.shape or packed.shape[1] == alone.shape[1]:
        same = float(cosines(alone, packed[-1:])[0, 0])
        if 1 - same > vectors.SAME:
            yield target.finding(
                "repeat",
                "warning",
                f"a text alone and in a batch of {len(texts)} have a cosine of {same:.7f}",
                "rounding in bfloat16 or float16, or a fault of the prefix cache or of batching",
                "evalscope-vacc check tells them apart",
            )
    if len(texts) >= 2:
        table = cosines(packed, packed)
        if float(np.ptp(table)) < vectors.SAME:
            yield target.finding("sanity", "warning", "all texts have the same vector", "every score will be arbitrary")


def _cross_encoder(target: Target, facts: RerankFacts) -> Iterator[Finding]:
    if facts.embeds:
        yield target.finding(
            "kind",
            "warning",
            "/v1/embeddings answers, too: its scores are cosines of two vectors",
            "an embedding model configured as a cross-encoder repeats the first stage",
            "write is_cross_encoder: false, or serve a reranker",
        )
    yield _no_stop(scores.template_finding(target))
    # raw, so that the texts are recognised; which template is in use is known by now
    query, *documents = _texts(target)
    if not documents:
        return
    cut = facts.template != "server"
    try:
        got = target.score(query, documents, raw=True, cut=cut)
    except (RequestRefusedError, BadAnswerError) as error:
        yield _tolerated(target, error, "answers")
        return
    target.memory["scores"] = got.values
    if len(documents) > 1:
        yield _no_stop(scores.spread_finding(target, got.values))
    if len(documents) > 2 and np.ptp(got.values):
        other = target.score(documents[1], [query, documents[0], *documents[2:]], raw=True, cut=cut)
        yield grain.grain_finding(target, np.stack([got.values, other.values]))


def _alike(targets: Sequence[Target]) -> Iterator[Finding]:
    from evalscope_vacc.checks.run import alike

    for finding in alike(targets):
        yield _no_stop(finding)


def _no_stop(finding: Finding) -> Finding:
    return replace(finding, state="warning") if finding.state == "wrong" else finding


def _tolerated(target: Target, error: ServerError, check: str) -> Finding:
    """Raises what stops a run; anything else that a server answers is a warning: the run will say it with its own texts."""
    if isinstance(error, (AuthenticationError, ModelNotServedError)):
        raise error
    if isinstance(error, NotFiniteError):
        raise error
    return _no_stop(from_error(target, error, check))
