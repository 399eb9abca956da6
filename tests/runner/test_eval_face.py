"""``eval`` has the face of a run: few lines, logs in the run's folder, and the finished results where a task fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.host
pytest.importorskip("mteb", minversion="2.7", reason="the newer line's tests")
STS = "VaccDemoSTS"


@pytest.fixture
def evaluate(command: Callable[..., Any], model: Any, tmp_path: Path) -> Callable[..., Any]:
    def run(tasks: list[str], *arguments: str, **keys: Any) -> Any:
        entry = {"model_type": "vacc_api", "model_name": "minilm", "api_base": model.base, **keys}
        content = {"tool": "MTEB", "models": [entry], "eval": {"task_names": tasks, "hub": "huggingface"}}
        (tmp_path / "c.json").write_text(json.dumps(content))
        nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf")}
        return command("c.json", *arguments, command="eval", **nowhere)

    return run


@pytest.mark.slow
def test_what_hosts_print_goes_to_the_runs_logs(evaluate: Callable[..., Any], tmp_path: Path) -> None:
    done = evaluate([STS, "VaccDemoClassification"])
    assert done.status == 0, done.output
    assert len(done.lines) <= 20, done.output
    assert f"[1/2] {STS}  " in done.output
    assert "[2/2] VaccDemoClassification  " in done.output
    (log,) = tmp_path.glob("outputs/*/logs/console.log")
    assert "evalscope" in log.read_text().lower()
    assert "evalscope - " not in done.output
    verbose = evaluate([STS], "-v")
    assert "evalscope - " in verbose.output


def test_the_finished_results_are_printed_where_a_task_fails(evaluate: Callable[..., Any]) -> None:
    done = evaluate(["SciFact", STS], "--json")
    assert done.status == 1, done.output
    (line,) = [line for line in done.lines if line.startswith("{")]
    found = json.loads(line)
    assert {row["task"] for row in found["results"]} == {STS}
    assert list(found["failed"]) == ["SciFact"]
    table = evaluate(["SciFact", STS])
    assert table.status == 1
    assert f"minilm  {STS}" in table.output


def test_a_warning_of_this_package_is_shown(evaluate: Callable[..., Any], model: Any) -> None:
    model.faults.add("all alike")
    done = evaluate([STS])
    assert "warning  minilm: sanity" in done.output
