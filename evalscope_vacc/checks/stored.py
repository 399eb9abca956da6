"""Vectors and scores in a file, to compare a server with what it, or another one, answered earlier."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.files import replacing
from evalscope_vacc.redact import clean

_FORMAT = 1
_MOST_BYTES = 4 << 30
_SHAPES = {"vectors": (2, np.dtype(np.float32)), "scores": (1, np.dtype(np.float64))}


@dataclass(frozen=True)
class Stored:
    """Answers of an earlier run."""

    kind: str  # "vectors" or "scores"
    values: NDArray[Any]  # float32 of shape (texts, dimensions), or float64 of shape (pairs,)
    positions: Mapping[str, int]  # SHA-256 of a text (or pair) to its row
    about: Mapping[str, Any]  # what was said of the server then: model, servers, version

    def rows(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """Rows of these texts; raises ConfigError where one of them is not in the file."""
        missing = sum(key not in self.positions for key in keys)
        if missing:
            raise ConfigError(
                f"the stored answers lack {missing} of {len(keys)} texts: they were stored with other texts "
                "(another --task, or another version of this package); store them again with --save"
            )
        return np.array([self.positions[key] for key in keys], dtype=np.int64)


def text_hash(*texts: str) -> str:
    """SHA-256, in hex, of a text, or of a query and a document; each with its length before it."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def save(path: Path, kind: str, keys: Sequence[str], values: NDArray[Any], about: Mapping[str, Any]) -> None:
    """Writes answers to a ``.npz`` file: the :func:`text_hash` of each text or pair, in their order, not the texts.

    Raises:
        ConfigError: The file cannot be written.
    """
    note = json.dumps({**about, "format": _FORMAT, "kind": kind}, ensure_ascii=False)
    try:
        with replacing(path) as part, part.open("wb") as file:
            np.savez_compressed(file, keys=np.array(list(keys), dtype="S64"), values=values, about=np.array(note))
    except OSError as error:
        raise ConfigError(f"--save {path}: cannot be written: {error}") from None


def load(path: Path) -> Stored:
    """Reads what :func:`save` wrote, executing nothing; raises ConfigError where it cannot be read, or is not such a file."""
    if path.is_file() and path.stat().st_size > _MOST_BYTES:
        raise ConfigError(f"{path}: larger than any file that --save writes")
    try:
        with np.load(path, allow_pickle=False) as file:
            keys, values, about = file["keys"], file["values"], dict(json.loads(str(file["about"])))
    except Exception as error:  # noqa: BLE001 -- zipfile and numpy raise all kinds for a damaged file
        raise ConfigError(f"{path}: cannot be read: {clean(str(error), limit=200)}") from None
    kind = str(about.get("kind"))
    good = _SHAPES.get(kind) == (values.ndim, values.dtype) and about.get("format") == _FORMAT
    if not good or keys.shape != (len(values),) or keys.dtype != np.dtype("S64"):
        raise ConfigError(f"{path}: not a file that --save of this version writes")
    if not np.isfinite(values).all():
        raise ConfigError(f"{path}: holds numbers that are not finite")
    return Stored(kind, values, {key.decode("ascii", "replace"): row for row, key in enumerate(keys)}, about)
