"""Workers on the machines of a Ray cluster, for :class:`evalscope_vacc.hosts.workers.Workers`.

Ray places the processes, and that is all: an actor connects to the process that runs the plan and is a worker like one on
this machine, with the same code, messages and slots. Whatever is written is written by that process, except for what MTEB
writes of a task, for which the run's folder must be one that every machine sees.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any

from evalscope_vacc.errors import ConfigError, HostError
from evalscope_vacc.hosts.workers import Worker

logger = logging.getLogger(__name__)

START_S = 300.0
"""How long the cluster may take to start a worker."""
# what the hosts, the hubs and this package read from the environment; the rest belongs to each machine
_PASSED_ON = ("HF_", "HUGGINGFACE_", "MTEB_", "MODELSCOPE_", "VACC_", "NO_PROXY", "no_proxy", "TQDM_")
HANDSHAKE_S = 30
"""How long whoever connects may take for an answer, in whole seconds."""
# so that a machine that is gone is noticed within half a minute
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)

_address: ContextVar[str | None] = ContextVar("cluster", default=None)


@contextmanager
def on_cluster(address: str | None) -> Iterator[None]:
    """Inside the block the workers of a run are on a Ray cluster: at an address, or with "auto" the one of this machine."""
    token = _address.set(address)
    try:
        yield
    finally:
        _address.reset(token)


def cluster() -> str | None:
    """Returns the address of the cluster that a run's workers are on, or None."""
    return _address.get()


class RayLauncher:
    """Has a Ray cluster start workers.

    Args:
        address: Of the cluster, or "auto".

    Raises:
        ConfigError: Ray is not installed, or there is no cluster.

    Attributes:
        gone: Whether nobody can be started any more; never.
        processors: How many the cluster has free for workers.
    """

    gone = False

    def __init__(self, address: str) -> None:
        try:
            import ray
        except ImportError:
            raise ConfigError("--ray needs Ray: pip install 'evalscope-vacc[ray]', on every machine") from None
        self._ray = ray
        self._ours = not ray.is_initialized()
        if self._ours:
            try:
                _look_for(address)
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            except (OSError, ValueError) as error:
                raise ConfigError(f"--ray {address}: {error}") from None
        self._actors: list[Any] = []
        self._key = secrets.token_bytes(32)
        host = ray.util.get_node_ip_address()
        self._server = socket.create_server((host, 0))
        self.processors = max(1, int(ray.available_resources().get("CPU", 1)))

    def worker(self) -> Worker:
        """Has a worker started and waits for its call.

        Raises:
            HostError: There is no room for it on the cluster.
        """
        # an item whose worker died is begun again here, not by Ray, which knows nothing of items
        kind = self._ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(Remote)
        actor = kind.remote()
        environment = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
        actor.work.remote(self._server.getsockname(), self._key, str(Path.cwd()), environment)
        self._actors.append(actor)
        return Worker(accepted(self._server, self._key, START_S))

    def close(self) -> None:
        """Frees the cluster's resources."""
        self._server.close()
        for actor in self._actors:
            with suppress(Exception):  # whatever Ray says of an actor whose machine is gone
                self._ray.kill(actor)
        self._actors.clear()
        if self._ours:
            self._ray.shutdown()


def accepted(server: socket.socket, key: bytes, patience_s: float) -> Connection:
    """Accepts connections until one comes from a peer that knows the key; closes all others.

    Raises:
        HostError: There is none within ``patience_s`` seconds.
    """
    until = time.monotonic() + patience_s
    while (left := until - time.monotonic()) > 0:
        server.settimeout(left)
        try:
            connected, (host, *_) = server.accept()
        except TimeoutError:
            break
        with connected:
            for level, option, value in _KEEPALIVE:
                connected.setsockopt(level, option, value)
            if _knows(connected, key):
                return Connection(os.dup(connected.fileno()))
        logger.warning("a connection from %s was closed: it did not show the run's key within %d s", host, HANDSHAKE_S)
    raise HostError(f"Ray has started no worker within {patience_s:.0f} s: has the cluster a free processor?")


def _knows(connected: socket.socket, key: bytes) -> bool:
    """Returns whether the peer proves within :data:`HANDSHAKE_S` that it knows the key."""
    # a connection reads as a descriptor does, which knows no timeout of Python's
    connected.setblocking(True)
    with Connection(os.dup(connected.fileno())) as connection:
        try:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", HANDSHAKE_S, 0))
            deliver_challenge(connection, key)
            answer_challenge(connection, key)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 0))
        except (AuthenticationError, AssertionError, EOFError, OSError):
            return False
    return True


def _look_for(address: str) -> None:
    """Raises OSError where nobody listens at an address; Ray would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


class Remote:
    """A worker in a process of the cluster."""

    def work(self, address: tuple[str, int], key: bytes, folder: str, environment: Mapping[str, str]) -> None:
        """Connects to the process that runs the plan, and carries out what that asks for.

        Args:
            address: Where it listens.
            key: Shows each side that the other belongs to the run.
            folder: Its current folder, which must be there.
            environment: Of it, what concerns the hosts and us.
        """
        os.environ.update(environment)
        os.chdir(folder)
        connection = Connection(socket.create_connection(address).detach())
        answer_challenge(connection, key)
        deliver_challenge(connection, key)

        from evalscope_vacc.hosts.worker import be_worker, import_hosts

        import_hosts("mteb")
        be_worker(connection, 0)
