"""Measures of how near two sets of answers are, what a difference looks like, and plots of it (PNG files)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalscope_vacc.checks.target import cosines, unit
from evalscope_vacc.checks.texts import Sample
from evalscope_vacc.checks.tolerance import Threshold
from evalscope_vacc.errors import ConfigError
from evalscope_vacc.messages import Reason

NEIGHBOURS = 10
# of the neighbours so many are kept by the same weights in another use
_KEPT = 0.6
# a cosine below this is another text's, or another model's, vector; rounding does not reach it
_ROUNDING = 1e-2
# relative error of a vector that was rounded to bfloat16 (8 bits) is about 1.1e-3, to float16 (11 bits) 1.4e-4
_BFLOAT16 = 6e-4


@dataclass(frozen=True)
class Parity:
    """Two sets of answers to the same texts or pairs."""

    kind: str  # "vectors" or "scores"
    figures: Mapping[str, Any]  # the measures, plain values; None for what could not be measured
    problems: tuple[Reason, ...] = ()  # what exceeds a threshold; empty where it passes
    looks_like: tuple[Reason, ...] = ()  # what the differences look like, the likeliest first
    gaps: NDArray[np.float64] | None = None  # of vectors, one minus the cosine of each text; float64, shape (texts,)

    @property
    def passed(self) -> bool:
        """Whether everything is within the thresholds."""
        return not self.problems


def compare_vectors(
    samples: Sequence[Sample], served: NDArray[np.float32], reference: NDArray[np.float32], limits: Threshold
) -> Parity:
    """Compares vectors of the same texts, which differ from each other, whatever the lengths of the vectors.

    Both are float32 of shape (texts, dimensions); another size of vectors is a finding, not an error.
    """
    if served.shape[1] != reference.shape[1]:
        sizes = Reason.of("differs.size", served=served.shape[1], reference=reference.shape[1])
        unknown = ("cosine_mean", "cosine_least", f"overlap_at_{NEIGHBOURS}", "max_absolute_difference")
        figures: dict[str, Any] = {"texts": len(samples), "buckets": [], **dict.fromkeys(unknown)}
        return Parity("vectors", figures, (sizes,), (Reason("looks.size"),))
    table = cosines(served, reference)
    near = np.clip(np.diag(table).copy(), -1.0, 1.0)
    absolute = float(np.abs(unit(served) - unit(reference)).max())
    overlap = _overlap(served, reference)
    figures = {
        "texts": len(samples),
        "cosine_mean": float(near.mean()),
        "cosine_least": float(near.min()),
        "buckets": list(_buckets(samples, near)),
        f"overlap_at_{NEIGHBOURS}": overlap,
        "max_absolute_difference": absolute,
    }
    gap = float(1 - near.min())
    problems = [
        Reason.of(f"differs.{code}", **said)
        for exceeded, code, said in (
            (gap > limits.least, "cosine", {"gap": gap, "allowed": limits.least}),
            (absolute > limits.absolute, "number", {"gap": absolute, "allowed": limits.absolute}),
            (overlap < limits.overlap, "neighbours", {"kept": overlap, "count": NEIGHBOURS, "wanted": limits.overlap}),
        )
        if exceeded
    ]
    looks = (_vector_sign(samples, table, near, overlap, limits),) if problems else ()
    return Parity("vectors", figures, tuple(problems), looks, 1 - near)


def _buckets(samples: Sequence[Sample], near: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Of the texts of each language and length: how many, and their mean and least cosine."""
    found = []
    for name in sorted({s.bucket for s in samples}):
        mine = near[[s.bucket == name for s in samples]]
        found.append({"name": name, "texts": len(mine), "mean": float(mine.mean()), "least": float(mine.min())})
    return found


def _vector_sign(
    samples: Sequence[Sample],
    table: NDArray[np.float64],
    near: NDArray[np.float64],
    overlap: float,
    limits: Threshold,
) -> Reason:
    gaps = 1 - near
    best = table.argmax(axis=1)
    theirs = table[np.arange(len(table)), best]
    lost = np.flatnonzero((best != np.arange(len(table))) & (theirs > 1 - _ROUNDING) & (theirs > near + _ROUNDING))
    # a text that was cut may come to be like another one; in a swap that other one has lost its own vector, too
    swapped = lost[np.isin(best[lost], lost)]
    if len(swapped) >= 2:
        first = int(swapped[0])
        return Reason.of("looks.order", count=len(swapped), text=first + 1, other=int(best[first]) + 1)
    # what is clearly more than rounding
    bad = gaps > max(limits.least, _ROUNDING / 10)
    languages = np.array([s.language for s in samples])
    if bad.any() and not bad.all():
        cut = _cut(np.array([s.tokens for s in samples]), bad, languages)
        if cut is not None:
            return cut
        concerned = set(languages[bad].tolist())
        if len(concerned) == 1 and len(set(languages.tolist())) > 1:
            return Reason.of("looks.language", language=Reason(f"language_{concerned.pop()}"))
    if gaps.max() <= _ROUNDING:
        relative = float(np.sqrt(2 * max(float(np.median(gaps)), 0.0)))
        return Reason.of("looks.rounded", error=relative, dtype="bfloat16" if relative >= _BFLOAT16 else "float16")
    return Reason("looks.used" if overlap >= _KEPT else "looks.weights")


def _cut(tokens: NDArray[Any], bad: NDArray[np.bool_], languages: NDArray[Any]) -> Reason | None:
    """Says where texts are cut, when in each language the long ones differ and the short ones do not."""
    below, above = 0, 10**9
    for language in set(languages.tolist()):
        mine = languages == language
        good, wrong = tokens[mine & ~bad], tokens[mine & bad]
        if not len(wrong):
            continue
        # estimated token counts are good to a third
        if not len(good) or good.max() > 1.5 * wrong.min():
            return None
        below = max(below, int(good.max()))
        above = min(above, int(wrong.min()))
    low, high = sorted((below, above))
    return Reason.of("looks.cut", low=low, high=high)


def compare_scores(
    queries: Sequence[str], served: NDArray[np.float64], reference: NDArray[np.float64], limits: Threshold
) -> Parity:
    """Compares scores of the same pairs, float64 of shape (pairs,); pairs of one query belong together."""
    # through importlib: scipy ships no types
    kendalltau = import_module("scipy.stats").kendalltau
    groups: dict[str, list[int]] = {}
    for position, query in enumerate(queries):
        groups.setdefault(query, []).append(position)
    # queries whose scores are all equal have no order
    ranked = [g for g in groups.values() if len(g) > 1 and np.ptp(reference[g]) > 0 and np.ptp(served[g]) > 0]
    taus = np.array([kendalltau(served[g], reference[g]).statistic for g in ranked], dtype=np.float64)
    differences = np.abs(served - reference)
    largest = float(differences.max())
    figures = {
        "pairs": len(served),
        "queries": len(taus),
        "max_absolute_difference": largest,
        "mean_absolute_difference": float(differences.mean()),
        "kendall_tau_mean": float(taus.mean()) if len(taus) else None,
        "kendall_tau_least": float(taus.min()) if len(taus) else None,
    }
    problems: list[Reason] = []
    if largest > limits.score:
        problems.append(Reason.of("differs.score", gap=largest, allowed=limits.score))
    if np.ptp(served) == 0 and np.ptp(reference) > 0:
        problems.append(Reason("differs.same"))
    elif len(taus) and taus.mean() < limits.tau:
        problems.append(Reason.of("differs.tau", tau=float(taus.mean()), wanted=limits.tau))
    looks = (Reason(_score_sign(list(groups.values()), served, reference, taus)),) if problems else ()
    return Parity("scores", figures, tuple(problems), looks)


def _score_sign(
    groups: Sequence[Sequence[int]],
    served: NDArray[np.float64],
    reference: NDArray[np.float64],
    taus: NDArray[np.float64],
) -> str:
    if np.ptp(served) == 0:
        return "looks.head"
    tau = float(taus.mean()) if len(taus) else 0.0
    if tau < 0.9:
        same = [np.allclose(np.sort(served[g]), np.sort(reference[g]), atol=1e-3) for g in map(list, groups)]
        if np.mean(same) > 0.5:
            return "looks.documents"
    if tau < -0.5:
        return "looks.turned"
    if tau >= 0.98 and _logits(served, reference):
        return "looks.activation"
    if tau >= 0.9 and float(np.abs(served - reference).max()) < 0.05:
        return "looks.prompt-rounded"
    return "looks.prompt" if tau >= 0.5 else "looks.no-template"


def _logits(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    """Whether one side gives what the other's sigmoid would be."""
    squashed = (1 / (1 + np.exp(-np.clip(values, -60, 60))) for values in (first, second))
    return any(np.allclose(one, plain, atol=0.02) for one, plain in zip(squashed, (second, first), strict=True))


def _overlap(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Mean share of each text's nearest other texts that both sides name."""
    count = min(NEIGHBOURS, len(a) - 1)
    if count < 1:
        return 1.0
    near = []
    for values in (a, b):
        table = cosines(values, values)
        np.fill_diagonal(table, -np.inf)
        near.append(np.argsort(-table, axis=1, kind="stable")[:, :count])
    shares = [len(set(x) & set(y)) / count for x, y in zip(near[0].tolist(), near[1].tolist(), strict=True)]
    return float(np.mean(shares))


_UNSAFE = re.compile(r"[^\w.-]+")
# below this a cosine's distance from 1 is float64's own rounding; a logarithm needs a floor
_FLOOR = 1e-12


def need_plots() -> None:
    """Raises ConfigError, before anything is asked, where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise ConfigError("--plots needs matplotlib, which is not installed: pip install 'evalscope-vacc[plots]'")


def plot_vectors(folder: Path, model: str, samples: Sequence[Sample], gaps: NDArray[np.float64], least: float) -> Path:
    """Draws one minus the cosine of each text over its length, and its distribution, with the threshold ``least``."""
    gaps = np.maximum(gaps, _FLOOR)
    figure, left, right = _figure(model)
    for language, mark in (("en", "o"), ("zh", "^")):
        mine = np.array([s.language == language for s in samples])
        if mine.any():
            tokens = np.array([s.tokens for s in samples])[mine]
            left.scatter(tokens, gaps[mine], marker=mark, s=22, alpha=0.7, label=language)
    left.set(xscale="log", yscale="log", xlabel="tokens (estimated)", ylabel="1 - cosine", title="By length")
    left.axhline(least, color="crimson", linewidth=1, label=f"allowed {least:g}")
    left.legend()
    right.hist(np.log10(gaps), bins=30)
    right.axvline(np.log10(least), color="crimson", linewidth=1)
    right.set(xlabel="log10(1 - cosine)", ylabel="texts", title="Distribution")
    return _save(figure, folder, model, "vectors")


def plot_scores(folder: Path, model: str, served: NDArray[np.float64], reference: NDArray[np.float64]) -> Path:
    """Draws served over reference scores, and the distribution of their differences."""
    figure, left, right = _figure(model)
    ends = [float(min(reference.min(), served.min())), float(max(reference.max(), served.max()))]
    left.plot(ends, ends, color="grey", linewidth=1)
    left.scatter(reference, served, s=18, alpha=0.6)
    left.set(xlabel="reference", ylabel="served", title="Scores")
    right.hist(served - reference, bins=30)
    right.set(xlabel="served - reference", ylabel="pairs", title="Differences")
    return _save(figure, folder, model, "scores")


def _figure(model: str) -> tuple[Any, Any, Any]:
    # without pyplot: no window system is looked for, and nothing global is changed
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 4.2), layout="constrained")
    figure.suptitle(f"{model}: served against the reference")
    return figure, *figure.subplots(1, 2)


def _save(figure: Any, folder: Path, model: str, what: str) -> Path:
    path = folder / f"parity-{_UNSAFE.sub('_', model)[:100]}-{what}.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise ConfigError(f"--plots {folder}: cannot be written: {error}") from None
    return path
