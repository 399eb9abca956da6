"""The verdict on a real server: the weights that others published scores for, served, evaluated, and compared.

Nothing here is written by hand: the demo server has the real all-MiniLM-L6-v2, an unmodified EvalScope evaluates it on
the real data sets, and the scores to meet are those of the public leaderboard's repository.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import minilm_runs
import pytest

from evalscope_vacc.view.words import points

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(3600)]
pytest.importorskip("mteb", minversion="2.7", reason="the newer line's tests; tests/legacy has the older one's")

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
# the subsets of XQuADRetrieval that the data sets beside the checkout hold
SUBSETS = {"languages": ["eng", "zho", "cmn"]}
# where the end of a text matters; the Chinese questions are mostly shorter than this
CUT = {"STSBenchmark", "SciFact", "XQuADRetrieval"}
Key = tuple[str, str, str]


def compare(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Calls the program that users call."""
    command = [str(minilm_runs.BIN / "evalscope-vacc"), "compare", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def judged(done: subprocess.CompletedProcess[str]) -> dict[Key, dict[str, Any]]:
    rows = [row for comparison in json.loads(done.stdout)["comparisons"] for row in comparison["rows"]]
    kept = [row for row in rows if row["verdict"] in {"pass", "above", "fail"}]
    assert len({(r["task"], r["split"], r["subset"]) for r in kept}) == len(kept), "a score was judged twice"
    return {(row["task"], row["split"], row["subset"]): row for row in kept}


@pytest.fixture(scope="module")
def published(shared: Path) -> dict[Key, float]:
    """What others published for the weights, of the tasks whose data are at hand."""
    tasks = json.loads((shared / "data" / "reference_minilm.json").read_text())["tasks"]
    return {
        (task, row["split"], row["subset"]): row["published_score"]
        for task, rows in tasks.items()
        for row in rows
        if row["published_score"] is not None and (not minilm_runs.SHORT or task in minilm_runs.TASKS)
    }


@pytest.fixture(scope="module")
def served(
    minilm_run: Path, published: dict[Key, float], demo_server: str, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """Runs that together hold every one of these tasks."""
    rest = sorted({task for task, _, _ in published} - set(minilm_runs.TASKS))
    if not rest:
        return [minilm_run / "outputs"]
    folder = tmp_path_factory.mktemp("rest")
    minilm_runs.evaluate(folder, [minilm_runs.encoder(demo_server)], rest, **SUBSETS)
    return [minilm_run / "outputs", folder / "outputs"]


@pytest.fixture(scope="module")
def cut(
    hub: str, published: dict[Key, float], demo_server: str, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """The same server, but of each text only the first 16 tokens are sent."""
    folder = tmp_path_factory.mktemp("cut")
    tasks = sorted({task for task, _, _ in published} & CUT)
    minilm_runs.evaluate(folder, [minilm_runs.encoder(demo_server, max_tokens=16)], tasks, **SUBSETS)
    return [folder / "outputs"]


def test_the_served_weights_score_what_others_published(served: list[Path], published: dict[Key, float]) -> None:
    done = compare(*served, "--against", MINILM)
    assert done.returncode == 0, done.stdout + done.stderr
    # the folder holds a reranker's run, too, which says nothing about the encoder
    assert done.stdout.startswith("PASS: ")
    assert f"\nPASS: {len(published)} of {len(published)} scores" in "\n" + done.stdout
    done = compare(*served, "--against", MINILM, "--json")
    assert done.returncode == 0
    rows = judged(done)
    assert rows.keys() == published.keys()
    for key, row in rows.items():
        assert row["reference"] == pytest.approx(published[key], abs=1e-12)
        assert row["ours"] == pytest.approx(published[key], abs=1e-4)


def test_the_same_weights_meet_the_tolerance_of_single_precision(served: list[Path]) -> None:
    done = compare(*served, "--against", MINILM, "--dtype", "float32")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "±0.05 points (float32)" in done.stdout


def test_texts_cut_to_sixteen_tokens_fail_by_name_and_by_how_much(cut: list[Path], published: dict[Key, float]) -> None:
    done = compare(*cut, "--against", MINILM, "--json")
    assert done.returncode == 1, done.stdout + done.stderr
    rows = judged(done)
    assert rows.keys() == {key for key in published if key[0] in CUT}
    failed = {key: row for key, row in rows.items() if row["verdict"] == "fail"}
    assert ("STSBenchmark", "test", "default") in failed
    if not minilm_runs.SHORT:
        # an abstract of which one line is left
        assert rows["SciFact", "test", "default"]["difference"] < -0.05
    shown = compare(*cut, "--against", MINILM)
    assert shown.returncode == 1
    headline = shown.stdout.splitlines()[0]
    assert headline.startswith(f"FAIL: {len(failed)} of {len(rows)} scores")
    worst = sorted(failed.items(), key=lambda item: item[1]["difference"])
    for (task, split, _), row in worst[:5]:
        assert f"{task} · {split}" in headline
        assert f"{points(row['difference'])} points" in headline
    assert "max_tokens 16 here, not recorded in the reference" in " ".join(shown.stdout.split())


def test_a_rerankers_scores_have_nothing_to_do_with_an_encoders(served: list[Path], cut: list[Path]) -> None:
    for folders in (served, cut):
        done = compare(*folders, "--against", "Qwen/Qwen3-Reranker-8B")
        assert done.returncode == 2
        assert done.stdout.startswith("NOTHING COMPARABLE: ")
        assert "NOTHING COMPARABLE: no score can be compared with Qwen/Qwen3-Reranker-8B" in done.stdout


def test_another_run_is_a_reference_too(cut: list[Path], minilm_run: Path) -> None:
    assert compare(*cut, "--against", cut[0]).returncode == 0
    done = compare(*cut, "--against", minilm_run / "outputs")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "STSBenchmark · test" in done.stdout


def test_a_run_that_was_killed_half_way_is_incomplete(hub: str, demo_server: str, tmp_path: Path) -> None:
    # the second has no published score, the third takes longest
    tasks = ["STSBenchmark", "QBQTC", "LCQMC", "STSB"]
    config = {
        "tool": "MTEB",
        "models": [minilm_runs.encoder(demo_server)],
        "eval": {"task_names": tasks, "hub": "huggingface"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    command = [str(minilm_runs.BIN / "evalscope"), "eval", "--eval-backend", "RAGEval", "--eval-config", "config.json"]
    log = tmp_path / "console.log"
    with log.open("w") as file, subprocess.Popen(command, cwd=tmp_path, stdout=file, stderr=file) as run:
        try:
            while not list(tmp_path.glob("outputs/*/results/*/*/**/QBQTC.json")):
                assert run.poll() is None, log.read_text()[-3000:]
                time.sleep(0.2)
        finally:
            run.kill()
    outputs = tmp_path / "outputs"
    done = compare(outputs, "--against", MINILM)
    assert done.returncode == 3, done.stdout + done.stderr
    for shown in (done, compare(outputs, "--against", MINILM, "--markdown")):
        assert "2 of 4 tasks" in shown.stdout.splitlines()[0]
    found = json.loads(compare(outputs, "--against", MINILM, "--json").stdout)
    counts = [found[name] for name in ("asked", "judged", "failed", "not_run", "no_reference", "exit_status")]
    assert counts == [4, 1, 0, 2, 1, 3]
    allowed = compare(outputs, "--against", MINILM, "--allow-partial")
    assert allowed.returncode == 0
    assert "2 of 4 tasks" in allowed.stdout.splitlines()[0]
