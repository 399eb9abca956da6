"""Reads the package's own compressed data."""

from __future__ import annotations

import gzip
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from evalscope_vacc.errors import ResultError
from evalscope_vacc.files import read_bounded, write_whole
from evalscope_vacc.paths import data_folder

SUFFIX = ".json.gz"
MAX_BYTES = 64 * 2**20


def packaged_folder() -> Path:
    """Returns the folder with the published scores that the package brings."""
    return Path(str(files("evalscope_vacc"))) / "catalog" / "published"


def own_folder() -> Path:
    """Returns the folder with scores that the user collected: ``$VACC_HOME/published``, else the user's data folder."""
    return data_folder() / "published"


def read_packaged(name: str) -> Any:
    """Reads ``<name>.json.gz`` of the package."""
    return read_compressed(packaged_folder() / f"{name}{SUFFIX}")


def read_compressed(path: Path) -> Any:
    """Reads one compressed JSON file.

    Raises:
        ResultError: It is missing, broken, or unpacks to more than 64 MiB.
    """
    try:
        return json.loads(read_bounded(path, MAX_BYTES, gzip.open))
    except (OSError, EOFError, ValueError, RecursionError) as error:
        msg = f"{path} cannot be read ({error}); reinstall evalscope-vacc, or delete it if you collected it"
        raise ResultError(msg) from error


def write_compressed(path: Path, value: Any) -> None:
    """Writes ``value`` so that the same facts give the same bytes."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    write_whole(path, gzip.compress(text.encode(), 9, mtime=0))
