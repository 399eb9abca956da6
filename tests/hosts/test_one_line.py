"""EvalScope's own command on a configuration that cannot be used: one line, exit status 2, nothing sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from served_model import ServedModel
from warm_process import Started, WarmProcess

pytestmark = pytest.mark.host
STS = "VaccDemoSTS"


@pytest.fixture
def server() -> Iterator[ServedModel]:
    with ServedModel("enc") as server:
        yield server


@pytest.fixture
def command(warm: WarmProcess, tmp_path: Path, server: ServedModel) -> Callable[..., Started]:
    """Runs ``evalscope eval`` with the changes of one test: ``command(eval, model, text, options)``."""

    def run(
        evaluation: dict[str, Any] | None = None,
        model: dict[str, Any] | None = None,
        change: Callable[[str], str] = str,
        options: tuple[str, ...] = (),
    ) -> Started:
        entry = {
            "model_type": "vacc_api",
            "model_name": "enc",
            "api_base": server.base,
            "preflight": "off",
            "store": "off",
        }
        config = {
            "tool": "MTEB",
            "models": [{**entry, **(model or {})}],
            "eval": {"task_names": [STS], "hub": "huggingface", **(evaluation or {})},
        }
        (tmp_path / "config.yaml").write_text(change(yaml.safe_dump(config, sort_keys=False)))
        words = ["evalscope", "eval", "--eval-backend", "RAGEval", "--eval-config", "config.yaml", *options]
        started = warm.start(words, tmp_path, environment={"VACC_HOME": str(tmp_path / "home")})
        started.wait()
        return started

    return run


def refused(run: Started, server: ServedModel, message: str) -> None:
    lines = run.output().strip().splitlines()
    assert run.status == 2, run.output()[-2000:]
    assert lines[-1].startswith("error: ")
    assert message in lines[-1]
    assert "Traceback" not in run.output()
    assert not server.requests


@pytest.mark.parametrize(
    ("evaluation", "model", "message"),
    [
        ({"limits": 0}, {}, "eval.limits is 0: write a whole number above 0"),
        ({"task_names": ["SciFat"]}, {}, "there is no task 'SciFat': did you mean 'SciFact'?"),
        ({"topk": 3}, {}, "eval: unknown key 'topk': did you mean 'top_k'?"),
        ({}, {"dimension": 3}, "unknown key 'dimension': did you mean 'dimensions'?"),
        ({}, {"api_key": "${NOT_SET_HERE}"}, "NOT_SET_HERE is not set"),
        ({}, {"model_name": "n" * 300}, "a file's may have 255"),
        ({"splits": {"*": "train"}}, {}, "has the splits test, not 'train'"),
    ],
)
def test_a_mistake_is_one_line(
    command: Callable[..., Started], server: ServedModel, evaluation: Any, model: Any, message: str
) -> None:
    run = command(evaluation, model)
    refused(run, server, message)
    assert "KeyError" not in run.output()


def test_a_key_that_stands_twice_is_one_line(command: Callable[..., Started], server: ServedModel) -> None:
    run = command(change=lambda text: text.replace("  hub:", f"  task_names: [{STS}]\n  hub:"))
    refused(run, server, "the key 'task_names' occurs twice")


def test_a_lone_entry_without_its_hyphen_is_one_line(command: Callable[..., Started], server: ServedModel) -> None:
    run = command(change=lambda text: text.replace("- model_type", "  model_type"))
    refused(run, server, "models: expected a list")


def test_a_folder_that_cannot_be_written_is_one_line(
    command: Callable[..., Started], server: ServedModel, tmp_path: Path
) -> None:
    # a file stands where the folder would be: nobody, not even root, can write there
    (tmp_path / "blocked").write_text("")
    run = command(options=("--work-dir", "blocked/runs"))
    refused(run, server, "cannot be written")


def test_a_run_with_verbosity_0_says_nothing_of_its_own(command: Callable[..., Started], server: ServedModel) -> None:
    run = command({"verbosity": 0, "task_names": [STS, "VaccDemoRetrieval"]})
    assert run.status == 0, run.output()[-2000:]
    lines = [
        line for line in run.output().splitlines() if "evalscope_vacc" in line or "it/s" in line or "text/s" in line
    ]
    assert lines == []
    assert server.texts()
