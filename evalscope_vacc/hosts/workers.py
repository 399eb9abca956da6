"""Worker processes that carry out the items of a plan, several at once, and how many there are.

A worker is forked from a process that has imported MTEB for all of them, and has one connection to this one. Over it come
its items, go its results, log lines, evidence and progress, and are leased the slots of the servers
(:mod:`evalscope_vacc.wire.slots`). A connection that breaks is the end of both sides' business: a worker whose parent is
gone ends, and what a worker held that is gone is free again.
"""

from __future__ import annotations

import logging
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from evalscope_vacc.errors import RunInterrupted
from evalscope_vacc.hosts.entries import all_ours
from evalscope_vacc.hosts.plan import Item
from evalscope_vacc.hosts.run_result import Outcome
from evalscope_vacc.hosts.spelling import AUTO, Count, read_count
from evalscope_vacc.hosts.versions import installed
from evalscope_vacc.progress import watcher
from evalscope_vacc.wire.slots import Broker, Lessee

logger = logging.getLogger(__name__)

VARIABLE = "VACC_WORKERS"
"""Of the environment: how many a command starts where neither it nor its configuration says so."""
MANY = 2
"""Workers where nobody says how many: one loads, fits or searches while the other encodes."""
WORKER_BYTES = 2 << 30
"""Memory that must be available for each of them."""
TEMPLATE = "evalscope.backend.rag_eval.mteb.task_template"
"""EvalScope's module, of which a worker needs the loaders from ModelScope alone."""
END_S = 1.0
"""How long a worker may take to end in order."""
_LOOK_S = 1.0
_MANY_ITEMS = 1000

_by_default: ContextVar[Count] = ContextVar("workers", default=1)


# -- how many ------------------------------------------------------------------------------------------------------------


def count_for(wanted: Count | None, items: int) -> int:
    """Returns how many workers there are for so many items."""
    wanted = wanted or _by_default.get()
    # elsewhere a process that has imported this much cannot be forked
    if sys.platform != "linux" or str(installed()["mteb"]).startswith("1."):
        return 1
    if wanted == AUTO:
        wanted = MANY if _available_bytes() >= MANY * WORKER_BYTES else 1
    return min(wanted, items)


def _available_bytes() -> int:
    """Memory that can be had without swapping; where that cannot be found out, enough."""
    found = [1 << 62]
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found.append(int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) << 10)
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        found.append(limit - used)
    return min(found)


# -- a worker ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setup:
    """What a worker needs before its first item; it can be pickled.

    Attributes:
        engine: Class of the engine that carries the items out.
        evaluation: ``eval:``, every key.
        entries: The models' entries, with their keys: it goes over the connection and nowhere else.
        earlier: What the folder's earlier run wrote down of its servers, before this one writes.
        tasks: Classes of tasks, by name, that this process registered beside MTEB's own.
        data: Folder or archive that all data come from, or None.
    """

    engine: Callable[..., Any]
    evaluation: Mapping[str, Any]
    entries: Sequence[Mapping[str, Any]]
    earlier: Any
    tasks: Mapping[str, type]
    data: Path | None = None


class Worker:
    """A worker process on another machine, of which only the connection is known; :class:`Forked` is one on this machine.

    Args:
        connection: To the process.

    Attributes:
        pid: Its number on its machine; None until its first message.
        tries: How often an item is begun whose worker ends before it: the machine may go away.
    """

    tries = 3

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.pid: int | None = None
        self._lock = threading.Lock()

    def send(self, *message: Any) -> None:
        """Sends a message; one to a worker that is gone is lost, as whoever listens to it will say."""
        with self._lock, suppress(OSError):
            self.connection.send(message)

    def messages(self) -> Iterator[tuple[Any, ...]]:
        """Yields what it sends until it is gone, with all its connections."""
        try:
            while True:
                # its own children may hold the connection open; what it sent before its end is read first
                ended = self.has_ended()
                if not wait([self.connection], _LOOK_S):
                    if ended:
                        break
                    continue
                kind, *content = self.connection.recv()
                if kind == "began":
                    (self.pid,) = content
                else:
                    yield kind, *content
        except (EOFError, OSError):
            pass
        except Exception as error:  # noqa: BLE001 -- whatever a class of somebody else's does when it is read
            logger.warning("what a worker says cannot be read, so it is ended: %r", error)
        self.end(2 * END_S)
        self.connection.close()

    def has_ended(self) -> bool:
        """Returns whether the process is known to have ended."""
        return False

    def end(self, timeout: float) -> None:
        """Gives it so many seconds; it ends when it is told to, and when its connection is closed."""
        time.sleep(timeout)

    def ending(self) -> str:
        """Says how it ended."""
        return "its worker process, or the machine that it ran on, is gone"


class Forked(Worker):
    """A worker process on this machine, whose end its launcher reports.

    Args:
        connection: To the process.
        launcher: Who forked it.
    """

    # what killed it would kill the next one, too
    tries = 1

    def __init__(self, connection: Connection, launcher: Launcher) -> None:
        super().__init__(connection)
        self._launcher = launcher

    def status(self, timeout: float = 0.0) -> int | None:
        """Waits for its end and returns its exit status, or the negative number of the signal that killed it."""
        return None if self.pid is None else self._launcher.status(self.pid, timeout)

    def has_ended(self) -> bool:
        """Returns whether the process is known to have ended."""
        return self._launcher.gone or self.status() is not None

    def end(self, timeout: float) -> None:
        """Kills it if it has not ended in time."""
        if self.pid is None or self.status(timeout) is not None or self._launcher.gone:
            return
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.status(END_S)

    def ending(self) -> str:
        """Says how it ended."""
        status = self.status()
        if status is None:
            # it went because its launcher did, whose connections close a moment before it has ended
            with suppress(subprocess.TimeoutExpired):
                status = self._launcher.process.wait(END_S)
        if status is not None and status < 0:
            name = signal.Signals(-status).name
            return f"its worker process was killed ({name})" + (
                "; the system does so where memory runs out" if name == "SIGKILL" else ""
            )
        return f"its worker process ended with status {status}; the log says why"


class Launches(Protocol):
    """Starts workers: on this machine :class:`Launcher`, on a cluster its own."""

    @property
    def gone(self) -> bool:
        """Whether it can start no more workers, and those that it started have ended."""

    def worker(self) -> Worker:
        """Starts one."""

    def close(self) -> None:
        """Frees what it holds; its workers have ended."""


class Launcher:
    """The process that imports MTEB once and forks the workers: ``python -m evalscope_vacc.hosts.worker``.

    It starts no thread, so that a worker is as a new process is. It ends when this process does.

    Args:
        imports: A module that it imports, MTEB with it.
    """

    def __init__(self, imports: str = "mteb") -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONSAFEPATH": "1"}
            self.process = subprocess.Popen(  # noqa: S603 -- this Python
                [sys.executable, "-m", "evalscope_vacc.hosts.worker", str(theirs.fileno()), imports],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the process that started it
            )
        self._statuses: dict[int, int] = {}
        self._changed = threading.Condition()
        self._silent = False
        threading.Thread(target=self._listen, name="vacc-launcher", daemon=True).start()

    @property
    def gone(self) -> bool:
        """Whether it has ended, and its workers with it."""
        return self.process.poll() is not None

    def worker(self) -> Forked:
        """Has a worker forked, as soon as everything is imported."""
        ours, theirs = socket.socketpair()
        with theirs, suppress(OSError):  # of one that is gone nobody gets the other end, as whoever reads ours will see
            socket.send_fds(self._socket, [b"+"], [theirs.fileno()])
        return Forked(Connection(ours.detach()), self)

    def status(self, pid: int, timeout: float = 0.0) -> int | None:
        """Waits for the end of a worker and returns its exit status, the negative number of the signal that killed it."""
        with self._changed:
            self._changed.wait_for(lambda: self._silent or pid in self._statuses, timeout)
            return self._statuses.get(pid)

    def close(self) -> None:
        """Ends the process, whose workers have ended."""
        self.process.kill()
        self.process.wait()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _listen(self) -> None:
        with self._socket, self._socket.makefile() as lines, suppress(OSError):
            for line in lines:
                pid, status = map(int, line.split())
                with self._changed:
                    self._statuses[pid] = status
                    self._changed.notify_all()
        with self._changed:
            self._silent = True
            self._changed.notify_all()


_ahead: list[Launcher] = []


@contextmanager
def of_a_command() -> Iterator[None]:
    """Inside the block a run that says nothing of workers has several: it is a command's, not a call's from Python."""
    token = _by_default.set(read_count(os.environ.get(VARIABLE), VARIABLE) or AUTO)
    try:
        yield
    finally:
        _by_default.reset(token)


@contextmanager
def started_ahead(config: Mapping[str, Any]) -> Iterator[None]:
    """Where a run inside the block will have workers, has MTEB imported for them while this process does other things.

    Inside another such block it does nothing.

    Args:
        config: ``{tool, models, eval}``.
    """
    if _ahead or _expected(config) == 1:
        yield
        return
    launcher = Launcher("mteb" if config["eval"].get("hub") == "huggingface" else TEMPLATE)
    _ahead.append(launcher)
    try:
        yield
    finally:
        _ahead.remove(launcher)
        launcher.close()


def _expected(config: Mapping[str, Any]) -> int:
    """Returns how many workers a run will have, where it can be told before its tasks are known."""
    models, evaluation = config.get("models") or config.get("model"), config.get("eval")
    if not (isinstance(models, list) and isinstance(evaluation, Mapping) and all_ours(models)):
        return 1
    listed = [evaluation.get("task_names") or evaluation.get("tasks"), evaluation.get("custom_tasks")]
    tasks = sum(len(names) for names in listed if isinstance(names, list))
    # what else names tasks may name many
    items = _MANY_ITEMS if evaluation.get("benchmarks") or not tasks else len(models) * tasks
    return count_for(read_count(evaluation.get("workers"), "eval.workers"), items)


def _end(workers: Sequence[Worker]) -> None:
    """Ends workers, in order where they can."""
    for worker in workers:
        worker.send("stop")
    until = time.monotonic() + 1.5 * END_S
    for worker in workers:
        worker.end(max(0.0, until - time.monotonic()))


# -- all of them ---------------------------------------------------------------------------------------------------------


class Workers:
    """Carries items out in worker processes; it is one of :class:`evalscope_vacc.hosts.run.Hands`.

    Args:
        setup: What each of them is told first.
        width: How many there are.
        weight: How soon an item is begun.
        record: Takes evidence that a worker has: the model's position, the method's name, and its arguments.
        launcher: Who starts them; None is a process of this machine.
    """

    def __init__(
        self,
        setup: Setup,
        width: int,
        weight: Callable[[Item], int],
        record: Callable[[int, str, Sequence[Any]], None],
        launcher: Launches | None = None,
    ) -> None:
        self.width = width
        self.weight = weight
        self._setup = pickle.dumps(setup)
        self._record = record
        self._broker = Broker()
        self._events: queue.SimpleQueue[tuple[Worker, str, Sequence[Any]]] = queue.SimpleQueue()
        self._idle: list[Worker] = []
        self._at_work: dict[Worker, int] = {}
        self._items: dict[int, Item] = {}
        self._tries: Counter[int] = Counter()
        self._again: list[int] = []
        self._lock = threading.Lock()
        self._checks: dict[int, Worker] = {}  # who makes the short check of a model's servers, by the model's position
        self._warned: dict[str, Worker] = {}  # who said it first
        self._launcher: Launches | None = launcher or (_ahead[0] if _ahead else None)
        self._stopped: RunInterrupted | None = None

    def begin(self, position: int, item: Item) -> None:
        """Has a worker begin an item; one that died is replaced."""
        worker = self._idle.pop() if self._idle else self._hired()
        self._at_work[worker] = position
        self._items[position] = item
        self._tries[position] += 1
        worker.send("do", item)

    def next(self) -> tuple[int, Outcome]:
        """Waits for the end of an item, and returns its position and what came of it."""
        try:
            while self._stopped is None:
                worker, kind, content = self._event()
                if kind == "done":
                    self._idle.append(worker)
                    position = self._at_work.pop(worker)
                    self._begin_again()
                    return position, content[0]
                if kind == "lost" and worker in self._at_work:
                    position = self._at_work.pop(worker)
                    if self._tries[position] >= worker.tries:
                        return position, Outcome(why=worker.ending())
                    logger.warning("%s is begun again: %s", self._items[position].task, worker.ending())
                    self.width = max(1, self.width - 1)
                    self._again.append(position)
                    if self._idle or not self._at_work:
                        self._begin_again()
        except KeyboardInterrupt:
            self._stopped = RunInterrupted()
            self.close()
        position = self._again.pop() if self._again else self._at_work.popitem()[1]
        return position, Outcome(why=str(self._stopped), fatal=self._stopped)

    def _begin_again(self) -> None:
        if self._again:
            position = self._again.pop(0)
            self.begin(position, self._items[position])

    def finish(self) -> None:
        """Has what was stored for resuming dropped, by one worker after the other: each knows what it stored."""
        for worker in list(self._idle):
            worker.send("finish")
            while worker in self._idle and self._event()[:2] != (worker, "finished"):
                pass

    def close(self) -> None:
        """Ends the workers."""
        _end([*self._idle, *self._at_work])
        self._idle.clear()
        if self._launcher is not None and self._launcher not in _ahead:
            self._launcher.close()

    def _event(self) -> tuple[Worker, str, Sequence[Any]]:
        """Waits for a message, and passes it on where it is for somebody else."""
        while True:
            # not for ever at once: on some systems Ctrl-C is only noticed between two waits
            with suppress(queue.Empty):
                worker, kind, content = self._events.get(timeout=_LOOK_S)
                break
        if kind == "moved":
            watcher().moved(*content, position=self._at_work.get(worker))
        elif kind == "log":
            self._log(worker, content[0])
        elif kind == "evidence":
            self._record(*content)
        elif kind == "lost" and worker in self._idle:
            self._idle.remove(worker)
        return worker, kind, content

    def _log(self, worker: Worker, record: logging.LogRecord) -> None:
        """Handles a line of a worker's log; what several find out about a server is said by the first of them."""
        logger = logging.getLogger(record.name)
        is_new = record.levelno < logging.WARNING or self._warned.setdefault(record.getMessage(), worker) is worker
        if is_new and logger.isEnabledFor(record.levelno):
            logger.handle(record)

    def _hired(self) -> Worker:
        if self._launcher is None or self._launcher.gone:
            self._launcher = Launcher()
        worker = self._launcher.worker()
        threading.Thread(target=self._listen, args=(worker,), name="vacc-worker", daemon=True).start()
        worker.send("setup", self._setup)
        return worker

    def _listen(self, worker: Worker) -> None:
        """Passes on what a worker sends; slots at once, in this thread."""
        for kind, *content in worker.messages():
            if kind == "ask":
                number, server, limit, count = content
                self._broker.ask(Lessee(worker, number, worker.send), server, limit, count)
            elif kind == "give":
                number, server, count = content
                self._broker.give(Lessee(worker, number, worker.send), server, count)
            elif kind == "check":
                with self._lock:
                    first = self._checks.setdefault(content[0], worker)
                worker.send("checks", first is worker)
            else:
                self._events.put((worker, kind, content))
        self._broker.lost(worker)
        with self._lock:  # it may not have come so far: the next worker that asks makes the check
            self._checks = {model: first for model, first in self._checks.items() if first is not worker}
        self._events.put((worker, "lost", ()))
