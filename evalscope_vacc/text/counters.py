"""Counting tokens: with a tokenizer here, or by asking a function such as the server's ``/tokenize``."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

from evalscope_vacc.errors import ConfigError, TextError
from evalscope_vacc.redact import clean

REMEMBERED = 100_000
"""Counts kept per counter, by a digest of the text: about 15 MB at most, however long the texts are."""


class TokenCounter(Protocol):
    """Counts tokens as a server counts them.

    A counter may also have ``token_ends(text) -> Sequence[int]``: where each token of a text ends, in characters and
    without special tokens. Cutting then needs fewer counts.
    """

    def count(self, text: str) -> int:
        """Returns the tokens of one text, with the special tokens that the server adds to it."""

    def count_pair(self, text_1: str, text_2: str) -> int:
        """Returns the tokens of a pair, with the special tokens that the server adds to it."""


class LocalTokenizer:
    """A tokenizer on this machine, of the package ``tokenizers``.

    Special tokens are those of the tokenizer's own post-processor; a truncation or padding that is saved in the file is
    switched off, since it would hide a text's length.

    Attributes:
        source: What was loaded.
    """

    def __init__(self, source: str | Path) -> None:
        """Loads the tokenizer.

        Args:
            source: A ``tokenizer.json``, a folder that holds one, or a model's name on the hub (``HF_ENDPOINT`` is
                honoured, and what was downloaded before is found offline).

        Raises:
            ConfigError: There is none, or it cannot be read.
        """
        self.source = str(source)
        self._tokenizer = _load(self.source)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # a tokenizer that puts nothing between the texts of a pair belongs to a model whose server joins them first
        special = self._tokenizer.num_special_tokens_to_add
        self._joins_pairs: bool = special(True) <= special(False)
        self._counts = _Remembered()

    def count(self, text: str) -> int:
        """Returns the tokens of one text, special tokens included.

        Raises:
            TextError: The text is not valid Unicode.
        """
        return self._counts.get(text, lambda text: len(self._encode(text).ids))

    def ids(self, text: str) -> tuple[int, ...]:
        """Returns the numbers of a text's tokens, special tokens included.

        Raises:
            TextError: The text is not valid Unicode.
        """
        return tuple(self._encode(text).ids)

    def count_pair(self, text_1: str, text_2: str) -> int:
        """Returns the tokens of a pair, special tokens included.

        Where nothing stands between the two texts, servers differ in whether they join before or after tokenising, and
        a token may span the seam: the larger count is returned.

        Raises:
            TextError: A text is not valid Unicode.
        """
        apart = len(self._encode(text_1, text_2).ids)
        return max(apart, len(self._encode(text_1 + text_2).ids)) if self._joins_pairs else apart

    def token_ends(self, text: str) -> list[int]:
        """Returns where each token ends, in characters from the text's start, without special tokens.

        Raises:
            TextError: The text is not valid Unicode.
        """
        return [end for _, end in self._encode(text, special=False).offsets]

    def _encode(self, text: str, pair: str | None = None, *, special: bool = True) -> Any:
        for part in (text, pair or ""):
            try:
                part.encode()
            except UnicodeEncodeError as error:
                around = clean(repr(part[max(0, error.start - 20) : error.start + 20]), limit=120)
                raise TextError(
                    f"a text holds half of a surrogate pair at character {error.start} ({around}); no tokenizer takes "
                    "that: the data set is damaged there"
                ) from error
        return self._tokenizer.encode(text, pair, add_special_tokens=special)


class CountingFunction:
    """A counter made from a function that counts one text, such as the server's ``/tokenize``.

    Each text is asked for once, also when threads ask at the same time; the newest 100,000 counts are remembered.
    """

    def __init__(self, function: Callable[[str], int], *, pair_overhead: int | None = 0) -> None:
        """Makes the counter.

        Args:
            function: Text to tokens, with the special tokens that the server adds to one text.
            pair_overhead: Special tokens of a pair less twice those of one text: 0 for XLM-RoBERTa (4 and 2) and for
                language models without any, -1 for BERT (3 and 2). None counts the two texts joined, as servers of
                language models do: exact at the seam, but nothing of a pair is remembered for the next.
        """
        self._function = function
        self._pair_overhead = pair_overhead
        self._counts = _Remembered()

    def count(self, text: str) -> int:
        """Returns the tokens of one text."""
        return self._counts.get(text, self._function)

    def count_pair(self, text_1: str, text_2: str) -> int:
        """Returns the tokens of a pair."""
        if self._pair_overhead is None:
            return self.count(text_1 + text_2)
        return self.count(text_1) + self.count(text_2) + self._pair_overhead


class _Remembered:
    """Counts by text: each asked for once, the newest kept."""

    def __init__(self, size: int = REMEMBERED) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, int] = OrderedDict()
        self._asked: dict[bytes, Future[int]] = {}

    def get(self, text: str, count: Callable[[str], int]) -> int:
        key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
                return known
            waiting = self._asked.get(key)
            if waiting is None:
                mine = self._asked[key] = Future()
        if waiting is not None:
            return waiting.result()
        try:
            tokens = count(text)
        except BaseException as error:
            with self._lock:
                del self._asked[key]
            mine.set_exception(error)
            raise
        with self._lock:
            self._known[key] = tokens
            if len(self._known) > self._size:
                self._known.popitem(last=False)
            del self._asked[key]
        mine.set_result(tokens)
        return tokens


def _load(source: str) -> Any:
    from tokenizers import Tokenizer

    path = Path(source).expanduser()
    if path.is_dir():
        path = path / "tokenizer.json"
        if not path.is_file():
            raise ConfigError(
                f"tokenizer: {path.parent} holds no tokenizer.json; name a folder that does, or leave the key out to "
                "let the server count"
            )
    if path.is_file():
        try:
            return Tokenizer.from_file(str(path))
        except Exception as error:
            reason = clean(str(error), limit=300)
            raise ConfigError(f"tokenizer: {path} cannot be read as a tokenizer.json: {reason}") from error
    # a hub name is NAME or ORGANISATION/NAME; whatever else this is, it names a file
    if path.is_absolute() or source.startswith((".", "~")) or source.endswith(".json") or source.count("/") > 1:
        raise ConfigError(f"tokenizer: {source} does not exist")
    try:
        return Tokenizer.from_pretrained(source)
    except Exception as error:
        reason = clean(f"{type(error).__name__}: {error}", limit=300)
        raise ConfigError(
            f"tokenizer: {source!r} is not a file or folder here, and the hub does not have it ({reason}); check the "
            "name and HF_ENDPOINT, name a local tokenizer.json, or leave the key out to let the server count"
        ) from error
