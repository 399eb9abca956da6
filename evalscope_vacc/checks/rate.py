"""How fast servers answer: one request, several at a time, and per second with the batches and concurrency of a run."""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from evalscope_vacc.checks.connection import introduce
from evalscope_vacc.checks.findings import Finding
from evalscope_vacc.checks.target import Got, Target, connect
from evalscope_vacc.checks.texts import SHORT_EN, numbered, of_words
from evalscope_vacc.config import ModelConfig
from evalscope_vacc.errors import ServerError
from evalscope_vacc.messages import Reason
from evalscope_vacc.wire.address import public_base
from evalscope_vacc.wire.engine import Answer, Request
from evalscope_vacc.wire.probe import probe_reranker

logger = logging.getLogger(__name__)

SECONDS = 2.0
LONG_WORDS = 160
"""About 200 tokens: below the limit of the smallest models."""
CHARACTERS_PER_TOKEN = 4.2
_FEW = 4
_TRIES = 2
_SIZES = (1, 4, 16)
_SLOW_S = 2.0
# below this the time of a request is mostly that of the way there and back
_TOO_QUICK_S = 0.02
_GAIN = 1.2
_ROUNDS = 3


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
    with connect(config, config.bases[0]) as engine:
        target = Target.at(config, engine)
        try:
            introduce(target)
            if config.is_cross_encoder:
                rerank = probe_reranker(engine, target.dialect, config.model_name, server=target.server)
                target.dialect = rerank.dialect(target.dialect)
            size = target.batch
            # first what is calculated from single requests, while the server has nothing else to do
            _, tokens = _stream(target, size, seconds, long=True)
            texts, _ = _stream(target, size, seconds, long=False)
        except ServerError as error:
            logger.warning("the server's rate could not be measured: %s", error)
            return None
    servers = len(config.bases)
    return Rate(texts * servers, tokens * servers)


def _stream(target: Target, size: int, seconds: float, *, long: bool) -> tuple[float, float]:
    """Returns texts and tokens per second of a stream of full batches."""
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


def check_speed(target: Target) -> Iterator[Finding]:
    """The time of a request with 1, 4 and 16 texts; with all of them, the rate in tokens that `estimate` asks for."""
    asked = [_ask(target, *range(sum(_SIZES[:place]), sum(_SIZES[: place + 1])), kind="batch") for place in range(3)]
    one, four, sixteen = (_shown(got.seconds) for got in asked)
    times = Reason.of("times", one=one, four=four, sixteen=sixteen)
    last = asked[-1]
    if last.tokens and last.seconds > 0:
        rate = last.tokens / last.seconds
        times = Reason.of("times_and_rate", one=one, four=four, sixteen=sixteen, tokens=rate)
    timeout = target.config.timeout_s
    expected = last.seconds * max(1.0, target.batch / _SIZES[-1])
    if expected > timeout / 4:
        yield target.finding("speed.timeout", times=times, batch=target.batch, expected=expected, timeout=timeout)
    else:
        yield target.finding("speed.slow" if asked[0].seconds > _SLOW_S else "speed.ok", times=times)


def check_concurrency(target: Target) -> Iterator[Finding]:
    """Whether ``max_concurrency`` requests at a time take less time than one after the other."""
    slots = target.config.max_concurrency
    if slots == 1:
        yield target.finding("concurrency.one")
        return
    wide = min(slots, 8)
    one = _ask(target, 900).seconds
    if one < _TOO_QUICK_S:
        yield target.finding("concurrency.quick", ms=one * 1000)
        return
    rounds = 1 if one > 1 else _ROUNDS
    if one * wide * rounds * 1.5 > target.left_s:
        yield target.finding("concurrency.late")
        return
    base = next(base for base in target.config.bases if public_base(base) == target.server)
    alone, beside = [], []
    with connect(target.config, base, concurrency=wide) as side_by_side:
        for turn in range(rounds):
            numbers = range(turn * wide, (turn + 1) * wide)
            start = time.perf_counter()
            for number in numbers:
                _ask(target, 1000 + number)
            alone.append(time.perf_counter() - start)
            start = time.perf_counter()
            requests = (_request(target, [numbered(2000 + number, "single")]) for number in numbers)
            deque(side_by_side.stream(requests, lambda _request, _answer: None), maxlen=0)
            beside.append(time.perf_counter() - start)
    # the best round of each: what else the machine did meanwhile only ever adds time
    after_each_other, together = min(alone), min(beside)
    gain = after_each_other / max(together, 1e-9)
    code = "concurrency.ok" if gain >= _GAIN else "concurrency.none"
    shown = {"alone": _shown(after_each_other), "together": _shown(together)}
    yield target.finding(code, wide=wide, gain=gain, **shown)


def _ask(target: Target, *numbers: int, kind: str = "single") -> Got:
    texts = [numbered(number, kind) for number in numbers]
    return target.score(numbered(0, "question"), texts) if target.config.is_cross_encoder else target.embed(texts)


def _shown(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
