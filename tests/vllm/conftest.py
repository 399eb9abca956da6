"""A real vLLM 0.32 on this CPU, one server at a time; each takes two minutes to start."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

READY_S = 600


@pytest.fixture(scope="module")
def installed() -> tuple[Path, Path]:
    """The real vLLM's virtual environment, and the folder of small models."""
    venv, models = os.environ.get("VACC_VLLM_VENV"), os.environ.get("VACC_VLLM_MODELS")
    if venv is None or models is None:
        pytest.skip(
            "needs a real vLLM: VACC_VLLM_VENV and VACC_VLLM_MODELS name it and its models, as `nox -s vllm` does"
        )
    return Path(venv), Path(models)


class Vllm:
    """One server of one model; it can be killed and started again on the same port."""

    def __init__(self, installed: tuple[Path, Path], log: Path, model: str, *options: str) -> None:
        venv, models = installed
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._command = [str(venv / "bin" / "vllm"), "serve", str(models / model), "--served-model-name", model]
        self._command += ["--host", "127.0.0.1", "--port", str(port), "--runner", "pooling", "--dtype", "float32"]
        self._command += ["--max-model-len", "256" if model == "minilm" else "2048", "--enforce-eager", *options]
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it answers."""
        quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
        with self._log.open("ab") as output:
            process = self._process = subprocess.Popen(
                self._command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **quiet},
                start_new_session=True,
            )
        until = time.monotonic() + READY_S
        while not _healthy(self.url):
            assert process.poll() is None, self._log.read_text(errors="replace")[-3000:]
            assert time.monotonic() < until, self._log.read_text(errors="replace")[-3000:]
            time.sleep(1)

    def kill(self) -> None:
        """Ends it with all its processes, as a machine out of memory does."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(60)

    def stop(self) -> None:
        """Ends it in order, where it runs."""
        if self._process is None or self._process.poll() is not None:
            return
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()


@pytest.fixture
def vllm(installed: tuple[Path, Path], tmp_path: Path):
    """Makes servers, not started yet, and stops them in the end."""
    made: list[Vllm] = []

    def make(model: str, *options: str) -> Vllm:
        made.append(Vllm(installed, tmp_path / f"{model}.log", model, *options))
        return made[-1]

    yield make
    for server in made:
        server.stop()


@pytest.fixture
def serve(vllm):
    """Starts a server of one model, waits for it, and stops it with all its processes."""

    @contextmanager
    def start(model: str, *options: str) -> Iterator[str]:
        server = vllm(model, *options)
        try:
            server.start()
            yield server.url
        finally:
            server.stop()

    return start


def _healthy(url: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/health", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False
