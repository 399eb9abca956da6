"""Vectors and scores on disk, so that a crash costs seconds.

Every answer is written within 100 ms of its arrival and survives the end of the process by SIGKILL. A stored value is
returned only when its checksum is right; a store in which another model's answers lie is refused (:mod:`.probe`).

Keys are hashes: neither texts nor secrets are stored; a file says of itself which model and task it belongs to.
"""

from __future__ import annotations

from .core import DEFAULT_LIMIT, DEFAULT_MAX_AGE_S, Mode, Store, default_folder
from .keys import KEY_BYTES, make_identity, text_key, text_keys
from .probe import PROBE_PAIRS, PROBE_TEXTS, ProbeResult, compare
from .records import pack_score, pack_vector, unpack_score, unpack_vector
from .scope import Scope
from .staging import Stats

__all__ = [
    "DEFAULT_LIMIT",
    "DEFAULT_MAX_AGE_S",
    "KEY_BYTES",
    "PROBE_PAIRS",
    "PROBE_TEXTS",
    "Mode",
    "ProbeResult",
    "Scope",
    "Stats",
    "Store",
    "compare",
    "default_folder",
    "make_identity",
    "pack_score",
    "pack_vector",
    "text_key",
    "text_keys",
    "unpack_score",
    "unpack_vector",
]
