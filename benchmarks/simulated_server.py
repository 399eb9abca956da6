"""A served model that costs nothing but time: what a client is measured against.

It answers like vLLM (embeddings as base64 or floats, score, rerank, tokenize, models) after the time that a card would
need: ``slots`` requests are worked on at once, each for ``base`` milliseconds and ``per-item`` milliseconds for every
text or document. With both at 0 it answers at once, from bytes that were prepared before, and so shows the ceiling of
the client.

Vectors and scores depend on the text alone, so that two clients can be compared bit by bit. One thread, standard
library and numpy only; run it in a process of its own:

    python benchmarks/simulated_server.py --slots 4 --base-ms 20 --per-item-ms 2 --dimensions 1024

It prints its address on the first line and runs until it is ended or its standard input closes (``--follow-stdin``).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import sys
import zlib
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

POOL = 512  # different vectors; a text gets one of them by its checksum


class Model:
    """Prepared answers.

    Args:
        name: Served name.
        dimensions: Length of a vector.
        max_model_len: As /v1/models says.
    """

    def __init__(self, name: str, dimensions: int, max_model_len: int) -> None:
        self.name = name
        self.max_model_len = max_model_len
        rng = np.random.default_rng(1)
        vectors = rng.standard_normal((POOL, dimensions)).astype("<f4")
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        self._base64 = [b'"' + base64.b64encode(row.tobytes()) + b'"' for row in vectors]
        self._vectors = vectors
        self._floats: dict[int, bytes] = {}
        self._scores = rng.random(POOL)

    def embeddings(self, asked: dict[str, Any]) -> tuple[bytes, int]:
        """The body of an answer, and the number of texts."""
        texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
        as_base64 = asked.get("encoding_format") == "base64"
        pieces = [b'{"object":"list","model":"m","data":[']
        for i, text in enumerate(texts):
            which = zlib.crc32(text.encode("utf-8", "surrogatepass")) % POOL
            value = self._base64[which] if as_base64 else self._as_floats(which)
            pieces.append(b'%s{"object":"embedding","index":%d,"embedding":%s}' % (b"," if i else b"", i, value))
        tokens = sum(len(text) for text in texts) // 4
        pieces.append(b'],"usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (tokens, tokens))
        return b"".join(pieces), len(texts)

    def score(self, asked: dict[str, Any]) -> tuple[bytes, int]:
        """The body of an answer of /v1/score, and the number of documents."""
        documents = [asked["text_2"]] if isinstance(asked["text_2"], str) else asked["text_2"]
        query = asked["text_1"] if isinstance(asked["text_1"], str) else asked["text_1"][0]
        rows = [
            {"object": "score", "index": i, "score": self._score(query, document)}
            for i, document in enumerate(documents)
        ]
        return json.dumps({"object": "list", "data": rows, "usage": self._usage(documents)}).encode(), len(documents)

    def rerank(self, asked: dict[str, Any]) -> tuple[bytes, int]:
        """The body of an answer of /v1/rerank, and the number of documents."""
        documents = asked["documents"]
        rows = [
            {"index": i, "document": {"text": document}, "relevance_score": self._score(asked["query"], document)}
            for i, document in enumerate(documents)
        ]
        rows.sort(key=lambda row: -float(row["relevance_score"]))
        return json.dumps({"results": rows, "usage": self._usage(documents)}).encode(), len(documents)

    def _score(self, query: str, document: str) -> float:
        return float(self._scores[zlib.crc32((query + "\0" + document).encode("utf-8", "surrogatepass")) % POOL])

    @staticmethod
    def _usage(documents: list[str]) -> dict[str, int]:
        return {"prompt_tokens": 2 * len(documents), "total_tokens": 2 * len(documents)}

    def _as_floats(self, which: int) -> bytes:
        if which not in self._floats:
            self._floats[which] = json.dumps(self._vectors[which].tolist(), separators=(",", ":")).encode()
        return self._floats[which]


class Card:
    """The slots: ``work`` finishes requests in order of arrival, ``slots`` at a time."""

    def __init__(self, slots: int, base_s: float, per_item_s: float, jitter: float, seed: int) -> None:
        self.slots = slots
        self.base_s = base_s
        self.per_item_s = per_item_s
        self.jitter = jitter
        self.busy = 0
        self._random = random.Random(seed)
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self.reset()

    def reset(self) -> None:
        """Counts anew from here.

        ``busy_seconds`` is the time that the slots were at work and ``span_seconds`` the time from the first request's
        start to the last one's end: a slot without work cost ``slots * span_seconds - busy_seconds``.
        """
        self.stats: dict[str, float] = {
            "requests": 0,
            "items": 0,
            "most_waiting": 0,
            "busy_seconds": 0.0,
            "span_seconds": 0.0,
        }
        self._first: float | None = None

    def work(self, items: int, done: Callable[[], None]) -> None:
        """Calls ``done`` when the card has worked for the time that so many items need."""
        self.stats["requests"] += 1
        self.stats["items"] += items
        if self.base_s == 0 and self.per_item_s == 0:
            done()
        elif self.busy < self.slots:
            self._start(items, done)
        else:
            self._waiting.append((items, done))
            self.stats["most_waiting"] = max(self.stats["most_waiting"], len(self._waiting))

    def _start(self, items: int, done: Callable[[], None]) -> None:
        self.busy += 1
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._first is None:
            self._first = now
        seconds = self.base_s + self.per_item_s * items
        seconds *= 1 + self.jitter * self._random.uniform(-1, 1)
        loop.call_later(seconds, self._end, now, done)

    def _end(self, since: float, done: Callable[[], None]) -> None:
        self.busy -= 1
        now = asyncio.get_running_loop().time()
        self.stats["busy_seconds"] += now - since
        self.stats["span_seconds"] = now - (self._first if self._first is not None else since)
        if self._waiting:
            self._start(*self._waiting.popleft())
        done()


class Http(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, as little of it as a client needs."""

    def __init__(self, model: Model, card: Card) -> None:
        self._model = model
        self._card = card
        self._buffer = bytearray()
        self._length = -1
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Collects bytes until a request is complete."""
        self._buffer += data
        while True:
            if self._length < 0:
                end = self._buffer.find(b"\r\n\r\n")
                if end < 0:
                    return
                self._head = bytes(self._buffer[:end])
                del self._buffer[: end + 4]
                self._length = 0
                for line in self._head.split(b"\r\n")[1:]:
                    name, _, value = line.partition(b":")
                    if name.strip().lower() == b"content-length":
                        self._length = int(value)
            if len(self._buffer) < self._length:
                return
            body = bytes(self._buffer[: self._length])
            del self._buffer[: self._length]
            self._length = -1
            self._answer(self._head.split(b" ", 2)[1].decode(), body)

    def _answer(self, path: str, body: bytes) -> None:
        model = self._model
        endpoints: dict[str, Callable[[dict[str, Any]], tuple[bytes, int]]] = {
            "/v1/embeddings": model.embeddings,
            "/v1/score": model.score,
            "/score": model.score,
            "/v1/rerank": model.rerank,
            "/rerank": model.rerank,
        }
        if path in endpoints:
            answer, items = endpoints[path](json.loads(body))
            self._card.work(items, lambda: self._send(200, answer))
            return
        pages: dict[str, Callable[[], Any]] = {
            "/health": dict,
            "/version": lambda: {"version": "simulated"},
            "/v1/models": lambda: {"data": [{"id": model.name, "max_model_len": model.max_model_len}]},
            "/tokenize": lambda: {"count": len(json.loads(body)["prompt"]) // 4 + 1},
            "/stats": lambda: self._card.stats,
            "/stats/reset": self._card.reset,
        }
        if path in pages:
            self._send(200, json.dumps(pages[path]()).encode())
        else:
            self._send(404, b'{"detail":"Not Found"}')

    def _send(self, status: int, body: bytes) -> None:
        if isinstance(self._transport, asyncio.WriteTransport) and not self._transport.is_closing():
            head = b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            self._transport.writelines([head % (status, len(body)), body])


async def serve(options: argparse.Namespace) -> None:
    """Runs until it is ended."""
    model = Model(options.model, options.dimensions, options.max_model_len)
    card = Card(options.slots, options.base_ms / 1e3, options.per_item_ms / 1e3, options.jitter, options.seed)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Http(model, card), "127.0.0.1", options.port)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    if options.follow_stdin:
        # the process that started us closes our standard input by ending, however it ends
        await loop.run_in_executor(None, sys.stdin.read)
    else:
        await server.serve_forever()


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--port", type=int, default=0, help="0 = a free one, printed on the first line")
    parser.add_argument("--slots", type=int, default=4, help="requests worked on at once")
    parser.add_argument("--base-ms", type=float, default=20, help="milliseconds for each request")
    parser.add_argument("--per-item-ms", type=float, default=2, help="milliseconds for each text or document")
    parser.add_argument("--jitter", type=float, default=0, help="share by which the time varies, 0 to 1")
    parser.add_argument("--dimensions", type=int, default=1024)
    parser.add_argument("--model", default="m", help="served name")
    parser.add_argument("--max-model-len", type=int, default=8192)
    parser.add_argument("--seed", type=int, default=0, help="of the jitter")
    parser.add_argument("--follow-stdin", action="store_true", help="end when standard input closes")
    return parser


if __name__ == "__main__":
    try:
        asyncio.run(serve(arguments().parse_args()))
    except KeyboardInterrupt:
        sys.exit(130)
