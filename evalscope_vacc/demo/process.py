"""Starts and surely stops the demo server in a process of its own."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from evalscope_vacc.errors import ServerUnreachableError
from evalscope_vacc.redact import clean

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

DEFAULT_NAME = "all-MiniLM-L6-v2"
"""The served name where none is given."""

KEY_VARIABLE = "VACC_DEMO_API_KEY"
"""Environment variable that hands the key to the server, because arguments can be seen by every user."""

_HOST = "127.0.0.1"


class DemoServer:
    """The demo server as a child process on a free port of 127.0.0.1.

    It ends with the ``with`` block, and also when this process ends in any way, a kill included: the child waits at a
    pipe that only this process holds, and looks who its parent is.

    Args:
        names: Served model names. All of them are the same weights.
        model: ``minilm``, or the path of a sentence-transformers folder.
        max_model_len: Tokens, special ones included, that a text may have.
        workers: Threads that run the model; 0 takes one a core, 8 at most.
        remember: Vectors that the server keeps in memory.
        api_key: Guards ``/v1`` and ``/v2``.
        record: File that gets one JSON line for each request: ``{"time", "method", "path", "status", "body"}``.
        start_timeout_s: Seconds until the server must be ready; loading torch on a busy machine takes long.

    Raises:
        ServerUnreachableError: From :meth:`start` and :meth:`wait`, when it does not come up; it tells the child's
            last words.
    """

    def __init__(
        self,
        *,
        names: tuple[str, ...] = (DEFAULT_NAME,),
        model: str = "minilm",
        max_model_len: int = 256,
        workers: int = 0,
        remember: int = 100_000,
        api_key: str | None = None,
        record: Path | None = None,
        start_timeout_s: float = 180,
    ) -> None:
        self.names = names
        self._api_key = api_key
        self._start_timeout_s = start_timeout_s
        self._url: str | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._words: IO[bytes] | None = None
        self._command = [sys.executable, "-m", "evalscope_vacc.demo.server", "--with-parent", "--host", _HOST]
        self._command += ["--model", model, "--max-model-len", str(max_model_len)]
        self._command += ["--workers", str(workers), "--remember", str(remember)]
        for name in names:
            self._command += ["--served-model-name", name]
        if record is not None:
            self._command += ["--record", str(record)]

    @property
    def url(self) -> str:
        """Root of the server, such as ``http://127.0.0.1:41234``; without ``/v1``."""
        if self._url is None:
            raise ServerUnreachableError("The demo server is not running: start it first.")
        return self._url

    @property
    def pid(self) -> int:
        """Process id of the child."""
        if self._child is None:
            raise ServerUnreachableError("The demo server is not running: start it first.")
        return self._child.pid

    def start(self, *, wait: bool = True) -> Self:
        """Start the child.

        Args:
            wait: Return when it is ready. Else :meth:`wait` must be called before :attr:`url` is of use; loading the
                model takes 5 to 25 seconds in which the caller can do something else.

        Returns:
            Itself.
        """
        if self._child is not None:
            raise ServerUnreachableError("The demo server was started already.")
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self._child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            env=self._environment(),
            # the terminal's Ctrl-C is for this process; it ends the child in its own time
            start_new_session=True,
        )
        if wait:
            self.wait()
        return self

    def wait(self) -> Self:
        """Wait until the server answers."""
        if self._url is not None:
            return self
        deadline = time.monotonic() + self._start_timeout_s
        line = self._first_line(deadline)
        try:
            url, port = str(line["url"]), int(line["port"])
        except (KeyError, TypeError, ValueError):
            self._give_up(f"said {line!r} instead of its address")
        while not _healthy(port):
            if time.monotonic() > deadline:
                self._give_up(f"did not answer /health within {self._start_timeout_s:g} s")
            time.sleep(0.05)
        self._url = url
        return self

    def stop(self) -> None:
        """End the child and wait until it is gone; does nothing when it is not running."""
        child, self._child, self._url = self._child, None, None
        if child is None:
            return
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
        # the closed pipe is the request to leave; the rest is for a child that cannot hear it any more
        for insist in (None, child.terminate, child.kill):
            if insist is not None:
                insist()
            try:
                child.wait(timeout=5)
                break
            except subprocess.TimeoutExpired:
                continue
        if self._words is not None:
            self._words.close()
            self._words = None

    def __enter__(self) -> Self:
        return self if self._child is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _environment(self) -> dict[str, str]:
        environment = {
            **os.environ,
            "EVALSCOPE_VACC_DISABLE": "1",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "TRANSFORMERS_VERBOSITY": "error",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        environment.pop(KEY_VARIABLE, None)
        if self._api_key:
            environment[KEY_VARIABLE] = self._api_key
        root = str(Path(__file__).resolve().parents[2])
        if root not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
            # a checkout that is on this process's path alone
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
        return environment

    def _first_line(self, deadline: float) -> dict[str, Any]:
        child = self._child
        if child is None or child.stdout is None:
            raise ServerUnreachableError("The demo server is not running: start it first.")
        lines: list[bytes] = []
        reader = threading.Thread(target=lambda: lines.append(child.stdout.readline()), daemon=True)  # type: ignore[union-attr]
        reader.start()
        reader.join(timeout=max(0.0, deadline - time.monotonic()))
        if reader.is_alive():
            self._give_up(f"was not ready within {self._start_timeout_s:g} s")
        if not lines or not lines[0]:
            status = child.wait(timeout=10)
            self._give_up(f"ended with status {status} before it was ready")
        try:
            content = json.loads(lines[0])
        except ValueError:
            content = None
        return content if isinstance(content, dict) else {}

    def _give_up(self, what: str) -> NoReturn:
        words = ""
        if self._words is not None:
            self._words.seek(0)
            words = self._words.read().decode("utf-8", "replace").strip()
        if self._child is not None:
            self._child.kill()  # before its pipes are closed: a thread may still read from one
        self.stop()
        told = f" Its last words: {clean(words[-1500:], [self._api_key or ''])}" if words else ""
        raise ServerUnreachableError(f"The demo server {what}.{told}")


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection(_HOST, port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
