"""What the layers hand to each other: how to connect, what to ask, what came back."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.wire.address import normalize_base, public_base, query_secrets, user_info

if TYPE_CHECKING:
    from typing_extensions import Self

# a token of RFC 9110: what may name a header
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SECRET_HEADER = re.compile(r"auth|key|token|secret|cookie|password|credential", re.IGNORECASE)


@dataclass(frozen=True)
class Connection:
    """How to reach the servers of one model. All of them serve the same model; work goes to the least busy one.

    Attributes:
        bases: Addresses in any spelling; kept as normalised roots.
        api_key: Sent as ``Authorization: Bearer``; "EMPTY" (the usual placeholder) and "" mean that none is needed.
        headers: Sent with every request.
        verify: True checks certificates against the system's and certifi's authorities; a path is a file or folder of
            private authorities, used instead; False checks nothing.
        trust_env: Whether proxies of the environment are used: None = for public addresses only.
        timeout_s: Seconds in which one request has to be answered completely.
        retries: Retries of one request after transient failures.
        wait_for_server_s: Seconds to wait for a server that refuses connections or whose engine died; 0 = do not.
        max_concurrency: Requests in flight, per server.

    Raises:
        ConfigError: A value cannot be used. No message holds a secret.
    """

    bases: tuple[str, ...]
    api_key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    verify: bool | str = True
    trust_env: bool | None = None
    timeout_s: float = 300
    retries: int = 5
    wait_for_server_s: float = 600
    max_concurrency: int = 4

    @classmethod
    def of(cls, config: Any, **changes: Any) -> Self:
        """Takes what it needs from a model's configuration, whose keys have the same names.

        Args:
            config: The configuration.
            **changes: Values to have instead.
        """
        values = {name: getattr(config, name) for name in cls.__dataclass_fields__}
        return cls(**{**values, **changes})

    def __post_init__(self) -> None:
        given = (self.bases,) if isinstance(self.bases, str) else tuple(self.bases)
        bases = tuple(dict.fromkeys(normalize_base(base) for base in given))
        if not bases:
            msg = "no api_base: give the address of the server, such as http://127.0.0.1:8000"
            raise ConfigError(msg)
        shown = [public_base(base) for base in bases]
        if len(set(shown)) != len(shown):
            raise ConfigError(f"api_base names one server with two users: {', '.join(sorted(set(shown)))}")
        object.__setattr__(self, "bases", bases)
        object.__setattr__(self, "headers", dict(self.headers))
        if isinstance(self.verify, str) and not Path(self.verify).exists():
            raise ConfigError(f"verify: {self.verify!r} is neither a file nor a folder; give the authority's PEM file")
        self._check_headers()

    def __repr__(self) -> str:
        """The connection without its secrets: tracebacks and logs print it."""
        servers = ", ".join(public_base(base) for base in self.bases)
        return f"Connection({servers}, max_concurrency={self.max_concurrency})"

    def request_headers(self, base: str) -> dict[str, str]:
        """Returns the headers of every request to one of the servers; holds secrets."""
        headers = {"Accept": "application/json", **self.headers}
        if any(name.lower() == "authorization" for name in self.headers):
            return headers
        user = user_info(base)
        if user is not None and self._key() is None:
            headers["Authorization"] = "Basic " + basic(*user)
        elif self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        return headers

    def secrets(self) -> tuple[str, ...]:
        """Returns every string that must not be seen in a message, a log or a file."""
        found: list[str] = []
        key = self._key()
        if key is not None:
            found.append(key)
        for name, value in self.headers.items():
            if _SECRET_HEADER.search(name) or len(value) >= 8:
                found += [value, *(part for part in value.split() if len(part) >= 8)]
        for base in self.bases:
            user = user_info(base)
            if user is not None:
                found += [user[1], quote(user[1], safe=""), basic(*user)]
            found += query_secrets(base)
        return tuple(dict.fromkeys(secret for secret in found if secret))

    def _key(self) -> str | None:
        return None if self.api_key in {None, "", "EMPTY"} else self.api_key

    def _check_headers(self) -> None:
        if self.api_key and not _is_header_value(self.api_key):
            msg = "api_key holds a line break, a control character or a character that no header can carry"
            raise ConfigError(msg)
        for name, value in self.headers.items():
            if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
                raise ConfigError(f"headers: {name!r} is not a name of an HTTP header")
            if not isinstance(value, str) or not _is_header_value(value):
                raise ConfigError(f"headers: the value of {name} is not text that a header can carry")
        if self._key() is not None and any(user_info(base) is not None for base in self.bases):
            msg = "both api_key and a user in api_base: a request has one Authorization header; drop one of them"
            raise ConfigError(msg)


@dataclass(eq=False)
class Request:
    """One request of a run.

    Attributes:
        path: Behind the server's root, such as "/v1/embeddings".
        payload: The JSON body, ready as bytes or as a mapping.
        items: Texts or documents that it carries; progress counts them.
        tag: The caller's own note; not looked at here.
        split: Makes two or more smaller requests of this one, for a server that refuses it because of one of its
            items (or its size); None where it cannot be divided.
        shorten: Makes the same request with texts of at most so many tokens, for a server that names its limit only
            when it refuses; returns None where they are no longer than that.
        describe: What it carries, for an error: "document 17 of SciFact"; a function where that costs time.
    """

    path: str
    payload: Mapping[str, Any] | bytes
    items: int
    tag: Any = None
    split: Callable[[], Sequence[Request]] | None = None
    shorten: Callable[[int], Request | None] | None = None
    describe: str | Callable[[], str] = ""

    @property
    def described(self) -> str:
        """What it carries."""
        return self.describe if isinstance(self.describe, str) else self.describe()

    def body(self) -> bytes:
        """Returns the JSON body."""
        return self.payload if isinstance(self.payload, bytes) else encode_json(self.payload)


@dataclass(frozen=True)
class Answer:
    """A complete answer with a 2xx status.

    Attributes:
        status: HTTP status.
        headers: As received; the names' case does not matter in look-ups.
        body: The body's bytes, decompressed.
        server: Address without user information, as it may be printed.
        seconds: From sending the request to the last byte of the answer.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    server: str
    seconds: float


def encode_json(payload: Mapping[str, Any]) -> bytes:
    """Returns compact JSON in UTF-8.

    A lone surrogate, which UTF-8 cannot carry, is sent as an escape: whether it is acceptable is for the server to
    say, and its refusal names the text.
    """
    try:
        return orjson.dumps(payload)
    except TypeError:  # what orjson says of a surrogate
        return json.dumps(payload, separators=(",", ":")).encode()


def _is_header_value(text: str) -> bool:
    # what lies beyond ASCII has no encoding that clients and servers agree on
    return text.isascii() and not any(ord(char) < 32 or ord(char) == 127 for char in text)


def basic(user: str, password: str) -> str:
    """Returns user and password as basic authentication wants them."""
    return base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
