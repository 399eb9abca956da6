"""Connections of urllib3 that another thread can break off, whatever they are waiting for.

A thread that waits in a system call cannot be told to stop. Its socket can: shutting it down makes connecting, the
TLS handshake, sending and receiving return at once. So every connection keeps a duplicate of its socket (the original
disappears inside the TLS layer), and every :class:`Attempt` knows the duplicate of the connection that it uses.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

if TYPE_CHECKING:
    from typing_extensions import Self

_active = threading.local()
# guards the duplicates: breaking off and closing may come from two threads at the same moment
_guard = threading.Lock()


class BrokenOffError(OSError):
    """The attempt was broken off by :meth:`Attempt.break_off`."""


class Attempt:
    """One request on its way, from before the connection is made until the last byte has come.

    It is a context manager; inside, the connections used by this thread belong to it.

    Attributes:
        deadline: Reading of ``time.monotonic`` at which it is overdue.
        connected: Whether the server (or proxy) took the connection.
        overdue: Whether it was broken off because the deadline had passed.

    Args:
        timeout_s: Seconds until it is overdue.
        on_sent: Called once in the attempt's thread when the request has left.
    """

    def __init__(self, timeout_s: float, on_sent: Callable[[], None] | None = None) -> None:
        self.deadline = time.monotonic() + timeout_s
        self.connected = False
        self.overdue = False
        self._on_sent = on_sent
        self._broken_off = False
        self._line: _Line | None = None

    def __enter__(self) -> Self:
        _active.attempt = self
        return self

    def __exit__(self, *exc_info: object) -> None:
        _active.attempt = None
        with _guard:
            self._leave()

    def use(self, line: _Line) -> None:
        """Notes the connection that is used from here on.

        Raises:
            BrokenOffError: The attempt was broken off before it had a connection.
        """
        with _guard:
            self._leave()
            if self._broken_off:
                msg = "broken off"
                raise BrokenOffError(msg)
            self._line = line
            line.in_use = True

    def sent(self) -> None:
        """The request has left; what comes next is waiting."""
        on_sent, self._on_sent = self._on_sent, None
        if on_sent is not None:
            on_sent()

    def break_off(self, *, overdue: bool = False) -> None:
        """Makes whatever the attempt waits for return at once; may be called from any thread, more than once."""
        with _guard:
            self._broken_off = True
            self.overdue = self.overdue or overdue
            if self._line is not None:
                self._line.shut_down()

    def _leave(self) -> None:
        if self._line is not None:
            self._line.in_use = False
            if self._line.retired:
                self._line.twin.close()
            self._line = None


class _Line:
    """The duplicate of a connection's socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.twin = sock.dup()
        self.in_use = False
        self.retired = False

    def shut_down(self) -> None:
        """Ends everything on the connection."""
        # an error says: not connected any more, or not yet. In the second case the call ends the connecting anyway on
        # Linux and macOS; elsewhere the connection's own timeout does.
        with contextlib.suppress(OSError):
            self.twin.shutdown(socket.SHUT_RDWR)

    def retire(self) -> None:
        """Closes the duplicate, at the end of the attempt if one still reads from the connection."""
        with _guard:
            self.retired = True
            if not self.in_use:
                self.twin.close()


class _Interruptible:
    """What both kinds of connection have in common: they register with the attempt of their thread."""

    _line: _Line | None = None

    def _new_conn(self) -> socket.socket:
        """Connects as urllib3 does, but with the socket known to the attempt before it connects."""
        conn: Any = self
        attempt: Attempt | None = getattr(_active, "attempt", None)
        failure: OSError | None = None
        host = conn._dns_host  # noqa: SLF001  (it is this object's own)
        for family, kind, protocol, _, address in socket.getaddrinfo(host, conn.port, 0, socket.SOCK_STREAM):
            sock = socket.socket(family, kind, protocol)
            line = _Line(sock)
            try:
                for option in conn.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(conn.timeout)
                if attempt is not None:
                    attempt.use(line)
                sock.connect(address)
            except OSError as error:
                sock.close()
                line.retire()
                if isinstance(error, BrokenOffError):
                    raise
                failure = failure or error
                continue
            except BaseException:
                sock.close()
                line.retire()
                raise
            self._line = line
            if attempt is not None:
                attempt.connected = True
            return sock
        raise failure or OSError("the name of the server has no address")

    def putrequest(self, *args: Any, **kwargs: Any) -> None:
        """Begins a request on a new or kept connection."""
        attempt: Attempt | None = getattr(_active, "attempt", None)
        if attempt is not None and self._line is not None:
            attempt.use(self._line)
            attempt.connected = True
        begin: Callable[..., None] = super().putrequest  # type: ignore[misc]
        begin(*args, **kwargs)

    def getresponse(self) -> Any:
        """Waits for the answer."""
        attempt: Attempt | None = getattr(_active, "attempt", None)
        if attempt is not None:
            attempt.sent()
        wait: Callable[[], Any] = super().getresponse  # type: ignore[misc]
        return wait()

    def close(self) -> None:
        """Closes the connection and its duplicate."""
        line, self._line = self._line, None
        if line is not None:
            line.retire()
        super().close()  # type: ignore[misc]


class PlainConnection(_Interruptible, HTTPConnection):
    """A connection over HTTP."""


class TlsConnection(_Interruptible, HTTPSConnection):
    """A connection over HTTPS."""


class PlainPool(HTTPConnectionPool):
    """urllib3's pool with connections that can be broken off."""

    ConnectionCls = PlainConnection


class TlsPool(HTTPSConnectionPool):
    """urllib3's pool with connections that can be broken off."""

    ConnectionCls = TlsConnection


POOL_CLASSES: dict[str, type[HTTPConnectionPool]] = {"http": PlainPool, "https": TlsPool}
