"""A real HTTP server on the loopback address whose every byte the test decides.

It understands just enough HTTP/1.1 for a client that behaves: one thread per connection, keep-alive, bodies by
Content-Length. What it answers is up to a function; that may also break every rule, by working on the socket itself.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass
class Got:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    number: int = 0

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    """An ordinary answer."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, document: Any, status: int = 200, **headers: str) -> Reply:
        return cls(status, json.dumps(document).encode(), headers=headers)

    def raw(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status} X", f"Content-Length: {len(self.body)}"]
        if self.content_type:
            lines.append(f"Content-Type: {self.content_type}")
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + self.body


class Close(Exception):  # noqa: N818
    """Raised by an answering function: the connection is closed, after whatever it has sent."""


class Reset(Exception):  # noqa: N818
    """Raised by an answering function: the connection is reset."""


Answering = Callable[[Got, socket.socket], "Reply | None"]


class LoopbackServer:
    """Serves on 127.0.0.1; ``answer`` is called in the thread of the connection.

    It returns a Reply, or None when it has written to the socket by itself. It can be stopped and started again on
    the same port, as a server that crashes does.
    """

    def __init__(self, answer: Answering, *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.port = port
        self.requests: list[Got] = []
        self.connections = 0
        self.open_connections = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self._tls = tls
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self.stopped = threading.Event()

    @property
    def base(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> Self:
        self.stopped.clear()
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(64)
        self.port = listener.getsockname()[1]
        self._listener = listener
        thread = threading.Thread(target=self._accept, args=(listener,), name="loopback-accept", daemon=True)
        self._threads = [thread]
        thread.start()
        return self

    def stop(self) -> None:
        """Stops listening and resets every connection, as the death of a process does."""
        self.stopped.set()
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        with self._lock:
            sockets = list(self._sockets)
        for sock in sockets:
            reset(sock)
        for thread in self._threads:
            thread.join(5)

    def paths(self) -> list[str]:
        with self._lock:
            return [got.path for got in self.requests]

    def _accept(self, listener: socket.socket) -> None:
        while not self.stopped.is_set():
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.connections += 1
                self.open_connections += 1
                self._sockets.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), name="loopback-serve", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, plain: socket.socket) -> None:
        sock = plain
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(plain, server_side=True)
                with self._lock:
                    self._sockets.discard(plain)
                    self._sockets.add(sock)
            stream = sock.makefile("rb")
            while not self.stopped.is_set():
                got = self._read(stream)
                if got is None:
                    return
                with self._lock:
                    got.number = len(self.requests)
                    self.requests.append(got)
                    self.in_flight += 1
                    self.most_in_flight = max(self.most_in_flight, self.in_flight)
                try:
                    reply = self.answer(got, sock)
                finally:
                    with self._lock:
                        self.in_flight -= 1
                if reply is not None:
                    sock.sendall(reply.raw())
        except Reset:
            reset(sock)
        except (Close, OSError, ValueError):
            pass
        finally:
            with self._lock:
                self._sockets.discard(plain)
                self._sockets.discard(sock)
                self.open_connections -= 1
            with contextlib.suppress(OSError):
                sock.close()

    @staticmethod
    def _read(stream: Any) -> Got | None:
        first = stream.readline()
        if not first:
            return None
        method, path, _ = first.decode("latin-1").split(" ", 2)
        headers: dict[str, str] = {}
        while True:
            line = stream.readline()
            if line in {b"\r\n", b"\n", b""}:
                break
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        length = int(headers.get("content-length", 0))
        body = stream.read(length) if length else b""
        if len(body) != length:
            return None
        return Got(method, path, headers, body)


def reset(sock: socket.socket) -> None:
    """Closes a connection with a reset instead of a proper end."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        sock.close()
