"""The printed commands against a real vLLM 0.32 (`nox -s vllm`)."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evalscope_vacc import catalog
from evalscope_vacc.serving.command import ServeOptions, build_command

pytestmark = pytest.mark.slow

# Reads each command line with the parser of `vllm serve` itself, so that values count too, not only names.
PARSE = """
import json, sys
from vllm.entrypoints.cli.serve import FlexibleArgumentParser, make_arg_parser
parser = make_arg_parser(FlexibleArgumentParser())
read = []
for argv in json.load(sys.stdin):
    args = parser.parse_args(argv)
    read.append([args.model_tag, args.served_model_name, args.port, args.runner, args.max_model_len, args.hf_overrides])
print("READ" + json.dumps(read))
"""


@pytest.fixture(scope="module")
def venv() -> Path:
    """The virtual environment of the real vLLM."""
    given = os.environ.get("VACC_VLLM_VENV")
    if given is None:
        pytest.skip("needs a real vLLM: VACC_VLLM_VENV names its virtual environment, as `nox -s vllm` does")
    return Path(given)


def commands(runtime: str) -> list[list[str]]:
    """What follows `vllm serve` for every model, plain and with every option that changes it."""
    found = []
    for entry in catalog.entries():
        several = {"dimensions": 64} if entry.matryoshka else {}
        for options in ({}, {**several, "tensor_parallel_size": entry.tensor_parallel[-1], "max_model_len": 128}):
            argv = build_command(entry, ServeOptions(runtime=runtime, **options)).argv
            found.append(list(argv[argv.index("serve") + 1 :]))
    return found


def test_vllm_accepts_every_command_of_the_catalog(venv: Path) -> None:
    lines = commands("vllm") + commands("docker")
    done = subprocess.run(
        [venv / "bin" / "python", "-c", PARSE],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    read = json.loads(done.stdout.rpartition("READ")[2])
    for argv, (model, names, port, runner, length, overrides) in zip(lines, read, strict=True):
        assert [model, names] == [argv[0], [argv[2]]]
        assert str(port) == argv[argv.index("--port") + 1]
        assert runner == "pooling"
        assert str(length) == argv[argv.index("--max-model-len") + 1]
        said = argv[argv.index("--hf-overrides") + 1] if "--hf-overrides" in argv else "{}"
        assert overrides == json.loads(said)


def test_the_help_of_vllm_serve_names_every_flag(venv: Path) -> None:
    done = subprocess.run(
        [venv / "bin" / "vllm", "serve", "--help=all"], capture_output=True, text=True, timeout=300, check=True
    )
    known = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", done.stdout))
    for runtime in ("vllm", "docker", "vacc-docker"):
        flags = {word.replace("_", "-") for argv in commands(runtime) for word in argv if word.startswith("--")}
        assert "--served-model-name" in flags
        assert flags <= known


def test_serve_run_wait_brings_up_minilm_and_checks_it(venv: Path, tmp_path: Path) -> None:
    models = os.environ.get("VACC_VLLM_MODELS")
    if models is None:
        pytest.skip("needs the small models: VACC_VLLM_MODELS names their folder, as `nox -s vllm` does")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    quiet = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    path = f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"
    arguments = ["serve", "all-MiniLM-L6-v2", "--runtime", "vllm", "--weights", str(Path(models) / "minilm")]
    arguments += [
        "--port",
        str(port),
        "--run",
        "--wait",
        "--wait-s",
        "500",
        "--stop-after-check",
        "--",
        "--dtype",
        "float32",
    ]
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "evalscope_vacc", *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **quiet, "PATH": path},
        )
        try:
            status = process.wait(560)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(60)
    text = log.read_text()
    assert status == 0, text[-3000:]
    first = text.splitlines()[0]
    assert shlex.split(first.removesuffix(" \\"))[:3] == ["vllm", "serve", str(Path(models) / "minilm")]
    assert f"all-MiniLM-L6-v2 is ready at http://127.0.0.1:{port}" in text
    deadline = time.monotonic() + 20
    while _listens(port) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not _listens(port)


def _listens(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0
