"""Measures of how near two sets of answers are, and what a difference looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalscope_vacc.parity.texts import Sample
from evalscope_vacc.parity.thresholds import Threshold

NEIGHBOURS = 10
# a cosine below this is another text's, or another model's, vector; rounding does not reach it
_ROUNDING = 1e-2
# relative error of a vector that was rounded to bfloat16 (8 bits) is about 1.1e-3, to float16 (11 bits) 1.4e-4
_BFLOAT16 = 6e-4


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
    problems: tuple[str, ...]
    looks_like: tuple[str, ...]

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
            "problems": list(self.problems),
            "looks_like": list(self.looks_like),
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
    problems: tuple[str, ...]
    looks_like: tuple[str, ...]

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
            "problems": list(self.problems),
            "looks_like": list(self.looks_like),
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
        sizes = f"vectors of {served.shape[1]} numbers against {reference.shape[1]}"
        return VectorParity(
            nothing, (), 0.0, float("inf"), (sizes,), ("another model, or vectors that were cut (`dimensions`)",)
        )
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
    problems = []
    if 1 - cosines.min() > limits.least:
        problems.append(f"least cosine 1 - {1 - cosines.min():.1e}, allowed 1 - {limits.least:g}")
    if absolute > limits.absolute:
        problems.append(f"largest difference of a number {absolute:.1e}, allowed {limits.absolute:g}")
    if overlap < limits.overlap:
        problems.append(f"{overlap:.1%} of the {NEIGHBOURS} nearest neighbours kept, wanted {limits.overlap:.0%}")
    looks = _vector_signs(samples, table, cosines, overlap, limits) if problems else ()
    return VectorParity(cosines, tuple(buckets), overlap, absolute, tuple(problems), looks)


def _vector_signs(
    samples: Sequence[Sample],
    table: NDArray[np.float64],
    cosines: NDArray[np.float64],
    overlap: float,
    limits: Threshold,
) -> tuple[str, ...]:
    gaps = 1 - cosines
    best = table.argmax(axis=1)
    theirs = table[np.arange(len(table)), best]
    lost = np.flatnonzero((best != np.arange(len(table))) & (theirs > 1 - _ROUNDING) & (theirs > cosines + _ROUNDING))
    # a text that was cut may come to be like another one; in a swap that other one has lost its own vector, too
    swapped = lost[np.isin(best[lost], lost)]
    if len(swapped) >= 2:
        first = int(swapped[0])
        return (
            (
                f"the order is wrong: {len(swapped)} texts have another text's vector (text {first + 1} has that of text "
                f"{int(best[first]) + 1})"
            ),
        )
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
            return (f"only {name} texts differ: another tokenizer, or a text encoding on the way",)
    if gaps.max() <= _ROUNDING:
        relative = float(np.sqrt(2 * max(float(np.median(gaps)), 0.0)))
        name = "bfloat16" if relative >= _BFLOAT16 else "float16"
        return (
            (
                f"rounding: all texts differ a little, long and short alike (relative error {relative:.1e}), as with {name}; "
                f"if the server computes in it, say --dtype {name}"
            ),
        )
    if overlap >= 0.6:
        return (
            (
                "the same weights used in another way: neighbours are mostly kept, vectors are not; an instruction or prompt "
                "on one side, other special tokens, another pooling or normalisation"
            ),
        )
    return ("other weights: not even the neighbours are kept",)


def _cut(tokens: NDArray[Any], bad: NDArray[np.bool_], languages: NDArray[Any]) -> str | None:
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
    return (
        f"texts are cut: those of up to about {low} tokens are the same, those from about {high} on differ; compare "
        "max_tokens, the server's --max-model-len and the reference's own limit"
    )


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
    problems = []
    if largest > limits.score:
        problems.append(f"largest difference of a score {largest:.2g}, allowed {limits.score:g}")
    if np.ptp(served) == 0 and np.ptp(reference) > 0:
        problems.append("all served scores are the same")
    elif len(found) and found.mean() < limits.tau:
        problems.append(f"Kendall's tau {found.mean():.3f}, wanted {limits.tau:g}")
    looks = _score_signs(list(groups.values()), served, reference, found) if problems else ()
    return PairParity(served, reference, found, tuple(problems), looks)


def _score_signs(
    groups: Sequence[Sequence[int]],
    served: NDArray[np.float64],
    reference: NDArray[np.float64],
    taus: NDArray[np.float64],
) -> tuple[str, ...]:
    if np.ptp(served) == 0:
        return ("the classification head was not loaded, or the prompt's end is cut off: every pair scores the same",)
    tau = float(taus.mean()) if len(taus) else 0.0
    if tau < 0.9:
        same = [np.allclose(np.sort(served[g]), np.sort(reference[g]), atol=1e-3) for g in map(list, groups)]
        if np.mean(same) > 0.5:
            return ("the order is wrong: a query's scores are all there, at other documents",)
    if tau < -0.5:
        return ("the sign is turned: the worst document scores highest",)
    if tau >= 0.98 and _logits(served, reference):
        return ("another activation: one side gives logits, the other their sigmoid; the ranking is the same",)
    if tau >= 0.9 and float(np.abs(served - reference).max()) < 0.05:
        return (
            "rounding, or a small difference of the prompt: the ranking is nearly kept (a lost newline makes 0.006)",
        )
    if tau >= 0.5:
        return ("another prompt: a template or instruction on one side only, or applied twice",)
    return ("other weights, or the template is missing on one side",)


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
