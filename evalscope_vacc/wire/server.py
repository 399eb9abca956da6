"""One server: its connections, one request and its answer, what a failure means, and whether the server is up.

Everything here runs in the engine's event loop, so nothing needs a lock.
"""

from __future__ import annotations

import asyncio
import email.utils
import errno
import logging
import math
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from evalscope_vacc.errors import (
    BadAnswerError,
    ConfigError,
    EngineDeadError,
    InputTooLongError,
    ServerError,
    ServerTimeoutError,
    ServerUnreachableError,
)
from evalscope_vacc.redact import clean
from evalscope_vacc.wire.address import endpoint, is_local, public_base, user_info
from evalscope_vacc.wire.messages import Answer, Connection, Request, basic
from evalscope_vacc.wire.refusals import (
    BUSY_STATUS,
    FAULT_STATUS,
    is_engine_dead,
    is_out_of_quota,
    read_duration,
    read_error,
    refusal,
    seconds_asked_for,
)
from evalscope_vacc.wire.slots import slots_of
from evalscope_vacc.wire.usage import ServerUsage

logger = logging.getLogger(__name__)

# An answer of 1024 vectors of 4096 dimensions in base64 has 22 MB, in floats about 90 MB.
MAX_ANSWER_BYTES = 512 * 1024 * 1024
# How much of a refusal is read: vLLM repeats the whole request in some of them.
_MAX_REFUSAL_BYTES = 1024 * 1024
# aiohttp stops reading from the socket when it holds twice as much: an answer comes in few pieces
_READ_BUFFER_BYTES = 4 * 1024 * 1024
_MAX_HEADER_BYTES = 64 * 1024
_CONNECT_TIMEOUT_S = 20.0
_HEALTH_TIMEOUT_S = 5.0
# A server that asks for a longer wait than this is asked again anyway.
_MAX_RETRY_AFTER_S = 120.0
# One that does not say how long is asked again at least so often: quotas are mostly of a minute.
_MAX_BUSY_PAUSE_S = 15.0
_FIRST_CHECK_S = 0.2
_MAX_CHECK_S = 3.0
_LOG_EVERY_S = 10.0
# this many failures in a row set a server aside, if another one is there to take its work
_FAILURES_UNTIL_ASIDE = 3


class Kind(Enum):
    """What a failed attempt means for the next step."""

    REFUSED = "the request is wrong; a retry would fail, too"
    TRANSIENT = "it may be over next time, or one of the request's items causes it"
    BUSY = "the server takes no requests at the moment"
    DOWN = "the server is not there, or its engine died; it has to come back first"


class Failure(Exception):  # noqa: N818 -- never leaves the wire
    """An attempt without a complete 2xx answer.

    Attributes:
        kind: What it means for the next step.
        error: The error to raise if nothing helps.
        retry_after_s: Seconds that the server asked to be left alone, or None.
        strange: Nothing at this address has ever answered, and nothing says that a server is about to: it is more
            likely a wrong address than a server to wait for.
        broke: The connection broke while the server worked on the request, or its engine died: the request may be why.
    """

    def __init__(
        self,
        kind: Kind,
        error: ServerError,
        *,
        retry_after_s: float | None = None,
        strange: bool = False,
        broke: bool = False,
    ) -> None:
        super().__init__(str(error))
        self.kind = kind
        self.error = error
        self.retry_after_s = retry_after_s
        self.strange = strange
        self.broke = broke


class Server:
    """One server and what is known of its condition.

    Attributes:
        shown: Address as it may be printed.
        secrets: Strings that must be masked in whatever is printed or written.
        usage: Its counters.
        slots: The limit on requests in flight.
        up: Whether it is given work.
        not_before: Reading of ``time.monotonic`` until which it asked to be left alone.
        next_check: When it is asked again whether it is back; only while it is not up.
        trouble_since: Start of the time since which it has failed without a good answer in between, or None.
        busy_since: Start of the time since which it has said that it takes no requests, or None.
        answered: By path, when the latest request that it answered was sent.
        downs: How often it went away.
        reason: Its last failure.
        watcher: The task that waits for its return, or None.
    """

    def __init__(self, connection: Connection, base: str, usage: ServerUsage) -> None:
        self.shown = public_base(base)
        self.usage = usage
        self.slots = slots_of(self.shown, connection.max_concurrency)
        self.up = True
        self.not_before = 0.0
        self.next_check = 0.0
        self.trouble_since: float | None = None
        self.busy_since: float | None = None
        self.answered: dict[str, float] = {}
        self.downs = 0
        self.reason: ServerError | None = None
        self.failures = 0
        self.watcher: asyncio.Task[None] | None = None
        self._check_delay = _FIRST_CHECK_S
        self._down_since = 0.0
        self._last_log = 0.0
        self._pauses = 0
        self._headers = {"Accept-Encoding": "identity", **connection.request_headers(base)}
        self._health_timeout_s = min(_HEALTH_TIMEOUT_S, connection.timeout_s)
        self._base = base
        # made here so that a wrong certificate file or proxy is an error before the first task
        self._tls = _ssl_context(connection.verify) if base.startswith("https:") else False
        if self._tls and connection.verify is False:
            logger.warning("%s: its certificate is not checked (verify: false)", self.shown)
        self._proxy = _proxy_for(connection, base)
        self._through_proxy: dict[str, Any] = {}
        if self._proxy is not None:
            headers = _proxy_headers(self._proxy)
            self._through_proxy = {"proxy": public_base(self._proxy), "proxy_headers": headers}
            if base.startswith("http:"):
                # without a tunnel there is one request, the server's, and its headers are what the proxy reads
                self._headers.update(headers)
        self.secrets = connection.secrets() + _proxy_secrets(self._proxy)
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"Server({self.shown}, {'up' if self.up else 'down'})"

    # -- one request ---------------------------------------------------------------------------------------------

    async def ask(self, method: str, request: Request, body: bytes | None, *, timeout_s: float) -> Answer:
        """Sends one request and returns its complete 2xx answer.

        Raises:
            Failure: There is none; whatever the server or the network did.
        """
        usage = self.usage
        usage.requests += 1
        sent = time.monotonic()
        try:
            status, headers, data = await self._exchange(method, request.path, body, timeout_s)
            self._check(status, headers, data, request)
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError) as error:
            raise self._failure(error, request, timeout_s) from None
        usage.answers += 1
        self.answered[request.path] = max(sent, self.answered.get(request.path, sent))
        return Answer(status, headers, data, self.shown, time.monotonic() - sent)

    def has_answered(self, path: str, since: float) -> bool:
        """Whether it answered a request for ``path`` that was sent after ``since``; an older one tells nothing new."""
        return self.answered.get(path, 0.0) > since

    async def is_healthy(self) -> bool:
        """Whether the server is there and does not say that its engine is dead.

        ``GET /health`` answers 503 on a vLLM whose engine died; a server without that endpoint answers 404, which is
        a sign of life. A LiteLLM calls all its upstreams for it, so its cheap endpoint, which others lack, comes first.
        """
        status = 0
        for path in ("/health/liveliness", "/health"):
            try:
                status, _, data = await self._exchange("GET", path, None, self._health_timeout_s)
            except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError):
                return False
            if path != "/health" and (status in {502, 503, 504} or b"alive" in data[:200]):
                break
        return status < 500

    async def close(self) -> None:
        """Closes the connections; the next request opens new ones."""
        if self.watcher is not None:
            self.watcher.cancel()
            self.watcher = None
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _exchange(self, method: str, path: str, body: bytes | None, timeout_s: float) -> tuple[int, Any, bytes]:
        if self._session is None or self._loop is not asyncio.get_running_loop():
            # of another loop: left by a fork, and not to be closed here
            self._session, self._loop = self._open(), asyncio.get_running_loop()
        async with self._session.request(
            method,
            # as it stands: what a user wrote in percent-encoding stays so
            URL(endpoint(self._base, path), encoded=True),
            data=body,
            headers=None if body is None else {"Content-Type": "application/json"},
            allow_redirects=False,
            # connecting ends first, so that the two kinds of timeout can be told apart
            timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(0.95 * timeout_s, _CONNECT_TIMEOUT_S)),
            **self._through_proxy,
        ) as response:
            limit = MAX_ANSWER_BYTES if 200 <= response.status < 300 else _MAX_REFUSAL_BYTES
            return response.status, response.headers, await _read(response, limit)

    def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls or True, resolver=_Resolver()),
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=_READ_BUFFER_BYTES,
            # proxies add cookies and policies of any length
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
        )

    def _check(self, status: int, headers: Any, data: bytes, request: Request) -> None:
        """Raises what a complete answer means when it is none that was asked for."""
        path = request.path
        if 200 <= status < 300:
            if len(data) > MAX_ANSWER_BYTES:
                msg = f"{self.shown}{path}: the answer has more than {MAX_ANSWER_BYTES} bytes; make batch_size smaller"
                raise Failure(Kind.REFUSED, BadAnswerError(msg, server=self.shown, status=status, path=path))
            return
        message = read_error(status, data, headers.get("Content-Type", ""))
        refused = refusal(
            status,
            message,
            server=self.shown,
            path=path,
            describe=request.described,
            secrets=self.secrets,
            location=headers.get("Location", ""),
        )
        if is_engine_dead(message):
            raise Failure(Kind.DOWN, refused, broke=True)
        if status in BUSY_STATUS:
            asked = _asked_patience(headers, message)
            empty = status == 429 and asked is None and is_out_of_quota(message)
            raise Failure(Kind.REFUSED if empty else Kind.BUSY, refused, retry_after_s=asked)
        # llama.cpp refuses a long text with 500
        passing = status in FAULT_STATUS and not isinstance(refused, InputTooLongError)
        raise Failure(Kind.TRANSIENT if passing else Kind.REFUSED, refused)

    def _failure(self, error: BaseException, request: Request, timeout_s: float) -> Failure:
        """Says what an exception of the connection means."""
        chain = list(_chain(error))
        path, described = request.path, request.described
        about = f" for {described}" if described else ""
        where = f"{self.shown}{path}"
        through = " through the proxy of the environment" if self._proxy is not None else ""
        fields: dict[str, Any] = {"server": self.shown, "path": path}

        def unreachable(what: str) -> ServerUnreachableError:
            return ServerUnreachableError(f"{where}{about}: {what}{through}", **fields)

        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            reason = clean(_certificate_reason(chain), self.secrets, 300)
            what = f"its certificate is not trusted ({reason}). Set verify to the authority's PEM file, or to false"
            return Failure(Kind.REFUSED, unreachable(what))
        if any(isinstance(e, ssl.SSLError) and "WRONG_VERSION_NUMBER" in str(e).upper() for e in chain):
            return Failure(Kind.REFUSED, unreachable("it does not speak TLS; write http:// instead of https://"))
        if any(isinstance(e, socket.gaierror) for e in chain):
            return self._gone(unreachable("no machine of this name is known; check api_base"))
        if any(isinstance(e, ConnectionRefusedError) for e in chain):
            return Failure(Kind.DOWN, unreachable("connection refused; is the server running there?"))
        codes = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN}
        if any(isinstance(e, OSError) and e.errno in codes for e in chain):
            return self._gone(unreachable("the machine cannot be reached"))
        if any(isinstance(e, (asyncio.TimeoutError, TimeoutError)) for e in chain):
            if isinstance(error, aiohttp.ServerTimeoutError):
                return self._gone(unreachable("no connection within the time limit; check the address and firewalls"))
            message = f"{where} did not answer{about} within {timeout_s:g} s (timeout_s){through}"
            return Failure(Kind.TRANSIENT, ServerTimeoutError(message, **fields))
        reason = clean(_reason(chain), self.secrets, 200)
        proxy = isinstance(error, (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError))
        if proxy:
            return Failure(Kind.TRANSIENT, unreachable(f"the proxy failed: {reason}"))
        return Failure(Kind.TRANSIENT, unreachable(f"the connection broke: {reason}"), broke=True)

    def _gone(self, error: ServerError) -> Failure:
        """The machine cannot be reached: waited for if it ever answered, else the address is probably wrong."""
        return Failure(Kind.DOWN, error) if self.answered else Failure(Kind.TRANSIENT, error, strange=True)

    # -- its condition -------------------------------------------------------------------------------------------

    def new_run(self) -> None:
        """A run begins: the time that it has to come back counts from now, and it is asked at once."""
        self.trouble_since = None if self.up else time.monotonic()
        self.next_check = 0.0

    def worked(self) -> None:
        """It gave an answer that only a working server gives."""
        if not self.up:
            return  # the answer is older than the failure
        self.failures = 0
        self.trouble_since = None
        self._check_delay = _FIRST_CHECK_S
        if self.busy_since is not None:
            logger.warning("%s takes requests again after %.0f s; continuing", self.shown, self._busy_for())
            self.busy_since = None
            self._pauses = 0

    def is_busy(self, failure: Failure, *, sent: float, wait_s: float, unit_s: float) -> bool:
        """It takes no requests at the moment: all are held back for as long as it asks, or ever longer where it does not.

        Args:
            failure: What it said.
            sent: When the request that it refused was sent; one sent before the last refusal says nothing new.
            wait_s: How long one waits for it, in all.
            unit_s: The first wait, where it asks for none.

        Returns:
            False: it has refused for longer than one waits.
        """
        now = time.monotonic()
        if self.busy_since is None:
            self.busy_since, self._last_log = sent, 0.0
        left = self.busy_since + wait_s - now
        if left <= 0:
            return False
        if sent >= self.not_before:
            own_s = min(unit_s * 2**self._pauses, _MAX_BUSY_PAUSE_S)
            asked_s = failure.retry_after_s
            pause_s = min(left, own_s if asked_s is None else max(asked_s, unit_s))
            self._pauses += 1
            self.not_before = now + pause_s
            self.usage.waited_seconds += pause_s
            if now - self._last_log >= _LOG_EVERY_S:
                self._last_log = now
                logger.warning(
                    "%s; waiting %.1f s, so far %.0f s of at most %.0f s",
                    failure.error,
                    pause_s,
                    self._busy_for(),
                    wait_s,
                )
        return True

    def _busy_for(self) -> float:
        return 0.0 if self.busy_since is None else time.monotonic() - self.busy_since

    def failed(self, failure: Failure, *, others: bool) -> None:
        """It failed transiently; repeated failures set it aside if there are others to take its work."""
        if failure.retry_after_s is not None:
            self.not_before = max(self.not_before, time.monotonic() + failure.retry_after_s)
        self.failures += 1
        if self.up:
            self.reason = failure.error
        if others and self.failures >= _FAILURES_UNTIL_ASIDE and self.up:
            logger.warning(
                "%s failed %d times in a row and is left out for now: %s", self.shown, self.failures, failure.error
            )
            self._set_aside()

    def went_down(self, reason: ServerError, then: str) -> None:
        """It is not there, or its engine is dead; ``then`` says what is done about it."""
        if self.up:
            self.downs += 1
            logger.warning("%s; %s", reason, then)
        self.reason = reason
        self._set_aside()

    async def checked(self, *, wait_s: float, others: bool) -> None:
        """Asks whether it is back."""
        self._check_delay = min(self._check_delay * 1.5, _MAX_CHECK_S)
        if await self.is_healthy():
            self.up = True
            self.failures = 0
            away = time.monotonic() - self._down_since
            self.usage.down_seconds += away
            logger.warning("%s is back after %.0f s; continuing", self.shown, away)
            return
        now = time.monotonic()
        self.next_check = now + self._check_delay
        if now - self._last_log < _LOG_EVERY_S:
            return
        self._last_log = now
        away = now - (self.trouble_since if self.trouble_since is not None else now)
        if others:
            logger.warning("%s is still left out after %.0f s: %s", self.shown, away, self.reason)
        else:
            logger.warning("waiting for %s, %.0f s of at most %.0f s so far: %s", self.shown, away, wait_s, self.reason)

    def is_given_up(self, wait_s: float) -> bool:
        """Whether it has been away for longer than one waits."""
        return not self.up and self.trouble_since is not None and time.monotonic() - self.trouble_since >= wait_s

    def _set_aside(self) -> None:
        now = time.monotonic()
        if self.trouble_since is None:
            self.trouble_since = now
        if self.up:
            self.up = False
            self._down_since = now
            self._last_log = now
            self.next_check = now + self._check_delay


def given_up(servers: list[Server], wait_s: float) -> ServerError:
    """Returns the error for servers none of which came back in time."""
    reasons = [server.reason for server in servers if server.reason is not None]
    last = reasons[-1] if reasons else ServerUnreachableError("no server can be reached")
    names = ", ".join(server.shown for server in servers)
    kind = EngineDeadError if isinstance(last, EngineDeadError) else ServerUnreachableError
    return kind(
        f"{names} did not come back within {wait_s:.0f} s (wait_for_server_s). Last seen: {last} "
        "Finished requests are kept; start the server and run the same command again.",
        server=last.server,
        status=last.status,
        server_message=last.server_message,
        path=last.path,
    )


class _Resolver(AbstractResolver):
    """Looks names up in threads that keep no process alive, unlike those of the event loop's own executor."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Returns the addresses of a name.

        Raises:
            OSError: It has none.
        """
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[Any]] = loop.create_future()

        def settle(answer: list[Any] | OSError) -> None:
            if found.done():
                return
            if isinstance(answer, OSError):
                found.set_exception(answer)
            else:
                found.set_result(answer)

        def look_up() -> None:
            answer: list[Any] | OSError
            try:
                answer = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
            except OSError as error:
                answer = error
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, answer)

        threading.Thread(target=look_up, name="vacc-look-up", daemon=True).start()
        numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
        return [
            ResolveResult(
                hostname=host,
                host=socket.getnameinfo(address, numeric)[0],
                port=address[1],
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in await found
        ]

    async def close(self) -> None:
        """There is nothing to close."""


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Reads a body of at most ``limit`` bytes; more says that it is longer, and the rest is left unread."""
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            response.close()
            break
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an exception and everything inside it, outermost first."""
    seen: set[int] = set()
    queue: list[Any] = [error]
    while queue:
        current = queue.pop(0)
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        queue += [*current.args, getattr(current, "os_error", None), getattr(current, "certificate_error", None)]
        queue += [current.__cause__, None if current.__suppress_context__ else current.__context__]


def _reason(chain: list[BaseException]) -> str:
    """The innermost words of a chain of exceptions."""
    if isinstance(chain[0], aiohttp.ServerDisconnectedError):
        return "the server closed it before its answer was complete"
    said = (getattr(e, "message", "") or str(e) for e in reversed(chain))
    return f"{type(chain[-1]).__name__}: {' '.join(next(filter(None, said), '').split())}"


def _certificate_reason(chain: list[BaseException]) -> str:
    inner = next((e for e in chain if isinstance(e, (ssl.SSLError, ssl.CertificateError))), chain[-1])
    return getattr(inner, "verify_message", "") or str(inner)


def _asked_patience(headers: Any, message: str) -> float | None:
    """Returns the seconds for which a busy server asks to be left alone, bounded; None where it does not say.

    ``Retry-After`` (RFC 9110) and ``retry-after-ms`` (Azure), the words of the message (Gemini), and OpenAI's
    ``x-ratelimit-reset-*`` of what has run out.
    """
    milliseconds = _retry_after(headers.get("retry-after-ms"))
    asked = _retry_after(headers.get("Retry-After"))
    if milliseconds is not None:
        asked = milliseconds / 1000
    if asked is None:
        asked = seconds_asked_for(message)
    if asked is None:
        resets = [
            read_duration(headers.get(f"x-ratelimit-reset-{what}", ""))
            for what in ("requests", "tokens")
            if headers.get(f"x-ratelimit-remaining-{what}") == "0"
        ]
        asked = max((reset for reset in resets if reset is not None), default=None)
    return None if asked is None else min(asked, _MAX_RETRY_AFTER_S)


def _retry_after(value: str | None) -> float | None:
    """Seconds out of a Retry-After header (a number or a date); None where it says nothing."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


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
    # requests knows no_proxy with networks (10.0.0.0/8), which neither aiohttp nor the standard library does
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


def _proxy_headers(proxy: str) -> dict[str, str]:
    user = user_info(proxy)
    return {} if user is None else {"Proxy-Authorization": "Basic " + basic(*user)}


def _proxy_secrets(proxy: str | None) -> tuple[str, ...]:
    user = user_info(proxy) if proxy is not None else None
    return () if user is None or not user[1] else (user[1],)
