"""One server: its pool of connections, one request and its answer, and what a failure means for the next step.

urllib3's pool is used directly, not through requests: on this path requests spends as long on every call as everything
else together, and it does not let a body be read in one piece.
"""

from __future__ import annotations

import errno
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit
from urllib.request import getproxies

import urllib3
from urllib3.exceptions import HTTPError, InvalidHeader, ProxyError
from urllib3.util import Retry, Timeout
from urllib3.util.ssl_match_hostname import CertificateError

from evalscope_vacc.errors import BadAnswerError, ConfigError, ServerError, ServerTimeoutError, ServerUnreachableError
from evalscope_vacc.redact import clean
from evalscope_vacc.wire.address import is_local, public_base, user_info
from evalscope_vacc.wire.messages import Answer, Connection
from evalscope_vacc.wire.refusals import RETRYABLE_STATUS, is_engine_dead, read_error, refusal
from evalscope_vacc.wire.sockets import POOL_CLASSES, Attempt

# An answer of 1024 vectors of 4096 dimensions in base64 has 22 MB, in floats about 90 MB.
MAX_ANSWER_BYTES = 512 * 1024 * 1024
# How much of a refusal is read: vLLM repeats the whole request in some of them.
_MAX_REFUSAL_BYTES = 1024 * 1024
_CONNECT_TIMEOUT_S = 20.0
_HEALTH_TIMEOUT_S = 5.0
# A server that asks for more patience than this is asked again anyway.
_MAX_RETRY_AFTER_S = 120.0


class Kind(Enum):
    """What the outcome of an attempt means for the next step."""

    ANSWER = "a complete answer with a 2xx status"
    REFUSED = "the request is wrong; asking again gives the same"
    PASSING = "a failure that may be over next time"
    DOWN = "the server is not there, or its engine died; it has to come back first"


@dataclass(frozen=True)
class Outcome:
    """What came of one attempt.

    Attributes:
        kind: What it means for the next step.
        answer: The answer; only with ANSWER.
        error: The error to raise if nothing helps; with every other kind.
        retry_after_s: Seconds that the server asked to be left alone, or None.
        strange: Nothing at this address has ever answered, and nothing says that a server is about to: it is more
            likely a wrong address than a server to wait for.
    """

    kind: Kind
    answer: Answer | None = None
    error: ServerError | None = None
    retry_after_s: float | None = None
    strange: bool = False


class Client:
    """One server.

    Attributes:
        base: Normalised address, with user information: a secret.
        shown: Address as it may be printed.
        answered: Whether it has ever given a 2xx answer.
    """

    def __init__(self, connection: Connection, base: str) -> None:
        self.base = base
        self.shown = public_base(base)
        self.answered = False
        self._connection = connection
        self._headers = connection.request_headers(base)
        parts = urlsplit(base)
        self._prefix = parts.path
        self._origin = f"{parts.scheme}://{urlsplit(self.shown).netloc}"
        self._proxy = _proxy_for(connection, base)
        self.secrets = connection.secrets() + _proxy_secrets(self._proxy)
        # one spare connection each for the health check and for a call beside a run
        size = connection.max_concurrency + 2
        options: dict[str, Any] = {"maxsize": size, "block": False}
        if parts.scheme == "https":
            context = options["ssl_context"] = _ssl_context(connection.verify)
            if version("urllib3").startswith("1."):
                # it does not tell the TLS layer the name when that is an IP address, and compares it by itself instead
                context.check_hostname = False
            options["cert_reqs"] = "CERT_NONE" if connection.verify is False else "CERT_REQUIRED"
        self._pool: urllib3.HTTPConnectionPool | urllib3.ProxyManager
        if self._proxy is None:
            self._pool = POOL_CLASSES[parts.scheme](cast(str, parts.hostname), parts.port, **options)
        else:
            self._pool = _proxy_manager(self._proxy, options)

    def __repr__(self) -> str:
        return f"Client({self.shown})"

    def close(self) -> None:
        """Closes the connections that are not in use."""
        if isinstance(self._pool, urllib3.ProxyManager):
            self._pool.clear()
        else:
            self._pool.close()

    def ask(
        self, method: str, path: str, body: bytes | None, attempt: Attempt, timeout_s: float, *, describe: str = ""
    ) -> Outcome:
        """Sends one request and reads its answer; never raises for what the server or the network does."""
        start = time.perf_counter()
        try:
            with attempt:
                status, headers, data = self._exchange(method, path, body, timeout_s)
        except (HTTPError, HTTPException, OSError, ValueError) as error:
            return self._failure(error, attempt, path, timeout_s, describe)
        if 200 <= status < 300:
            if len(data) > MAX_ANSWER_BYTES:
                msg = f"{self.shown}{path}: the answer has more than {MAX_ANSWER_BYTES} bytes; make batch_size smaller"
                return Outcome(Kind.REFUSED, error=BadAnswerError(msg, server=self.shown, status=status, path=path))
            self.answered = True
            return Outcome(Kind.ANSWER, Answer(status, headers, data, self.shown, time.perf_counter() - start))
        message = read_error(status, data, headers.get("content-type", ""))
        refused = refusal(
            status,
            message,
            server=self.shown,
            path=path,
            describe=describe,
            secrets=self.secrets,
            location=headers.get("location", ""),
        )
        if is_engine_dead(message):
            return Outcome(Kind.DOWN, error=refused)
        if status in RETRYABLE_STATUS:
            return Outcome(Kind.PASSING, error=refused, retry_after_s=_retry_after(headers.get("retry-after")))
        return Outcome(Kind.REFUSED, error=refused)

    def is_healthy(self, attempt: Attempt | None = None) -> bool:
        """Whether the server is there and does not say that its engine is dead.

        ``GET /health`` answers 503 on a vLLM whose engine died; a server without that endpoint answers 404, which is
        a sign of life.
        """
        timeout_s = min(_HEALTH_TIMEOUT_S, self._connection.timeout_s)
        try:
            with attempt or Attempt(timeout_s):
                status, _, _ = self._exchange("GET", "/health", None, timeout_s)
        except (HTTPError, HTTPException, OSError, ValueError):
            return False
        return status < 500

    def _exchange(
        self, method: str, path: str, body: bytes | None, timeout_s: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        headers = self._headers if body is None else {**self._headers, "Content-Type": "application/json"}
        url = self._prefix + path
        if isinstance(self._pool, urllib3.ProxyManager):
            url = self._origin + url
        response = self._pool.urlopen(
            method,
            url,
            body=body,
            headers=headers,
            timeout=Timeout(connect=min(timeout_s, _CONNECT_TIMEOUT_S), read=timeout_s),
            retries=False,
            redirect=False,
            preload_content=False,
            # off by default before urllib3 2: a body that ends early has to be noticed
            enforce_content_length=True,
        )
        try:
            data = _read(response, MAX_ANSWER_BYTES if 200 <= response.status < 300 else _MAX_REFUSAL_BYTES)
        except BaseException:
            response.close()
            raise
        response.release_conn()
        return response.status, response.headers, data

    def _failure(self, error: BaseException, attempt: Attempt, path: str, timeout_s: float, describe: str) -> Outcome:
        """Says what an exception of the connection means."""
        chain = list(_chain(error))
        about = f" for {describe}" if describe else ""
        where = f"{self.shown}{path}"
        through = " through the proxy of the environment" if self._proxy is not None else ""
        fields: dict[str, Any] = {"server": self.shown, "path": path}

        def unreachable(what: str) -> ServerUnreachableError:
            return ServerUnreachableError(f"{where}{about}: {what}{through}", **fields)

        certificate = next((e for e in chain if isinstance(e, (ssl.SSLCertVerificationError, CertificateError))), None)
        if certificate is not None:
            reason = clean(getattr(certificate, "verify_message", "") or str(certificate), self.secrets, 300)
            return Outcome(
                Kind.REFUSED,
                error=unreachable(
                    f"its certificate is not trusted ({reason}). Set verify to the authority's PEM file, or to false"
                ),
            )
        if any(isinstance(e, ssl.SSLError) and "WRONG_VERSION_NUMBER" in str(e).upper() for e in chain):
            return Outcome(Kind.REFUSED, error=unreachable("it does not speak TLS; write http:// instead of https://"))
        if any(isinstance(e, socket.gaierror) for e in chain):
            return self._gone(unreachable("no machine of this name is known; check api_base"))
        if any(isinstance(e, ConnectionRefusedError) for e in chain) and not attempt.connected:
            return Outcome(Kind.DOWN, error=unreachable("connection refused; is the server running there?"))
        unreachable_codes = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN}
        if any(isinstance(e, OSError) and e.errno in unreachable_codes for e in chain):
            return self._gone(unreachable("the machine cannot be reached"))
        timed_out = attempt.overdue or any(
            isinstance(e, (TimeoutError, urllib3.exceptions.TimeoutError)) for e in chain
        )
        if timed_out and attempt.connected:
            message = f"{where} did not answer{about} within {timeout_s:g} s (timeout_s){through}"
            return Outcome(Kind.PASSING, error=ServerTimeoutError(message, **fields))
        if timed_out:
            return self._gone(unreachable("no connection came about in time; check the address and firewalls"))
        if any(isinstance(e, ProxyError) for e in chain):
            return Outcome(Kind.PASSING, error=unreachable(f"the proxy failed: {self._reason(chain)}"))
        return Outcome(Kind.PASSING, error=unreachable(f"the connection broke: {self._reason(chain)}"))

    def _gone(self, error: ServerError) -> Outcome:
        """The machine is not there: waited for if it ever was, else most likely a wrong address."""
        return Outcome(Kind.DOWN, error=error) if self.answered else Outcome(Kind.PASSING, error=error, strange=True)

    def _reason(self, chain: list[BaseException]) -> str:
        """The innermost words of a chain of exceptions, without secrets and without Python's addresses of objects."""
        words = next((str(e) for e in reversed(chain) if str(e)), type(chain[0]).__name__)
        return clean(f"{type(chain[-1]).__name__}: {words}", self.secrets, 200)


def _read(response: urllib3.response.BaseHTTPResponse | Any, limit: int) -> bytes:
    """Reads a body of at most ``limit`` bytes; one byte more says that it is longer."""
    length = response.headers.get("content-length", "")
    if "content-encoding" not in response.headers and length.isdecimal() and int(length) <= limit:
        return cast(bytes, response.read(decode_content=False))
    pieces: list[bytes] = []
    size = 0
    while size <= limit:
        piece = response.read(min(limit + 1 - size, 1024 * 1024), decode_content=True)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        size += len(piece)
    response.close()
    return b"".join(pieces)[: limit + 1]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an exception and everything that urllib3 wrapped inside it, outermost first."""
    seen: set[int] = set()
    queue: list[Any] = [error]
    while queue:
        current = queue.pop(0)
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        queue += [*current.args, getattr(current, "reason", None), getattr(current, "original_error", None)]
        queue += [current.__cause__, None if current.__suppress_context__ else current.__context__]


def _retry_after(value: str | None) -> float | None:
    """Seconds out of a Retry-After header (a number or a date), bounded; None where it says nothing."""
    if value is None:
        return None
    try:
        seconds = float(Retry(0).parse_retry_after(value))
    except (InvalidHeader, ValueError, OverflowError, TypeError):
        return None
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER_S)


def _ssl_context(verify: bool | str) -> ssl.SSLContext:
    """Returns the rules for certificates.

    True: the system's authorities (a company's own are there) and certifi's (some systems have none).
    """
    if verify is False:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    if verify is True:
        context = ssl.create_default_context()
        try:
            import certifi
        except ImportError:
            return context
        context.load_verify_locations(cafile=certifi.where())
        return context
    path = Path(verify)
    try:
        if path.is_dir():
            return ssl.create_default_context(capath=verify)
        return ssl.create_default_context(cafile=verify)
    except (OSError, ssl.SSLError) as error:
        reason = clean(str(error), limit=200)
        raise ConfigError(f"verify: no certificates can be read from {verify!r} ({reason})") from None


def _proxy_for(connection: Connection, base: str) -> str | None:
    """Returns the environment's proxy for a server, or None."""
    wanted = connection.trust_env
    if wanted is None:
        wanted = not is_local(base)
    if not wanted or not getproxies():
        return None
    # requests knows no_proxy with networks (10.0.0.0/8), which the standard library does not
    from requests.utils import get_environ_proxies, select_proxy

    url = public_base(base)
    proxy = select_proxy(url, get_environ_proxies(url))
    if proxy is None:
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if urlsplit(proxy).scheme.lower() not in {"http", "https"}:
        raise ConfigError(
            f"the environment names the proxy {public_base(proxy)} for {url}: only http and https proxies work here; "
            "unset it or set trust_env to false"
        )
    return str(proxy)


def _proxy_secrets(proxy: str | None) -> tuple[str, ...]:
    user = user_info(proxy) if proxy is not None else None
    return () if user is None or not user[1] else (user[1],)


def _proxy_manager(proxy: str, options: dict[str, Any]) -> urllib3.ProxyManager:
    user = user_info(proxy)
    headers = None if user is None else urllib3.make_headers(proxy_basic_auth=f"{user[0]}:{user[1]}")
    manager = urllib3.ProxyManager(public_base(proxy), proxy_headers=headers, **options)
    manager.pool_classes_by_scheme = POOL_CLASSES
    return manager
