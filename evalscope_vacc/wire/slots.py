"""The limit on requests in flight at one server, of one process or of several that share it.

A process that shares a limit leases slots from the :class:`Broker` of the process that started it. What it leases it keeps
for its next request, so that a process which sends alone asks nobody; it returns what it has no request for, and one slot
at a time to a process that has fewer. Three kinds of message go over the connection: ``ask`` and ``give`` to the broker,
``grant`` and ``recall`` from it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any


class Slots:
    """The limit on requests of a single process.

    Attributes:
        limit: Requests that may be in flight.
        taken: Requests of this process that are.
        wake: What the engine does when it has got more of a shared limit.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self.wake: Callable[[], None] = lambda: None

    @property
    def full(self) -> bool:
        """Whether every slot is taken, by whichever process."""
        return self.taken >= self.limit

    def take(self, count: int = 1) -> bool:
        """Takes so many slots if they are free; all of them make a request the only one in flight."""
        if self.taken + count > self.limit:
            return False
        self.taken += count
        return True

    def give_back(self, count: int = 1) -> None:
        """Frees slots."""
        self.taken -= count

    def rest(self) -> None:
        """Says that no request waits for a slot."""


class LeasedSlots(Slots):
    """This process's part of a limit that several share.

    Args:
        limit: Requests that all the processes together may have in flight.
        send: Sends ``("ask", count)``, for a request that needs so many slots, or ``("give", count)`` to the broker.
    """

    def __init__(self, limit: int, send: Callable[[str, int], None]) -> None:
        super().__init__(limit)
        self._send = send
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._held = 0  # leased, in use or not
        self._asked = 0  # slots of the largest request that the broker knows of
        self._waits = False  # whether a request waits for a slot
        self._recalled = False

    @property
    def full(self) -> bool:
        """Whether every slot is taken: a request that waits has found none, here or elsewhere."""
        return self._waits or super().full

    def take(self, count: int = 1) -> bool:
        """Takes slots if so many are leased and idle; asks for them otherwise, and the engine is woken when they come."""
        with self._lock:
            if self.taken + count <= self._held:
                self.taken += count
                return True
            self._loop, self._waits = asyncio.get_running_loop(), True
            if count > self._asked:
                self._asked = count
                self._send("ask", count)
        return False

    def give_back(self, count: int = 1) -> None:
        """Frees slots; one goes to another process where that asked for it."""
        with self._lock:
            self.taken -= count
            if self._recalled:
                self._return(1)

    def rest(self) -> None:
        """Returns what is idle."""
        with self._lock:
            self._waits = False
            self._return(self.limit)

    def granted(self, count: int) -> None:
        """The broker leases slots; called in any thread."""
        with self._lock:
            self._asked = 0
            self._held += count
            if not self._waits or self._loop is None:
                self._return(count)
                return
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self.wake)

    def recall(self) -> None:
        """The broker wants one slot for another process; called in any thread."""
        with self._lock:
            self._recalled = self._held > 0
            self._return(1)

    def _return(self, count: int) -> None:
        count = min(count, self._held - self.taken)
        if count > 0:
            self._recalled = False
            self._held -= count
            self._send("give", count)


_lessor: Callable[[str, int], Slots] | None = None


def lease_from(lessor: Callable[[str, int], Slots]) -> None:
    """Has this process take its slots from somebody else: from server and limit to slots."""
    global _lessor  # noqa: PLW0603 -- a process has one
    _lessor = lessor


def slots_of(server: str, limit: int) -> Slots:
    """Returns the slots of a server, by its address without user information."""
    return Slots(limit) if _lessor is None else _lessor(server, limit)


# -- the other side ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lessee:
    """One engine's slots of one server, in another process.

    Attributes:
        process: Whatever stands for the process.
        number: Of the slots within it.
        send: Sends ``("grant", number, count)`` or ``("recall", number, 1)`` there; it must not raise.
    """

    process: Any
    number: int
    send: Callable[[str, int, int], None] = field(compare=False)


class Broker:
    """Leases the slots of servers to processes, first to whoever has fewest. Safe for several threads."""

    def __init__(self) -> None:
        self._pools: dict[str, _Pool] = {}
        self._lock = threading.Lock()

    def ask(self, lessee: Lessee, server: str, limit: int, count: int) -> None:
        """A process has a request for a server that may have ``limit`` of them in flight, and no slot for it.

        Args:
            lessee: Whose slots they will be.
            server: Its address.
            limit: Its slots.
            count: One, or as many as there are: then the request will be the only one in flight.
        """
        with self._lock:
            pool = self._pools.setdefault(server, _Pool())
            pool.limit = limit
            pool.waiting[lessee] = max(count, pool.waiting.get(lessee, 0))
            pool.settle()

    def give(self, lessee: Lessee, server: str, count: int) -> None:
        """A process returns slots."""
        with self._lock:
            pool = self._pools[server]
            pool.held[lessee] -= count
            if pool.recalled == lessee:
                pool.recalled = None
            pool.settle()

    def lost(self, process: Any) -> None:
        """A process has ended, and its connections with it: whatever it had is free."""
        with self._lock:
            for pool in self._pools.values():
                pool.forget(process)
                pool.settle()


class _Pool:
    """The slots of one server: who has how many, and who waits for some."""

    def __init__(self) -> None:
        self.limit = 0
        self.held: Counter[Lessee] = Counter()
        self.waiting: dict[Lessee, int] = {}
        self.recalled: Lessee | None = None

    def settle(self) -> None:
        """Serves whoever waits, and asks who has more than their share for a slot, one at a time."""
        while self.waiting:
            lessee = self._next()
            alone = self.waiting[lessee] > 1
            count = self.limit - self.held[lessee] if alone else 1
            if self.held.total() + count <= self.limit:
                del self.waiting[lessee]
                self.held[lessee] += count
                lessee.send("grant", lessee.number, count)
                continue
            richest = max((other for other in self.held if other != lessee), key=self.held.__getitem__, default=None)
            if richest is not None and self.recalled is None:
                # a request that must be alone needs every slot; two that differ by one would swap it for ever
                share = 0 if alone or not self.held[lessee] else self.held[lessee] + 1
                if self.held[richest] > share:
                    self.recalled = richest
                    richest.send("recall", richest.number, 1)
            return

    def _next(self) -> Lessee:
        """The first one that must be alone, else the one that has fewest, in the order in which they asked."""
        alone = (lessee for lessee, count in self.waiting.items() if count > 1)
        return next(alone, None) or min(self.waiting, key=self.held.__getitem__)

    def forget(self, process: Any) -> None:
        for lessee in [lessee for lessee in self.held if lessee.process is process]:
            del self.held[lessee]
        self.waiting = {lessee: count for lessee, count in self.waiting.items() if lessee.process is not process}
        if self.recalled is not None and self.recalled.process is process:
            self.recalled = None
