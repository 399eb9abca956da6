"""The two scripts of the guide, as docs/examples has them, run as a user runs them, on the installed generation."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from served_model import ServedModel

FOLDER = "evalscope-1.14" if tuple(map(int, version("evalscope").split(".")[:3])) >= (1, 8, 1) else "evalscope-1.3"
EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples" / FOLDER
pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(1800)]


def run_example(folder: Path, script: str, changes: dict[str, str]) -> None:
    """Runs an example with other names and fewer queries; everything else is as it is written."""
    text = (EXAMPLES / script).read_text()
    for old, new in {
        '"hub": "modelscope"': '"hub": "huggingface", "limits": 5',
        '"limits": None,': "",
        **changes,
    }.items():
        assert old in text or old == '"limits": None,', old
        text = text.replace(old, new)
    (folder / script).write_text(text)
    done = subprocess.run(
        [sys.executable, script], cwd=folder, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


@pytest.mark.shows("scripts")
def test_the_reranker_script_goes_on_from_the_embedding_script(shared: Path, hub: str, tmp_path: Path) -> None:
    shutil.copy(shared / "facts" / "task_prompts.json", tmp_path)
    instruction = json.loads((tmp_path / "task_prompts.json").read_text())["SciFact"]
    with ServedModel("Qwen3-Embedding-0.6B", dimensions=1024) as server:
        changes = {'["T2Retrieval", "DuRetrieval", "STSB", "QBQTC"]': '["SciFact", "QBQTC"]'}
        run_example(tmp_path, "embedding.py", {**changes, "http://localhost:8000": server.base})
        queries = [text for text in server.texts() if text.startswith(f"Instruct: {instruction}\nQuery:")]
        assert len(queries) == 5
        assert len([t for t in server.texts() if t.startswith("Instruct: Retrieve semantically similar text\n")]) == 10
    (run,) = (tmp_path / "outputs").iterdir()
    with ServedModel("Qwen3-Reranker-0.6B", kind="cross-encoder") as server:
        changes = {"outputs/20260101_000000": str(run.relative_to(tmp_path)), "T2Retrieval": "SciFact"}
        changes |= {', "DuRetrieval"]': "]"}
        text = dict.fromkeys(_lines_about("DuRetrieval_"), "")
        run_example(tmp_path, "reranker.py", {**text, **changes, "http://localhost:8001": server.base})
        pairs = server.pairs()
    assert len(set(pairs)) == 500
    assert all(f"<Instruct>: {instruction}\n<Query>: " in query for query, _ in pairs)
    assert all(document.endswith("<think>\n\n</think>\n\n") for _, document in pairs)


def _lines_about(word: str) -> list[str]:
    lines = (EXAMPLES / "reranker.py").read_text().splitlines(keepends=True)
    return [line for line in lines if word in line]
