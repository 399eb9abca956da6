"""Real servers other than vLLM on this CPU: infinity, llama.cpp, and LiteLLM's proxy in front of llama.cpp."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

HERE = Path(__file__).parent
READY_S = 240
KEY = "sk-of-the-proxy-1234567890abcdef"


def environment(kind: str) -> Path:
    """The virtual environment of a server, made by ``nox -s infinity``, ``llamacpp`` or ``litellm``."""
    folder = os.environ.get("VACC_SERVERS")
    if folder is None or not (Path(folder) / kind / "bin" / "python").exists():
        pytest.skip(f"needs a real server: `nox -s {kind}` makes its environment and names it in VACC_SERVERS")
    return Path(folder) / kind


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """A server in a process group of its own, started and awaited on entry, ended on exit."""

    def __init__(self, command: Sequence[object], port: int, alive: str, log: Path, **env: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        quiet = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **quiet, **env},
                start_new_session=True,
            )
        until = time.monotonic() + READY_S
        while not _answers(self.url + alive):
            ended = self._process.poll() is not None
            if ended or time.monotonic() > until:
                self.stop()
                raise AssertionError(log.read_text(errors="replace")[-3000:])
            time.sleep(0.5)

    def stop(self) -> None:
        """Ends it with all its processes."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory):
    """Starts servers, each once a module, and stops them in the end."""
    folder = tmp_path_factory.mktemp("servers")
    running: list[Process] = []

    def run(command: Sequence[object], port: int, alive: str, **env: str) -> str:
        running.append(Process(command, port, alive, folder / f"{port}.log", **env))
        return running[-1].url

    run.folder = folder
    yield run
    for process in running:
        process.stop()


@pytest.fixture(scope="module")
def llamacpp(start) -> Iterator[dict[str, str]]:
    """Addresses of two llama.cpp servers, by "encoder" and "reranker"."""
    python = environment("llamacpp") / "bin" / "python"
    addresses = {}
    for kind, more in (("encoder", ()), ("reranker", ("rerank",))):
        port = free_port()
        addresses[kind] = start([python, HERE / "llamacpp_server.py", port, start.folder, *more], port, "/health")
    return addresses


@pytest.fixture(scope="module")
def infinity(start) -> dict[str, str]:
    """Addresses of an infinity with an encoder, one under the prefix /v1, and one with a reranker."""
    bins = environment("infinity") / "bin"
    reranker = start.folder / "reranker"
    command = [bins / "python", HERE / "infinity_reranker.py", reranker]
    weights = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout.split()[-1]
    addresses = {}
    for kind, model, more in (
        ("encoder", weights, ()),
        ("prefix", weights, ("--url-prefix", "/v1")),
        ("reranker", reranker, ()),
    ):
        port = free_port()
        options = ["--engine", "torch", "--device", "cpu", "--no-bettertransformer", "--no-model-warmup"]
        options += ["--host", "127.0.0.1"]
        command = [bins / "infinity_emb", "v2", "--model-id", model, "--served-model-name", "minilm", *options]
        addresses[kind] = start([*command, "--port", port, *more], port, "/health")
    return addresses


@pytest.fixture(scope="module")
def litellm(start, llamacpp) -> dict[str, str]:
    """Address and key of a proxy in front of both llama.cpp servers: the models "minilm" and "reranker"."""
    port, file = free_port(), start.folder / "litellm.json"
    upstream = {
        "minilm": ("openai/minilm", f"{llamacpp['encoder']}/v1"),
        "reranker": ("hosted_vllm/reranker", f"{llamacpp['reranker']}/v1"),
    }
    models = [
        {"model_name": name, "litellm_params": {"model": model, "api_base": base, "api_key": "none"}}
        for name, (model, base) in upstream.items()
    ]
    file.write_text(json.dumps({"model_list": models, "general_settings": {"master_key": KEY}}))
    command = [environment("litellm") / "bin" / "litellm", "--config", file, "--host", "127.0.0.1", "--port", port]
    url = start(command, port, "/health/liveliness", LITELLM_LOCAL_MODEL_COST_MAP="True")
    return {"url": url, "api_key": KEY}


def _answers(url: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False
