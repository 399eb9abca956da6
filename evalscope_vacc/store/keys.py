"""Under which key an answer is kept: what was sent, exactly, and to what.

The instruction profile is not part of a key, because the text shows it; the Matryoshka size is not, because full
vectors are stored and sliced afterwards.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

KEY_BYTES = 16
"""Length of a key: 128 bits; among a billion texts two share a key with a chance of about 1e-21."""

Kind = Literal["embedding", "score"]


def make_identity(
    model: str, *, kind: Kind, revision: str = "", max_tokens: int | None = None, server_model: str = ""
) -> str:
    """Returns what, besides the text, decides about an answer, as canonical JSON.

    Args:
        model: The served model's name, as requests carry it.
        kind: "embedding" or "score"; the same text under both has two keys.
        revision: As in the configuration or derived from the addresses; never an address with a password.
        max_tokens: Where texts are cut, in tokens.
        server_model: What the server says of its model (such as ``root`` and ``max_model_len`` of ``/v1/models``).
    """
    parts = {
        "kind": kind,
        "max_tokens": max_tokens,
        "model": model,
        "revision": revision,
        "server_model": server_model,
    }
    return json.dumps(parts, sort_keys=True, separators=(",", ":"))


@lru_cache(maxsize=64)
def _hasher(identity: str) -> hashlib.blake2b:
    """Returns a hash that has taken in the identity and is copied for each text, which is faster than a new one."""
    person = hashlib.blake2b(
        identity.encode("utf-8", "surrogatepass"), digest_size=16, person=b"vacc identity"
    ).digest()
    return hashlib.blake2b(digest_size=KEY_BYTES, person=person)


def text_key(identity: str, *texts: str) -> bytes:
    """Returns the key of one text, or of a pair, sent to what ``identity`` describes: BLAKE2b of 128 bits.

    Every part stands behind its length, so that no two lists of texts give the same bytes; the identity goes into
    BLAKE2b's personalisation.

    Args:
        identity: From :func:`make_identity`.
        texts: The exact strings sent: one, or query and document.
    """
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    framed = b"".join(part for text in encoded for part in (len(text).to_bytes(8, "little"), text))
    hasher = _hasher(identity).copy()
    hasher.update(framed)
    return hasher.digest()


def text_keys(identity: str, texts: Sequence[str]) -> list[bytes]:
    """Returns :func:`text_key` of each single text."""
    copy = _hasher(identity).copy
    keys = []
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        hasher = copy()
        hasher.update(len(encoded).to_bytes(8, "little") + encoded)
        keys.append(hasher.digest())
    return keys


def short_hash(text: str) -> str:
    """Returns 16 hex digits for a file's name."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, person=b"vacc file").hexdigest()
