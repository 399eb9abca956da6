"""Runs the demo server in its own process, and makes sure that it stops."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from evalscope_vacc.errors import ServerUnreachableError
from evalscope_vacc.redact import clean

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

DEFAULT_NAME = "all-MiniLM-L6-v2"
"""The served name where none is given."""

KEY_VARIABLE = "VACC_DEMO_API_KEY"
"""Environment variable that hands the key to the server, because arguments can be seen by every user."""

_QUIET = {
    "EVALSCOPE_VACC_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "CUDA_VISIBLE_DEVICES": "",
    # threads of OpenMP would wait for each other whenever several requests are in flight
    "OMP_NUM_THREADS": "1",
}


class DemoServer:
    """The demo server as a child process on a free port of 127.0.0.1.

    It ends with the ``with`` block, and also when this process ends in any way, a kill included: the child waits at a
    pipe that only this process holds.

    Args:
        names: Served model names. All of them are the same weights.
        max_model_len: Tokens, special ones included, that a text may have.
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
        max_model_len: int = 256,
        remember: int = 100_000,
        api_key: str | None = None,
        record: Path | None = None,
        start_timeout_s: float = 180,
    ) -> None:
        self.names = names
        self._api_key = api_key or ""
        self._start_timeout_s = start_timeout_s
        self._url: str | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - the child's, for as long as it runs
        self._command = [sys.executable, "-m", "evalscope_vacc.demo.server", "--with-parent"]
        self._command += ["--max-model-len", str(max_model_len), "--remember", str(remember)]
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
        """Starts the child.

        Args:
            wait: Return when it is ready. Else :meth:`wait` must be called before :attr:`url` is of use; loading the
                model takes 5 to 25 seconds in which the caller can do something else.

        Returns:
            Itself.
        """
        if self._child is not None:
            raise ServerUnreachableError("The demo server was started already.")
        environment = {**os.environ, **_QUIET, KEY_VARIABLE: self._api_key}
        root = str(Path(__file__).resolve().parents[2])
        if root not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
            # a checkout that is on this process's path alone
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
        self._child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            self._command,
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=environment,
            # the terminal's Ctrl-C is for this process; it ends the child in its own time
            start_new_session=True,
        )
        return self.wait() if wait else self

    def wait(self) -> Self:
        """Waits until the server answers; returns itself."""
        deadline = time.monotonic() + self._start_timeout_s
        while self._url is None:
            if self._child is None:
                raise ServerUnreachableError("The demo server is not running: start it first.")
            status = self._child.poll()
            said = self._said()
            if address := re.search(r"^\{.*\}$", said, re.MULTILINE):
                self._url = json.loads(address.group())["url"]
            elif status is not None or time.monotonic() > deadline:
                ended = f"ended with status {status} before it was ready"
                what = f"was not ready within {self._start_timeout_s:g} s" if status is None else ended
                self.stop()
                words = f" Its last words: {clean(said.strip()[-1500:], [self._api_key])}" if said.strip() else ""
                raise ServerUnreachableError(f"The demo server {what}.{words}")
            else:
                time.sleep(0.05)
        return self

    def _said(self) -> str:
        # pread: the child writes where the common file position is
        return os.pread(self._output.fileno(), 2**20, 0).decode("utf-8", "replace")

    def stop(self) -> None:
        """Ends the child and waits until it is gone; does nothing when it is not running."""
        child, self._child, self._url = self._child, None, None
        if child is None:
            return
        if child.stdin is not None:
            child.stdin.close()  # the request to leave
        try:
            child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def __enter__(self) -> Self:
        return self if self._child is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
