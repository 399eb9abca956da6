"""What known faults look like: the reference is made to do the same, and whoever gives the served vectors is named."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evalscope_vacc.checks.reference import LocalEncoder
from evalscope_vacc.checks.target import cosines

Vectors = NDArray[np.float32]

# the texts that differ most tell most; more of them tell no more
_TEXTS = 10
# one minus the cosine: rounding of the served side still fits, another fault does not
_FITS = 1e-3
# a fault explains a difference only where it makes nearly all of it go away
_BETTER = 0.05


def _kept(keep: Callable[[str], bool]) -> Callable[[str], str]:
    return lambda text: "".join(sign for sign in text if keep(sign))


def _without_accents(text: str) -> str:
    return "".join(sign for sign in unicodedata.normalize("NFD", text) if not unicodedata.combining(sign))


# how each fault is made, by code: the pooling of a text's states, the text that is read, the tokens that are kept
_POOLED: Mapping[str, Callable[[Vectors], Vectors]] = {
    "pooled.first": lambda states: states[0],
    "pooled.last": lambda states: states[-1],
    "pooled.mean": lambda states: states.mean(axis=0),
    "pooled.maximum": lambda states: states.max(axis=0),
    "pooled.inner": lambda states: states[1:-1].mean(axis=0),
}
_READ: Mapping[str, Callable[[str], str]] = {
    "cut.characters": lambda text: text[:512],
    "read.lower": str.lower,
    "read.accents": _without_accents,
    "read.emoji": _kept(lambda sign: unicodedata.category(sign) != "So"),
    "read.newlines": _kept(lambda sign: sign not in "\r\n"),
    "read.spaces": str.strip,
    "read.punctuation": _kept(lambda sign: not unicodedata.category(sign).startswith("P")),
    "read.latin-1": lambda text: text.encode("utf-8", "replace").decode("latin-1"),
    "read.prefix": lambda text: f"query: {text}",
    "read.instruction": lambda text: f"Represent this sentence for searching relevant passages: {text}",
}
_CUT = {f"cut.{tokens}": tokens for tokens in (32, 64, 128, 256, 512)}
SIGNATURES = (*_POOLED, *_CUT, *_READ)


def _made(reference: LocalEncoder, code: str, texts: Sequence[str]) -> Vectors:
    """Vectors as the reference gives them with a fault."""
    if code in _POOLED:
        return reference.pooled(texts, _POOLED[code])
    if code in _CUT:
        return reference.cut_to(texts, _CUT[code])
    return reference.vectors([_READ[code](text) for text in texts])


def recognise(reference: LocalEncoder, texts: Sequence[str], served: Vectors, gaps: NDArray[np.float64]) -> str:
    """Names the fault that gives the served vectors, shape (texts, dimensions); "" where none of :data:`SIGNATURES` fits.

    ``reference`` are the same weights in process; ``gaps`` one minus the cosine of each text with theirs.
    """
    worst = np.argsort(-gaps)[:_TEXTS]
    chosen = [texts[i] for i in worst]
    best, least = "", _FITS
    for code in SIGNATURES:
        made = _made(reference, code, chosen)
        if made.shape[1] != served.shape[1]:
            continue
        left = float((1 - np.diag(cosines(made, served[worst]))).max())
        if left < least and left < _BETTER * float(gaps[worst].max()):
            best, least = code, left
    return best
