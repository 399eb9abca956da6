"""A server in front of the demo server: the real weights, and what a test wants between them and the client."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from loopback_server import Got, LoopbackServer, Reply


class Front(LoopbackServer):
    """Hands requests on to the demo server and its answers back.

    Args:
        upstream: Address of the demo server.
        name: The one model that it says it serves.
        delay: Seconds before each answer to a request for vectors.
    """

    def __init__(self, upstream: str, name: str = "minilm", *, delay: float = 0.0) -> None:
        super().__init__(self._hand_on)
        self.name = name
        self.delay = delay
        self.texts: list[str] = []
        self.before_vectors: Callable[[list[str]], None] = lambda texts: None
        self._upstream = upstream
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def _hand_on(self, got: Got, _: socket.socket) -> Reply:
        if got.path == "/v1/embeddings":
            given = got.json()["input"]
            texts = [given] if isinstance(given, str) else given
            time.sleep(self.delay)
            self.before_vectors(texts)
            self.texts += texts
        sent = {"content-type": got.headers.get("content-type", "application/json")}
        request = urllib.request.Request(
            self._upstream + got.path, got.body if got.method == "POST" else None, sent, method=got.method
        )
        try:
            with self._opener.open(request, timeout=120) as answer:
                status, body, kind = answer.status, answer.read(), answer.headers.get_content_type()
        except urllib.error.HTTPError as error:
            with error:
                status, body, kind = error.code, error.read(), error.headers.get_content_type()
        if got.path == "/v1/models":
            models = json.loads(body)
            models["data"] = [entry for entry in models["data"] if entry["id"] == self.name]
            body = json.dumps(models).encode()
        return Reply(status, body, kind)
