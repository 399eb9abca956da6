"""The state of the servers of one transport: who is busy, who is set aside, who is being waited for.

All methods are called under the transport's lock.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from evalscope_vacc.errors import EngineDeadError, ServerError, ServerUnreachableError
from evalscope_vacc.wire.client import Client
from evalscope_vacc.wire.usage import ServerUsage

logger = logging.getLogger(__name__)

_FIRST_CHECK_S = 0.2
_MAX_CHECK_S = 3.0
_LOG_EVERY_S = 10.0
# this many failures in a row set a server aside, if another one is there to take its work
_FAILURES_UNTIL_ASIDE = 3


class Server:
    """One server and what is known of its condition.

    Attributes:
        client: Talks to it.
        usage: Its counters.
        up: Whether it is given work.
        not_before: Reading of ``time.monotonic`` until which it asked to be left alone.
        next_check: When it is asked again whether it is back; only while it is not up.
        checking: Whether somebody is asking it now.
        trouble_since: Start of the time since which it has failed without a good answer in between, or None.
        reason: Its last failure.
    """

    def __init__(self, client: Client, usage: ServerUsage) -> None:
        self.client = client
        self.usage = usage
        self.up = True
        self.not_before = 0.0
        self.next_check = 0.0
        self.checking = False
        self.trouble_since: float | None = None
        self.reason: ServerError | None = None
        self.failures = 0
        self._check_delay = _FIRST_CHECK_S
        self._down_since = 0.0
        self._last_log = 0.0

    def __repr__(self) -> str:
        return f"Server({self.client.shown}, {'up' if self.up else 'down'})"

    def new_run(self) -> None:
        """A run begins: the time that it has to come back counts from now, and it is asked at once."""
        if self.trouble_since is not None:
            self.trouble_since = None if self.up else time.monotonic()
        if not self.up:
            self.next_check = 0.0

    def worked(self) -> None:
        """It gave an answer that only a working server gives."""
        self.failures = 0
        self.trouble_since = None
        self._check_delay = _FIRST_CHECK_S

    def failed(self, reason: ServerError, *, others: bool) -> None:
        """It failed in a passing way; repeated failures set it aside if there are others to take its work."""
        self.failures += 1
        if self.up:
            self.reason = reason
        if others and self.failures >= _FAILURES_UNTIL_ASIDE and self.up:
            logger.warning("%s failed %d times in a row and is set aside: %s", self.client.shown, self.failures, reason)
            self._down()

    def went_down(self, reason: ServerError) -> None:
        """It is not there, or its engine is dead."""
        self.reason = reason
        self._down()

    def checked(self, healthy: bool, *, wait_s: float, others: bool) -> None:
        """Somebody asked whether it is back."""
        now = time.monotonic()
        self.checking = False
        self._check_delay = min(self._check_delay * 1.5, _MAX_CHECK_S)
        if healthy:
            self._up()
            return
        self.next_check = now + self._check_delay
        if now - self._last_log >= _LOG_EVERY_S:
            self._last_log = now
            since = self.trouble_since if self.trouble_since is not None else now
            if others:
                logger.warning("%s is still set aside after %.0f s: %s", self.client.shown, now - since, self.reason)
            else:
                logger.warning(
                    "waiting for %s, %.0f s of at most %.0f s so far: %s",
                    self.client.shown,
                    now - since,
                    wait_s,
                    self.reason,
                )

    def is_given_up(self, wait_s: float) -> bool:
        """Whether it has been away for longer than one waits."""
        return not self.up and self.trouble_since is not None and time.monotonic() - self.trouble_since >= wait_s

    def _down(self) -> None:
        now = time.monotonic()
        if self.trouble_since is None:
            self.trouble_since = now
        if self.up:
            self.up = False
            self._down_since = now
            self._last_log = now
            self.next_check = now + self._check_delay

    def _up(self) -> None:
        now = time.monotonic()
        self.up = True
        self.failures = 0
        self.usage.down_seconds += now - self._down_since
        logger.warning("%s is back after %.0f s; going on", self.client.shown, now - self._down_since)


def pick(servers: Sequence[Server], *, slots: int, avoid: Server | None, force: bool) -> Server | None:
    """Returns the server that gets the next request: the least busy one that is up, or None.

    Args:
        servers: Those that may be asked.
        slots: Requests in flight that each may have.
        avoid: One that just failed with this request; only taken when no other has a free slot.
        force: Ignore the slots (a small call beside a run).
    """
    now = time.monotonic()
    best: Server | None = None
    best_rank: tuple[bool, int, int] | None = None
    for server in servers:
        if not server.up or server.not_before > now or (server.usage.in_flight >= slots and not force):
            continue
        rank = (server is avoid, server.usage.in_flight, server.usage.requests)
        if best_rank is None or rank < best_rank:
            best, best_rank = server, rank
    return best


def given_up(servers: Sequence[Server], wait_s: float) -> ServerError:
    """Returns the error for servers none of which came back in time."""
    reasons = [server.reason for server in servers if server.reason is not None]
    last = reasons[-1] if reasons else ServerUnreachableError("no server can be reached")
    names = ", ".join(server.client.shown for server in servers)
    kind = EngineDeadError if isinstance(last, EngineDeadError) else ServerUnreachableError
    return kind(
        f"{names} did not come back within {wait_s:.0f} s (wait_for_server_s). Last seen: {last} "
        "What had come in is kept; start the server and run again to go on.",
        server=last.server,
        status=last.status,
        server_message=last.server_message,
        path=last.path,
    )
