"""Runs the command that serves a model, waits until it answers, and leaves nothing behind when it is stopped."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from evalscope_vacc.errors import ConfigError, HostError, ServerUnreachableError
from evalscope_vacc.serving.command import Command

logger = logging.getLogger(__name__)

GRACE_S = 30.0
_POLL_S = 0.5
_WORKERS_S = 5.0


def wait_until_healthy(url: str, *, timeout_s: float, alive: Callable[[], bool] = lambda: True) -> float:
    """Waits until ``url/health`` answers 200.

    Args:
        url: The server's root.
        timeout_s: Seconds to wait at most.
        alive: False when there is no use in waiting on, because the server's process has ended.

    Returns:
        Seconds that it took.

    Raises:
        ServerUnreachableError: It did not answer in time, or its process ended first.
    """
    import requests

    began = time.monotonic()
    seen = "no connection"
    with requests.Session() as session:
        session.trust_env = False  # a proxy must not answer for a server on this machine
        while True:
            try:
                status = session.get(f"{url}/health", timeout=5, allow_redirects=False).status_code
            except requests.RequestException as error:
                seen = "no connection" if isinstance(error, requests.ConnectionError) else "no answer in time"
            else:
                if status == 200:
                    return time.monotonic() - began
                seen = f"status {status}"
            if not alive():
                raise ServerUnreachableError(f"{url}: the server's process ended before it was ready", server=url)
            if time.monotonic() - began > timeout_s:
                raise ServerUnreachableError(
                    f"{url}/health did not answer within {timeout_s:g} s (last seen: {seen}); look at the server's own"
                    " output, and give a model that is slow to load more time with --wait-s",
                    server=url,
                )
            time.sleep(_POLL_S)


def run_command(command: Command, *, when_started: Callable[[Callable[[], bool]], int | None] | None = None) -> int:
    """Runs ``command`` in the foreground until it ends or we are told to stop.

    Ctrl-C or SIGTERM stops the server and everything that it started: first politely, after ``GRACE_S`` seconds not.

    Args:
        command: What to run.
        when_started: Called once the process runs, with a function that says whether it still does. An exit status
            that it returns ends the server; None leaves it running.

    Returns:
        The exit status: ``when_started``'s, else the server's own; 130 after Ctrl-C, 143 after SIGTERM.

    Raises:
        ConfigError: A path in the command is still to be filled in.
        HostError: The program is not installed, or the port is taken.
    """
    if command.placeholder:
        raise ConfigError(" ".join(("The command cannot be run yet.", *command.notes)))
    program = command.argv[0]
    if shutil.which(program) is None:
        raise HostError(f"`{program}` is not on this machine's PATH; install it, or run the printed command elsewhere")
    _check_port_is_free(command.url)
    interruption = _Interruption()
    with interruption.noted():
        # its own session, so that a signal reaches the server's workers too, and Ctrl-C reaches us first
        process = subprocess.Popen(  # noqa: S603 - a list of arguments, no shell
            command.argv, env={**os.environ, **command.env}, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            interruption.arm()
            status = when_started(lambda: process.poll() is None) if when_started else None
            return process.wait() if status is None else status
        except KeyboardInterrupt:
            return 128 + (interruption.seen or signal.SIGINT)
        finally:
            interruption.disarm()
            _stop(process, command)


def _check_port_is_free(url: str) -> None:
    host, port = urlsplit(url).hostname or "127.0.0.1", urlsplit(url).port or 80
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=2):
        raise HostError(f"something already answers on {host}:{port}; stop it, or choose another port with --port")


class _Interruption:
    """Turns SIGINT and SIGTERM into one KeyboardInterrupt, and only while there is somebody to stop the server.

    A signal in between (the process just being started, or already being stopped) must not leave it running.
    """

    def __init__(self) -> None:
        self.seen = 0
        self._armed = False

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # Python takes handlers from nobody else
            yield
            return
        before: dict[int, Any] = {n: signal.signal(n, self._note) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def arm(self) -> None:
        self._armed = True
        if self.seen:
            raise KeyboardInterrupt

    def disarm(self) -> None:
        self._armed = False

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.seen = self.seen or number
        if self._armed:
            self._armed = False
            raise KeyboardInterrupt


def _stop(process: subprocess.Popen[bytes], command: Command) -> None:
    if process.poll() is None:
        _signal_group(process, signal.SIGTERM)
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            logger.warning("the server did not stop within %g s and is killed", GRACE_S)
            if command.container is not None:  # killing docker's client leaves the container running
                subprocess.run(  # noqa: S603
                    [command.argv[0], "kill", command.container], capture_output=True, check=False, timeout=GRACE_S
                )
    # vLLM's workers outlive their leader by a moment, in which they give shared memory back
    deadline = time.monotonic() + _WORKERS_S
    while process.poll() is not None and _signal_group(process, 0) and time.monotonic() < deadline:
        time.sleep(0.05)
    _signal_group(process, signal.SIGKILL)
    process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: int) -> bool:
    """Sends a signal (0 = none) to the server and what it started; returns whether there was anybody left."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
