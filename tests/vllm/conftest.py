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


@pytest.fixture
def serve(installed: tuple[Path, Path], tmp_path: Path):
    """Starts a server of one model, waits for it, and stops it with all its processes."""
    venv, models = installed

    @contextmanager
    def start(model: str, *options: str) -> Iterator[str]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [str(venv / "bin" / "vllm"), "serve", str(models / model), "--served-model-name", model]
        command += ["--host", "127.0.0.1", "--port", str(port), "--runner", "pooling", "--dtype", "float32"]
        command += ["--max-model-len", "256" if model == "minilm" else "2048", "--enforce-eager", *options]
        quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
        log = tmp_path / f"{model}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **quiet}, start_new_session=True
            )
        url = f"http://127.0.0.1:{port}"
        try:
            until = time.monotonic() + READY_S
            while not _healthy(url):
                assert process.poll() is None, log.read_text(errors="replace")[-3000:]
                assert time.monotonic() < until, log.read_text(errors="replace")[-3000:]
                time.sleep(1)
            yield url
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait(60)

    return start


def _healthy(url: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/health", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False
