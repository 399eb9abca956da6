"""Lays out the figures: numbers in, positions out; the template draws them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import NamedTuple

from evalscope_vacc.evidence import TaskUsage
from evalscope_vacc.results.model import JUDGED, ComparedRow
from evalscope_vacc.view.words import points

MAX_DOTS = 80
LINEAR_UP_TO = 6  # tolerances; beyond, the scale is compressed so that the band stays visible
_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)


class Dot(NamedTuple):
    """One score on a line; ``x`` in percent of the width."""

    x: float
    verdict: str
    title: str


class Line(NamedTuple):
    """One task and split; scores and differences are means, fractions."""

    task: str
    split: str
    metric: str
    dots: tuple[Dot, ...]
    band: tuple[float, float]  # left end and width of the tolerance, in percent
    ours: float | None
    reference: float | None
    difference: float | None
    verdict: str  # the worst one
    hidden: int  # dots left out because there are too many


class DotPlot(NamedTuple):
    """This run minus the reference, one line for each task; the largest shortfall comes first."""

    lines: tuple[Line, ...]
    ticks: tuple[tuple[float, float], ...]  # position in percent, and points
    compressed: bool  # whether the scale is compressed beyond the tolerance


def dot_plot(rows: Iterable[ComparedRow]) -> DotPlot | None:
    """Returns the plot of every row that has a difference; None when there is none."""
    groups: dict[tuple[str, str, str], list[tuple[float, ComparedRow]]] = defaultdict(list)
    tolerances = []
    for row in rows:
        if row.difference is not None and row.tolerance is not None:
            groups[row.task, row.split, row.metric].append((100 * row.difference, row))
            tolerances.append(100 * row.tolerance)
    if not groups:
        return None
    furthest = max(abs(difference) for group in groups.values() for difference, _ in group)
    unit = max(sorted(tolerances)[len(tolerances) // 2], 1e-3)
    limit = max(1.1 * furthest, 1.5 * max(tolerances), 1.5 * unit)
    compressed = limit > LINEAR_UP_TO * unit

    def place(points: float) -> float:
        share = math.asinh(points / unit) / math.asinh(limit / unit) if compressed else points / limit
        return round(50 + 50 * max(-1.0, min(1.0, share)), 3)

    lines = [_line(key, group, place) for key, group in groups.items()]
    lines.sort(key=lambda line: (line.dots[0].x, line.task, line.split))
    return DotPlot(tuple(lines), _ticks(limit, place, compressed=compressed), compressed)


def _line(
    key: tuple[str, str, str], group: Sequence[tuple[float, ComparedRow]], place: Callable[[float], float]
) -> Line:
    ordered = sorted(group, key=lambda member: member[0])
    # the two ends stay, whatever is left out between them
    step = max(1.0, (len(ordered) - 1) / (MAX_DOTS - 1))
    kept = [ordered[round(i * step)] for i in range(min(len(ordered), MAX_DOTS))]
    tolerance = min(100 * (row.tolerance or 0.0) for _, row in group)
    left, right = place(-tolerance), place(tolerance)
    dots = (Dot(place(at), row.verdict, f"{row.subset}: {points(row.difference)}") for at, row in kept)
    ours, reference = (_mean(getattr(row, name) for _, row in group) for name in ("ours", "reference"))
    worst = max((row.verdict for _, row in group), key=JUDGED.index)
    difference = _mean(row.difference for _, row in group)
    hidden = len(ordered) - len(kept)
    return Line(*key, tuple(dots), (left, round(right - left, 3)), ours, reference, difference, worst, hidden)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _ticks(limit: float, place: Callable[[float], float], *, compressed: bool) -> tuple[tuple[float, float], ...]:
    chosen: list[float] = []
    for tick in _TICKS:
        at = place(tick)
        # labels need room: about an eighth of the width, and on a linear scale three are enough
        if tick <= limit and 58 <= at <= 97 and (not chosen or at - place(chosen[-1]) >= 14):
            chosen.append(tick)
    chosen = chosen if compressed else chosen[-2:]
    signed = [-tick for tick in reversed(chosen)] + [0.0] + chosen
    return tuple((place(tick), tick) for tick in signed)


class Block(NamedTuple):
    """One task and side in the figure of a run's speed; all in units of the view box, 1000 wide and 100 high."""

    x: float
    width: float
    height: float
    speed: TaskUsage


class Skyline(NamedTuple):
    """Speed over the time inside one model: as wide as it took, as high as it was fast."""

    model: str
    blocks: tuple[Block, ...]
    top: float  # texts per second at the upper edge
    seconds: float  # seconds at the right edge
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
    whole = reduce(TaskUsage.plus, group)
    top = _round_up(max(speed.rate or 0.0 for speed in group))
    blocks: list[Block] = []
    at = 0.0
    for speed in group:
        width = 1000 * speed.seconds / whole.seconds if whole.seconds else 0.0
        height = 100 * (speed.rate or 0.0) / top if top else 0.0
        blocks.append(Block(round(at, 2), round(width, 2), round(height, 2), speed))
        at += width
    return Skyline(model, tuple(blocks), top, whole.seconds, whole.texts, whole.retries, whole.busy)


def _round_up(value: float) -> float:
    """Returns the next round number, for the upper edge of an axis."""
    if value <= 0:
        return 0.0
    magnitude = 10.0 ** math.floor(math.log10(value))
    steps = (step * magnitude for step in (1, 1.5, 2, 3, 4, 5, 6, 8))
    return next((step for step in steps if step >= value * (1 - 1e-9)), 10 * magnitude)
