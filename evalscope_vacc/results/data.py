"""Reads the package's own compressed data."""

from __future__ import annotations

import gzip
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from evalscope_vacc.errors import ResultError
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
        with gzip.open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            msg = f"{path} unpacks to more than {MAX_BYTES >> 20} MiB; delete it and collect it again"
            raise ResultError(msg)
        return json.loads(data)
    except (OSError, EOFError, ValueError, RecursionError) as error:
        msg = f"{path} cannot be read ({error}); reinstall evalscope-vacc, or delete it if you collected it"
        raise ResultError(msg) from error


def write_compressed(path: Path, value: Any) -> None:
    """Writes ``value`` so that the same facts give the same bytes."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    partial.replace(path)
