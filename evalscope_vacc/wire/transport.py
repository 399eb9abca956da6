"""Sends the requests of a model to its servers: many at once, none lost, none repeated without need.

The public face of the wire: :class:`Transport` and what it takes and gives.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from evalscope_vacc.errors import ConfigError, RunInterrupted
from evalscope_vacc.interrupts import next_kills
from evalscope_vacc.wire.address import normalize_base, public_base
from evalscope_vacc.wire.client import Client
from evalscope_vacc.wire.messages import Answer, Connection, Request
from evalscope_vacc.wire.runs import Run
from evalscope_vacc.wire.servers import Server
from evalscope_vacc.wire.usage import ServerUsage, Usage

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Answer", "Connection", "Request", "ServerUsage", "Transport", "Usage"]

logger = logging.getLogger(__name__)


class Transport:
    """Connections to the servers of one model; kept open between runs.

    Safe for several threads; each run has its own worker threads, and none is left when it returns.

    Args:
        connection: Where the servers are, and how patient to be.
        backoff_s: Unit of the exponential backoff between repetitions: about this long after the first failure, twice
            as long after each further one, at most half a minute.

    Attributes:
        usage: Counters over everything that was sent.
    """

    def __init__(self, connection: Connection, *, backoff_s: float = 0.5) -> None:
        self._connection = connection
        self._backoff_s = backoff_s
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self.usage = Usage({public_base(base): ServerUsage(public_base(base)) for base in connection.bases})
        # made here so that a wrong certificate file or proxy is an error before the first task
        self._servers = self._connect()
        self._closed = False

    def __repr__(self) -> str:
        return f"Transport({self._connection!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def servers(self) -> tuple[str, ...]:
        """Addresses of the servers, as they may be printed."""
        return tuple(self.usage.servers)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Strings that must be masked in whatever is printed or written; for :func:`evalscope_vacc.redact.clean`."""
        return tuple(dict.fromkeys(secret for server in self._servers for secret in server.client.secrets))

    def close(self) -> None:
        """Closes the connections. The transport can be used again and then opens new ones."""
        with self._work:
            self._closed = True
            for server in self._servers:
                server.client.close()

    def run(
        self,
        requests: Iterable[Request],
        handle: Callable[[Request, Answer], None],
        *,
        progress: Callable[[int], object] | None = None,
    ) -> None:
        """Sends requests, ``max_concurrency`` at a time to each server, and hands on the answers as they arrive.

        Requests are pulled in this thread, a few ahead of need. Answers come in any order. A server that refuses
        connections or whose engine died is waited for; with several servers its work goes to the others meanwhile.

        Args:
            requests: Pulled lazily, at most three times as many as there are slots at once.
            handle: Called in this thread with a request and its complete 2xx answer. It may raise
                :class:`~evalscope_vacc.errors.BadAnswerError`: a retryable one sends the request again, another stops
                the run. Any other exception stops the run, too.
            progress: Called in this thread with the number of items after each handled answer (``tqdm.update``).

        Raises:
            ServerError: One that retries and waiting did not help; everything under way is broken off.
            RunInterrupted: Ctrl-C; within 2 seconds no thread and no connection is left.
        """
        run = self._begin(self._servers)
        start = time.perf_counter()
        try:
            self._drive(run, requests, handle, progress)
        finally:
            self.usage.seconds += time.perf_counter() - start

    def call(
        self,
        method: str,
        path: str,
        payload: Mapping[str, Any] | None = None,
        *,
        server: str | None = None,
        retry: bool = True,
        timeout_s: float | None = None,
        describe: str = "",
    ) -> Answer:
        """Sends one small request beside the runs and returns its answer.

        Args:
            method: "GET" or "POST".
            path: Behind the server's root.
            payload: JSON body of a POST.
            server: Address of the server to ask, in any spelling; None = any one.
            retry: Whether to repeat it after passing failures and to wait for the server, as a run does.
            timeout_s: Instead of the connection's.
            describe: What it is about, for an error.

        Raises:
            ServerError: There is no 2xx answer.
            RunInterrupted: Ctrl-C.
        """
        request = Request(path, dict(payload or {}), 0, describe=describe)
        run = self._begin(
            [self._find(server)] if server is not None else self._servers,
            method=method,
            timeout_s=timeout_s,
            retry=retry,
            beside=True,
        )
        answers: list[Answer] = []
        self._drive(run, [request], lambda _, answer: answers.append(answer), None)
        return answers[0]

    def _begin(self, servers: list[Server], **options: Any) -> Run:
        with self._work:
            if self._closed:
                for server, fresh in zip(self._servers, self._connect(), strict=True):
                    server.client = fresh.client
                self._closed = False
            for server in servers:
                server.new_run()
        return Run(self._connection, servers, self._lock, self._work, self.usage, self._backoff_s, **options)

    def _drive(
        self,
        run: Run,
        requests: Iterable[Request],
        handle: Callable[[Request, Answer], None],
        progress: Callable[[int], object] | None,
    ) -> None:
        """Drives a run to its end, and leaves nothing of it behind however it ends."""
        try:
            run.drive(iter(requests), handle, progress)
            run.stop()
        except KeyboardInterrupt:
            with next_kills():
                run.stop()
                self.close()
            raise RunInterrupted from None
        except BaseException:
            run.stop()
            raise

    def _connect(self) -> list[Server]:
        connection = self._connection
        return [Server(Client(connection, base), self.usage.servers[public_base(base)]) for base in connection.bases]

    def _find(self, server: str) -> Server:
        wanted = public_base(normalize_base(server))
        for known in self._servers:
            if known.client.shown == wanted:
                return known
        raise ConfigError(f"{wanted} is not one of the servers of this model: {', '.join(self.servers)}")
