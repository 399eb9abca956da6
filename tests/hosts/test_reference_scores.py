"""The main job, end to end: an unmodified EvalScope and MTEB against a server, and the scores of the same weights."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from minilm_runs import BIN, KEY, SHORT, TASKS

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(3600)]
pytest.importorskip("mteb", minversion="2.7", reason="the newer line's tests; tests/legacy has the older one's")


@pytest.fixture(scope="module")
def reference(shared: Path) -> dict[tuple[str, str, str], float]:
    """Task, split, subset to the main score of the same weights in process."""
    tasks = json.loads((shared / "data" / "reference_minilm.json").read_text())["tasks"]
    return {
        (name, row["split"], row["subset"]): row["in_process_score"]
        for name, rows in tasks.items()
        for row in rows
        if name in TASKS
    }


@pytest.fixture(scope="module")
def run(minilm_run: Path) -> Path:
    """One run of the `evalscope` command: an encoder on the tasks, a cross-encoder whose score is its cosine."""
    return minilm_run


def scores(folder: Path) -> dict[tuple[str, str, str], float]:
    found = {}
    for path in folder.rglob("*.json"):
        if path.stem in TASKS and "results" in path.parts:
            for split, rows in json.loads(path.read_text())["scores"].items():
                found |= {(path.stem, split, row["hf_subset"]): row["main_score"] for row in rows}
    return found


@pytest.mark.shows("same-scores")
def test_every_main_score_is_that_of_the_same_weights_in_process(
    run: Path, reference: dict[tuple[str, str, str], float]
) -> None:
    stage = "stage1" if "SciFact" in TASKS else "results"
    found = scores(next(path for path in run.rglob(stage) if path.is_dir()))
    assert found.keys() == reference.keys()
    for where, score in reference.items():
        assert found[where] == pytest.approx(score, abs=1e-4), where


@pytest.mark.skipif(SHORT, reason="the short list has no retrieval task")
def test_reranking_by_the_same_cosine_changes_nothing(run: Path) -> None:
    first, second = (scores(next(p for p in run.rglob(s) if p.is_dir())) for s in ("stage1", "stage2"))
    assert second.keys() == {("SciFact", "test", "default")}
    for where, score in second.items():
        assert score == pytest.approx(first[where], abs=1e-6)


def test_no_key_is_in_anything_that_the_run_wrote(run: Path) -> None:
    files = [path for path in run.rglob("*") if path.is_file()]
    assert any(path.name == "task_config.yaml" for path in files)
    assert any(path.name == "eval_log.log" for path in files)
    for path in files:
        assert KEY not in path.read_text(errors="replace"), path


def test_the_evidence_shows_what_was_sent(run: Path) -> None:
    (folder,) = (path for path in run.rglob("vacc") if path.is_dir())
    samples = [json.loads(line) for line in (folder / "sent_samples.jsonl").read_text().splitlines()]
    assert {s["task"] for s in samples} == set(TASKS)
    usage = json.loads((folder / "usage.json").read_text())["tasks"]
    assert sum(row["texts"] for row in usage) > 1000
    assert all(row["requests"] > 0 for row in usage if row["texts"])


@pytest.mark.shows("mteb-run")
def test_mtebs_own_command_gets_the_same_scores(
    run: Path, hub: str, demo_server: str, reference: dict[tuple[str, str, str], float], tmp_path: Path
) -> None:
    # after `run`, so that the server remembers the vectors
    command = [str(BIN / "mteb"), "run", "-m", "vacc/minilm", "-t", *TASKS, "--output-folder", str(tmp_path / "out")]
    environment = {**os.environ, "VACC_API_BASE": demo_server, "VACC_API_KEY": KEY}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = scores(tmp_path / "out")
    assert found.keys() == reference.keys()
    for where, score in reference.items():
        assert found[where] == pytest.approx(score, abs=1e-4), where
    written = "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    assert KEY not in written + done.stdout + done.stderr
    assert demo_server not in written


@pytest.mark.skipif(SHORT, reason="the short list has no retrieval task")
def test_a_limit_of_256_tokens_gives_the_published_scifact(run: Path) -> None:
    """The server refuses longer texts; EvalScope's own API model dies there, or cuts by characters and scores 0.59272."""
    found = scores(next(path for path in run.rglob("stage1") if path.is_dir()))
    assert found["SciFact", "test", "default"] == pytest.approx(0.64508, abs=1e-4)
    usage = json.loads(next(run.rglob("usage.json")).read_text())["tasks"]
    cut = [row["cut"] for row in usage if row["task"] == "SciFact" and row["side"] == "document"]
    assert sum(cut) > 1000, "most of SciFact's abstracts are longer than 256 tokens"
