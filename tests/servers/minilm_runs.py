"""Evaluations of real all-MiniLM-L6-v2 on the demo server by the unmodified `evalscope` command.

They cost minutes of embedding, so each is made once a session (fixtures in ``tests/conftest.py``) for whoever looks at it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# "short" for the other hosts, whose own code for retrieval is the same
LISTS = {
    "short": ["STSBenchmark", "QBQTC"],
    "": ["SciFact", "STSBenchmark", "STSB", "QBQTC", "LCQMC"],
}
TASKS = LISTS[os.environ.get("VACC_TEST_TASKS", "")]
SHORT = "SciFact" not in TASKS
KEY = "sekret-literal-key"
BIN = Path(sys.executable).parent


def encoder(url: str, **keys: Any) -> dict[str, Any]:
    """The entry of the encoder in ``models:``."""
    return {"model_type": "vacc_api", "model_name": "minilm", "api_base": f"{url}/v1", "api_key": KEY, **keys}


def cosine_reranker(url: str) -> dict[str, Any]:
    """The entry of a cross-encoder whose score is the cosine of the same vectors."""
    return {
        "model_type": "vacc_api",
        "model_name": "cosine-reranker",
        "api_base": url,
        "is_cross_encoder": True,
        "headers": {"X-Token": KEY},
    }


def evaluate(folder: Path, models: Sequence[dict[str, Any]], tasks: Sequence[str], **evaluation: Any) -> Path:
    """Runs `evalscope eval` in ``folder`` and returns the folder, in which the run's own files are below ``outputs``."""
    evaluation = {"task_names": list(tasks), "hub": "huggingface", **evaluation}
    config = {"tool": "MTEB", "models": list(models), "eval": evaluation}
    (folder / "config.json").write_text(json.dumps(config))
    command = [str(BIN / "evalscope"), "eval", "--eval-backend", "RAGEval", "--eval-config", "config.json"]
    with (folder / "console.log").open("w") as log:
        done = subprocess.run(command, cwd=folder, stdout=log, stderr=log, timeout=3000, check=False)
    assert done.returncode == 0, (folder / "console.log").read_text()[-4000:]
    (folder / "config.json").unlink()  # the only place where the key may be
    return folder
