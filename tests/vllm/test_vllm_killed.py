"""A real vLLM 0.32 killed in the middle of SciFact and started again (`nox -s vllm`): the run waits and goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evalscope_vacc.store import listing

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(3600)]
BIN = Path(sys.executable).parent
BATCH = 32
MIDDLE = 2500


def test_a_run_outlives_the_death_of_its_server_in_the_middle_of_a_corpus(
    vllm, hub: str, shared: Path, tmp_path: Path
) -> None:
    reference = json.loads((shared / "data" / "reference_minilm.json").read_text())["tasks"]["SciFact"][0]
    server = vllm("minilm")
    server.start()
    entry = {"model_type": "vacc_api", "model_name": "minilm", "api_base": server.url, "wait_for_server_s": 1200}
    config = {
        "tool": "MTEB",
        "models": [{**entry, "encode_kwargs": {"batch_size": BATCH}}],
        "eval": {"task_names": ["SciFact"], "hub": "huggingface"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    command = [str(BIN / "evalscope"), "eval", "--eval-backend", "RAGEval", "--eval-config", "config.json"]
    store = tmp_path / "home" / "store"
    log = tmp_path / "run.log"
    with log.open("wb") as output:
        run = subprocess.Popen(
            command,
            cwd=tmp_path,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "VACC_HOME": str(tmp_path / "home")},
        )
    try:
        until = time.monotonic() + 1800
        while sum(line.entries for line in listing(store)) < MIDDLE:
            assert run.poll() is None, log.read_text(errors="replace")[-3000:]
            assert time.monotonic() < until, log.read_text(errors="replace")[-3000:]
            time.sleep(1)
        server.kill()
        time.sleep(3)
        server.start()
        assert run.wait(1800) == 0, log.read_text(errors="replace")[-3000:]
    finally:
        run.kill()
        run.wait()
    said = log.read_text(errors="replace")
    assert "waiting up to 1200 s for it" in said
    assert "is back after" in said
    (result,) = (tmp_path / "outputs").rglob("results/**/SciFact.json")
    score = json.loads(result.read_text())["scores"]["test"][0]["main_score"]
    assert score == pytest.approx(reference["in_process_score"], abs=1e-4)
    (usage,) = (tmp_path / "outputs").rglob("vacc/usage.json")
    tasks = json.loads(usage.read_text())["tasks"]
    # what was under way when the server died, each a few times until it was seen to be gone
    assert 1 <= sum(task["retries"] for task in tasks) <= 50
    assert all(task["stored"] == 0 for task in tasks), "one process from start to end"
