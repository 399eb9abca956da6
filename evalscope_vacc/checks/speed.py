"""How fast a server answers, and whether it works on several requests at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

from evalscope_vacc.checks.findings import Finding
from evalscope_vacc.checks.target import Got, Target, connect
from evalscope_vacc.checks.texts import numbered
from evalscope_vacc.messages import Reason
from evalscope_vacc.wire.address import public_base
from evalscope_vacc.wire.engine import Request

_SIZES = (1, 4, 16)
_SLOW_S = 2.0
# below this the time of a request is mostly that of the way there and back
_TOO_QUICK_S = 0.02
_GAIN = 1.2
_BATCH = 32
_ROUNDS = 3


def check_speed(target: Target) -> Iterator[Finding]:
    """The time of a request with 1, 4 and 16 texts; with all of them, the rate in tokens that `estimate` asks for."""
    asked = [_ask(target, *range(sum(_SIZES[:place]), sum(_SIZES[: place + 1])), kind="batch") for place in range(3)]
    one, four, sixteen = (_shown(got.seconds) for got in asked)
    times = Reason.of("times", one=one, four=four, sixteen=sixteen)
    last = asked[-1]
    if last.tokens and last.seconds > 0:
        rate = last.tokens / last.seconds
        times = Reason.of("times_and_rate", one=one, four=four, sixteen=sixteen, tokens=rate)
    batch, timeout = target.config.batch_size or _BATCH, target.config.timeout_s
    expected = last.seconds * max(1.0, batch / _SIZES[-1])
    if expected > timeout / 4:
        yield target.finding("speed.timeout", times=times, batch=batch, expected=expected, timeout=timeout)
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
            requests = (_request(target, 2000 + number) for number in numbers)
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


def _request(target: Target, number: int) -> Request:
    model, texts = target.config.model_name, [numbered(number, "single")]
    if target.config.is_cross_encoder:
        path, body = target.dialect.scores(model, numbered(0, "question"), texts)
    else:
        path, body = target.dialect.embeddings(model, texts)
    return Request(path, body, 1, describe="a text of the check")


def _shown(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
