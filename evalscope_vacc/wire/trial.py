"""Sees what an embedding server does, with two texts for each run: truncation, the form of vectors, token counts.

Servers accept fields and ignore them: a text that should have been cut is read whole, with status 200. So what a
dialect states is verified. The second text begins with the first; cut by the server to the first one's tokens it has
to give the first one's vector, which holds only where the server keeps the beginning and the end-of-sequence token. It
is asked for as numbers where the first was packed as base64, so that the same answer shows that packing is right.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evalscope_vacc.errors import (
    AuthenticationError,
    BadAnswerError,
    EngineDeadError,
    InputTooLongError,
    ModelNotServedError,
    NotFiniteError,
    RequestRefusedError,
    ServerError,
    ServerFaultError,
)
from evalscope_vacc.wire.dialects import Dialect, Scores, Vectors
from evalscope_vacc.wire.engine import Engine
from evalscope_vacc.wire.refusals import SPLITTABLE_STATUS, is_missing_route, token_limit, with_context

# about a dozen tokens and five times as many characters
FIRST = "the clerk at the harbour wrote the name of every boat into a green book"
QUERY = "who wrote the name of every boat"
# longer than what most servers take whole, so that one which takes a wish for a permission refuses it
SECOND = FIRST + " and nobody found a page of it again until spring" * 64
# Rounding in 16 bits and in other batches stays below a tenth of this; another text, or a lost end token, far above.
_SAME = 1e-3
# a limit at least this large leaves the first text whole in every tokenizer
_WHOLE = 64


@dataclass(frozen=True)
class Seen:
    """What a server was seen to do.

    Attributes:
        server: Its address, as it may be printed.
        truncates: Whether it cuts to the number of tokens that a request names, keeping the beginning and the end
            token; None where that was not tried: the dialect has no field for it, or no limit is known.
        truncation: The same in words.
        base64: Whether vectors come right as base64; None where it was not asked for.
        counts: What it counts: "tokens", "characters", or None where it does not say.
        first_tokens: The first text's tokens by its own count, or None.
        width: Numbers of a vector.
        limit: The longest input that it named when it refused a larger one, or None.
    """

    server: str
    truncates: bool | None
    truncation: str
    base64: bool | None
    counts: Literal["tokens", "characters"] | None
    first_tokens: int | None
    width: int
    limit: int | None = None

    def settled(self, dialect: Dialect) -> Dialect:
        """Returns the dialect with what was seen in place of what its family can."""
        if dialect.truncates and not self.truncates:
            dialect = dialect.changed(truncates=False)
        if self.base64 is False:
            dialect = dialect.plain()
        return dialect.changed(counts=False) if self.counts == "characters" else dialect


def try_texts(
    engine: Engine,
    dialect: Dialect,
    model: str,
    *,
    server: str,
    limit: int | None,
    extra: Mapping[str, Any] | None = None,
    count: Callable[[str], int] | None = None,
    guess: bool = False,
) -> tuple[Dialect, Seen]:
    """Asks one server for the vectors of two texts; two requests where it is what it is taken for, at most six.

    Args:
        engine: Connections to the servers.
        dialect: Its protocol.
        model: The name that requests will carry.
        server: Its address.
        limit: Tokens that a run lets a text have, or None.
        extra: Further fields of every request.
        count: Counts a text's tokens, for a server that does not say how many it read; or None.
        guess: Whether the dialect is one; the endpoint may then be found without /v1.

    Returns:
        The dialect that the server understands (the fallback where its own endpoint is missing), and what was seen.

    Raises:
        ServerError: It gives no vectors.
    """
    ask = _Asking(engine, model, server, extra or {})
    dialect, first, limit, told = _first(ask, dialect, limit, guess)
    counts, tokens = _counted(first.tokens)
    if tokens is None and count is not None and dialect.truncates and limit is not None:
        tokens = count(FIRST)
    packed = dialect.encoding.get("encoding_format") == "base64"
    truncates: bool | None = None
    base64: bool | None = None
    words = "not asked for: the dialect has no field for it" if not dialect.truncates else "not asked for: no limit"
    if ask.refused:
        words = f"refused: {ask.refused}"
    if dialect.truncates and limit is not None:
        truncates, base64, words = _second(ask, dialect, first, tokens)
    width = first.values.shape[1]
    if packed and base64 is None:
        base64, width = _unpacked(ask, dialect, first)
    if ask.base64_refused:
        base64 = False
    return dialect, Seen(server, truncates, words, base64, counts, first.tokens, width, told)


def try_pairs(
    engine: Engine, dialect: Dialect, model: str, *, server: str, extra: Mapping[str, Any] | None = None
) -> tuple[bool, str]:
    """Sees whether a cross-encoder cuts a pair to the number of tokens that a request names; two requests.

    The second text, cut to the tokens of the pair with the first one, has to get that pair's score and count.

    Args:
        engine: Connections to the servers.
        dialect: Its protocol.
        model: The name that requests will carry.
        server: Its address.
        extra: Further fields of every request.

    Returns:
        Whether it does, and the same in words.

    Raises:
        ServerError: It gives no scores.
    """
    more: dict[str, Any] = {"extra": extra} if extra else {}

    def ask(document: str, truncate_to: int | None) -> Scores:
        path, body = dialect.scores(model, QUERY, [document], truncate_to=truncate_to, **more)
        answer = engine.call("POST", path, json.loads(body), server=server, describe="a pair that shows what it does")
        try:
            return dialect.read_scores(answer.body, 1)
        except BadAnswerError as error:
            raise with_context(error, answer, path, engine.secrets) from None

    try:
        whole = ask(FIRST, None)
        if whole.tokens is None:
            return False, "not seen: the server does not count the tokens of a pair"
        cut = ask(SECOND, whole.tokens)
    except (EngineDeadError, AuthenticationError):
        raise
    except (RequestRefusedError, BadAnswerError, ServerFaultError) as error:
        return False, f"not done: a pair is refused ({error.server_message[:200]})"
    if cut.tokens is not None and cut.tokens > whole.tokens:
        return False, f"ignored: asked to keep {whole.tokens} tokens it read {cut.tokens}"
    score = float(whole.values[0])
    if abs(float(cut.values[0]) - score) > _SAME * max(1.0, abs(score)):
        return False, f"not as needed: a pair cut to {whole.tokens} tokens has not the score of its own beginning"
    return True, f"seen: cut to {whole.tokens} tokens, both ends kept"


class _Asking:
    """One server, and what it refused."""

    def __init__(self, engine: Engine, model: str, server: str, extra: Mapping[str, Any]) -> None:
        self._engine, self._model, self._server, self._extra = engine, model, server, extra
        self.refused = ""
        self.base64_refused = False

    def __call__(self, dialect: Dialect, text: str, truncate_to: int | None) -> Vectors:
        more: dict[str, Any] = {"extra": self._extra} if self._extra else {}
        path, body = dialect.embeddings(self._model, [text], truncate_to=truncate_to, **more)
        answer = self._engine.call(
            "POST", path, json.loads(body), server=self._server, describe="a text that shows what the server does"
        )
        try:
            return dialect.read_embeddings(answer.body, 1)
        except BadAnswerError as error:
            raise with_context(error, answer, path, self._engine.secrets) from None


def _first(
    ask: _Asking, dialect: Dialect, limit: int | None, guess: bool
) -> tuple[Dialect, Vectors, int | None, int | None]:
    """Asks for the first text as a run would, and then with less until the server takes it.

    Returns:
        The dialect that was understood, the vector, the limit, and the limit that the server named.
    """
    # whole, so that the end token's loss cannot hide in both texts
    cut = limit if limit is not None and limit >= _WHOLE and dialect.truncates else None
    try:
        return dialect, ask(dialect, FIRST, cut), limit, None
    except NotFiniteError:
        raise
    except (RequestRefusedError, BadAnswerError) as error:
        first = error
    if isinstance(first, (AuthenticationError, ModelNotServedError)):
        raise first
    if is_missing_route(first):
        other = dialect.fallback()
        if guess and dialect.embeddings_path.startswith("/v1/"):
            other = dialect.changed(embeddings_path=dialect.embeddings_path.removeprefix("/v1"))
        if other is None or other.embeddings_path == dialect.embeddings_path:
            raise first
        try:
            return _first(ask, other, limit, guess=False)
        except ServerError:
            raise first from None
    if isinstance(first, RequestRefusedError) and first.status not in SPLITTABLE_STATUS:
        raise first
    told = token_limit(first.server_message)
    told = told if cut is not None and told is not None and told < cut else None
    # a server whose own length is below the first text's takes it cut only
    shortest = limit if cut is None and dialect.truncates and isinstance(first, InputTooLongError) else None
    for attempt, cut_to in _simpler(dialect, cut, told or shortest):
        try:
            got = ask(attempt, FIRST, cut_to)
        except (RequestRefusedError, BadAnswerError):
            continue
        ask.base64_refused = attempt.encoding != dialect.encoding
        ask.refused = first.server_message[:200] if attempt.truncates != dialect.truncates else ""
        return attempt, got, told or limit, told
    raise first


def _simpler(dialect: Dialect, cut: int | None, shorter: int | None) -> Iterator[tuple[Dialect, int | None]]:
    """Yields what else to ask, the likeliest first: the dialect, and the tokens to cut to."""
    if shorter is not None:
        yield dialect, shorter
    packed = dialect.plain() is not dialect
    if packed:
        yield dialect.plain(), cut
    if cut is not None:
        yield dialect.changed(truncates=False), None
        if packed:
            yield dialect.plain().changed(truncates=False), None


def _counted(tokens: int | None) -> tuple[Literal["tokens", "characters"] | None, int | None]:
    """Says what a server counts, and the first text's tokens."""
    if tokens is None or tokens < 2:
        return None, None
    return ("characters", None) if tokens >= len(FIRST) else ("tokens", tokens)


def _second(ask: _Asking, dialect: Dialect, first: Vectors, tokens: int | None) -> tuple[bool, bool | None, str]:
    """Has the server cut the second text to the first one's tokens.

    Returns:
        Whether that gives the first one's vector, whether its base64 is right where that is known, and words.
    """
    if tokens is None:
        return False, None, "not seen: nobody counts the tokens of a text"
    try:
        cut = ask(dialect.plain(), SECOND, tokens)
    except (EngineDeadError, AuthenticationError):
        raise
    except (RequestRefusedError, BadAnswerError, ServerFaultError) as error:
        return False, None, f"not done: a text that was to be cut is refused ({error.server_message[:200]})"
    if _same(first.values, cut.values):
        return True, True if dialect.plain() is not dialect else None, f"seen: cut to {tokens} tokens, both ends kept"
    if cut.tokens is not None and cut.tokens > tokens:
        return False, None, f"ignored: asked to keep {tokens} tokens it read {cut.tokens}"
    return False, None, f"not as needed: a text cut to {tokens} tokens has not the vector of its own beginning"


def _unpacked(ask: _Asking, dialect: Dialect, first: Vectors) -> tuple[bool, int]:
    """Whether the first text's vector is the same as numbers, and its size then.

    A server that gives no numbers is believed.
    """
    try:
        numbers = ask(dialect.plain(), FIRST, None).values
    except AuthenticationError:
        raise
    except ServerError:
        return True, first.values.shape[1]
    return _same(first.values, numbers), numbers.shape[1]


def _same(first: NDArray[np.float32], second: NDArray[np.float32]) -> bool:
    if first.shape != second.shape:
        return False
    a, b = first[0].astype(np.float64), second[0].astype(np.float64)
    return 1 - float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))) <= _SAME
