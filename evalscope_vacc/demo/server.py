"""A small OpenAI-compatible server with real weights: ``python -m evalscope_vacc.demo.server --port 0``.

It stands in for vLLM where there is no accelerator: the demo, and tests that need true vectors over true HTTP. Once
the model is loaded it writes one JSON line to standard output, ``{"url": "http://127.0.0.1:41234", "port": 41234}``,
and nothing after it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from evalscope_vacc._version import __version__
from evalscope_vacc.demo.engine import BUILTIN_MODEL, Engine, RefusedError, weights_folder
from evalscope_vacc.demo.fields import Fields, invalid
from evalscope_vacc.demo.process import DEFAULT_NAME, KEY_VARIABLE
from evalscope_vacc.demo.routes import Service
from evalscope_vacc.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

_log = logging.getLogger(__name__)

_EMPTY_PATHS = ("/health", "/ping")


class DemoHTTPServer(ThreadingHTTPServer):
    """One thread a connection; the model has one of its own.

    Args:
        address: Host and port to bind.
        service: What answers.
        api_key: Guards ``/v1`` and ``/v2``, as vLLM's ``--api-key`` does; None or empty guards nothing.
        record: File that gets one JSON line for each request.
        with_parent: Stop when the process that started this one is gone.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self,
        address: tuple[str, int],
        service: Service,
        *,
        api_key: str | None = None,
        record: Path | None = None,
        with_parent: bool = False,
    ) -> None:
        self.service = service
        self.api_key = api_key
        self.with_parent = with_parent
        self.requests = 0
        self.in_flight = 0
        self._counts = threading.Lock()
        self._parent = os.getppid()
        self._record = record.open("a", encoding="utf-8") if record is not None else None
        super().__init__(address, DemoHandler)

    def service_actions(self) -> None:
        """Look after the parent, about twice a second."""
        if self.with_parent and os.getppid() != self._parent:
            os._exit(0)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class's signature
        """A client that goes away is no event; anything else is."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            traceback.print_exc()

    def count(self, by: int) -> None:
        """Note that a request came (1) or was answered (-1)."""
        with self._counts:
            self.in_flight += by
            self.requests += max(by, 0)

    def record(self, method: str, path: str, status: int, body: bytes) -> None:
        """Write a request down; headers never, they hold keys."""
        if self._record is None:
            return
        text = body.decode("utf-8", "replace")
        try:
            content = json.loads(text) if text else None
        except ValueError:
            content = text
        line = {"time": time.time(), "method": method, "path": path, "status": status, "body": content}
        with self._counts:
            self._record.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._record.flush()


class DemoHandler(BaseHTTPRequestHandler):
    """HTTP/1.1 with kept connections."""

    server: DemoHTTPServer
    protocol_version = "HTTP/1.1"
    server_version = f"evalscope-vacc-demo/{__version__}"
    disable_nagle_algorithm = True
    # buffered, so that the headers and the body leave in one piece
    wbufsize = -1

    def do_GET(self) -> None:
        """Answer GET."""
        self._handle("GET")

    def do_POST(self) -> None:
        """Answer POST."""
        self._handle("POST")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Quiet: who wants to see requests asks for ``--record``."""
        _log.debug(format, *args)

    def _handle(self, method: str) -> None:
        path = urlsplit(self.path).path
        self.server.count(1)
        status = 500
        body = b""
        try:
            body = self._body()
            status, headers, content = self._answer(method, path, body)
            self.server.record(method, path, status, body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        finally:
            self.server.count(-1)

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            return self._chunks()
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass
        return b"".join(parts)

    def _answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if path in _EMPTY_PATHS:
            return 200, {}, b""
        if not self._may(path):
            return _json(401, {"error": "Unauthorized"})
        if path == "/metrics":
            return 200, {"content-type": "text/plain; version=0.0.4; charset=utf-8"}, self._metrics()
        if path == "/load":
            return _json(200, {"server_load": self.server.in_flight - 1})
        service = self.server.service
        asked, told = service.get_routes(), service.post_routes()
        if path not in asked and path not in told:
            return _json(404, {"detail": "Not Found"})
        allowed = "GET" if path in asked else "POST"
        if method != allowed:
            status, headers, content = _json(405, {"detail": "Method Not Allowed"})
            return status, {**headers, "allow": allowed}, content
        try:
            answer = asked[path]() if method == "GET" else told[path](self._fields(body))
        except RefusedError as refused:
            return _error(refused.status, str(refused), refused.kind, refused.param)
        except Exception as error:  # noqa: BLE001 - one request fails, the server goes on
            _log.exception("%s %s", method, path)
            return _error(500, f"{type(error).__name__}: {error}", "InternalServerError", None)
        return _json(200, answer)

    def _may(self, path: str) -> bool:
        key = self.server.api_key
        if not key or not path.startswith(("/v1", "/v2")):
            return True
        return self.headers.get("authorization", "") == f"Bearer {key}"

    def _fields(self, body: bytes) -> Fields:
        if self.headers.get_content_type() != "application/json":
            raise RefusedError(
                "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed", kind="Bad Request"
            )
        try:
            content = json.loads(body)
        except UnicodeDecodeError:
            raise invalid("json_invalid", "body.0", "JSON decode error", {}) from None
        except json.JSONDecodeError as error:
            raise invalid("json_invalid", f"body.{error.pos}", "JSON decode error", {}) from None
        return Fields(content)

    def _metrics(self) -> bytes:
        engine = self.server.service.engine
        counts = {
            "vacc_demo_requests_total": self.server.requests,
            "vacc_demo_requests_running": self.server.in_flight - 1,
            "vacc_demo_texts_encoded_total": engine.encoded,
            "vacc_demo_texts_remembered_total": engine.remembered,
        }
        return "".join(f"{name} {value}\n" for name, value in counts.items()).encode()


def _json(status: int, content: object) -> tuple[int, dict[str, str], bytes]:
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return status, {"content-type": "application/json"}, body


def _error(status: int, message: str, kind: str, param: str | None) -> tuple[int, dict[str, str], bytes]:
    return _json(status, {"error": {"message": message, "type": kind, "param": param, "code": status}})


def _leave_with_parent() -> None:
    """End the process when standard input ends: the one who started it holds the other side of the pipe."""

    def wait() -> None:
        with contextlib.suppress(OSError):
            # not sys.stdin: its lock, held by a blocked thread, would make a normal exit fail
            while os.read(0, 4096):
                pass
        os._exit(0)

    threading.Thread(target=wait, name="vacc-demo-parent", daemon=True).start()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m evalscope_vacc.demo.server", description="A small OpenAI-compatible server with real weights."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one; the line on standard output says it")
    parser.add_argument(
        "--model",
        default=BUILTIN_MODEL,
        help=f"{BUILTIN_MODEL!r} (the weights of the extra `demo`), or a sentence-transformers folder",
    )
    parser.add_argument(
        "--served-model-name", action="append", default=None, help=f"may be repeated; default {DEFAULT_NAME}"
    )
    parser.add_argument("--max-model-len", type=int, default=256, help="longer texts are refused, or cut on request")
    parser.add_argument("--workers", type=int, default=0, help="threads that run the model; 0: one a core, 8 at most")
    parser.add_argument("--remember", type=int, default=100_000, help="vectors kept in memory; about 1.7 kB each")
    parser.add_argument(
        "--api-key", default=os.environ.get(KEY_VARIABLE), help=f"guards /v1 and /v2; or by {KEY_VARIABLE}"
    )
    parser.add_argument("--record", type=Path, help="a JSON line for each request is appended to this file")
    parser.add_argument("--with-parent", action="store_true", help="stop when standard input ends")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until stopped.

    Args:
        argv: Arguments, without the program's name; None takes the process's.

    Returns:
        Exit status.
    """
    arguments = _arguments(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if arguments.with_parent:
        _leave_with_parent()
    try:
        engine = Engine(
            weights_folder(arguments.model),
            max_model_len=arguments.max_model_len,
            workers=arguments.workers,
            remember=arguments.remember,
        )
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    names = tuple(arguments.served_model_name or [DEFAULT_NAME])
    service = Service(engine, names, f"evalscope-vacc-demo {__version__}")
    server = DemoHTTPServer(
        (arguments.host, arguments.port),
        service,
        api_key=arguments.api_key,
        record=arguments.record,
        with_parent=arguments.with_parent,
    )
    port = server.server_address[1]
    sys.stdout.write(json.dumps({"url": f"http://{arguments.host}:{port}", "port": port}) + "\n")
    sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
    server.server_close()
    engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
