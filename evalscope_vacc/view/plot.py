"""Lays out the figures: numbers in, positions out; the template draws them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from evalscope_vacc.evidence import TaskUsage
from evalscope_vacc.results.model import ComparedRow
from evalscope_vacc.view.words import points

Place = Callable[[float], float]
MAX_DOTS = 80
LINEAR_UP_TO = 6  # tolerances; beyond, the scale is compressed so that the band stays visible
_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)


@dataclass(frozen=True)
class Dot:
    """One score on a line; ``x`` in percent of the width."""

    x: float
    verdict: str
    title: str


@dataclass(frozen=True)
class Line:
    """One task and split.

    Attributes:
        band: Left end and width of the tolerance, in percent, or None.
        ours: Mean of our scores, in points.
        reference: Mean of the reference's scores, in points, or None.
        difference: Mean difference in points, or None.
        verdict: The worst one.
        hidden: Dots left out because there are too many.
    """

    task: str
    split: str
    metric: str
    dots: tuple[Dot, ...]
    band: tuple[float, float] | None
    ours: float | None
    reference: float | None
    difference: float | None
    allowed: float | None
    verdict: str
    hidden: int = 0


@dataclass(frozen=True)
class DotPlot:
    """Ours less the reference, a line a task; the furthest below comes first.

    Attributes:
        ticks: Position in percent, and points.
        compressed: Whether the scale is compressed beyond the tolerance.
    """

    lines: tuple[Line, ...]
    ticks: tuple[tuple[float, float], ...]
    compressed: bool


def dot_plot(rows: Iterable[ComparedRow]) -> DotPlot | None:
    """Returns the plot of every row that has a difference; None when there is none."""
    groups: dict[tuple[str, str, str], list[ComparedRow]] = defaultdict(list)
    for row in rows:
        if row.difference is not None and row.tolerance is not None:
            groups[row.task, row.split, row.metric].append(row)
    if not groups:
        return None
    everything = [row for group in groups.values() for row in group]
    furthest = max(abs(100 * (row.difference or 0.0)) for row in everything)
    allowed = sorted(100 * (row.tolerance or 0.0) for row in everything)
    unit = max(allowed[len(allowed) // 2], 1e-3)
    limit = max(1.1 * furthest, 1.5 * allowed[-1], 1.5 * unit)
    compressed = limit > LINEAR_UP_TO * unit

    def place(points: float) -> float:
        share = math.asinh(points / unit) / math.asinh(limit / unit) if compressed else points / limit
        return round(50 + 50 * max(-1.0, min(1.0, share)), 3)

    lines = [_line(key, group, place) for key, group in groups.items()]
    lines.sort(key=lambda line: (min(_of(line)), line.task, line.split))
    return DotPlot(tuple(lines), _ticks(limit, place, compressed=compressed), compressed)


def _of(line: Line) -> tuple[float, ...]:
    return tuple(dot.x for dot in line.dots)


def _line(key: tuple[str, str, str], group: Sequence[ComparedRow], place: Place) -> Line:
    ordered = sorted(group, key=lambda row: row.difference or 0.0)
    # the two ends stay, whatever is left out between them
    kept = ordered
    if len(ordered) > MAX_DOTS:
        step = (len(ordered) - 1) / (MAX_DOTS - 1)
        kept = [ordered[round(i * step)] for i in range(MAX_DOTS)]
    tolerance = min(100 * (row.tolerance or 0.0) for row in group)
    left, right = place(-tolerance), place(tolerance)
    order = ("fail", "above", "pass")
    return Line(
        *key,
        dots=tuple(
            Dot(place(100 * (row.difference or 0.0)), row.verdict, f"{row.subset}: {points(row.difference)}")
            for row in kept
        ),
        band=(left, round(right - left, 3)),
        ours=_mean(row.ours for row in group),
        reference=_mean(row.reference for row in group),
        difference=_mean(row.difference for row in group),
        allowed=tolerance,
        verdict=min((row.verdict for row in group), key=lambda v: order.index(v) if v in order else len(order)),
        hidden=len(ordered) - len(kept),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return 100 * math.fsum(known) / len(known) if known else None


def _ticks(limit: float, place: Place, *, compressed: bool) -> tuple[tuple[float, float], ...]:
    chosen: list[float] = []
    for tick in _TICKS:
        at = place(tick)
        if tick > limit or at < 58 or at > 97:
            continue
        # labels need room: about an eighth of the width, and on a linear scale three are enough
        if not chosen or at - place(chosen[-1]) >= 14:
            chosen.append(tick)
    if not compressed:
        chosen = chosen[-2:]
    signed = [-tick for tick in reversed(chosen)] + [0.0] + chosen
    return tuple((place(tick), tick) for tick in signed)


@dataclass(frozen=True)
class Block:
    """One task and side in the figure of a run's speed; all in units of the view box, 1000 wide and 100 high."""

    x: float
    width: float
    height: float
    busy: float | None
    retries: int
    speed: TaskUsage


@dataclass(frozen=True)
class Skyline:
    """Speed over the time inside one model: as wide as it took, as high as it was fast.

    Attributes:
        top: Texts per second at the upper edge.
        seconds: Seconds at the right edge.
    """

    model: str
    blocks: tuple[Block, ...]
    top: float
    seconds: float
    texts: int
    retries: int
    busy: float | None


def skylines(speeds: Iterable[TaskUsage]) -> tuple[Skyline, ...]:
    """Returns one figure a model, its tasks in the order in which they ran."""
    models: dict[str, list[TaskUsage]] = defaultdict(list)
    for speed in speeds:
        models[speed.model].append(speed)
    return tuple(_skyline(model, group) for model, group in models.items())


def _skyline(model: str, group: Sequence[TaskUsage]) -> Skyline:
    seconds = math.fsum(speed.seconds for speed in group)
    top = _round_up(max((speed.rate or 0.0 for speed in group), default=0.0))
    blocks: list[Block] = []
    at = 0.0
    for speed in group:
        width = 1000 * speed.seconds / seconds if seconds else 0.0
        height = 100 * (speed.rate or 0.0) / top if top else 0.0
        blocks.append(Block(round(at, 2), round(width, 2), round(height, 2), speed.busy, speed.retries, speed))
        at += width
    known = [(speed.busy, speed.seconds) for speed in group if speed.busy is not None and speed.seconds > 0]
    whole = sum(part for _, part in known)
    return Skyline(
        model=model,
        blocks=tuple(blocks),
        top=top,
        seconds=seconds,
        texts=sum(speed.texts for speed in group),
        retries=sum(speed.retries for speed in group),
        busy=sum(busy * part for busy, part in known) / whole if whole else None,
    )


def _round_up(value: float) -> float:
    """Returns the next round number, for the upper edge of an axis."""
    if value <= 0:
        return 0.0
    magnitude = 10.0 ** math.floor(math.log10(value))
    steps = (step * magnitude for step in (1, 1.5, 2, 3, 4, 5, 6, 8))
    return next((step for step in steps if step >= value * (1 - 1e-9)), 10 * magnitude)
