"""``python -m evalscope_vacc.hosts.worker``: imports MTEB once, and forks a worker whenever the other process wants one.

A worker evaluates items of a plan. It does with each what the other process would do, through the same code; it ends when
its connection to it does.
"""

from __future__ import annotations

import importlib
import logging
import logging.handlers
import os
import pickle
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial, partialmethod
from itertools import count
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from evalscope_vacc.errors import HostError, VaccError
from evalscope_vacc.evidence import SAMPLES, Evidence, TaskUsage, Where
from evalscope_vacc.hosts import collector
from evalscope_vacc.hosts.workers import END_S, TEMPLATE, Setup
from evalscope_vacc.progress import Watcher, watched
from evalscope_vacc.wire.slots import LeasedSlots, lease_from


class Link:
    """The connection to the process that started this one.

    Attributes:
        inbox: What this process is to do.
        busy: Whether it does something that takes time.
    """

    def __init__(self, connection: Connection) -> None:
        self.inbox: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self.busy = False
        self._connection = connection
        self._lock = threading.Lock()
        self._leased: list[LeasedSlots] = []
        self._checks: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def send(self, *message: Any) -> None:
        """Sends a message. The thread that reads notices when the connection is gone."""
        with self._lock, suppress(OSError):
            self._connection.send(message)

    def lease(self, server: str, limit: int) -> LeasedSlots:
        """Returns slots of a server that are leased over this connection."""
        number = len(self._leased)

        def send(kind: str, count: int) -> None:
            self.send(kind, number, server, *((limit,) if kind == "ask" else ()), count)

        self._leased.append(LeasedSlots(limit, send))
        return self._leased[number]

    def checks(self, model: int) -> bool:
        """Asks the process that runs the plan whether this worker is the one that checks a model's servers."""
        self.send("check", model)
        return self._checks.get()

    def read(self) -> None:
        """Reads until the other side stops or is gone, and then ends this process, in order where it can."""
        kind, began = "", False
        while kind != "stop":
            try:
                kind, *content = self._connection.recv()
            except (EOFError, OSError):
                kind, content = "stop", []
            if kind == "grant":
                self._leased[content[0]].granted(content[1])
            elif kind == "recall":
                self._leased[content[0]].recall()
            elif kind == "checks":
                self._checks.put(content[0])
            else:
                self.inbox.put((kind, content[0] if content else None))
                began = began or kind == "setup"
        if not began:
            os._exit(0)
        if self.busy:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(END_S)
        os._exit(1)


class _Evidence(Evidence):
    """Evidence that the other process writes, which alone writes to the run's folder."""

    def __init__(self, link: Link, model: int) -> None:
        super().__init__(Path())
        self._link = link
        self._model = model

    def _tell(self, name: str, *content: Any) -> None:
        self._link.send("evidence", self._model, name, content)

    def config(self, model: str, values: Mapping[str, Any]) -> None:
        """See :class:`Evidence`."""
        self._tell("config", model, dict(values))

    def server(self, model: str, facts: Mapping[str, Any]) -> None:
        """See :class:`Evidence`."""
        self._tell("server", model, dict(facts))

    def samples(self, where: Where, sent: Sequence[str | tuple[str, str]], tokens: Sequence[int | None] = ()) -> None:
        """See :class:`Evidence`."""
        self._seen[where] = self._seen.get(where, 0) + len(sent)
        self._tell("samples", where, list(sent[:SAMPLES]), list(tokens[:SAMPLES]))

    def usage(self, counts: TaskUsage) -> None:
        """See :class:`Evidence`."""
        self._tell("usage", counts)


class _Progress(Watcher):
    """Tells the other process of the progress."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def moved(self, *content: Any, position: int | None = None) -> None:  # noqa: ARG002
        """An answer came."""
        self._link.send("moved", *content)


class _Log(logging.handlers.QueueHandler):
    """Has the other process handle the log's lines, as if they were its own."""

    def __init__(self, link: Link) -> None:
        super().__init__(queue.SimpleQueue())
        self._link = link

    def enqueue(self, record: logging.LogRecord) -> None:
        """Sends a line."""
        self._link.send("log", record)


class _Template(ModuleType):
    """EvalScope's ``task_template``, imported when something of it is needed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(TEMPLATE), name)


def _engine(link: Link, setup: Setup) -> Any:
    """Builds the models and tasks of the run."""
    from evalscope_vacc.hosts.data import register

    register(setup.tasks)
    engine = setup.engine(SimpleNamespace(**setup.evaluation), setup.entries, _Template(TEMPLATE))
    engine.earlier = setup.earlier
    for position, model in enumerate(engine.models):
        if getattr(model, "served", None) is not None:
            model.served.evidence = _Evidence(link, position)
            model.served.checks = partial(link.checks, position)
    return engine


def _work(link: Link, pickled: bytes) -> None:
    """Carries out what is asked for until there is nothing more."""
    from evalscope_vacc.hosts.bundle import used
    from evalscope_vacc.hosts.logs import verbosity
    from evalscope_vacc.hosts.run import do, finish
    from evalscope_vacc.hosts.run_result import Outcome

    with ExitStack() as stack:
        failed: Outcome | None = None
        try:
            setup: Setup = pickle.loads(pickled)  # noqa: S301 -- from the process that started this one
            stack.enter_context(used(setup.data))
            stack.enter_context(verbosity(setup.evaluation.get("verbosity")))
            stack.enter_context(watched(_Progress(link)))
            engine = _engine(link, setup)
            stack.callback(engine.close)
        except Exception as error:  # noqa: BLE001 -- whatever it is, the other process must hear of it
            fatal = error if isinstance(error, VaccError) else HostError(f"a worker cannot start: {error!r}")
            failed = Outcome(why=str(fatal), fatal=fatal)
        for kind, content in iter(link.inbox.get, ("stop", None)):
            link.busy = True
            if kind == "do":
                link.send("done", failed or do(engine, content))
            elif kind == "finish":
                finish(engine)
                link.send("finished")
            link.busy = False


def import_hosts(module: str) -> None:
    """Imports all that takes long and would be imported later, while a server waits: a module, MTEB with it, and more."""
    for name in (module, "sentence_transformers", "evalscope_vacc.hosts.evalscope_run"):
        importlib.import_module(name)


def be_worker(connection: Connection, number: int) -> None:
    """What a worker's process does until it is told to stop.

    Args:
        connection: To the process that runs the plan.
        number: Of the line that its progress bars have.
    """
    link = Link(connection)
    link.send("began", os.getpid())
    # nothing that is drawn before a task sets a seed is the same in two workers (Python's own generator sees to it itself)
    np.random.seed()
    torch.seed()
    if sys.stderr.isatty():
        # each worker's bars have a line of their own
        tqdm.__init__ = partialmethod(tqdm.__init__, position=number)  # type: ignore[method-assign, assignment]
    threading.Thread(target=link.read, name="vacc-link", daemon=True).start()
    lease_from(link.lease)
    log = _Log(link)
    for name in (None, "evalscope", "evalscope_vacc", "mteb"):
        logging.getLogger(name).handlers[:] = [log]
        logging.getLogger(name).propagate = False
    with suppress(KeyboardInterrupt):
        kind, content = link.inbox.get()
        if kind == "setup":
            _work(link, content)


class _Launcher:
    """Forks workers, and tells the other process how each ended.

    Args:
        control: From it comes, for each worker that is wanted, its end of a connection; to it goes a line for each that
            ended: its process number, and its exit status.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._numbers: dict[int, int] = {}  # by process number

    def serve(self) -> None:
        """Serves until the other process is gone."""
        woken, wakes = socket.socketpair()
        wakes.setblocking(False)
        signal.set_wakeup_fd(wakes.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while True:
            ready = wait([self._control, woken])
            if woken in ready:
                woken.recv(4096)
                self._report()
            if self._control in ready:
                _, descriptors, _, _ = socket.recv_fds(self._control, 1, 1)
                if not descriptors:
                    break
                self._fork(descriptors[0])
        self._end()

    def _fork(self, descriptor: int) -> None:
        number = next(number for number in count() if number not in self._numbers.values())
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.close()
            be_worker(Connection(descriptor), number)
            # everything is closed and kept; what libraries do at the interpreter's end takes longer than Ctrl-C may
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
        os.close(descriptor)
        self._numbers[pid] = number

    def _report(self) -> None:
        """Says which workers have ended, and how."""
        with suppress(ChildProcessError, OSError):
            while self._numbers:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                self._numbers.pop(pid, None)
                self._control.sendall(f"{pid} {os.waitstatus_to_exitcode(status)}\n".encode())

    def _end(self) -> None:
        """Kills the workers that have not noticed in time that the other process is gone."""
        time.sleep(2 * END_S)
        self._report()
        for pid in self._numbers:
            os.kill(pid, signal.SIGKILL)


def main() -> None:
    """Serves the process at the other end of the descriptor that the command names."""
    if sys.version_info < (3, 11):
        sys.path.pop(0)  # the current folder: newer versions do not put it there (PYTHONSAFEPATH)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with collector.paused():
        import_hosts(sys.argv[2])
    _Launcher(socket.socket(fileno=int(sys.argv[1]))).serve()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
