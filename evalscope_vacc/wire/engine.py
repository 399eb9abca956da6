"""One engine for everything that is sent: many requests in flight, none lost, none repeated without need.

Two threads share the work. The caller's thread makes requests and reads answers. An event loop in a thread of its own
sends and receives; one coroutine there is the whole life of a request, from its wait for a slot to its answer, its
retries included. There are always as many prepared requests waiting as there are slots, so the next request leaves
before the last answer is decoded; and never more than a few times as many requests exist at all, so memory does not
grow with the corpus.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import queue
import random
import selectors
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from evalscope_vacc.errors import (
    AuthenticationError,
    BadAnswerError,
    ConfigError,
    EngineDeadError,
    InputTooLongError,
    ModelNotServedError,
    NotFiniteError,
    RequestRefusedError,
    RunInterrupted,
    ServerError,
    ServerUnreachableError,
)
from evalscope_vacc.interrupts import next_kills
from evalscope_vacc.wire.address import normalize_base, public_base
from evalscope_vacc.wire.limits import BatchLimits
from evalscope_vacc.wire.messages import Answer, Connection, Request
from evalscope_vacc.wire.refusals import SPLITTABLE_STATUS, token_limit, with_context
from evalscope_vacc.wire.server import Failure, Kind, Server, given_up
from evalscope_vacc.wire.usage import ServerUsage, Usage

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Answer", "Connection", "Engine", "Request", "ServerUsage", "Usage"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MAX_BACKOFF_S = 30.0
_WATCH_S = 0.2
_WAIT_S = 0.5
# coroutines get this long to end; what is left then is a look-up of a name
_CANCEL_S = 1.5


class Engine:
    """Sends the requests of one model to its servers, ``max_concurrency`` at a time to each.

    A server that refuses connections or whose engine died is waited for; with several servers its work goes to the
    others meanwhile. Connections stay open between runs, threads do not. Safe for several threads.

    Args:
        connection: Where the servers are, and how patient to be.
        backoff_s: Unit of the exponential backoff between retries: about this long after the first failure, twice as
            long after each further one, at most half a minute.

    Attributes:
        usage: Counters over everything that was sent.
        limits: What the servers take in one request.
    """

    def __init__(self, connection: Connection, *, backoff_s: float = 0.5) -> None:
        self._connection = connection
        self._backoff_s = backoff_s
        self.usage = Usage({public_base(base): ServerUsage(public_base(base)) for base in connection.bases})
        self._servers = [Server(connection, base, self.usage.servers[public_base(base)]) for base in connection.bases]
        self._dispatcher = _Dispatcher(self._servers)
        self.limits = BatchLimits()
        self._loop = _LoopThread()
        self._runs: set[_Run] = set()
        self._lock = threading.Lock()
        self._streams = 0
        self._counted_until = 0.0
        # a model that nobody closes must not leave sockets behind, nor aiohttp's complaint about them
        weakref.finalize(self, _close_all, self._loop, self._servers)

    def __repr__(self) -> str:
        return f"Engine({self._connection!r})"

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
        return tuple(dict.fromkeys(secret for server in self._servers for secret in server.secrets))

    def close(self) -> None:
        """Cancels what is in flight and closes the connections. The engine can be used again and opens new ones."""
        for run in list(self._runs):
            self._end(run)
        _close_all(self._loop, self._servers)

    def stream(
        self, requests: Iterable[Request], parse: Callable[[Request, Answer], T]
    ) -> Generator[tuple[Request, T], None, None]:
        """Sends requests and yields each with its parsed answer, in the order in which the answers come.

        Everything but sending happens in the thread that iterates. Closing the generator cancels what is in flight.

        Args:
            requests: Pulled lazily, at most three times as many as there are slots at once.
            parse: Reads a complete 2xx answer. It may raise :class:`~evalscope_vacc.errors.BadAnswerError`: a
                retryable one sends the request again, another stops the run. Any other exception stops the run, too.

        Raises:
            ServerError: One that retries and waiting did not help.
            RunInterrupted: Ctrl-C; within 2 seconds no thread and no connection is left.
        """
        run = self._begin(self._servers)
        try:
            with self.stops_on_interrupt():
                yield from self._drive(run, iter(requests), parse)
        finally:
            self._end(run)

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
        """Sends one small request, beside the streams, and returns its answer.

        Args:
            method: "GET" or "POST".
            path: Behind the server's root.
            payload: JSON body of a POST.
            server: Address of the server to ask, in any spelling; None = any one.
            retry: Whether to repeat it after transient failures and to wait for the server, as a run does.
            timeout_s: Instead of the connection's.
            describe: What it is about, for an error.

        Raises:
            ServerError: There is no 2xx answer.
            RunInterrupted: Ctrl-C.
        """
        servers = self._servers if server is None else [self._find(server)]
        patience: dict[str, Any] = {} if retry else {"wait_s": 0.0, "retries": 0}
        if timeout_s is not None:
            patience["timeout_s"] = timeout_s
        run = self._begin(servers, method=method, timed=False, **patience)
        request = Request(path, dict(payload or {}), 0, describe=describe)
        try:
            with self.stops_on_interrupt():
                return next(self._drive(run, iter([request]), lambda _, answer: answer))[1]
        finally:
            self._end(run)

    @contextmanager
    def stops_on_interrupt(self) -> Iterator[None]:
        """Turns Ctrl-C inside the block into an orderly end: everything cancelled, every connection closed.

        Raises:
            RunInterrupted: There was a Ctrl-C; a second one meanwhile ends the process.
        """
        try:
            yield
        except KeyboardInterrupt:
            with next_kills():
                self.close()
            raise RunInterrupted from None

    # -- the caller's thread -------------------------------------------------------------------------------------

    def _begin(self, servers: list[Server], **options: Any) -> _Run:
        connection = self._connection
        patience = {
            "timeout_s": connection.timeout_s, "wait_s": connection.wait_for_server_s,
            "busy_s": connection.wait_for_server_s, "retries": connection.retries,
        }  # fmt: skip
        run = _Run(self._loop.enter(), servers, **{**patience, **options})
        self._runs.add(run)
        self._clock(run)

        def ask_anew() -> None:
            for server in servers:
                server.new_run()
            self._watch(run.wait_s)

        run.loop.call_soon_threadsafe(ask_anew)
        return run

    def _end(self, run: _Run) -> None:
        """Cancels what is in flight and waits for its end; more than once is once."""
        if run.over:
            return
        run.over = True
        here = self._loop.is_here()
        try:
            if here:
                # the garbage collector came upon a stream in the loop's own thread, which must not wait for itself
                for task in list(run.tasks):
                    task.cancel()
            elif run.tasks:
                ended = asyncio.run_coroutine_threadsafe(run.cancelled(), run.loop)
                with suppress(concurrent.futures.TimeoutError):
                    ended.result(_CANCEL_S)
        finally:
            self._runs.discard(run)
            self._clock(run)
            if here:
                threading.Thread(target=self._loop.leave, daemon=True).start()
            else:
                self._loop.leave()

    def _clock(self, run: _Run) -> None:
        """Counts the time in which there is a stream, once however many there are."""
        if not run.timed:
            return
        with self._lock:
            now = time.perf_counter()
            if self._streams:
                self.usage.seconds += now - self._counted_until
            self._counted_until = now
            self._streams += -1 if run.over else 1

    def _submit(self, run: _Run, job: _Job, failure: Failure | None = None, of: Server | None = None) -> None:
        """Sends a job; again after ``failure`` of server ``of``."""

        def start() -> None:
            if not run.over:
                task = run.loop.create_task(self._send(run, job, failure, of))
                run.tasks.add(task)
                task.add_done_callback(run.tasks.discard)

        if run.over:
            raise RunInterrupted
        run.loop.call_soon_threadsafe(start)

    def _drive(
        self, run: _Run, requests: Iterator[Request], parse: Callable[[Request, Answer], T]
    ) -> Iterator[tuple[Request, T]]:
        # in flight + prepared + answered
        window = 3 * self._connection.max_concurrency * len(run.servers)
        outstanding = 0
        ready: deque[_Job] = deque()  # parts of divided requests; they go before new ones
        tried: _Job | None = None  # nothing else is sent until its outcome is known
        while True:
            while outstanding < window and tried is None:
                if not ready:
                    ready.extend(_Job(request, run.retries) for request in islice(requests, 1))
                if not ready:
                    break
                job = ready.popleft()
                parts = self.limits.divided(job.request)
                if len(parts) > 1:
                    ready.extendleft(_Job(part, run.retries, ahead=job.ahead) for part in reversed(parts))
                    continue
                tried = job if job.last_try or self.limits.is_untried(job.request) else None
                self._submit(run, job)
                outstanding += 1
            if not outstanding:
                return
            job, outcome = run.next_done()
            if isinstance(outcome, Answer):
                try:
                    parsed = parse(job.request, outcome)
                except (BadAnswerError, EngineDeadError) as error:
                    job.ahead = True
                    self._submit(run, job, self._misread(error, job, outcome), self._find(outcome.server))
                    continue
            outstanding -= 1
            tried = None if job is tried else tried
            if not isinstance(outcome, Answer):
                ready.extendleft(reversed(self._divided(run, job, outcome)))
                continue
            self._worked(run, job.request, self._find(outcome.server))
            yield job.request, parsed

    def _worked(self, run: _Run, request: Request, server: Server) -> None:
        """Notes a request whose answer could be read."""
        self.limits.answered(request, server.shown)
        server.usage.items += request.items
        if server.failures or server.trouble_since is not None or server.busy_since is not None:
            run.loop.call_soon_threadsafe(server.worked)

    def _misread(self, error: BadAnswerError | EngineDeadError, job: _Job, answer: Answer) -> Failure:
        """Says what an answer that cannot be read means; raises when asking again gives the same."""
        request = job.request
        told = with_context(error, answer, request.path, self._find(answer.server).secrets, request.described)
        if isinstance(error, EngineDeadError):
            return Failure(Kind.DOWN, told, broke=True)
        if isinstance(error, NotFiniteError) and not job.not_finite:
            job.not_finite = True
            logger.warning("%s; retried once", told)
            return Failure(Kind.TRANSIENT, told)
        if error.retryable:
            return Failure(Kind.TRANSIENT, told)
        # not "from error": its words are the server's and may repeat the key
        raise told from None

    def _divided(self, run: _Run, job: _Job, error: BaseException) -> Sequence[_Job]:
        """Returns what to send instead of a request that failed because of one of its items, or of its size.

        Raises:
            BaseException: ``error``, when that item is found, or dividing does not help.
        """
        request = job.request
        if isinstance(error, _Suspect):
            since = time.monotonic()
            return [_Job(part, run.retries, ahead=True, alone_since=since) for part in _singles(request)]
        if isinstance(error, RequestRefusedError) and request.shorten is not None:
            limit = token_limit(error.server_message)
            shorter = None if limit is None else request.shorten(limit)
            if shorter is not None:
                return [_Job(shorter, run.retries, ahead=True)]
        if isinstance(error, ServerError) and not job.last_try and _may_be_an_item(error):
            parts = list(request.split()) if request.split is not None and request.items > 1 else []
            if len(parts) > 1:
                return self._parts(run, job, error, parts)
        self.limits.forget(request.path)
        refused = isinstance(error, RequestRefusedError) and not isinstance(error, InputTooLongError)
        if refused and _may_be_an_item(error) and not self.limits.has_answered(request.path):
            note = " No request of this run has succeeded yet: the reason may be the request, not this item."
            error.args = (str(error) + note, *error.args[1:])
        raise error

    def _parts(self, run: _Run, job: _Job, error: ServerError, parts: list[Request]) -> Sequence[_Job]:
        request = job.request
        logger.info("%s%s refuses %d items at once; looking for the one", error.server, error.path, request.items)
        self.usage.splits += 1
        if isinstance(error, RequestRefusedError):
            self.limits.refused(request, error)
            if self.limits.has_answered(request.path):
                return [_Job(part, run.retries, ahead=True) for part in parts]
        elif job.left > 0:
            return [_Job(part, run.retries, ahead=True) for part in parts]
        # one item alone shows whether the server refuses, or fails with, whatever it is sent
        first, *rest = _one_first(request)
        return [
            _Job(first, min(run.retries, 1), ahead=True, last_try=True),
            *(_Job(part, run.retries, ahead=True) for part in rest),
        ]

    def _find(self, server: str) -> Server:
        for known in self._servers:
            if known.shown == server:
                return known
        wanted = public_base(normalize_base(server))
        for known in self._servers:
            if known.shown == wanted:
                return known
        raise ConfigError(f"{wanted} is not one of the servers of this model: {', '.join(self.servers)}")

    # -- the event loop ------------------------------------------------------------------------------------------

    async def _send(self, run: _Run, job: _Job, failure: Failure | None, of: Server | None) -> None:
        """The life of a request; what comes of it goes to the caller's thread."""
        outcome: Answer | BaseException
        try:
            if failure is not None and of is not None:
                await asyncio.sleep(await self._after(run, job, of, failure, time.monotonic()))
            outcome = await self._answer(run, job)
        except Failure as refused:
            outcome = refused.error
        except Exception as error:  # noqa: BLE001 -- also a defect of ours reaches the caller
            outcome = error
        run.done.put((job, outcome))

    async def _answer(self, run: _Run, job: _Job) -> Answer:
        body = None if run.method == "GET" else job.body
        while True:
            if job.is_suspect():
                raise _Suspect
            server = await self._dispatcher.slot(run, job)
            sent = time.monotonic()
            job.downs = server.downs
            try:
                return await server.ask(run.method, job.request, body, timeout_s=run.timeout_s)
            except Failure as failure:
                # before the slot is free: the next request must not meet a server that asked to be left alone
                pause_s = await self._after(run, job, server, failure, sent)
            finally:
                self._dispatcher.give_back(server, job)
            await asyncio.sleep(pause_s)

    async def _after(self, run: _Run, job: _Job, server: Server, failure: Failure, sent: float) -> float:
        """Notes a failure and returns the seconds until the next attempt.

        Raises:
            Failure: Nothing helps, or no retry is left.
        """
        if failure.kind is Kind.REFUSED:
            server.failures = 0
            raise failure
        if failure.broke:
            await self._accuse(job, server, failure)
        # while others are answered, it is this request and not the server
        others_answered = job.failed_at is not None and server.has_answered(job.request.path, job.failed_at)
        job.failed_at = job.failed_at or time.monotonic()
        job.avoid = server
        server.usage.retries += 1
        if failure.kind is Kind.BUSY and run.busy_s > 0 and not (others_answered and failure.error.status != 429):
            return self._leave_alone(run, job, server, failure, sent)
        down = failure.kind is Kind.DOWN
        if not down and job.left == 0 and not failure.strange and run.wait_s > 0:
            # it keeps failing; if it is unhealthy, too, the server is waited for
            down = not await server.is_healthy()
        others = any(other.up for other in run.servers if other is not server)
        pause_s = 0.0
        if down and (others or run.wait_s > 0):
            server.went_down(failure.error, "set aside" if others else f"waiting up to {run.wait_s:.0f} s for it")
            job.left = run.retries
        else:
            server.failed(failure, others=others)
            again = job.left > 0 and not (others_answered and job.request.items > 1 and _may_be_an_item(failure.error))
            if not again:
                server.usage.retries -= 1
                raise failure
            job.left -= 1
            pause_s = self._backoff(run.retries - job.left)
            logger.info("retry (%d of %d left): %s", job.left, run.retries, failure.error)
        self._watch(run.wait_s)
        return pause_s

    def _leave_alone(self, run: _Run, job: _Job, server: Server, failure: Failure, sent: float) -> float:
        """Has the dispatcher send nothing to a busy server for a while; the job waits at the front."""
        job.ahead = True
        if server.is_busy(failure, sent=sent, wait_s=run.busy_s, unit_s=self._backoff_s):
            return 0.0
        error = failure.error
        words = (
            f"{error} It has taken no requests for {run.busy_s:.0f} s (wait_for_server_s). Finished requests are kept."
        )
        error.args = (words, *error.args[1:])
        raise failure

    async def _accuse(self, job: _Job, server: Server, failure: Failure) -> None:
        """Notes that the server may have died of a request.

        If it is found to be away, its items are sent one by one, each as the only request in flight; the one at which
        the server dies again is the reason.

        Raises:
            Failure: This is the one.
        """
        job.broke = (server, job.downs)
        if job.alone_since is None or (failure.kind is not Kind.DOWN and await server.is_healthy()):
            return
        if not server.has_answered(job.request.path, job.alone_since):
            # it may die of whatever it is sent: the others first
            job.ahead = False
            return
        error = failure.error
        what = job.request.described or "this item"
        words = (
            f"{error} The server went away twice at {what}, the second time with nothing else to do: it is not retried."
        )
        error.args = (words, *error.args[1:])
        server.went_down(error, "this item is given up")
        raise Failure(Kind.REFUSED, error)

    def _backoff(self, attempt: int) -> float:
        """Seconds until a request is sent again: exponential, bounded, and spread so that they do not come together."""
        seconds = min(self._backoff_s * 2 ** (attempt - 1), _MAX_BACKOFF_S)
        return float(seconds * random.uniform(0.5, 1.0))  # noqa: S311

    def _watch(self, wait_s: float) -> None:
        """Has somebody look after each server that is down."""
        for server in self._servers:
            if not server.up and (server.watcher is None or server.watcher.done()):
                server.watcher = asyncio.get_running_loop().create_task(self._bring_back(server, wait_s))

    async def _bring_back(self, server: Server, wait_s: float) -> None:
        while not server.up:
            if server.next_check <= time.monotonic():
                others = any(other.up for other in self._servers if other is not server)
                await server.checked(wait_s=wait_s, others=others)
            else:
                await asyncio.sleep(min(_WATCH_S, max(0.0, server.next_check - time.monotonic())))
            self._dispatcher.give_up()
        self._dispatcher.hand_out()


@dataclass(eq=False)
class _Job:
    """A request and its history.

    Attributes:
        request: What to send.
        left: Retries that are left.
        ahead: Whether it goes before others.
        alone_since: Since when it must be the only request in flight at its server; None: it need not be.
        last_try: Whether it shows, for a request that is to be divided, that dividing helps.
        avoid: The server that failed with it last.
        failed_at: When the first attempt failed.
        downs: How often its server had gone away when it was sent.
        broke: The server whose connection broke with it, and ``downs`` of that attempt.
        not_finite: Whether an answer to it had NaN or infinity in it.
    """

    request: Request
    left: int
    ahead: bool = False
    alone_since: float | None = None
    last_try: bool = False
    avoid: Server | None = None
    failed_at: float | None = None
    downs: int = 0
    broke: tuple[Server, int] | None = None
    not_finite: bool = False

    def __post_init__(self) -> None:
        self.body = self.request.body()

    def is_suspect(self) -> bool:
        """Whether a server went away while it worked on this request, among others."""
        return self.alone_since is None and self.broke is not None and self.broke[0].downs > self.broke[1]


class _Suspect(Exception):  # noqa: N818 -- never leaves the engine
    """A server may have died of this request."""


@dataclass(eq=False)
class _Run:
    """What one call of :meth:`Engine.stream` or :meth:`Engine.call` has in the event loop.

    Attributes:
        loop: The event loop.
        servers: Those that may be asked.
        timeout_s: Seconds in which a request has to be answered completely.
        wait_s: Seconds to wait for a server that went away.
        busy_s: Seconds to wait for a server that takes no requests.
        retries: Retries of one request.
        method: "POST" or "GET".
        timed: Whether its time counts as that of a stream.
        done: What came of its jobs, for the caller's thread.
        tasks: The coroutines of its jobs.
        over: Whether it was cancelled or has ended.
    """

    loop: asyncio.AbstractEventLoop
    servers: list[Server]
    timeout_s: float
    wait_s: float
    busy_s: float
    retries: int
    method: str = "POST"
    timed: bool = True
    done: queue.SimpleQueue[tuple[_Job, Answer | BaseException]] = field(default_factory=queue.SimpleQueue)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    over: bool = False

    def next_done(self) -> tuple[_Job, Answer | BaseException]:
        """Waits for the next job that is done.

        Raises:
            RunInterrupted: The engine was closed meanwhile.
        """
        while not self.over:
            # not for ever at once: on some systems Ctrl-C is only noticed between two waits
            with suppress(queue.Empty):
                return self.done.get(timeout=_WAIT_S)
        raise RunInterrupted

    async def cancelled(self) -> None:
        """Cancels the coroutines and waits for their end; in the event loop."""
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(eq=False)
class _Turn:
    """A job that waits for a slot."""

    run: _Run
    job: _Job
    server: asyncio.Future[Server]


class _Dispatcher:
    """Gives free slots to the jobs that wait for one, in their order."""

    def __init__(self, servers: list[Server]) -> None:
        self._servers = servers
        self._turns: deque[_Turn] = deque()
        for server in servers:
            server.slots.wake = self.hand_out

    async def slot(self, run: _Run, job: _Job) -> Server:
        """Waits for a slot and returns its server; :meth:`give_back` frees it.

        Raises:
            ServerError: No server came back in time.
        """
        turn = _Turn(run, job, asyncio.get_running_loop().create_future())
        if job.ahead:
            self._turns.appendleft(turn)
        else:
            self._turns.append(turn)
        self.give_up()
        self.hand_out()
        try:
            return await turn.server
        except asyncio.CancelledError:
            if turn in self._turns:
                self._turns.remove(turn)
                self.hand_out()
            elif turn.server.done() and not turn.server.cancelled():
                self.give_back(turn.server.result(), job)
            raise

    def give_back(self, server: Server, job: _Job) -> None:
        """Frees a slot."""
        server.slots.give_back(_slots(server, job))
        server.usage.in_flight(server.slots.taken, full=server.slots.full)
        self.hand_out()

    def hand_out(self) -> None:
        """Gives every free slot away."""
        waited_for: set[Server] = set()  # of these nobody overtakes who waits for them
        for turn in tuple(self._turns):
            if turn.server.cancelled():
                continue
            server = self._pick(turn, waited_for)
            if server is None:
                waited_for.update(turn.run.servers)
                if len(waited_for) == len(self._servers):
                    break
                continue
            self._turns.remove(turn)
            server.usage.in_flight(server.slots.taken, full=server.slots.full)
            turn.server.set_result(server)
        if self._turns:
            self._hand_out_later()
        self._rest()

    def give_up(self) -> None:
        """Ends the wait of the jobs whose servers have been away for too long."""
        for turn in tuple(self._turns):
            gone = all(server.is_given_up(turn.run.wait_s) for server in turn.run.servers)
            if gone and not turn.server.cancelled():
                self._turns.remove(turn)
                turn.server.set_exception(given_up(turn.run.servers, turn.run.wait_s))
        self._rest()

    def _rest(self) -> None:
        """Leaves the slots that nobody waits for to other processes, where they share them."""
        if not self._turns:
            for server in self._servers:
                server.slots.rest()

    def _pick(self, turn: _Turn, waited_for: set[Server]) -> Server | None:
        """Takes a slot of the least busy server that is up, if there is one; not the one that just failed, if possible."""
        now = time.monotonic()
        ready = [s for s in turn.run.servers if s.up and s.not_before <= now and s not in waited_for]
        if len(ready) > 1:
            ready.sort(key=lambda s: (s is turn.job.avoid, s.slots.taken, s.usage.requests))
        return next((s for s in ready if s.slots.take(_slots(s, turn.job))), None)

    def _hand_out_later(self) -> None:
        """Looks again when a server that asked to be left alone may be asked again."""
        now = time.monotonic()
        later = [s.not_before for s in self._servers if s.up and s.not_before > now]
        if later:
            asyncio.get_running_loop().call_later(min(later) - now + 0.001, self.hand_out)


def _slots(server: Server, job: _Job) -> int:
    return 1 if job.alone_since is None else server.slots.limit


def _may_be_an_item(error: BaseException) -> bool:
    """Whether one item of a request may be the reason of a failure, so that the others would be answered without it."""
    if isinstance(error, (AuthenticationError, ModelNotServedError)):
        return False
    if isinstance(error, ServerUnreachableError):
        return True
    return isinstance(error, ServerError) and error.status in SPLITTABLE_STATUS


def _one_first(request: Request) -> list[Request]:
    """Divides a request so that the first part holds one item."""
    if request.split is None or request.items < 2:
        return [request]
    first, *rest = request.split()
    return [*_one_first(first), *rest]


def _singles(request: Request) -> list[Request]:
    if request.split is None or request.items < 2:
        return [request]
    return [single for part in request.split() for single in _singles(part)]


class _LoopThread:
    """An event loop whose thread lives only while somebody uses it; its connections stay open in between.

    A forked process leaves the loop to its parent and makes one of its own.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._users = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def enter(self) -> asyncio.AbstractEventLoop:
        """Returns the running loop; :meth:`leave` must follow."""
        if os.getpid() != self._pid:
            self._forget()
        with self._lock:
            if self._loop is None:
                self._loop = _new_loop()
            if self._users == 0:
                self._join()
                self._thread = threading.Thread(target=self._loop.run_forever, name="vacc-wire", daemon=True)
                self._thread.start()
            self._users += 1
            return self._loop

    def leave(self) -> None:
        """Stops the thread with its last user."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._loop is not None:
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._join()

    def is_here(self) -> bool:
        """Whether the caller is the loop's own thread."""
        return threading.current_thread() is self._thread

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def close(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs ``last`` in the loop, and closes the loop if nobody uses it."""
        if os.getpid() != self._pid or self._loop is None:
            return
        with self._lock:
            if self._users == 0 and not _in_a_loop():
                # in this thread: the interpreter may be at its end, when no thread can be started any more
                self._join()
                self._loop.run_until_complete(_bounded(last()))
                self._loop.close()
                self._loop = None
                return
        loop = self.enter()
        try:
            asyncio.run_coroutine_threadsafe(_bounded(last()), loop).result()
        finally:
            self.leave()


def _new_loop() -> asyncio.AbstractEventLoop:
    # poll keeps its list in the process; a forked one that ends would take descriptors out of an epoll set of both
    if hasattr(selectors, "PollSelector"):
        return asyncio.SelectorEventLoop(selectors.PollSelector())
    return asyncio.new_event_loop()


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _bounded(closing: Coroutine[Any, Any, None]) -> None:
    try:
        await asyncio.wait_for(closing, _CANCEL_S)
    except (TimeoutError, asyncio.TimeoutError):
        logger.warning("a connection could not be closed at once; it ends with the process")


def _close_all(loop: _LoopThread, servers: list[Server]) -> None:
    async def close() -> None:
        for server in servers:
            await server.close()
        await asyncio.sleep(0)  # the transports' own end

    loop.close(close)
