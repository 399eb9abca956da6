"""Vectors and scores on disk, so that a crash costs seconds.

Every answer is written within 100 ms of its arrival and survives the end of the process by SIGKILL. A stored value is
returned only when its checksum is right; a store in which another model's answers lie is refused (:mod:`.identity`).

Keys are hashes: neither texts nor secrets are stored; a file says of itself which model and task it belongs to.
"""

from __future__ import annotations

from .core import Scope, Store
from .folder import Listing, Verdict, default_folder, files, listing, matching, remove, verify
from .identity import PROBE_PAIRS, PROBE_TEXTS, Kind, ProbeResult, compare, make_identity, text_key, text_keys

__all__ = [
    "PROBE_PAIRS",
    "PROBE_TEXTS",
    "Kind",
    "Listing",
    "ProbeResult",
    "Scope",
    "Store",
    "Verdict",
    "compare",
    "default_folder",
    "files",
    "listing",
    "make_identity",
    "matching",
    "remove",
    "text_key",
    "text_keys",
    "verify",
]
