"""Measures of how near two sets of answers are, and what a difference looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalscope_vacc.checks.samples import Sample
from evalscope_vacc.checks.tolerance import Threshold
from evalscope_vacc.checks.wording import SIGNS

NEIGHBOURS = 10
# of the neighbours so many are kept by the same weights in another use
_KEPT = 0.6
# a cosine below this is another text's, or another model's, vector; rounding does not reach it
_ROUNDING = 1e-2
# relative error of a vector that was rounded to bfloat16 (8 bits) is about 1.1e-3, to float16 (11 bits) 1.4e-4
_BFLOAT16 = 6e-4


class Sign:
    """What exceeds a threshold, or what a difference looks like: a key of :data:`~.wording.SIGNS`, and figures."""

    def __init__(self, code: str, **args: Any) -> None:
        self.code, self.args = code, args

    def __str__(self) -> str:
        return SIGNS[self.code].format_map(self.args)


@dataclass(frozen=True)
class Bucket:
    """Texts of one language and length: how many, and their mean and least cosine."""

    name: str
    texts: int
    mean: float
    least: float


@dataclass(frozen=True)
class VectorParity:
    """Two sets of vectors of the same texts.

    Attributes:
        cosines: Of each text, float64, shape (texts,).
        buckets: By language and length.
        overlap: Mean share of the ten nearest neighbours that are the same.
        absolute: Largest difference of a number, vectors scaled to length 1.
        problems: What exceeds a threshold, in words; empty where it passes.
        looks_like: What the differences look like.
    """

    cosines: NDArray[np.float64]
    buckets: tuple[Bucket, ...]
    overlap: float
    absolute: float
    problems: tuple[Sign, ...]
    looks_like: tuple[Sign, ...]

    @property
    def passed(self) -> bool:
        """Whether everything is within the thresholds."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "kind": "vectors",
            "passed": self.passed,
            "texts": len(self.cosines),
            "cosine_mean": float(self.cosines.mean()),
            "cosine_least": float(self.cosines.min()),
            "buckets": [vars(bucket) for bucket in self.buckets],
            f"overlap_at_{NEIGHBOURS}": self.overlap,
            "max_absolute_difference": self.absolute,
            "problems": [str(sign) for sign in self.problems],
            "looks_like": [str(sign) for sign in self.looks_like],
            "codes": [sign.code for sign in (*self.problems, *self.looks_like)],
        }


@dataclass(frozen=True)
class PairParity:
    """Two sets of scores of the same pairs.

    Attributes:
        served: float64, shape (pairs,).
        reference: float64, shape (pairs,).
        taus: Kendall's rank correlation of each query's documents; queries whose scores are all equal are left out.
        problems: As in :class:`VectorParity`.
        looks_like: As there.
    """

    served: NDArray[np.float64]
    reference: NDArray[np.float64]
    taus: NDArray[np.float64]
    problems: tuple[Sign, ...]
    looks_like: tuple[Sign, ...]

    @property
    def passed(self) -> bool:
        """Whether everything is within the thresholds."""
        return not self.problems

    @property
    def differences(self) -> NDArray[np.float64]:
        """Served minus reference."""
        return self.served - self.reference

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "kind": "scores",
            "passed": self.passed,
            "pairs": len(self.served),
            "queries": len(self.taus),
            "max_absolute_difference": float(np.abs(self.differences).max()),
            "mean_absolute_difference": float(np.abs(self.differences).mean()),
            "kendall_tau_mean": float(self.taus.mean()) if len(self.taus) else None,
            "kendall_tau_least": float(self.taus.min()) if len(self.taus) else None,
            "problems": [str(sign) for sign in self.problems],
            "looks_like": [str(sign) for sign in self.looks_like],
            "codes": [sign.code for sign in (*self.problems, *self.looks_like)],
        }


def compare_vectors(
    samples: Sequence[Sample], served: NDArray[np.float32], reference: NDArray[np.float32], limits: Threshold
) -> VectorParity:
    """Compares vectors of the same texts, whatever their lengths.

    Args:
        samples: The texts, different from each other.
        served: float32, shape (texts, dimensions).
        reference: float32, the same shape; another size of vectors is a finding, not an error.
        limits: What passes.
    """
    if served.shape[1] != reference.shape[1]:
        nothing = np.zeros(len(samples))
        sizes = Sign("differs.size", served=served.shape[1], reference=reference.shape[1])
        return VectorParity(nothing, (), 0.0, float("inf"), (sizes,), (Sign("looks.size"),))
    a, b = _unit(served), _unit(reference)
    table = a @ b.T
    cosines = np.clip(np.diag(table).copy(), -1.0, 1.0)
    names = list(dict.fromkeys(s.bucket for s in samples))
    buckets = []
    for name in sorted(names):
        mine = cosines[[s.bucket == name for s in samples]]
        buckets.append(Bucket(name, len(mine), float(mine.mean()), float(mine.min())))
    overlap = _overlap(a, b)
    absolute = float(np.abs(a - b).max())
    problems: list[Sign] = []
    if 1 - cosines.min() > limits.least:
        problems.append(Sign("differs.cosine", gap=float(1 - cosines.min()), allowed=limits.least))
    if absolute > limits.absolute:
        problems.append(Sign("differs.number", gap=absolute, allowed=limits.absolute))
    if overlap < limits.overlap:
        problems.append(Sign("differs.neighbours", kept=overlap, count=NEIGHBOURS, wanted=limits.overlap))
    looks = _vector_signs(samples, table, cosines, overlap, limits) if problems else ()
    return VectorParity(cosines, tuple(buckets), overlap, absolute, tuple(problems), looks)


def _vector_signs(
    samples: Sequence[Sample],
    table: NDArray[np.float64],
    cosines: NDArray[np.float64],
    overlap: float,
    limits: Threshold,
) -> tuple[Sign, ...]:
    gaps = 1 - cosines
    best = table.argmax(axis=1)
    theirs = table[np.arange(len(table)), best]
    lost = np.flatnonzero((best != np.arange(len(table))) & (theirs > 1 - _ROUNDING) & (theirs > cosines + _ROUNDING))
    # a text that was cut may come to be like another one; in a swap that other one has lost its own vector, too
    swapped = lost[np.isin(best[lost], lost)]
    if len(swapped) >= 2:
        first = int(swapped[0])
        return (Sign("looks.order", count=len(swapped), text=first + 1, other=int(best[first]) + 1),)
    # what is clearly more than rounding
    bad = gaps > max(limits.least, _ROUNDING / 10)
    tokens = np.array([s.tokens for s in samples])
    if bad.any() and not bad.all():
        cut = _cut(tokens, bad, np.array([s.language for s in samples]))
        if cut is not None:
            return (cut,)
        languages = {s.language for s, wrong in zip(samples, bad, strict=True) if wrong}
        if len(languages) == 1 and len({s.language for s in samples}) > 1:
            name = {"zh": "Chinese"}.get(next(iter(languages)), "Latin-script")
            return (Sign("looks.language", language=name),)
    if gaps.max() <= _ROUNDING:
        relative = float(np.sqrt(2 * max(float(np.median(gaps)), 0.0)))
        return (Sign("looks.rounded", error=relative, dtype="bfloat16" if relative >= _BFLOAT16 else "float16"),)
    return (Sign("looks.used" if overlap >= _KEPT else "looks.weights"),)


def _cut(tokens: NDArray[Any], bad: NDArray[np.bool_], languages: NDArray[Any]) -> Sign | None:
    """Says where texts are cut, when in each language the long ones differ and the short ones do not."""
    below, above = 0, 10**9
    for language in set(languages.tolist()):
        mine = languages == language
        good, wrong = tokens[mine & ~bad], tokens[mine & bad]
        if not len(wrong):
            continue
        if not len(good):
            return None
        # estimated token counts are good to a third
        if good.max() > 1.5 * wrong.min():
            return None
        below = max(below, int(good.max()))
        above = min(above, int(wrong.min()))
    low, high = sorted((below, above))
    return Sign("looks.cut", low=low, high=high)


def compare_scores(
    queries: Sequence[str], served: NDArray[np.float64], reference: NDArray[np.float64], limits: Threshold
) -> PairParity:
    """Compares scores of the same pairs.

    Args:
        queries: Of each pair; pairs of one query belong together.
        served: float64, shape (pairs,).
        reference: float64, shape (pairs,).
        limits: What passes.
    """
    # through importlib: scipy ships no types
    kendalltau = import_module("scipy.stats").kendalltau
    groups: dict[str, list[int]] = {}
    for position, query in enumerate(queries):
        groups.setdefault(query, []).append(position)
    ranked = [g for g in groups.values() if len(g) > 1 and np.ptp(reference[g]) > 0 and np.ptp(served[g]) > 0]
    found = np.array([kendalltau(served[g], reference[g]).statistic for g in ranked], dtype=np.float64)
    largest = float(np.abs(served - reference).max())
    problems: list[Sign] = []
    if largest > limits.score:
        problems.append(Sign("differs.score", gap=largest, allowed=limits.score))
    if np.ptp(served) == 0 and np.ptp(reference) > 0:
        problems.append(Sign("differs.same"))
    elif len(found) and found.mean() < limits.tau:
        problems.append(Sign("differs.tau", tau=float(found.mean()), wanted=limits.tau))
    looks = _score_signs(list(groups.values()), served, reference, found) if problems else ()
    return PairParity(served, reference, found, tuple(problems), looks)


def _score_signs(
    groups: Sequence[Sequence[int]],
    served: NDArray[np.float64],
    reference: NDArray[np.float64],
    taus: NDArray[np.float64],
) -> tuple[Sign, ...]:
    if np.ptp(served) == 0:
        return (Sign("looks.head"),)
    tau = float(taus.mean()) if len(taus) else 0.0
    if tau < 0.9:
        same = [np.allclose(np.sort(served[g]), np.sort(reference[g]), atol=1e-3) for g in map(list, groups)]
        if np.mean(same) > 0.5:
            return (Sign("looks.documents"),)
    if tau < -0.5:
        return (Sign("looks.turned"),)
    if tau >= 0.98 and _logits(served, reference):
        return (Sign("looks.activation"),)
    if tau >= 0.9 and float(np.abs(served - reference).max()) < 0.05:
        return (Sign("looks.prompt-rounded"),)
    return (Sign("looks.prompt" if tau >= 0.5 else "looks.no-template"),)


def _logits(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    def squashed(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(1 / (1 + np.exp(-np.clip(values, -60, 60))), dtype=np.float64)

    return bool(np.allclose(squashed(first), second, atol=0.02) or np.allclose(first, squashed(second), atol=0.02))


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    values = vectors.astype(np.float64)
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), dtype=np.float64)


def _overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Mean share of each text's nearest other texts that both sides name."""
    count = min(NEIGHBOURS, len(a) - 1)
    if count < 1:
        return 1.0
    near = []
    for values in (a, b):
        table = values @ values.T
        np.fill_diagonal(table, -np.inf)
        near.append(np.argsort(-table, axis=1, kind="stable")[:, :count])
    shares = [len(set(x) & set(y)) / count for x, y in zip(near[0].tolist(), near[1].tolist(), strict=True)]
    return float(np.mean(shares))
