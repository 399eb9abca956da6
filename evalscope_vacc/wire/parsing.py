"""Reads vectors and scores out of answers, and refuses every answer that cannot be right.

No silent number: a missing, extra, repeated, wrongly sized, non-finite or zero vector, and a missing, extra or
non-finite score, is a :class:`BadAnswerError`. Nothing is filled in, dropped or shifted. Answers are hostile input:
whatever the bytes are, no other exception leaves this module.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pybase64

from evalscope_vacc.errors import BadAnswerError, EngineDeadError, NotFiniteError
from evalscope_vacc.redact import clean
from evalscope_vacc.wire.refusals import MESSAGE_LIMIT, error_message, is_engine_dead, read_error


@dataclass(frozen=True)
class Vectors:
    """The vectors of one answer, in the order of the texts sent.

    Attributes:
        values: float32, shape (n, dimensions).
        tokens: Prompt tokens that the server counted, or None.
    """

    values: npt.NDArray[np.float32]
    tokens: int | None


@dataclass(frozen=True)
class Scores:
    """The scores of one answer, in the order of the documents sent.

    Attributes:
        values: float64, shape (n,).
        tokens: Prompt tokens that the server counted, or None.
    """

    values: npt.NDArray[np.float64]
    tokens: int | None


def parse(body: bytes) -> Any:
    """Returns the JSON document of a 2xx answer.

    Raises:
        BadAnswerError: It is not JSON (retryable: a proxy's page, a cut body).
    """
    try:
        return orjson.loads(body)
    except ValueError:
        pass
    try:
        # what orjson refuses and servers send: NaN and Infinity, which are named where they stand
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        words = clean(read_error(200, body), limit=200)
        seen = f": {words}" if words else " and empty" if not body else ""
        msg = f"the answer is not JSON ({type(error).__name__}, {len(body)} bytes){seen}"
        raise BadAnswerError(msg, retryable=True, server_message=words) from None


def check_no_error(document: Any) -> None:
    """Refuses a document that carries an error although the status was 2xx (vLLM up to 0.14 sends those).

    Raises:
        EngineDeadError: It says that the engine died.
        BadAnswerError: It carries any other error.
    """
    message = error_message(document)
    if message is None:
        return
    words = clean(message, limit=MESSAGE_LIMIT)
    if is_engine_dead(message):
        raise EngineDeadError(f"the engine died (an error with status 200: {words})", server_message=words)
    code = _error_code(document)
    raise BadAnswerError(
        f"an error came with status 200: {words}",
        server_message=words,
        retryable=code is not None and (code >= 500 or code in {408, 429}),
    )


def read_vectors(body: bytes, n: int, *, key: str = "data", index: str = "index") -> Vectors:
    """Reads an OpenAI-style list of embeddings, base64 or float.

    Args:
        body: ``{"data": [{"index": i, "embedding": base64 or [float, …]}, …], "usage": {…}}``.
        n: Number of texts sent.
        key: The field that holds the list; of an inner object as "outer.inner".
        index: The field of an entry that holds its position.

    Raises:
        BadAnswerError: The answer is not exactly one vector for every text, all of one size, finite and not zero.
        EngineDeadError: It says that the engine died.
    """
    document = parse(body)
    check_no_error(document)
    rows = _rows(document, key, n, "vectors", "texts", index)
    values: npt.NDArray[np.float32] | None = None
    for position, row in rows:
        vector = _vector(row.get("embedding"), position)
        if values is None:
            values = np.empty((n, vector.size), dtype=np.float32)
        elif vector.size != values.shape[1]:
            msg = f"vector {position} has {vector.size} dimensions, others of the same answer have {values.shape[1]}"
            raise BadAnswerError(msg, item=position)
        values[position] = vector
    if values is None:
        msg = "no text was sent, so there is nothing to read"
        raise BadAnswerError(msg)
    check_vectors(values)
    return Vectors(values, tokens_of(document))


def read_score_list(
    body: bytes,
    n: int,
    *,
    key: str | tuple[str | None, ...] | None = "data",
    value: str | tuple[str, ...] = "score",
) -> Scores:
    """Reads a list of scores with their positions.

    Args:
        body: ``{key: [{"index": i, value: score}, …], "usage": {…}}``, or the bare list where ``key`` is None.
        n: Number of documents sent.
        key: "data" for /v1/score, "results" for /v1/rerank (sorted by score there; put back in input order here), of an
            inner object as "outer.inner"; several where any of them may be meant.
        value: "score" or "relevance_score", or both, the likelier first.

    Raises:
        BadAnswerError: The answer is not exactly one finite score for every document.
        EngineDeadError: It says that the engine died.
    """
    document = parse(body)
    check_no_error(document)
    keys, names = key if isinstance(key, tuple) else (key,), (value,) if isinstance(value, str) else value
    if None in keys and (isinstance(document, list) or len(keys) == 1):
        keys, document = ("data",), {"data": document}
    found = next((name for name in keys if isinstance(_inner(document, name or ""), list)), keys[0]) or "data"
    values = np.empty(n, dtype=np.float64)
    for position, row in _rows(document, found, n, "scores", "documents"):
        score = next((row[name] for name in names if name in row), None)
        if type(score) is not float and type(score) is not int:
            msg = f"score {position} is {_kind(score)}, not a number"
            raise BadAnswerError(msg, item=position)
        try:
            values[position] = score
        except OverflowError:
            values[position] = np.inf
    if not n:
        msg = "no document was sent, so there is nothing to read"
        raise BadAnswerError(msg)
    finite = np.isfinite(values)
    if not finite.all():
        position = int(np.argmin(finite))
        msg = f"score {position} is {values[position]}, not a finite number"
        raise NotFiniteError(msg, item=position)
    return Scores(values, tokens_of(document))


def check_vectors(values: npt.NDArray[np.float32]) -> None:
    """Refuses vectors with NaN, infinity, or nothing but zeros.

    Args:
        values: float32, shape (n, dimensions).

    Raises:
        BadAnswerError: Names the first wrong vector.
    """
    # one pass over the data: a squared length is neither finite nor positive when something is wrong
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.einsum("ij,ij->i", values, values)
    suspects = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    for position in suspects.tolist():
        row = values[position]
        finite = np.isfinite(row)
        if not finite.all():
            place = int(np.argmin(finite))
            msg = f"vector {position} holds {row[place]} (at dimension {place}), not a finite number"
            raise NotFiniteError(msg, item=position)
        if not row.any():
            msg = f"vector {position} holds nothing but zeros"
            raise BadAnswerError(msg, item=position)


def tokens_of(document: Any) -> int | None:
    """Returns the prompt tokens that an answer reports, or None; rerank answers up to 0.11 have only the total.

    Gateways that answer in Cohere's form have them in ``meta``, SiliconFlow beside it.
    """
    for place in ("usage", "meta.tokens", "tokens"):
        usage = _inner(document, place)
        for name in ("prompt_tokens", "input_tokens", "total_tokens"):
            count = usage.get(name) if isinstance(usage, dict) else None
            if type(count) is int and 0 <= count < 2**63:
                return count
    return None


def read_count(body: bytes, key: str | None) -> int:
    """Returns the number of tokens out of an answer that counts those of one text.

    Args:
        body: The answer.
        key: The field that holds the number, or the list of tokens; None = the answer is a list of one such list.

    Raises:
        BadAnswerError: It holds no such number.
    """
    found = _of_one_text(body, key)
    found = len(found) if isinstance(found, list) and found else found
    if type(found) is not int or not 0 <= found < 2**53:
        msg = "the answer holds no count of tokens"
        raise BadAnswerError(msg)
    return found


def read_tokens(body: bytes, key: str | None) -> tuple[int, ...]:
    """Returns the numbers of the tokens out of an answer that lists those of one text, as numbers or as objects with an ``id``.

    Args:
        body: The answer.
        key: The field that holds the list; None = the answer is a list of one such list.

    Raises:
        BadAnswerError: It holds no such list.
    """
    found = _of_one_text(body, key)
    listed = found if isinstance(found, list) else []
    numbers = [token.get("id") if isinstance(token, dict) else token for token in listed]
    known = tuple(number for number in numbers if type(number) is int)
    if not known or len(known) < len(numbers):
        msg = "the answer holds no tokens"
        raise BadAnswerError(msg)
    return known


def _of_one_text(body: bytes, key: str | None) -> Any:
    """Returns what an answer about the tokens of one text holds under a key, or as the only one of a list."""
    document = parse(body)
    check_no_error(document)
    if key is not None:
        return _inner(document, key)
    return document[0] if isinstance(document, list) and len(document) == 1 else None


def _inner(document: Any, key: str) -> Any:
    """Returns what an object holds under "key" or "outer.inner", or None."""
    for name in key.split("."):
        document = document.get(name) if isinstance(document, dict) else None
    return document


def _rows(
    document: Any, key: str, n: int, what: str, sent: str, position: str = "index"
) -> list[tuple[int, dict[str, Any]]]:
    """Returns the entries of an answer with their positions, after checking that every position is there once."""
    if not isinstance(document, dict):
        msg = f"the answer is {_kind(document)}, not an object with {key!r}"
        raise BadAnswerError(msg)
    entries = _inner(document, key)
    if not isinstance(entries, list):
        names = clean(", ".join(map(str, list(document)[:8])), limit=120)
        msg = f"the answer has no list {key!r} (it has: {names or 'nothing'})"
        raise BadAnswerError(msg)
    if len(entries) != n:
        msg = f"{len(entries)} {what} came for {n} {sent}"
        raise BadAnswerError(msg)
    seen = bytearray(n)
    rows: list[tuple[int, dict[str, Any]]] = []
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict):
            msg = f"entry {place} of {key!r} is {_kind(entry)}, not an object"
            raise BadAnswerError(msg)
        index = entry.get(position)
        if type(index) is not int:
            msg = f"entry {place} of {key!r} has no index, so it is unknown which of the {sent} it belongs to"
            raise BadAnswerError(msg)
        if not 0 <= index < n:
            msg = f"entry {place} of {key!r} has index {clean(str(index), limit=40)}, outside of 0 to {n - 1}"
            raise BadAnswerError(msg)
        if seen[index]:
            msg = f"index {index} occurs twice in {key!r}"
            raise BadAnswerError(msg, item=index)
        seen[index] = 1
        rows.append((index, entry))
    return rows


def _vector(value: Any, position: int) -> npt.NDArray[np.float32]:
    """Returns one vector, float32 of shape (dimensions,), from base64 of little-endian float32 or a list of floats."""
    if isinstance(value, str):
        try:
            data = pybase64.b64decode(value, validate=True)
        except ValueError:
            data = b""
        if not data:
            msg = f"vector {position} is not base64"
            raise BadAnswerError(msg, item=position, retryable=True)
        if len(data) % 4:
            msg = f"vector {position} has {len(data)} bytes, which is not a number of float32 values"
            raise BadAnswerError(msg, item=position)
        return np.frombuffer(data, dtype="<f4")
    if not isinstance(value, list) or not value:
        msg = f"vector {position} is {_kind(value)}, neither base64 nor a list of numbers"
        raise BadAnswerError(msg, item=position)
    if not set(map(type, value)) <= {float, int}:
        wrong = next(v for v in value if type(v) is not float and type(v) is not int)
        msg = f"vector {position} holds {_kind(wrong)} among its numbers"
        raise BadAnswerError(msg, item=position)
    try:
        with np.errstate(over="ignore"):
            return np.array(value, dtype=np.float64).astype(np.float32)
    except (OverflowError, ValueError):
        msg = f"vector {position} holds a number that is too large"
        raise BadAnswerError(msg, item=position) from None


def _error_code(document: Any) -> int | None:
    inner = document.get("error") if isinstance(document, dict) else None
    for holder in (inner, document):
        if isinstance(holder, dict):
            for name in ("code", "status", "status_code"):
                code = holder.get(name)
                if type(code) is int:
                    return code
    return None


def _kind(value: Any) -> str:
    """Says in JSON's words what a value is, without repeating it."""
    if value is None:
        return "null or missing"
    if isinstance(value, bool):
        return "true or false"
    names = {str: "a string", int: "a number", float: "a number", dict: "an object"}
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return names.get(type(value), type(value).__name__)
