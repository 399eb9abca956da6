"""One text, one answer: when repeated, in a batch, beside any other text, and at any position.

What varies is asked for often. A fault that one batch in eight has is found with a chance of 1 - (7/8) ** batches, 96 %
with the :data:`BATCHES` of a check.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalscope_vacc.checks.findings import Finding
from evalscope_vacc.checks.target import Answers, Target, cosines
from evalscope_vacc.checks.texts import LONG_1, POOL, SANITY_EN
from evalscope_vacc.checks.tolerance import COSINES, SCORES, Scale, Tolerance, seen
from evalscope_vacc.errors import RequestRefusedError
from evalscope_vacc.messages import Reason

BATCHES = 24
_TEXTS = 6
_LEAST_BATCHES = 3
# share of the time that is left which may go into batches
_SHARE = 1 / 3
# seconds that a request may take which a check can do without
_PATIENCE_S = 5.0
# of the batches or texts that a fault concerns, so many show it
_NEARLY = 0.8
# two equal texts that stand next to each other may hide it
_MOST = 0.5
# two servers may differ by so many times what one server's own answers do: other kernels, the same weights
_SERVERS = 10
IDENTICAL = 1e-8
"""Answers that are nearer than this are of one and the same prompt."""


@dataclass(frozen=True)
class Asker:
    """How texts are asked for, alone or together, and how far two answers differ."""

    ask: Callable[[Sequence[str]], Answers]  # texts to answers, shape (texts, dimensions) or (texts, 1)
    # answers of shapes (m, d) and (n, d) to their differences, shape (m, n)
    gaps: Callable[[Answers, Answers], NDArray[np.float64]]
    scale: Scale  # of the differences
    measure: Reason  # what the differences are called


def asker_of(target: Target, query: str = SANITY_EN[0][0], *, raw: bool = False) -> Asker:
    """Asks for vectors of texts, or for the scores of documents with one query."""
    if not target.config.is_cross_encoder:
        limit = target.limit if target.dialect.truncates else None
        return Asker(
            lambda texts: target.embed(texts, truncate_to=limit).values,
            lambda a, b: np.maximum(1 - cosines(a, b), 0.0),
            COSINES,
            Reason("measure_cosine"),
        )
    # long pairs fit every model but the smallest; those must be allowed to cut
    cut = (raw or target.template is None) and not target.templated

    def gaps(a: Answers, b: Answers) -> NDArray[np.float64]:
        return np.asarray(np.abs(a - b.T) / np.maximum(1.0, np.abs(b.T)), dtype=np.float64)

    def ask(texts: Sequence[str]) -> Answers:
        return target.score(query, texts, raw=raw, cut=cut).values[:, None]

    return Asker(ask, gaps, SCORES, Reason("measure_difference"))


@dataclass(frozen=True)
class Sameness:
    """Answers to the same texts, alone and in batches."""

    asker: Asker
    texts: Sequence[str]  # those asked for
    alone: Answers  # their answers, each in a request of its own, shape (texts, d)
    again: Answers  # the same a second time
    batches: Sequence[Sequence[int]]  # positions in ``texts`` that each batch is made of
    answers: Sequence[Answers]  # the answers of each batch
    refused: bool = False  # whether a request as large as a run's was

    @cached_property
    def repeats(self) -> NDArray[np.float64]:
        """Difference of each second answer from the first."""
        return np.diag(self.asker.gaps(self.again, self.alone))

    @cached_property
    def tables(self) -> list[NDArray[np.float64]]:
        """Of each batch, the difference of each place from each text's own answer."""
        return [self.asker.gaps(answers, self.alone) for answers in self.answers]

    @cached_property
    def own(self) -> list[NDArray[np.float64]]:
        """Of each batch, the difference of each place from the answer of the text that stands there."""
        return [
            table[np.arange(len(batch)), list(batch)] for table, batch in zip(self.tables, self.batches, strict=True)
        ]

    @cached_property
    def tolerance(self) -> Tolerance:
        """What rounding explains, by the differences and the answers themselves."""
        gaps = np.concatenate(self.own or [self.repeats])
        return seen(gaps, np.concatenate([self.alone, *self.answers]), self.asker.scale)


def compositions(texts: int, size: int, count: int) -> list[list[int]]:
    """Batches of different texts, every text in many of them, one text of each batch twice; always the same ones."""
    chance = random.Random(2)  # noqa: S311 - nothing secret
    made = []
    for _ in range(count):
        batch = chance.sample(range(texts), min(size, texts))
        batch.insert(chance.randrange(len(batch) + 1), chance.choice(batch))
        made.append(batch)
    return made


def ask_often(
    asker: Asker, texts: Sequence[str] = POOL, *, size: int = _TEXTS, full: int = 0, seconds: float
) -> Sameness:
    """Asks for each text alone, then again, then in batches of ``size`` different texts, then in one of ``full`` texts.

    Batches that would take longer than ``seconds`` are left out, but for the first three.
    """
    alone, again = (np.concatenate([asker.ask([text]) for text in texts]) for _ in range(2))
    batches: list[list[int]] = []
    answers: list[Answers] = []
    start = time.monotonic()
    for batch in compositions(len(texts), size, BATCHES):
        spent = time.monotonic() - start
        if len(batches) >= _LEAST_BATCHES and spent * (1 + 1 / len(batches)) > seconds:
            break
        answers.append(asker.ask([texts[i] for i in batch]))
        batches.append(batch)
    spent, refused = time.monotonic() - start, False
    if full > size and spent / sum(map(len, batches)) * full < _PATIENCE_S:
        batch = [place % len(texts) for place in range(full)]
        try:
            answers.append(asker.ask([texts[i] for i in batch]))
            batches.append(batch)
        except RequestRefusedError:
            # a run asks such a server for fewer
            refused = True
    return Sameness(asker, texts, alone, again, batches, answers, refused)


def check_sameness(target: Target) -> Iterator[Finding]:
    """One text, one vector; one pair, one score: again, alone, in a batch, and at another position."""
    asker = asker_of(target)
    start = time.perf_counter()
    asker.ask([LONG_1])
    target.second = time.perf_counter() - start
    found = ask_often(asker, full=target.batch, seconds=target.left_s * _SHARE)
    yield from judge(target, found)


def judge(target: Target, found: Sameness) -> Iterator[Finding]:
    """Says what differs, and what it looks like; remembers what rounding explains, and the answers."""
    target.tolerance, target.alone = found.tolerance, found.alone
    if found.refused:
        target.took = max(map(len, found.batches))
    allowed = found.tolerance.allowed
    said: dict[str, Any] = {"measure": found.asker.measure, "allowed": allowed, "like": found.tolerance.like}
    bad = int((found.repeats > allowed).sum())
    code = "repeat.differs" if bad else "repeat.ok"
    yield target.finding(code, gap=float(found.repeats.max()), bad=bad, texts=len(found.repeats), **said)
    faulty = [number for number, gaps in enumerate(found.own) if gaps.max() > allowed]
    said |= {"gap": float(np.concatenate(found.own).max()), "bad": len(faulty), "batches": len(found.batches)}
    if len(faulty) > _MOST * len(found.own) and _only_doubled(found, allowed):
        yield target.finding("order.equal", **said)
        return
    if faulty and all(len(found.batches[number]) > len(found.batches[0]) for number in faulty):
        yield target.finding("batch.full", size=len(found.batches[-1]), small=len(found.batches[0]), **said)
        return
    moved = [number for number in faulty if len(_moved(found, number, allowed)) >= 2]
    if moved:
        yield _order(target, found, moved, {**said, "bad": len(moved)})
        return
    yield target.finding("order.ok", chance=1 - (7 / 8) ** len(found.batches), **said)
    code = "batch.ok" if not faulty else "batch.padding" if _only_shorter(found, allowed) else "batch.differs"
    yield target.finding(code, **said)


def _moved(found: Sameness, number: int, allowed: float) -> list[tuple[int, int]]:
    """Places of a batch that have another text's answer, each with the text that it is of."""
    table, batch = found.tables[number], found.batches[number]
    if found.alone.shape[1] == 1:
        # scores lie near each other by chance: all of a batch must be there, at other places
        right, got = found.alone[list(batch)], found.answers[number]
        if found.asker.gaps(np.sort(got, axis=0), np.sort(right, axis=0)).diagonal().max() > allowed:
            return []
    own, best = found.own[number], table.argmin(axis=1)
    return [
        (place, int(best[place]))
        for place, text in enumerate(batch)
        if own[place] > allowed and best[place] != text and table[place, best[place]] <= allowed
    ]


def _order(target: Target, found: Sameness, moved: Sequence[int], said: dict[str, Any]) -> Finding:
    if found.alone.shape[1] > 1:
        place, text = _moved(found, moved[0], said["allowed"])[0]
        batch = found.batches[moved[0]]
        return target.finding("order.swapped", place=place, other=batch.index(text) if text in batch else -1, **said)
    steps = [np.diff(found.answers[number][:, 0]) for number in moved]
    one_way = all((step <= 0).all() for step in steps) or all((step >= 0).all() for step in steps)
    return target.finding("order.sorted" if one_way else "order.moved", **said)


def _only_doubled(found: Sameness, allowed: float) -> bool:
    """Whether only the text that occurs twice in a batch is wrong."""
    return all(
        batch.count(text) > 1 or gap <= allowed
        for gaps, batch in zip(found.own, found.batches, strict=True)
        for gap, text in zip(gaps, batch, strict=True)
    )


def _only_shorter(found: Sameness, allowed: float) -> bool:
    """Whether the longest text of each batch is right, and nearly all shorter ones are not."""
    shorter: list[float] = []
    longest: list[float] = []
    for gaps, batch in zip(found.own, found.batches, strict=True):
        sizes = np.array([len(found.texts[i].encode()) for i in batch])
        short = 3 * sizes < sizes.max()
        # only where one text is clearly the longest, it is surely the one that is padded to
        if len({batch[place] for place in range(len(batch)) if not short[place]}) == 1:
            longest += gaps[~short].tolist()
            shorter += gaps[short].tolist()
    return bool(longest and shorter and max(longest) <= allowed and np.mean(np.array(shorter) > allowed) > _NEARLY)


def alike(targets: Sequence[Target]) -> Iterator[Finding]:
    """Whether several servers give the same texts the same vectors, or pairs the same scores."""
    known = [(target, target.alone) for target in targets if target.alone is not None]
    for other, answers in known[1:]:
        first, theirs = known[0]
        allowed = _SERVERS * max(target.tolerance.allowed for target, _ in known)
        gaps = asker_of(first).gaps(answers, theirs) if answers.shape == theirs.shape else np.array([[np.inf]])
        gap = float(gaps.diagonal().max())
        code = "servers-agree.ok" if gap <= allowed else "servers-agree.differ"
        named = Reason("what_scores" if first.config.is_cross_encoder else "what_vectors")
        yield other.finding(code, other=first.server, what=named, gap=gap, allowed=allowed)
