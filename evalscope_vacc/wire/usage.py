"""Counters of an engine: what a run has cost, and whether the servers were kept busy."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class ServerUsage:
    """What one server was asked; kept up in the engine's event loop.

    Attributes:
        server: Address without user information.
        requests: Requests sent, those sent again included.
        answers: Complete answers with a 2xx status.
        failures: Requests without such an answer.
        retries: Requests sent again.
        items: Texts or documents in the complete answers.
        bytes_sent: Bytes of the bodies sent.
        bytes_received: Bytes of the bodies received.
        request_seconds: Sum of the durations of the requests that were answered.
        busy_seconds: Time in which every slot of this server was taken.
        down_seconds: Time in which it was set aside or waited for.
        in_flight: Requests under way now.
        most_in_flight: The highest number of requests that were under way at once.
    """

    server: str
    requests: int = 0
    answers: int = 0
    failures: int = 0
    retries: int = 0
    items: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    request_seconds: float = 0.0
    busy_seconds: float = 0.0
    down_seconds: float = 0.0
    in_flight: int = 0
    most_in_flight: int = 0
    _full_since: float | None = field(default=None, repr=False)

    def began(self, slots: int) -> None:
        """A request of a run leaves."""
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        if self.in_flight >= slots and self._full_since is None:
            self._full_since = time.perf_counter()

    def ended(self, slots: int) -> None:
        """A request of a run is over, however it ended."""
        self.in_flight -= 1
        if self.in_flight < slots and self._full_since is not None:
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
        """Requests sent, those sent again included."""
        return sum(server.requests for server in self.servers.values())

    @property
    def retries(self) -> int:
        """Requests sent again."""
        return sum(server.retries for server in self.servers.values())

    @property
    def items(self) -> int:
        """Texts or documents in complete answers."""
        return sum(server.items for server in self.servers.values())

    @property
    def busy_share(self) -> float:
        """Share of the runs' time in which all slots of a server were taken, averaged over the servers; 0 to 1."""
        if self.seconds <= 0 or not self.servers:
            return 0.0
        busy = sum(server.busy_seconds for server in self.servers.values())
        return min(1.0, busy / (self.seconds * len(self.servers)))

    def as_dict(self) -> dict[str, Any]:
        """Returns the counters as plain data, for the evidence that a run leaves."""
        return {
            "requests": self.requests,
            "retries": self.retries,
            "items": self.items,
            "splits": self.splits,
            "seconds": round(self.seconds, 3),
            "busy_share": round(self.busy_share, 4),
            "bytes_sent": sum(server.bytes_sent for server in self.servers.values()),
            "bytes_received": sum(server.bytes_received for server in self.servers.values()),
            "servers": [
                {
                    "server": server.server,
                    "requests": server.requests,
                    "answers": server.answers,
                    "failures": server.failures,
                    "retries": server.retries,
                    "items": server.items,
                    "busy_share": round(min(1.0, server.busy_seconds / self.seconds), 4) if self.seconds > 0 else 0.0,
                    "down_seconds": round(server.down_seconds, 3),
                    "most_in_flight": server.most_in_flight,
                    "mean_seconds": round(server.request_seconds / server.answers, 4) if server.answers else 0.0,
                }
                for server in self.servers.values()
            ],
        }
