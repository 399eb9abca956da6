"""Reads JSON that anybody may have written, and the package's own compressed data; writes whole files."""

from __future__ import annotations

import gzip
import json
import math
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from evalscope_vacc.errors import ResultError
from evalscope_vacc.files import read_bounded, write_whole
from evalscope_vacc.paths import data_folder
from evalscope_vacc.redact import clean

MAX_FILE_BYTES = 256 * 2**20  # the largest honest one, FloresBitextMining with 41,412 subsets, has about 30 MB
MAX_EVIDENCE_BYTES = 64 * 2**20
MAX_PACKED_BYTES = 64 * 2**20
LEVELS = 8
SUFFIX = ".json.gz"


def read_json(path: Path, limit: int = MAX_FILE_BYTES) -> Any:
    """Reads one JSON file of at most ``limit`` bytes, NaN and Infinity included (MTEB writes both).

    Raises:
        ResultError: It is larger, cannot be opened, or is not JSON.
    """
    try:
        return json.loads(read_bounded(path, limit))
    except (OSError, ValueError, RecursionError) as error:
        raise ResultError(f"{shown(path)} cannot be read as JSON: {clean(str(error), limit=200)}") from error


def mapping(path: Path, problems: set[str] | None = None) -> dict[str, Any]:
    """Returns the mapping that a file of a run holds; an empty one where it is missing, or holds something else.

    ``problems`` gets a line where it cannot be read.
    """
    try:
        data = read_json(path, MAX_EVIDENCE_BYTES) if path.is_file() else {}
    except ResultError as error:
        data = {}
        if problems is not None:
            problems.add(str(error))
    return data if isinstance(data, dict) else {}


def listed(path: Path, key: str, problems: set[str] | None = None) -> list[dict[str, Any]]:
    """Returns the mappings that a file of a run's evidence lists under ``key``, read as :func:`mapping` does."""
    found = mapping(path, problems).get(key)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def levels(path: Path) -> tuple[Path, ...]:
    """Returns a folder and those that it lies in, the nearest first, as far up as a run's folder can be."""
    here = path.absolute()
    return (here, *here.parents)[:LEVELS]


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


def write_file(path: Path, text: str) -> None:
    """Writes a file whole or not at all; raises ResultError where it cannot be written."""
    try:
        write_whole(path, text)
    except OSError as error:
        raise ResultError(f"{shown(path)} cannot be written: {error.strerror or error}") from error


def packaged_folder() -> Path:
    """Returns the folder with the published scores that the package brings."""
    return Path(str(files("evalscope_vacc"))) / "catalog" / "published"


def own_folder() -> Path:
    """Returns the folder with scores that the user collected: ``$VACC_HOME/published``, else the user's data folder."""
    return data_folder() / "published"


@lru_cache(maxsize=2)
def read_packaged(name: str) -> Any:
    """Reads ``<name>.json.gz`` of the package."""
    return read_compressed(packaged_folder() / f"{name}{SUFFIX}")


def read_compressed(path: Path) -> Any:
    """Reads one compressed JSON file; raises ResultError where it is missing, broken, or unpacks to more than 64 MiB."""
    try:
        return json.loads(read_bounded(path, MAX_PACKED_BYTES, gzip.open))
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise ResultError(
            f"{path} cannot be read ({error}); reinstall evalscope-vacc, or delete it if you collected it"
        ) from error
