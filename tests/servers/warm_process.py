"""A process that has imported the hosts and forks a child for each run, so that a start costs nothing.

Run as a program it reads a line of JSON for each run (paths: ``config``, ``result``, ``log``, and ``home`` for
$VACC_HOME), forks, prints the child's process number, waits for its end and prints how it ended. What a run that went
to its end had imported is imported for the next ones. It starts no thread, so that a child is as a new process is.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import threading
import traceback
import warnings
from pathlib import Path
from typing import Any


class WarmProcess:
    """The other end of it, for tests."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the process that imports the hosts ended with {self._process.wait()}")

    def start(self, **paths: Path) -> int:
        """Starts a run and returns its process number; one at a time."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({name: str(path) for name, path in paths.items()}) + "\n")
        return int(self._process.stdout.readline())

    def end(self) -> int:
        """Waits for the end of the run; its exit status, or the negative number of the signal that ended it."""
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


def _run(task: dict[str, Any]) -> int:
    log = os.open(task["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ["VACC_HOME"] = task["home"]
    try:
        from evalscope_vacc import run

        rows = run(task["config"]).rows()
        Path(task["result"]).write_text(json.dumps(rows), encoding="utf-8")
        Path(task["log"] + ".modules").write_text("\n".join(sys.modules), encoding="utf-8")
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _import_all(names: list[str]) -> None:
    for name in names:
        # some are made by their parents and cannot be imported by name
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(name)


def _main() -> None:
    _import_all(["evalscope.run", "mteb", "evalscope.backend.rag_eval.mteb.task_template", "evalscope_vacc.models"])
    from evalscope_vacc.demo.tasks import register

    register()
    print("ready", flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(_run(task))
        print(child, flush=True)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        modules = Path(task["log"] + ".modules")
        if modules.exists():
            _import_all([name for name in modules.read_text(encoding="utf-8").split() if name not in sys.modules])
        assert threading.active_count() == 1, threading.enumerate()
        print(status, flush=True)


if __name__ == "__main__":
    _main()
