"""Whether the scores of a reranker are finely graded: ties are broken by the order of the documents, not by the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evalscope_vacc.checks.findings import Finding
from evalscope_vacc.checks.target import Target
from evalscope_vacc.checks.tolerance import grid
from evalscope_vacc.errors import ConfigError

TIED = 0.01
"""The share of pairs that may have the score of another pair of their query."""
# so few are written for people to read; more are a server's own rounding
_FEW_DECIMALS = 3


def grain_finding(target: Target, rows: Sequence[NDArray[np.float64]]) -> Finding:
    """Judges the scores of each query's documents, not all the same."""
    scores = np.concatenate(rows)
    if target.config.raw_scores and scores.min() >= 0 and scores.max() <= 1:
        return target.finding("grain.raw", pairs=scores.size)
    tied = sum(map(_tied, rows))
    said = {"tied": tied, "pairs": scores.size, "raw": _raw_action(target)}
    digits = next((n for n in range(1, 5) if np.allclose(scores, np.round(scores, n), rtol=0, atol=1e-9)), None)
    if digits is not None:
        wrong = digits <= _FEW_DECIMALS and tied > 0
        return target.finding("grain.decimals" if wrong else "grain.rounded", digits=digits, **said)
    written = grid(scores)
    if written is not None:
        return target.finding("grain.format", grid=written, **said)
    return target.finding("grain.ok" if tied <= TIED * scores.size else "grain.ties", **said)


def _tied(row: NDArray[np.float64]) -> int:
    _, counts = np.unique(row, return_counts=True)
    return int(counts[counts > 1].sum())


def _raw_action(target: Target) -> str:
    """What to do first where the server can be asked for scores before the activation, else ""."""
    try:
        target.dialect.raw_scores()
    except ConfigError:
        return ""
    return (
        "" if target.config.raw_scores else "write raw_scores: true, which asks for scores before the activation; or "
    )
