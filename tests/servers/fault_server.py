"""A server with every fault that accelerator servers under bring-up have shown: scripted, seeded, repeatable.

Whether a request meets a fault depends on the seed, the request's body and how often that body came before, never on
time or on the order in which threads run.
"""

from __future__ import annotations

import json
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from embedding_answers import embeddings, scores
from loopback_server import Close, Got, LoopbackServer, Reply, Reset, reset

ENGINE = "EngineCore encountered an issue. See stack trace (above) for the root cause."
HTML = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"


def good(got: Got) -> dict[str, Any]:
    """The right answer."""
    return embeddings(got.json()) if got.path == "/v1/embeddings" else scores(got.json())


def _changed(change: Callable[[dict[str, Any]], None]) -> Callable[[Got, socket.socket, FaultServer], Reply]:
    def fault(got: Got, sock: socket.socket, server: FaultServer) -> Reply:
        answer = good(got)
        change(answer)
        return Reply.of(answer)

    return fault


def _status(status: int, body: Any = None, **headers: str) -> Callable[[Got, socket.socket, FaultServer], Reply]:
    def fault(got: Got, sock: socket.socket, server: FaultServer) -> Reply:
        if isinstance(body, bytes):
            return Reply(status, body, "text/html", headers)
        return Reply.of(body if body is not None else {"error": {"message": f"scripted {status}"}}, status, **headers)

    return fault


def _reset(got: Got, sock: socket.socket, server: FaultServer) -> None:
    raise Reset


def _close(got: Got, sock: socket.socket, server: FaultServer) -> None:
    raise Close


def _cut(got: Got, sock: socket.socket, server: FaultServer) -> None:
    raw = Reply.of(good(got)).raw()
    sock.sendall(raw[: len(raw) * 2 // 3])
    raise Close


def _cut_headers(got: Got, sock: socket.socket, server: FaultServer) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Le")
    raise Close


def _garbage(got: Got, sock: socket.socket, server: FaultServer) -> None:
    sock.sendall(b"\x16\x03\x01\x02\x00 this is no HTTP\r\n\r\n")
    raise Close


def _cut_chunked(got: Got, sock: socket.socket, server: FaultServer) -> None:
    body = json.dumps(good(got)).encode()
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n"
    sock.sendall(head + f"{len(body):x}\r\n".encode() + body[: len(body) // 2])
    raise Close


def _cut_json(got: Got, sock: socket.socket, server: FaultServer) -> Reply:
    body = json.dumps(good(got)).encode()
    return Reply(200, body[: len(body) // 2])


def _hang(got: Got, sock: socket.socket, server: FaultServer) -> None:
    server.stopped.wait(server.hang_s)
    raise Close


def _drip(got: Got, sock: socket.socket, server: FaultServer) -> None:
    """Sends a byte now and then: no single wait is long, the whole never ends."""
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(int(server.hang_s / 0.02)):
        if server.stopped.wait(0.02):
            break
        sock.sendall(b" ")
    raise Close


def _chunked(got: Got, sock: socket.socket, server: FaultServer) -> None:
    body = json.dumps(good(got)).encode()
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n"
    sock.sendall(head)
    for start in range(0, len(body), 700):
        piece = body[start : start + 700]
        sock.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    sock.sendall(b"0\r\n\r\n")


def _until_closed(got: Got, sock: socket.socket, server: FaultServer) -> None:
    sock.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + json.dumps(good(got)).encode())
    raise Close


def _engine_dead(status: int) -> Callable[[Got, socket.socket, FaultServer], Reply]:
    """The engine dies and comes back after a moment: /health says 503 meanwhile."""

    def fault(got: Got, sock: socket.socket, server: FaultServer) -> Reply:
        server.kill_engine()
        return Reply.of({"error": {"message": ENGINE, "type": "BadRequestError", "code": 400}}, status)

    return fault


def _shuffle(answer: dict[str, Any]) -> None:
    random.Random(len(answer["data"])).shuffle(answer["data"])


def _value(answer: dict[str, Any], position: int) -> Any:
    row = answer["data"][position % len(answer["data"])]
    return row, ("embedding" if "embedding" in row else "score")


def _poison(number: float) -> Callable[[dict[str, Any]], None]:
    def change(answer: dict[str, Any]) -> None:
        row, name = _value(answer, 1)
        row[name] = [number] * 16 if name == "embedding" else number

    return change


def _resize(answer: dict[str, Any]) -> None:
    row, name = _value(answer, 1)
    row[name] = [0.5] * 15 if name == "embedding" else None


Fault = Callable[[Got, socket.socket, "FaultServer"], "Reply | None"]

# the run must go on, with the very same numbers
TRANSIENT: Mapping[str, Fault] = {
    "reset": _reset,
    "closed": _close,
    "cut body": _cut,
    "cut headers": _cut_headers,
    "cut chunked": _cut_chunked,
    "garbage": _garbage,
    "408": _status(408),
    "429": _status(429, **{"Retry-After": "0"}),
    "429 without words": _status(429, b""),
    "500": _status(500),
    "502 page": _status(502, HTML),
    "503": _status(503, **{"Retry-After": "0"}),
    "503 nonsense": _status(503, **{"Retry-After": "soon"}),
    "504": _status(504, {"detail": "gateway"}),
    "cut json": _cut_json,
    "200 page": _status(200, HTML),
    "200 empty": _status(200, b""),
    "200 busy": _status(200, {"error": {"message": "overloaded", "code": 503}}),
    "engine dead 400": _engine_dead(400),
    "engine dead 500": _engine_dead(500),
    "engine dead 200": _engine_dead(200),
    "hang": _hang,
    "drip": _drip,
}
# unusual, but right
HARMLESS: Mapping[str, Fault] = {"shuffled": _changed(_shuffle), "chunked": _chunked, "until closed": _until_closed}
# the run must stop, with the name of what is wrong
WRONG: Mapping[str, tuple[Fault, str]] = {
    "too few": (_changed(lambda a: a["data"].pop()), r"came for \d+"),
    "too many": (_changed(lambda a: a["data"].append(a["data"][0])), r"came for \d+"),
    "none": (_changed(lambda a: a["data"].clear()), r"0 (?:vectors|scores) came"),
    "index twice": (_changed(lambda a: a["data"][0].update(index=len(a["data"]) - 1)), "occurs twice"),
    "index missing": (_changed(lambda a: a["data"][0].pop("index")), "no index"),
    "index out of range": (_changed(lambda a: a["data"][0].update(index=99)), "outside of 0 to"),
    "another size": (_changed(_resize), "dimensions, others|not a number"),
    "NaN": (_changed(_poison(float("nan"))), "nan"),
    "infinity": (_changed(_poison(float("inf"))), "inf"),
    "zeros": (_changed(lambda a: a["data"][0].update(embedding=[0.0] * 16, score=None)), "zeros|not a number"),
    "200 error nested": (_status(200, {"error": {"message": "scripted words", "code": 400}}), "scripted words"),
    "200 error flat": (_status(200, {"object": "error", "message": "scripted words", "code": 404}), "scripted words"),
    "200 error string": (_status(200, {"error": "scripted words"}), "scripted words"),
    "200 detail": (_status(200, {"detail": "scripted words"}), "scripted words"),
    "401": (_status(401, {"error": "Unauthorized"}), "Unauthorized"),
    "404 model": (_status(404, {"error": {"message": "The model `m` does not exist."}}), "does not exist"),
    "404 route": (_status(404, {"detail": "Not Found"}), "Not Found"),
    "302": (_status(302, b"", Location="http://elsewhere.example/"), "redirects to"),
    "418": (_status(418, {"error": {"message": "scripted words"}}), "scripted words"),
}
ALL: Mapping[str, Fault] = {**TRANSIENT, **HARMLESS, **{name: fault for name, (fault, _) in WRONG.items()}}


class FaultServer(LoopbackServer):
    """Answers well, except where a fault falls.

    Args:
        faults: Names out of ALL.
        rate: Share of the requests that meet one, 0 to 1.
        seed: Of the choice.
        most: A body meets at most this many faults, so that retries can be enough.
        hang_s: How long a hanging answer hangs.
        engine_s: How long a dead engine is dead.
    """

    def __init__(
        self,
        faults: tuple[str, ...],
        *,
        rate: float = 1.0,
        seed: int = 0,
        most: int = 1,
        hang_s: float = 5.0,
        engine_s: float = 0.05,
    ) -> None:
        super().__init__(self._answer)
        self.faults = faults
        self.rate = rate
        self.seed = seed
        self.most = most
        self.hang_s = hang_s
        self.engine_s = engine_s
        self.met: Counter[str] = Counter()
        self._seen: Counter[bytes] = Counter()
        self._engine_dead = False
        self._state = threading.Lock()

    def script(self, faults: tuple[str, ...], *, rate: float, seed: int, most: int = 1) -> None:
        """Begins a new scenario on the same port."""
        with self._state:
            self.faults, self.rate, self.seed, self.most = faults, rate, seed, most
            self.met.clear()
            self._seen.clear()
            self._engine_dead = False

    def kill_engine(self) -> None:
        """The engine is dead for a moment."""
        with self._state:
            if not self._engine_dead:
                self._engine_dead = True
                timer = threading.Timer(self.engine_s, self._revive)
                timer.daemon = True
                timer.start()

    def _revive(self) -> None:
        with self._state:
            self._engine_dead = False

    def _answer(self, got: Got, sock: socket.socket) -> Reply | None:
        if got.path == "/health/liveliness":
            return Reply(404, b"", "")
        with self._state:
            dead = self._engine_dead
            if got.path != "/health" and not dead:
                self._seen[got.body] += 1
                before = self._seen[got.body]
        if got.path == "/health":
            return Reply(503 if dead else 200, b"", "")
        if dead:
            return Reply.of({"error": {"message": ENGINE, "code": 500}}, 500)
        rng = random.Random(f"{self.seed}/{before}/{got.body!r}")
        if before <= self.most and self.faults and rng.random() < self.rate:
            name = rng.choice(self.faults)
            if name.startswith("engine") and any(met.startswith("engine") for met in self.met):
                # once: an engine that dies again is given up, as the tests of limits show
                return Reply.of(good(got))
            with self._state:
                self.met[name] += 1
            return ALL[name](got, sock, self)
        return Reply.of(good(got))


__all__ = ["ALL", "ENGINE", "HARMLESS", "TRANSIENT", "WRONG", "FaultServer", "reset"]
