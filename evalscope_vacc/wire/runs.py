"""One run: the threads that send, the caller's thread that reads, and what happens between them.

The caller's thread pulls requests from its iterator and hands answers to ``handle``. Worker threads do nothing but
send and receive bytes. There are always as many prepared requests waiting as there are slots, so the next request
leaves before the last answer is decoded; and never more than a few times as many requests exist at all, so memory does
not grow with the corpus.
"""

from __future__ import annotations

import heapq
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from urllib3.exceptions import MaxRetryError
from urllib3.util import Retry

from evalscope_vacc.errors import BadAnswerError, EngineDeadError, InputTooLongError, ServerError
from evalscope_vacc.wire.client import Kind, Outcome
from evalscope_vacc.wire.jobs import Job, may_be_one_item
from evalscope_vacc.wire.messages import Answer, Connection, Request
from evalscope_vacc.wire.refusals import placed
from evalscope_vacc.wire.servers import Server, given_up, pick
from evalscope_vacc.wire.sockets import Attempt
from evalscope_vacc.wire.usage import Usage

logger = logging.getLogger(__name__)

_HEALTH_CHECK_S = 6.0
_MAX_BACKOFF_S = 30.0
# threads get this long to notice that their connections are gone; what is left then is a look-up of a name
_STOP_S = 1.5


class Run:
    """The work of one call of ``Transport.run`` or ``Transport.call``.

    Args:
        connection: Limits and patience.
        servers: Those that may be asked; their state is shared with other runs of the transport.
        lock: The transport's lock.
        work: Condition on it that the threads of all its runs wait on.
        usage: The transport's counters.
        backoff_s: Unit of the exponential backoff.
    """

    def __init__(
        self,
        connection: Connection,
        servers: Sequence[Server],
        lock: threading.Lock,
        work: threading.Condition,
        usage: Usage,
        backoff_s: float,
        *,
        method: str = "POST",
        timeout_s: float | None = None,
        retry: bool = True,
        beside: bool = False,
    ) -> None:
        self._connection = connection
        self._servers = servers
        self._usage = usage
        self._method = method
        self._timeout_s = connection.timeout_s if timeout_s is None else timeout_s
        self._wait_s = connection.wait_for_server_s if retry else 0.0
        # urllib3's Retry is the budget, the backoff and the reader of Retry-After; the loop is ours, because a waiting
        # request must not hold its slot, may go on at another server, and has to stop at once on Ctrl-C
        self._retry = Retry(
            total=connection.retries if retry else 0, backoff_factor=backoff_s, allowed_methods=None, redirect=False
        )
        self._backoff_s = backoff_s
        self._beside = beside
        self._slots = connection.max_concurrency
        self._work = work
        self._done = threading.Condition(lock)
        self._ready: deque[Job] = deque()
        self._delayed: list[Job] = []
        self._finished: deque[tuple[Job, Outcome]] = deque()
        self._attempts: set[Attempt] = set()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._stopping = False
        self._broken: BaseException | None = None
        self._outstanding = 0
        self._succeeded = False

    # -- the caller's thread -------------------------------------------------------------------------------------

    def drive(
        self,
        requests: Iterator[Request],
        handle: Callable[[Request, Answer], None],
        progress: Callable[[int], object] | None,
    ) -> None:
        """Sends everything and hands on every answer; returns when the last one is handled."""
        slots = self._slots * len(self._servers)
        # in flight + prepared + answered
        limit = 3 * slots
        more = True
        while True:
            while more and self._outstanding < limit:
                request = next(requests, None)
                if request is None:
                    more = False
                else:
                    self._add(request)
            if not self._outstanding:
                return
            job, outcome = self._next_finished()
            if outcome.kind is Kind.ANSWER and outcome.answer is not None:
                self._hand_on(job, outcome.answer, handle, progress)
                # lets threads with bytes at hand have the interpreter's lock now, not only after its switch interval
                time.sleep(0)
            elif outcome.error is not None:
                self._refused(job, outcome.error)

    def stop(self) -> None:
        """Breaks off what is under way and waits for the threads to end."""
        with self._work:
            self._stopping = True
            attempts = list(self._attempts)
            self._work.notify_all()
        for attempt in attempts:
            attempt.break_off()
        until = time.monotonic() + _STOP_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        left = sum(thread.is_alive() for thread in self._threads)
        if left:
            logger.warning("%d connection(s) could not be broken off at once; they end by themselves", left)

    def _add(self, request: Request, *, first: bool = False) -> None:
        job = Job(request, self._retry)
        with self._work:
            self._outstanding += 1
            if first:
                self._ready.appendleft(job)
            else:
                self._ready.append(job)
            self._wake()

    def _wake(self) -> None:
        """Lets a thread look for work; under the lock."""
        if self._idle >= len(self._ready):
            self._work.notify_all()
        elif len(self._threads) < self._slots * len(self._servers):
            thread = threading.Thread(target=self._work_on, name=f"vacc-wire-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _next_finished(self) -> tuple[Job, Outcome]:
        """Waits for the next outcome; breaks off what is overdue, and gives up on servers that do not come back."""
        with self._work:
            while True:
                if self._broken is not None:
                    raise self._broken
                if self._finished:
                    return self._finished.popleft()
                now = time.monotonic()
                # an attempt that begins from here on is not overdue before this
                wake_at = now + min(5.0, self._timeout_s)
                for attempt in self._attempts:
                    if attempt.deadline <= now:
                        attempt.break_off(overdue=True)
                    else:
                        wake_at = min(wake_at, attempt.deadline)
                if all(server.is_given_up(self._wait_s) for server in self._servers):
                    raise given_up(self._servers, self._wait_s)
                if not all(server.up for server in self._servers):
                    wake_at = min(wake_at, now + 0.25)
                self._done.wait(max(0.001, wake_at - now))

    def _hand_on(
        self,
        job: Job,
        answer: Answer,
        handle: Callable[[Request, Answer], None],
        progress: Callable[[int], object] | None,
    ) -> None:
        request = job.request
        try:
            handle(request, answer)
        except EngineDeadError as error:
            told = self._placed(error, job, answer)
            self._again(job, answer.server, Outcome(Kind.DOWN, error=told))
            return
        except BadAnswerError as error:
            told = self._placed(error, job, answer)
            if not error.retryable:
                # not "from error": its words are the server's and may repeat the key
                raise told from None
            self._again(job, answer.server, Outcome(Kind.PASSING, error=told))
            return
        with self._work:
            self._outstanding -= 1
            self._succeeded = True
            server = self._server(answer.server)
            server.usage.items += request.items
            server.worked()
        if progress is not None:
            progress(request.items)

    def _placed(self, error: ServerError, job: Job, answer: Answer) -> ServerError:
        secrets = self._server(answer.server).client.secrets
        return placed(error, answer, job.request.path, secrets, job.request.describe)

    def _again(self, job: Job, shown: str, outcome: Outcome) -> None:
        """Sends a request again whose answer turned out to be bad."""
        with self._work:
            self._settle(job, self._server(shown), outcome)

    def _refused(self, job: Job, error: ServerError) -> None:
        """Divides a request that is refused because of one of its items; raises when that item is found."""
        request = job.request
        one_item = may_be_one_item(error)
        if one_item and request.split is not None and request.items > 1:
            parts = list(request.split())
            if len(parts) > 1:
                logger.info(
                    "%s%s refuses %d items at once; looking for the one", error.server, error.path, request.items
                )
                with self._work:
                    self._usage.splits += 1
                    self._outstanding -= 1
                for part in reversed(parts):
                    self._add(part, first=True)
                return
        if one_item and not self._succeeded and not isinstance(error, InputTooLongError):
            note = " No request of this run has succeeded yet: the reason may be the request, not this item."
            error.args = (str(error) + note, *error.args[1:])
        raise error

    def _server(self, shown: str) -> Server:
        return next(server for server in self._servers if server.client.shown == shown)

    # -- the threads ---------------------------------------------------------------------------------------------

    def _work_on(self) -> None:
        """Takes work until there is none; what a thread raises by mistake reaches the caller."""
        try:
            while True:
                with self._work:
                    task = self._take()
                if task is None:
                    return
                server, job, attempt = task
                if job is None:
                    self._check(server, attempt)
                else:
                    self._send(server, job, attempt)
        except BaseException as error:  # noqa: BLE001
            with self._work:
                self._broken = error
                self._done.notify_all()

    def _take(self) -> tuple[Server, Job | None, Attempt] | None:
        """Waits for something to do; None when the run stops. Under the lock."""
        while not self._stopping:
            now = time.monotonic()
            wake_at = now + 5.0
            for server in self._servers:
                if server.up or server.checking:
                    continue
                if server.next_check <= now:
                    server.checking = True
                    return server, None, self._attempt(_HEALTH_CHECK_S)
                wake_at = min(wake_at, server.next_check)
            while self._delayed and self._delayed[0].due <= now:
                self._ready.appendleft(heapq.heappop(self._delayed))
            if self._delayed:
                wake_at = min(wake_at, self._delayed[0].due)
            if self._ready:
                server_ = pick(self._servers, slots=self._slots, avoid=self._ready[0].avoid, force=self._beside)
                if server_ is not None:
                    if not self._beside:
                        server_.usage.began(self._slots)
                    return server_, self._ready.popleft(), self._attempt(self._timeout_s, self._announce)
                later = [s.not_before for s in self._servers if s.up and s.not_before > now]
                wake_at = min([wake_at, *later])
            self._idle += 1
            self._done.notify_all()
            try:
                self._work.wait(max(0.001, wake_at - now))
            finally:
                self._idle -= 1
        return None

    def _announce(self) -> None:
        """Tells the caller's thread that answers have come.

        Only when the next request has left: otherwise the caller would begin to decode and this thread would have to
        wait for the interpreter's lock, with a free slot at the server.
        """
        with self._work:
            if self._finished:
                self._done.notify_all()

    def _attempt(self, timeout_s: float, on_sent: Callable[[], None] | None = None) -> Attempt:
        attempt = Attempt(timeout_s, on_sent)
        self._attempts.add(attempt)
        return attempt

    def _send(self, server: Server, job: Job, attempt: Attempt) -> None:
        request = job.request
        body = None if self._method == "GET" else job.body
        outcome = server.client.ask(
            self._method, request.path, body, attempt, self._timeout_s, describe=request.describe
        )
        last = outcome.kind is Kind.PASSING and job.retry.total == 0 and not outcome.strange
        if last and self._wait_s > 0 and not self._is_healthy(server):
            # it goes on failing and is not healthy either: this is a server to wait for, not a bad moment
            outcome = Outcome(Kind.DOWN, error=outcome.error)
        with self._work:
            self._attempts.discard(attempt)
            usage = server.usage
            if not self._beside:
                usage.ended(self._slots)
            usage.requests += 1
            usage.bytes_sent += len(body or b"")
            if outcome.answer is not None:
                usage.answers += 1
                usage.bytes_received += len(outcome.answer.body)
                usage.request_seconds += outcome.answer.seconds
            else:
                usage.failures += 1
            self._settle(job, server, outcome)

    def _is_healthy(self, server: Server) -> bool:
        with self._work:
            attempt = self._attempt(_HEALTH_CHECK_S)
            if self._stopping:
                return False
        try:
            return server.client.is_healthy(attempt)
        finally:
            with self._work:
                self._attempts.discard(attempt)

    def _check(self, server: Server, attempt: Attempt) -> None:
        healthy = server.client.is_healthy(attempt)
        with self._work:
            self._attempts.discard(attempt)
            others = any(other.up for other in self._servers if other is not server)
            server.checked(healthy, wait_s=self._wait_s, others=others)
            self._work.notify_all()
            self._done.notify_all()

    def _settle(self, job: Job, server: Server, outcome: Outcome) -> None:
        """Decides what happens to a request after an attempt; under the lock."""
        if self._stopping:
            return
        others = any(other.up for other in self._servers if other is not server)
        if outcome.kind is Kind.DOWN and outcome.error is not None and (others or self._wait_s > 0):
            if server.up:
                logger.warning(
                    "%s; %s", outcome.error, "set aside" if others else f"waiting up to {self._wait_s:.0f} s for it"
                )
            server.went_down(outcome.error)
            server.usage.retries += 1
            job.retry, job.avoid = self._retry, server
            self._ready.appendleft(job)
            self._work.notify_all()
            self._done.notify_all()
            return
        if outcome.kind in {Kind.DOWN, Kind.PASSING} and outcome.error is not None:
            server.failed(outcome.error, others=others)
            if outcome.retry_after_s is not None:
                server.not_before = max(server.not_before, time.monotonic() + outcome.retry_after_s)
            try:
                job.retry = job.retry.increment(self._method, job.request.path)
            except MaxRetryError:
                pass
            else:
                server.usage.retries += 1
                job.avoid = server
                job.due = time.monotonic() + self._backoff(job.retry)
                heapq.heappush(self._delayed, job)
                logger.info("sent again (%s of %s left): %s", job.retry.total, self._retry.total, outcome.error)
                self._work.notify_all()
                return
        elif outcome.kind is Kind.REFUSED:
            server.failures = 0
        self._finished.append((job, outcome))
        if outcome.kind is not Kind.ANSWER:
            self._done.notify_all()

    def _backoff(self, retry: Retry) -> float:
        """Seconds until a request is sent again: exponential, bounded, and spread so that they do not come together."""
        seconds = min(max(float(retry.get_backoff_time()), self._backoff_s), _MAX_BACKOFF_S)
        return seconds * random.uniform(0.5, 1.0)  # noqa: S311
