from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from evalscope_vacc.errors import ConfigError, HostError, ServerUnreachableError
from evalscope_vacc.serving.command import Command
from evalscope_vacc.serving.runner import run_command, wait_until_healthy

# Stands in for vLLM: answers /health with 503 while it loads, has a worker process, may refuse to stop.
SERVER = """#!{python}
import http.server, os, signal, subprocess, sys, time
from pathlib import Path
here = Path({here!r})
args = sys.argv
(here / "argv").write_text("\\n".join(args[1:]))
if "--fail" in args:
    sys.exit(7)
if "--stubborn" in args:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
(here / "worker").write_text(str(worker.pid))
(here / "env").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
began = time.monotonic()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if time.monotonic() - began > 0.6 else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", int(args[args.index("--port") + 1])), Handler).serve_forever()
"""


@pytest.fixture
def port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the stand-in leaves traces; it is called `vllm` and is on the PATH."""
    path = tmp_path / "bin" / "vllm"
    path.parent.mkdir()
    path.write_text(SERVER.format(python=sys.executable, here=str(tmp_path)))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `check` was asked to look at; it finds the first one fine."""
    seen: list[dict[str, Any]] = []
    module = ModuleType("evalscope_vacc.cli.check")
    module.check_served = lambda served: seen.append(dict(served)) or len(seen) - 1  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "evalscope_vacc.cli.check", module)
    return seen


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone(pid: int, within_s: float = 5) -> bool:
    deadline = time.monotonic() + within_s
    while is_running(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def a_command(port: int, *extra: str, **changes: Any) -> Command:
    argv = ("vllm", "serve", "m", "--port", str(port), *extra)
    return Command(**{"argv": argv, "env": {}, "url": f"http://127.0.0.1:{port}", "model": "m", **changes})


def test_serve_run_wait_brings_the_server_up_checks_it_and_leaves_nothing(
    command: Callable[..., Any], program: Path, port: int, checked: list[dict[str, Any]], tmp_path: Path
) -> None:
    weights = tmp_path / "bge-reranker-base"
    weights.mkdir()
    (weights / "config.json").write_text("{}")
    arguments = ["serve", "bge-reranker-base", "--runtime", "vllm", "--port", str(port), "--weights", str(weights)]
    arguments += ["--devices", "0", "--run", "--wait", "--stop-after-check", "--", "--dtype", "a b; c"]
    done = command(*arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert done.exit_code == 0
    model = {"model_name": "bge-reranker-base", "api_base": f"http://127.0.0.1:{port}", "is_cross_encoder": True}
    assert checked == [{"model_type": "vacc_api", **model}]
    assert "is ready at" in done.stderr
    argv = (program / "argv").read_text().split("\n")
    assert argv[:2] == ["serve", str(weights)]
    assert argv[-2:] == ["--dtype", "a b; c"]
    assert (program / "env").read_text() == "0"
    assert gone(int((program / "worker").read_text()))
    # and what check says becomes the exit status
    assert command(*arguments).exit_code == 1


def test_wait_without_run_waits_for_a_server_started_elsewhere(
    command: Callable[..., Any], program: Path, port: int, checked: list[dict[str, Any]]
) -> None:
    with subprocess.Popen(["vllm", "serve", "m", "--port", str(port)], start_new_session=True) as process:
        try:
            done = command("serve", "bge-m3", "--runtime", "vllm", "--port", str(port), "--wait", "--wait-s", "30")
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert done.exit_code == 0
    assert len(checked) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stubborn", [False, True])
def test_a_signal_stops_the_server_and_its_workers(program: Path, port: int, number: int, stubborn: bool) -> None:
    script = (
        "from evalscope_vacc.serving import runner; from evalscope_vacc.serving.command import Command; import sys\n"
        "runner.GRACE_S = 1\n"
        f"argv = ('vllm', 'serve', 'm', '--port', '{port}') + {('--stubborn',) if stubborn else ()}\n"
        f"sys.exit(runner.run_command(Command(argv=argv, env={{}}, url='http://127.0.0.1:{port}', model='m')))"
    )
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        wait_until_healthy(f"http://127.0.0.1:{port}", timeout_s=30)
        worker = int((program / "worker").read_text())
        assert is_running(worker)
        process.send_signal(number)
        assert process.wait(20) == 128 + number
    assert gone(worker)


def test_a_signal_during_the_wait_ends_it(program: Path, port: int) -> None:
    script = (
        "from evalscope_vacc.serving import runner; from evalscope_vacc.serving.command import Command; import sys\n"
        f"argv = ('vllm', 'serve', 'm', '--port', '{port}')\n"
        "wait = lambda alive: runner.wait_until_healthy('http://127.0.0.1:9', timeout_s=60, alive=alive)\n"
        "command = Command(argv=argv, env={}, url='http://127.0.0.1:9', model='m')\n"
        "sys.exit(runner.run_command(command, when_started=wait))"
    )
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        wait_until_healthy(f"http://127.0.0.1:{port}", timeout_s=30)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    assert gone(int((program / "worker").read_text()))


def test_a_server_that_ends_at_once_is_reported(program: Path, port: int) -> None:
    assert run_command(a_command(port, "--fail")) == 7
    with pytest.raises(ServerUnreachableError, match="process ended before it was ready"):
        run_command(
            a_command(port, "--fail"),
            when_started=lambda alive: int(wait_until_healthy(f"http://127.0.0.1:{port}", timeout_s=30, alive=alive)),
        )


def test_a_server_that_is_never_ready_is_given_up_with_what_was_seen(port: int) -> None:
    with pytest.raises(ServerUnreachableError, match=r"within 0\.2 s \(last seen: no connection\).*--wait-s"):
        wait_until_healthy(f"http://127.0.0.1:{port}", timeout_s=0.2)


def test_a_proxy_is_not_asked_about_this_machine(program: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with subprocess.Popen(["vllm", "serve", "m", "--port", str(port)], start_new_session=True) as process:
        try:
            assert wait_until_healthy(f"http://127.0.0.1:{port}", timeout_s=30) < 30
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_a_taken_port_is_refused_before_anything_is_started(program: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with pytest.raises(HostError, match=r"something already answers on 127\.0\.0\.1:.*--port"):
            run_command(a_command(listener.getsockname()[1]))
    assert not (program / "argv").exists()


def test_a_command_with_a_path_to_fill_in_is_not_run(port: int) -> None:
    with pytest.raises(ConfigError, match=r"cannot be run yet\. Replace it"):
        run_command(a_command(port, placeholder=True, notes=("Replace it.",)))


def test_a_missing_program_is_named(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(HostError, match="`vllm` is not on this machine's PATH"):
        run_command(a_command(port))
