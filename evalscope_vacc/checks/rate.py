"""How many texts and tokens a model's servers answer per second, with the batches and concurrency of a run."""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from evalscope_vacc.checks.connection import introduce
from evalscope_vacc.checks.target import Target, connect
from evalscope_vacc.checks.texts import SHORT_EN, numbered, of_words
from evalscope_vacc.config import DEFAULT_BATCH, ModelConfig
from evalscope_vacc.errors import ServerError
from evalscope_vacc.plugins import plugins
from evalscope_vacc.wire.dialects import get_dialect
from evalscope_vacc.wire.engine import Answer, Request
from evalscope_vacc.wire.probe import probe_reranker

logger = logging.getLogger(__name__)

SECONDS = 2.0
LONG_WORDS = 160
"""About 200 tokens: below the limit of the smallest models."""
CHARACTERS_PER_TOKEN = 4.2
_FEW = 4
_TRIES = 2


@dataclass(frozen=True)
class Rate:
    """What a model's servers answered per second.

    Attributes:
        texts: Short texts, or pairs: what requests cost, however short their texts are.
        tokens: Tokens of long texts, or pairs: what texts cost, however few requests they need.
    """

    texts: float
    tokens: float


def measure(config: ModelConfig, seconds: float = SECONDS) -> Rate | None:
    """Measures the rates: sends long texts, then short ones, for a few seconds each.

    Args:
        config: The model; all its servers are taken to be alike, and the first one is asked.
        seconds: For each of the two.

    Returns:
        The rates, or None where the server did not answer.
    """
    try:
        # first what is calculated from single requests, while the server has nothing else to do
        _, tokens = _send(config, seconds, long=True)
        texts, _ = _send(config, seconds, long=False)
    except ServerError as error:
        logger.warning("the server's rate could not be measured: %s", error)
        return None
    servers = len(config.bases)
    return Rate(texts * servers, tokens * servers)


def _send(config: ModelConfig, seconds: float, *, long: bool) -> tuple[float, float]:
    """Returns texts and tokens per second of a stream of full batches."""
    with connect(config, config.bases[0]) as engine:
        target = Target(config, engine, engine.servers[0], get_dialect(config.dialect, extra=plugins().dialects()))
        facts = introduce(target)
        if config.is_cross_encoder:
            rerank = probe_reranker(engine, target.dialect, config.model_name, server=target.server)
            target.dialect = rerank.dialect(target.dialect)
        size = config.batch_size or DEFAULT_BATCH
        return _stream(target, min(size, facts.max_batch or size), seconds, long=long)


def _stream(target: Target, size: int, seconds: float, *, long: bool) -> tuple[float, float]:
    # others at every measurement: a server, or a gateway before it, may remember the last one's
    numbers = itertools.count(time.time_ns() % 10**9)

    def request(texts: int) -> Request:
        return _request(target, [_text(next(numbers), long=long) for _ in range(texts)])

    slots = target.config.max_concurrency
    # full batches of short texts cost little; of long ones as many as are answered in the time, the rest is calculated
    each = _cost(target, request) if long else 0.0
    fit = min(size, max(1, int(seconds / (each * slots)))) if each else size
    requests = (request(fit) for _ in itertools.count())
    start = time.monotonic()
    answered = characters = tokens = 0
    with closing(target.engine.stream(requests, _parser(target))) as answers:
        for done, got in answers:
            answered += done.items
            characters += done.tag
            tokens += got.tokens or 0
            took = max(time.monotonic() - start, 1e-6)
            # one request for each slot, however slow; what is in flight then is cancelled
            if took >= seconds and answered >= slots * fit:
                break
    a_request = took * slots / (answered / fit) + each * slots * (size - fit)
    per_second = size * slots / a_request
    return per_second, per_second * (tokens or characters / CHARACTERS_PER_TOKEN) / answered


def _cost(target: Target, request: Callable[[int], Request]) -> float:
    """Seconds that one more text of a request costs, by what one and four of them take."""
    took = []
    for texts in (1, _FEW):
        times = []
        for _ in range(_TRIES):
            start = time.monotonic()
            deque(target.engine.stream(iter([request(texts)]), _parser(target)), maxlen=0)
            times.append(time.monotonic() - start)
        took.append(min(times))
    return max((took[1] - took[0]) / (_FEW - 1), 1e-6)


def _request(target: Target, texts: list[str]) -> Request:
    config, dialect = target.config, target.dialect
    if config.is_cross_encoder:
        path, body = dialect.scores(config.model_name, numbered(0, "question"), texts)
    else:
        path, body = dialect.embeddings(config.model_name, texts)
    return Request(path, body, len(texts), tag=sum(map(len, texts)), describe="a text of the check")


def _parser(target: Target) -> Callable[[Request, Answer], Any]:
    read = target.dialect.read_scores if target.config.is_cross_encoder else target.dialect.read_embeddings
    return lambda request, answer: read(answer.body, request.items)


def _text(number: int, *, long: bool) -> str:
    """A text that begins unlike every other one, so that no cache helps to answer it."""
    return f"{number * 7919 % 10**9} {' '.join(of_words(LONG_WORDS, shift=number)) if long else SHORT_EN}"
