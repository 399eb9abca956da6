"""How far two answers of the same weights may lie apart, by the number format of the served weights.

One and the same sum in another order differs by about 1e-7 in float32. Rounding to a format of m bits of mantissa makes
relative errors of about 2**-(m+2) a number; layers add up. The figures leave room for that, and none for a lost token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from evalscope_vacc.errors import ConfigError


@dataclass(frozen=True)
class Threshold:
    """What still passes.

    Attributes:
        least: Most that one minus the cosine of any text may be.
        absolute: Most that a number of a vector (scaled to length 1) may differ by.
        overlap: Least share of the ten nearest neighbours that stay the same, on average.
        score: Most that a score may differ by.
        tau: Least Kendall rank correlation of a query's documents, on average.
    """

    least: float
    absolute: float
    overlap: float
    score: float
    tau: float


THRESHOLDS: Mapping[str, Threshold] = MappingProxyType(
    {
        "float32": Threshold(1e-6, 1e-5, 0.99, 1e-4, 0.98),
        "float16": Threshold(1e-4, 5e-3, 0.95, 1e-2, 0.95),
        "bfloat16": Threshold(5e-3, 3e-2, 0.90, 3e-2, 0.90),
        "int8": Threshold(3e-2, 1e-1, 0.80, 1e-1, 0.80),
        "fp8": Threshold(3e-2, 1e-1, 0.80, 1e-1, 0.80),
        "int4": Threshold(1e-1, 2e-1, 0.70, 2e-1, 0.70),
    }
)


def threshold(dtype: str) -> Threshold:
    """Returns the thresholds of a number format.

    Raises:
        ConfigError: It is not one of :data:`THRESHOLDS`.
    """
    if dtype not in THRESHOLDS:
        raise ConfigError(f"dtype {dtype!r} is not known; give one of {', '.join(THRESHOLDS)}")
    return THRESHOLDS[dtype]
