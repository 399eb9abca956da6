"""Does a server answer what its weights answer? The same texts through both, and what a difference looks like."""

from __future__ import annotations

from evalscope_vacc.parity.compare import PairParity, VectorParity
from evalscope_vacc.parity.thresholds import THRESHOLDS, Threshold

__all__ = ["THRESHOLDS", "PairParity", "Threshold", "VectorParity"]
