"""Which answers belong together: the identity of a served model, the key of a text, and the probe.

The probe tells that another model now answers behind the same address and name. A few fixed texts are sent when a scope
is opened, and the answers compared with those that were kept with its entries. The sending is the models' part. Each text
is to be sent at least twice, in requests of different sizes (alone, then all in one): answers come as (repeats, texts,
dimensions), scores as (repeats, pairs).

The bound
    The distance of a text's new answer from the kept one is relative, |new - kept| / |kept| (for scores, over all pairs
    at once). It may be at most ``FLOOR`` = 1e-5, about a hundred times the spacing of float32 numbers: sums of
    thousands of float32 products differ by some 1e-6 when a kernel adds in another order, and servers of three vLLM
    releases agreed to 1e-6. A server that computes in float16 or bfloat16 differs more from itself, according to the
    size of a batch; how much is seen in the repeats, and eight times that is allowed. ``CEILING`` = 1e-2 is never
    exceeded: that is more than bfloat16 (8 bits) makes of one model, and a server that differs more from itself has a
    fault that no stored answer should be mixed with. Other weights, another quantisation or another pooling are far
    beyond it.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from .table import KEY_BYTES, Table

_PROBE = b"probe"

FLOOR = 1e-5
CEILING = 1e-2
_NOISE_FACTOR = 8.0

PROBE_TEXTS = (
    "The lighthouse keeper counted eleven ships before the fog came in.",
    "潮水退去以后，孩子们在沙滩上捡到了三只贝壳。",
    # over 128 tokens, so that it fills more than one block of a server's prefix cache
    " ".join(
        f"On day {day} of the survey the river stood {100 + 37 * day % 60} centimetres above the mark, and the ferry ran "
        f"{'as usual' if day % 3 else 'only until noon'}."
        for day in range(1, 11)
    ),
)
"""What an encoder is sent, as it stands, without instruction."""

PROBE_PAIRS = (
    ("When does the last tram leave?", "The last tram leaves the harbour at twenty minutes past midnight."),
    ("When does the last tram leave?", "Granite is made of quartz, feldspar and mica."),
    ("哪种茶需要最低的水温？", "泡绿茶时，水温应在八十度左右，比红茶低。"),
    ("哪种茶需要最低的水温？", PROBE_TEXTS[2]),
)
"""What a cross-encoder is sent: query and document, through the template in use."""

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
    parts = {"kind": kind, "max_tokens": max_tokens, "model": model, "revision": revision, "server_model": server_model}
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
    return [text_key(identity, text) for text in texts]


@dataclass(frozen=True)
class ProbeResult:
    """What a comparison gave.

    Attributes:
        state: "new": nothing was kept; "ok": the same model; "differs": another one.
        details: A sentence for people.
        dropped: Stored answers that were removed because of it.
    """

    state: Literal["new", "ok", "differs"]
    details: str
    dropped: int = 0


def _answers(answers: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Returns answers as (repeats, texts, dimensions); scores (repeats, pairs) as one text of as many dimensions."""
    array = np.asarray(answers, np.float64)
    if array.ndim == 2:
        array = array[:, None, :]
    if array.ndim != 3 or not array.size or not np.isfinite(array).all():
        raise ValueError(
            f"answers to the probe of the shape {np.shape(answers)}: wanted are finite numbers, (repeats, texts, "
            "dimensions) of vectors or (repeats, pairs) of scores"
        )
    return array


def _distances(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Relative distances of each text's answers in ``a`` from those in ``b``, over all repeats; shape (texts,)."""
    gap = np.linalg.norm(a[:, None] - b[None], axis=-1)
    length = np.maximum(np.linalg.norm(b, axis=-1), np.finfo(np.float64).tiny)
    worst: npt.NDArray[np.float64] = (gap / length[None]).max(axis=(0, 1))
    return worst


def compare(kept: npt.ArrayLike, answers: npt.ArrayLike) -> ProbeResult:
    """Compares two sets of answers to the same probe texts; see this module's text for the bound.

    Args:
        kept: (repeats, texts, dimensions) of vectors or (repeats, pairs) of scores.
        answers: The same from the server as it is now; the number of repeats may differ.
    """
    old, new = _answers(kept), _answers(answers)
    if old.shape[1:] != new.shape[1:]:
        return ProbeResult("differs", f"answers had the shape {old.shape[1:]} and have {new.shape[1:]}")
    noise = max(_distances(old, old).max(), _distances(new, new).max())
    bound = min(max(FLOOR, _NOISE_FACTOR * noise), CEILING)
    distances = _distances(new, old)
    return ProbeResult(
        "ok" if distances.max() <= bound else "differs",
        f"probe text {distances.argmax() + 1}: relative distance {distances.max():.3g}, allowed {bound:.3g}, "
        f"repeats differ by {noise:.3g}",
    )


def admit(table: Table, answers: npt.ArrayLike) -> ProbeResult:
    """Compares, and makes the file fit to be used: entries of another model, or of one that nothing vouches for, go.

    Args:
        table: The file.
        answers: (repeats, texts, dimensions) of vectors or (repeats, pairs) of scores, from the server as it is now.

    Raises:
        ValueError: The shape is none of the two, or a number is not finite.
        StoreError: The file cannot be read or written.
    """
    new = _answers(answers)
    # in one transaction: what another process that begins at the same moment has put in between must not go
    with table.transaction():
        kept = table.get([_PROBE]).get(_PROBE)
        if kept is None:
            result = ProbeResult("new", "no answers to the probe texts are kept")
        else:
            result = compare(np.load(io.BytesIO(kept), allow_pickle=False), new)
        if result.state == "ok":
            return result
        entries = table.count()
        raw = io.BytesIO()
        np.save(raw, new)
        table.clear()
        table.put([(_PROBE, raw.getvalue())])
    if not entries:
        return result
    details = f"{result.details}; {entries} stored answers are refused and requested again"
    return ProbeResult("differs", details, entries)
