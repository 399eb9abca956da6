"""Counters of an engine: what a run has cost, and whether the servers were kept busy."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class ServerUsage:
    """What one server was asked; kept up in the engine's event loop.

    Attributes:
        server: Address without user information.
        requests: Requests sent, retries included.
        answers: Complete answers with a 2xx status.
        retries: Retries.
        items: Texts or documents in the answers that could be read.
        busy_seconds: Time in which every slot of this server was taken.
        down_seconds: Time in which it was set aside or waited for.
        waited_seconds: Time in which nothing was sent because it takes no requests (429, 502, 503, 504).
        most_in_flight: The highest number of a run's requests that were in flight at once.
    """

    server: str
    requests: int = 0
    answers: int = 0
    retries: int = 0
    items: int = 0
    busy_seconds: float = 0.0
    down_seconds: float = 0.0
    waited_seconds: float = 0.0
    most_in_flight: int = 0
    _full_since: float | None = field(default=None, repr=False)

    def in_flight(self, taken: int, *, full: bool) -> None:
        """So many of its slots are taken now; ``full``: there is no further one."""
        self.most_in_flight = max(self.most_in_flight, taken)
        if full and self._full_since is None:
            self._full_since = time.perf_counter()
        elif not full and self._full_since is not None:
            self.busy_seconds += time.perf_counter() - self._full_since
            self._full_since = None


@dataclass
class Usage:
    """Counters over all runs and calls of an engine.

    Attributes:
        servers: By address, in the order of the configuration.
        seconds: Wall time of the runs; single calls are not in it.
        splits: Requests that were divided because of a refusal.
    """

    servers: dict[str, ServerUsage]
    seconds: float = 0.0
    splits: int = 0

    @property
    def requests(self) -> int:
        """Requests sent, retries included."""
        return sum(server.requests for server in self.servers.values())

    @property
    def retries(self) -> int:
        """Retries."""
        return sum(server.retries for server in self.servers.values())

    @property
    def waited_seconds(self) -> float:
        """Time for which busy servers were left alone."""
        return sum(server.waited_seconds for server in self.servers.values())

    @property
    def items(self) -> int:
        """Texts or documents in the answers that could be read."""
        return sum(server.items for server in self.servers.values())

    @property
    def busy_share(self) -> float:
        """Share of the runs' time in which all slots of a server were taken, averaged over the servers; 0 to 1."""
        if self.seconds <= 0 or not self.servers:
            return 0.0
        busy = sum(server.busy_seconds for server in self.servers.values())
        return min(1.0, busy / (self.seconds * len(self.servers)))
