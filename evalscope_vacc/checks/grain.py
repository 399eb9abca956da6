"""Whether the scores of a reranker are finely graded: ties are broken by the order of the documents, not by the model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evalscope_vacc.checks.findings import Finding
from evalscope_vacc.checks.target import Target
from evalscope_vacc.errors import ConfigError

TIED = 0.01
"""The share of pairs that may have the score of another pair of their query."""


def grain_finding(target: Target, scores: NDArray[np.float64]) -> Finding:
    """Judges scores of shape (queries, documents), not all the same."""
    if target.config.raw_scores and scores.min() >= 0 and scores.max() <= 1:
        return target.finding(
            "grain",
            "warning",
            f"raw_scores is true, and all of {scores.size} scores lie between 0 and 1",
            "the server does not know the field and goes on with its activation",
            "remove raw_scores, or serve with vLLM from 0.11.1 on",
        )
    tied, how = sum(map(_tied, scores)), _how(scores)
    if not how and tied <= TIED * scores.size:
        return target.finding("grain", "ok", f"{tied} of {scores.size} pairs score like another one of their query")
    return target.finding(
        "grain",
        "warning",
        f"{tied} of {scores.size} pairs score like another one of their query" + (f"; {how}" if how else ""),
        "good documents tie, and the order of ties decides the ranking",
        f"{_raw_action(target)}serve with --dtype float32; vLLM up to 0.10.1 computes the last layer in bfloat16 whatever "
        "is asked",
    )


def _tied(row: NDArray[np.float64]) -> int:
    _, counts = np.unique(row, return_counts=True)
    return int(counts[counts > 1].sum())


def _how(scores: NDArray[np.float64]) -> str:
    """What makes scores tie, or ""."""
    decimals = next((n for n in range(1, 5) if np.allclose(scores, np.round(scores, n), rtol=0, atol=1e-9)), None)
    if decimals is not None:
        return f"all are rounded to {decimals} decimals"
    number_format = _number_format(scores.ravel())
    return f"all on the grid of {number_format}" if number_format else ""


def _raw_action(target: Target) -> str:
    try:
        target.dialect.raw_scores()
    except ConfigError:
        return ""
    return (
        "" if target.config.raw_scores else "write raw_scores: true, which asks for scores before the activation; or "
    )


def _number_format(scores: NDArray[np.float64]) -> str | None:
    """The format whose few values all scores are, or None. 0 and 1 are in every format and tell nothing."""
    inner = scores[(scores != 0) & (np.abs(scores) != 1)]
    if len(inner) < 8:
        return None
    bits = inner.astype(np.float32).view(np.uint32)
    if not (bits & 0xFFFF).any():
        return "bfloat16"
    return "float16" if not (bits & 0x1FFF).any() else None
