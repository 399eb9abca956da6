"""How far two scores of the same weights may differ.

The same weights give scores that differ in the last digits: another order of summation, another kernel, another number
format. vLLM's own accuracy tests allow 5e-4 on STS12 and 2e-3 where the weights are in half precision; measured
there, float32 differs by 2e-7, float16 by 1e-5 and bfloat16 by 1e-4. Quantised weights are other weights: there the
question is what was lost, and MLPerf's 99 % mark answers it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.messages import Reason
from evalscope_vacc.results.model import Judgement

FLOAT32 = 5e-4
HALF = 2e-3
QUANTISED_SHARE = 0.01
MOST = 0.1

_FLOAT = {"float32": FLOAT32, "float": FLOAT32, "float64": FLOAT32, "float16": HALF, "half": HALF, "bfloat16": HALF}
_ALIASES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "w8a8": "int8", "auto": ""}
_QUANTISED = ("int8", "int4", "fp8", "float8", "awq", "gptq")
DTYPES = ("float32", "float16", "bfloat16", "int8", "fp8", "int4")


class Tolerance(NamedTuple):
    """Absolute tolerance of one row as a fraction, and why it is this one."""

    value: float
    reason: Reason


@dataclass(frozen=True)
class Noise:
    """The noise model of a comparison.

    Raises:
        ConfigError: The format is unknown, or the tolerance is not a fraction from 0 to 0.1.
    """

    dtype: str | None = None  # number format of the served weights; wins over what the run recorded
    tolerance: float | None = None  # one absolute tolerance for all rows; wins over everything

    def __post_init__(self) -> None:
        if self.dtype is not None and not known_dtype(self.dtype):
            raise ConfigError(f"dtype {self.dtype!r} is not known; give one of {', '.join(DTYPES)}, or --tolerance")
        # more would call anything accurate; who writes 0.2 means points
        if self.tolerance is not None and not 0 <= self.tolerance <= MOST:
            means = f" would be {100 * self.tolerance:g} points" if self.tolerance > MOST else ""
            raise ConfigError(
                f"tolerance {self.tolerance}{means}: give a fraction from 0 to {MOST}; 0.002 means 0.2 points"
            )

    def of(
        self, reference: float, *, ours: str | None = None, theirs: str | None = None, rounding: float = 0.0
    ) -> Tolerance:
        """Returns the tolerance for one score.

        The coarser of the two number formats counts, ours or the reference's; ``rounding``, half a unit of the reference's last
        digit, is added.
        """
        if self.tolerance is not None:
            return Tolerance(self.tolerance + rounding, Reason("tolerance_given"))
        served, other = _plain(self.dtype or ours or ""), _plain(theirs or "")
        known = bool(served) and known_dtype(served)
        value, reason = _one(served, reference) if known else Tolerance(HALF, Reason("tolerance_assumed"))
        if _FLOAT.get(other, 0.0) > value:
            value, reason = _FLOAT[other], Reason.of("tolerance_of_reference", dtype=other)
        return Tolerance(value + rounding, reason)

    def describe(self) -> Reason:
        """Says the model in a line."""
        if self.tolerance is not None:
            return Reason.of("noise_given", tolerance=self.tolerance)
        return Reason.of("noise_by_dtype", single=FLOAT32, half=HALF, share=QUANTISED_SHARE)


def known_dtype(name: str) -> bool:
    """Tells whether there is a tolerance for this number format."""
    plain = _plain(name)
    return plain in _FLOAT or plain.startswith(_QUANTISED)


def _plain(name: str) -> str:
    low = name.casefold().removeprefix("torch.")
    return _ALIASES.get(low, low)


def _one(dtype: str, reference: float) -> Tolerance:
    if dtype in _FLOAT:
        return Tolerance(_FLOAT[dtype], Reason.of("tolerance_dtype", dtype=dtype))
    reason = Reason.of("tolerance_share", dtype=dtype, share=QUANTISED_SHARE)
    return Tolerance(max(HALF, QUANTISED_SHARE * abs(reference)), reason)


def within(difference: float, tolerance: float) -> bool:
    """Tells whether a difference is at most the tolerance; exact ties count in spite of binary fractions."""
    return abs(difference) <= tolerance or math.isclose(abs(difference), tolerance, rel_tol=1e-9, abs_tol=1e-12)


def judgement(difference: float, tolerance: float) -> Judgement:
    """Tells on which side of the tolerance a difference lies, if at all."""
    if within(difference, tolerance):
        return "pass"
    return "above" if difference > 0 else "fail"


def share(ours: float, reference: float) -> float | None:
    """Returns ours as a share of the reference; None where that means nothing (a reference of zero or below)."""
    return ours / reference if reference > 0 else None


def mark(part: float | None) -> str:
    """Names MLPerf's accuracy mark that a share reaches: "99.9 %", "99 %", "below 99 %", or ""."""
    if part is None:
        return ""
    return "99.9 %" if part >= 0.999 else "99 %" if part >= 0.99 else "below 99 %"
