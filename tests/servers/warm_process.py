"""A process that has imported the hosts and forks a child for each run, so that a start costs nothing.

Run as a program it reads a line of JSON for each run, forks, prints the child's process number, waits for its end and
prints how it ended. What a run had imported that went to its end, or refused its configuration, is imported for the
next ones. It starts no thread, so that a child is as a new process is.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


class Started:
    """A run: a process of its own, whose output goes to a file.

    Attributes:
        pid: Its process number.
        ended: Set when it has ended.
        status: Then its exit status, or the negative number of the signal that ended it.
    """

    def __init__(self, process: subprocess.Popen[str], task: dict[str, Any]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdout = process.stdout
        self._log = Path(task["log"])
        process.stdin.write(json.dumps(task) + "\n")
        self.pid = int(process.stdout.readline())
        self.ended = threading.Event()
        self.status: int | None = None
        self._watch = threading.Thread(target=self._wait)
        self._watch.start()

    def _wait(self) -> None:
        try:
            self.status = int(self._stdout.readline())
        finally:
            self.ended.set()

    def send(self, number: int) -> float:
        """Sends a signal; returns when."""
        when = time.monotonic()
        if not self.ended.is_set():
            os.kill(self.pid, number)
        return when

    def kill(self) -> float:
        """Ends it where it has not ended; returns when."""
        when = self.send(signal.SIGKILL)
        self._watch.join()
        return when

    def wait(self, seconds: float = 300) -> int | None:
        """Waits for its end and returns its status."""
        assert self.ended.wait(seconds), f"it did not end within {seconds} s: {self.output()[-5000:]}"
        self._watch.join()
        return self.status

    def wait_until(self, condition: Callable[[], Any], seconds: float = 120) -> None:
        """Waits for something to happen while it runs."""
        until = time.monotonic() + seconds
        while not condition():
            assert not self.ended.is_set(), self.output()[-5000:]
            assert time.monotonic() < until, self.output()[-5000:]
            time.sleep(0.001)

    def output(self) -> str:
        """What it wrote to stdout and stderr."""
        return self._log.read_text(errors="replace")


class WarmProcess:
    """The other end of it, for tests; one run at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._last: Started | None = None
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the process that imports the hosts ended with {self._process.wait()}")

    def start(
        self,
        command: Sequence[str],
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        before: str = "",
    ) -> Started:
        """Starts a command of ours or EvalScope's.

        Args:
            command: ``evalscope-vacc`` or ``evalscope``, and its arguments.
            folder: The current folder; made where it is missing.
            environment: What differs from this process's.
            before: Python to run before it.
        """
        if self._last is not None:
            self._last.kill()
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("output-*.txt")))
        task = {
            "command": list(command),
            "folder": str(folder),
            "log": str(folder / f"output-{number}.txt"),
            "environment": {**os.environ, **(environment or {})},
            "before": before,
        }
        self._last = Started(self._process, task)
        return self._last

    def close(self) -> None:
        """Ends the process."""
        if self._last is not None:
            self._last.kill()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


def _run(task: dict[str, Any]) -> None:
    log = os.open(task["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.chdir(task["folder"])
    os.environ.update(task["environment"])
    _read_hub_again(task["environment"])
    sys.argv = task["command"]
    status: Any = 0
    try:
        exec(task["before"], {})
        if task["command"][0] == "evalscope":
            from evalscope.cli.cli import run_cmd as main
        else:
            from evalscope_vacc.cli.app import main
        main()
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        traceback.print_exc()
        status = 1
    if status in (0, 2, None):
        Path(task["log"] + ".modules").write_text("\n".join(sys.modules), encoding="utf-8")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


def _read_hub_again(environment: Mapping[str, str]) -> None:
    """Sets what the hub's libraries took from the environment when they were imported, which was before this run."""
    import datasets
    from huggingface_hub import constants

    if hub := environment.get("HF_ENDPOINT"):
        constants.ENDPOINT = hub
    if home := environment.get("HF_HOME"):
        constants.HF_HUB_CACHE = str(Path(home, "hub"))
        datasets.config.HF_DATASETS_CACHE = Path(home, "datasets")


def _import_all(names: list[str]) -> None:
    for name in names:
        # some are made by their parents and cannot be imported by name
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(name)


def _main() -> None:
    _import_all(["evalscope.run", "evalscope.cli.cli", "mteb", "evalscope.backend.rag_eval.mteb.task_template"])
    _import_all(["evalscope.backend.rag_eval.clip_benchmark.arguments", "mteb.benchmarks.benchmarks"])
    _import_all(["evalscope_vacc.cli.app", "evalscope_vacc.models"])
    from evalscope_vacc.demo.tasks import register

    register()
    print("ready", flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(task)
        print(child, flush=True)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        modules = Path(task["log"] + ".modules")
        if modules.exists():
            _import_all([name for name in modules.read_text(encoding="utf-8").split() if name not in sys.modules])
            modules.unlink()
        assert threading.active_count() == 1, threading.enumerate()
        print(status, flush=True)


if __name__ == "__main__":
    _main()
