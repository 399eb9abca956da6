"""How far two answers to one text may differ: by the number format that a server computes in, as it is seen or told.

One and the same sum in another order differs by about 1e-7 in float32. Rounding to a format of m bits of mantissa makes
relative errors of about 2**-(m+2) a number; layers add up. The figures leave room for that, and none for a lost token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.messages import Reason


class Threshold(NamedTuple):
    """What still passes between a server and a reference."""

    least: float  # most that one minus the cosine of any text may be
    absolute: float  # most that a number of a vector (scaled to length 1) may differ by
    overlap: float  # least share of the ten nearest neighbours that stay the same, on average
    score: float  # most that a score may differ by
    tau: float  # least Kendall rank correlation of a query's documents, on average


THRESHOLDS: Mapping[str, Threshold] = {
    "float32": Threshold(1e-6, 1e-5, 0.99, 1e-4, 0.98),
    "float16": Threshold(1e-4, 5e-3, 0.95, 1e-2, 0.95),
    "bfloat16": Threshold(5e-3, 3e-2, 0.90, 3e-2, 0.90),
    "int8": Threshold(3e-2, 1e-1, 0.80, 1e-1, 0.80),
    "fp8": Threshold(3e-2, 1e-1, 0.80, 1e-1, 0.80),
    "int4": Threshold(1e-1, 2e-1, 0.70, 2e-1, 0.70),
}


def threshold(dtype: str) -> Threshold:
    """Returns the thresholds of a number format; raises ConfigError where it is not one of :data:`THRESHOLDS`."""
    if dtype not in THRESHOLDS:
        raise ConfigError(f"dtype {dtype!r} is not known; give auto, or one of {', '.join(THRESHOLDS)}")
    return THRESHOLDS[dtype]


class Scale(NamedTuple):
    """How the differences of one kind of answer grow with the coarseness of a number format."""

    floor: float  # what float32 never exceeds
    most: float  # what no rounding exceeds between two answers of one server to one text
    # up to which usual difference (see :func:`seen`) an answer looks like a format, finest first
    levels: Mapping[str, float]
    grains: Mapping[str, float]  # least tolerance where the answers themselves are written in a format


# one minus the cosine: half the squared relative error. Seen: 1e-13 in float32, 1e-7 in float16, 1e-5 to 1e-4 in bfloat16
COSINES = Scale(1e-6, 2e-3, {"float32": 3e-9, "float16": 3e-6, "bfloat16": 2e-3}, {"float16": 1e-5, "bfloat16": 3e-4})
# a score's difference over its size: bfloat16 has a step of 0.004 below 1
SCORES = Scale(1e-5, 3e-2, {"float32": 1e-5, "float16": 1e-3, "bfloat16": 3e-2}, {"float16": 2e-3, "bfloat16": 2e-2})
# rounding makes differences of one size; what is so many times the usual one is no rounding
_STANDS_OUT = 30
_USUAL = 75


@dataclass(frozen=True)
class Tolerance:
    """What rounding explains."""

    allowed: float = COSINES.floor  # the largest difference of two answers to one text that is still rounding
    # the number format that the usual difference looks like; "" where it is larger than any rounding
    dtype: str = "float32"

    @property
    def like(self) -> Reason | str:
        """For a finding: as which format the answers are rounded, or "" where they look like float32."""
        return Reason.of("rounds_as", dtype=self.dtype) if self.dtype not in ("", "float32") else ""


def seen(gaps: NDArray[np.float64], values: NDArray[np.float32] | NDArray[np.float64], scale: Scale) -> Tolerance:
    """Tells a number format from how answers to one text differ (``gaps``), and how far they may.

    The usual difference is what three in four comparisons stay below, so that a fault of every eighth batch does not
    widen what is allowed; a fault of every batch exceeds what rounding ever makes. A coarse format shows in the bits of the
    answers themselves (``values``).
    """
    usual = float(np.percentile(gaps, _USUAL)) if gaps.size else 0.0
    written = grid(values)
    floor = max(scale.floor, scale.grains.get(written or "", 0.0))
    level = next((name for name, most in scale.levels.items() if usual <= most), "")
    order = list(scale.levels)
    dtype = max(level, written, key=order.index) if level and written in order else level
    return Tolerance(min(max(floor, _STANDS_OUT * usual), scale.most), dtype)


def grid(values: NDArray[np.float32] | NDArray[np.float64]) -> str | None:
    """The number format whose few values all numbers are, or None. 0 and 1 are in every format and tell nothing."""
    inner = values[(values != 0) & (np.abs(values) != 1)]
    if inner.size < 8:
        return None
    bits = np.ascontiguousarray(inner, np.float32).view(np.uint32)
    if not (bits & 0xFFFF).any():
        return "bfloat16"
    return "float16" if not (bits & 0x1FFF).any() else None
