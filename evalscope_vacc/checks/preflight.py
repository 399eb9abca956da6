"""The short form of the check: before every run, once for its servers, in a handful of small requests."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from evalscope_vacc.checks import scores, vectors
from evalscope_vacc.checks.connection import from_error
from evalscope_vacc.checks.findings import Finding, Report
from evalscope_vacc.checks.sameness import alike, ask_often, asker_of, judge
from evalscope_vacc.checks.target import REFUSED, Target, cosines
from evalscope_vacc.checks.texts import PREFLIGHT_TEXTS
from evalscope_vacc.checks.tolerance import COSINES
from evalscope_vacc.config import ModelConfig
from evalscope_vacc.errors import AuthenticationError, ConfigError, ModelNotServedError, NotFiniteError, ServerError
from evalscope_vacc.text.truncation import fits_by_bytes
from evalscope_vacc.wire.dialects import Dialect
from evalscope_vacc.wire.engine import Engine
from evalscope_vacc.wire.probe import RerankFacts, ServerFacts

logger = logging.getLogger(__name__)

# of a text and another one each: a server that is not slow answers all batches of a check within a second or two
_SIZE = 2
_SECONDS = 3.0


def preflight(
    config: ModelConfig,
    engine: Engine,
    dialect: Dialect,
    facts: Sequence[ServerFacts],
    rerank: Sequence[RerankFacts] = (),
) -> Report:
    """Looks at the servers of a model before its first task, over the connections and with the patience of the run.

    Only what makes every score wrong or impossible stops the run; everything else is logged as a warning. ``facts`` and, of a
    cross-encoder, ``rerank`` are what the servers said of themselves, in the order of the addresses.

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
        found += _cross_encoder(target) if config.is_cross_encoder else _encoder(target)
        targets.append(target)
    found = [replace(finding, softened=True) for finding in (*found, *alike(targets))]
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
    try:
        found = ask_often(asker_of(target), _texts(target), size=_SIZE, full=target.batch, seconds=_SECONDS)
    except REFUSED as error:
        yield _tolerated(target, error, "kind")
        return
    values = found.alone
    size = vectors.size_finding(target, values.shape[1])
    if size.state == "wrong":
        raise ConfigError(
            f"model {target.config.model_name!r} on {target.server}: {size.seen}; {size.meaning}: {size.action} "
            "(preflight: off continues anyway)"
        )
    yield from vectors.check_size(target, values)
    yield from judge(target, found)
    yield from vectors.check_prefix(target)
    if len(values) >= 2:
        table = cosines(values, values)
        if float(np.ptp(table)) < COSINES.floor:
            yield target.finding("sanity.same", value=float(table[0, 1]))


def _cross_encoder(target: Target) -> Iterator[Finding]:
    if target.rerank is not None and target.rerank.embeds:
        yield target.finding("kind.embeds", path=target.rerank.path)
    yield scores.template_finding(target)
    # raw, so that the texts are recognised; which template is in use is known by now
    query, *documents = _texts(target)
    if not documents:
        return
    try:
        found = ask_often(asker_of(target, query, raw=True), documents, size=_SIZE, full=target.batch, seconds=_SECONDS)
    except REFUSED as error:
        yield _tolerated(target, error, "answers")
        return
    values = found.alone[:, 0]
    yield from judge(target, found)
    if len(documents) > 1:
        yield scores.spread_finding(target, values)
    if len(documents) > 2 and np.ptp(values):
        other = asker_of(target, documents[1], raw=True).ask([query, documents[0], *documents[2:]])[:, 0]
        yield scores.grain_finding(target, [values, other])


def _tolerated(target: Target, error: ServerError, check: str) -> Finding:
    """Raises what stops a run; anything else that a server answers is a warning: the run will say it with its own texts."""
    if isinstance(error, (AuthenticationError, ModelNotServedError, NotFiniteError)):
        raise error
    return from_error(target, error, check)
