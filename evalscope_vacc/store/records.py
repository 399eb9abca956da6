"""What one stored value looks like, and how damage to it is found.

A value is a header of 8 bytes (format, type, number of elements) and the elements, little-endian. In the file it
becomes a *record*: the value, zeros up to a multiple of 8 bytes, and a checksum of 8 bytes over the value, its length
and its key, so that neither a changed byte nor a value under another key's name is ever returned.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from evalscope_vacc.errors import StoreError

from .keys import KEY_BYTES

HEADER = struct.Struct("<2sBxI")
_MAGIC = b"v1"
_FLOAT32 = 4
_FLOAT64 = 8
MAX_VALUE_BYTES = 1 << 22
"""Largest value: a vector of a million elements. Whatever claims to be longer is damaged or no value."""

Bytes2D = npt.NDArray[np.uint8]


def pack_vector(vector: npt.ArrayLike) -> bytes:
    """Returns a float32 vector, shape (d,), as a value."""
    array = np.ascontiguousarray(vector, "<f4").reshape(-1)
    return HEADER.pack(_MAGIC, _FLOAT32, array.size) + array.tobytes()


def pack_score(score: float) -> bytes:
    """Returns a float64 score as a value."""
    return HEADER.pack(_MAGIC, _FLOAT64, 1) + struct.pack("<d", score)


def _elements(value: bytes, kind: int, itemsize: int) -> int:
    if len(value) >= HEADER.size:
        magic, found, count = HEADER.unpack_from(value)
        if (magic, found) == (_MAGIC, kind) and len(value) == HEADER.size + itemsize * count:
            return int(count)
    wanted = "a float32 vector" if kind == _FLOAT32 else "a float64 score"
    raise StoreError(
        f"a stored value of {len(value)} bytes that begins with {value[:8].hex()} is not {wanted}; "
        "`evalscope-vacc store verify` says which file it is in, `store rm` removes that"
    )


def unpack_vector(value: bytes) -> npt.NDArray[np.float32]:
    """Returns the float32 vector, shape (d,), that :func:`pack_vector` was given.

    Raises:
        StoreError: It is not a packed vector.
    """
    return np.frombuffer(value, "<f4", _elements(value, _FLOAT32, 4), HEADER.size)


def unpack_score(value: bytes) -> float:
    """Returns the float64 that :func:`pack_score` was given.

    Raises:
        StoreError: It is not a packed score.
    """
    if _elements(value, _FLOAT64, 8) != 1:
        raise StoreError(f"a stored value of {len(value)} bytes holds more than one score")
    return float(np.frombuffer(value, "<f8", 1, HEADER.size)[0])


def pack_rows(elements: npt.NDArray[Any], out: Bytes2D) -> None:
    """Writes the packed rows of ``elements``, float32 (n, d) or float64 (n, 1), into ``out``, uint8 (n, 8 + bytes)."""
    kind = _FLOAT32 if elements.dtype.itemsize == 4 else _FLOAT64
    out[:, : HEADER.size] = np.frombuffer(HEADER.pack(_MAGIC, kind, elements.shape[1]), np.uint8)
    out[:, HEADER.size :] = elements.view(np.uint8)


def unpack_rows(values: Bytes2D, dtype: str) -> npt.NDArray[Any]:
    """Returns the elements, shape (n, d), of packed values of one length, uint8 (n, 8 + bytes).

    Raises:
        StoreError: They are not packed values of this dtype ("<f4" or "<f8").
    """
    kind, itemsize = (_FLOAT32, 4) if dtype == "<f4" else (_FLOAT64, 8)
    header = values[0, : HEADER.size].tobytes()
    if (values[:, : HEADER.size] != values[0, : HEADER.size]).any():
        wrong = int((values[:, : HEADER.size] != values[0, : HEADER.size]).any(axis=1).argmax())
        header = values[wrong, : HEADER.size].tobytes()
    _elements(header + bytes(values.shape[1] - HEADER.size), kind, itemsize)
    return np.ascontiguousarray(values[:, HEADER.size :]).view(dtype)


def record_bytes(value_bytes: int) -> int:
    """Length of the record of a value of this length."""
    return -(-value_bytes // 8) * 8 + 8


@lru_cache(maxsize=8)
def _weights(words: int) -> npt.NDArray[np.uint64]:
    # the same for ever and everywhere; odd, so that no change of a single word is missed
    stream = hashlib.shake_128(b"evalscope-vacc record checksum").digest(8 * words)
    weights: npt.NDArray[np.uint64] = np.frombuffer(stream, "<u8").astype(np.uint64) | np.uint64(1)
    return weights


def checksums(records: Bytes2D, keys: bytes, value_bytes: int) -> npt.NDArray[np.uint64]:
    """Returns the checksum that each record should end with, shape (n,).

    It is a multilinear hash: the sum, modulo 2**64, of the record's 32-bit words times fixed odd random numbers of 64
    bits. A change within one word is always seen; any other goes unseen with a chance of about 2**-32 (M. N. Wegman and
    J. L. Carter 1981; D. Lemire and O. Kaser 2014). Unlike CRC-32 it takes a whole commit in one call that leaves the
    interpreter to others meanwhile, at less than half the time.

    Args:
        records: uint8 (n, record_bytes(value_bytes)).
        keys: The n keys, joined.
        value_bytes: Length of the values.
    """
    words = records.view("<u4")[:, :-2]
    key_words = np.frombuffer(keys, "<u4").reshape(-1, KEY_BYTES // 4)
    weights = _weights(words.shape[1] + key_words.shape[1] + 1)
    total: npt.NDArray[np.uint64] = np.einsum("ij,j->i", words, weights[: words.shape[1]])
    total += np.einsum("ij,j->i", key_words, weights[words.shape[1] : -1])
    total += np.uint64(value_bytes + 1) * weights[-1:]
    return total


def seal(records: Bytes2D, keys: bytes, value_bytes: int) -> None:
    """Writes each record's padding and checksum into it."""
    records[:, value_bytes:] = 0
    records.view("<u8")[:, -1] = checksums(records, keys, value_bytes)


def intact(records: Bytes2D, keys: bytes, value_bytes: int) -> npt.NDArray[np.bool_]:
    """Says of each record whether it is what :func:`seal` made for this key, shape (n,)."""
    sound: npt.NDArray[np.bool_] = records.view("<u8")[:, -1] == checksums(records, keys, value_bytes)
    return sound


def joined(keys: Sequence[bytes]) -> bytes:
    """Returns the keys one behind the other.

    Raises:
        ValueError: One of them is not 16 bytes long.
    """
    if any(len(key) != KEY_BYTES for key in keys):
        wrong = next(key for key in keys if len(key) != KEY_BYTES)
        raise ValueError(f"a key has {KEY_BYTES} bytes, this one has {len(wrong)}: use text_key()")
    return b"".join(keys)
