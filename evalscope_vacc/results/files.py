"""Reads JSON that anybody may have written."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from evalscope_vacc.errors import ResultError
from evalscope_vacc.files import read_bounded
from evalscope_vacc.redact import clean

MAX_FILE_BYTES = 256 * 2**20  # the largest honest one, FloresBitextMining with 41,412 subsets, has about 30 MB


def read_json(path: Path, limit: int = MAX_FILE_BYTES) -> Any:
    """Reads one JSON file of at most ``limit`` bytes, NaN and Infinity included (MTEB writes both).

    Raises:
        ResultError: It is larger, cannot be opened, or is not JSON.
    """
    try:
        return json.loads(read_bounded(path, limit))
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{shown(path)} cannot be read as JSON: {clean(str(error), limit=200)}"
        raise ResultError(msg) from error


def finite(value: object) -> float | None:
    """Returns ``value`` as a float when it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def shown(path: Path) -> str:
    """Returns ``path`` as it may be printed."""
    return clean(str(path), limit=400)
