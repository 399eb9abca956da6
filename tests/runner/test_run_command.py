"""One command from a served model to a verdict, on the demo's tasks with real weights."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml
from loopback_server import LoopbackServer
from served_model import ServedModel
from warm_process import Started

from evalscope_vacc.checks.texts import PREFLIGHT_TEXTS
from evalscope_vacc.runner.config import secrets_of
from evalscope_vacc.store import PROBE_TEXTS

pytestmark = pytest.mark.host
pytest.importorskip("mteb", minversion="2.7", reason="the newer line's tests")

KEY = "sekret-key-of-the-run"
STS = "VaccDemoSTS"
BOTH = f"{STS},VaccDemoClassification"
Command = Callable[..., Any]


def test_a_run_against_an_earlier_one_passes_and_says_so_in_few_lines(
    command: Command, model: LoopbackServer, tmp_path: Path
) -> None:
    first = command(model.base, "--tasks", BOTH, "--against", "none", "--key", KEY)
    assert first.status == 0, first.output
    assert "COMPLETE: 2 of 2 tasks evaluated" in first.output
    assert len(first.lines) <= 40
    run = (tmp_path / "outputs" / "latest").resolve()
    assert run.parent == tmp_path / "outputs" / "minilm"
    done = command(
        model.base, "--tasks", BOTH, "--against", run, "--json", "--junit", "verdict.xml", "--report", "p.html"
    )
    assert done.status == 0, done.output
    assert len(done.output.partition("\n{\n")[0].splitlines()) <= 20
    found = done.json()
    asked = {name: found[name] for name in ("verdict", "asked", "judged", "failed", "not_run", "no_reference")}
    assert asked == {"verdict": "pass", "asked": 2, "judged": 2, "failed": 0, "not_run": 0, "no_reference": 0}
    assert {row["task"] for row in found["rows"]} == {STS, "VaccDemoClassification"}
    assert all(row["difference"] == 0 for row in found["rows"])
    assert found["check"][0]["state"] in ("ok", "warning")
    assert found["seconds"] > 0
    assert "<html" in (tmp_path / "p.html").read_text()
    assert {case.get("name") for case in ET.parse(tmp_path / "verdict.xml").iter("testcase")} == {
        STS,
        "VaccDemoClassification",
    }
    assert Path(found["files"]["run"]) != run, "a run that is finished is not gone on with"
    assert "evalscope" in Path(found["files"]["logs"], "console.log").read_text().lower()


def test_no_file_of_a_run_holds_the_key_and_the_configuration_repeats_it(
    command: Command, model: LoopbackServer, tmp_path: Path
) -> None:
    done = command(model.base, "--tasks", STS, "--against", "none", "--key", KEY, "--set", "max_tokens=64", "-v")
    assert done.status == 0, done.output
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "console.log" for path in written)
    assert [path for path in written if KEY.encode() in path.read_bytes()] == []
    file = tmp_path / "outputs" / "latest" / "config.yaml"
    config = yaml.safe_load(file.read_text())
    assert config["eval"]["task_names"] == [STS]
    assert config["models"][0]["max_tokens"] == 64
    assert config["models"][0]["api_key"] == "${VACC_API_KEY}"
    again = command(file, command="eval", VACC_API_KEY=KEY)
    assert again.status == 0, again.output
    assert STS in again.output


def test_a_server_that_the_check_finds_wrong_is_not_evaluated(command: Command, tmp_path: Path) -> None:
    with ServedModel("enc") as server:  # vectors without meaning
        done = command(server.base, "--tasks", STS, "--against", "none", "--json", "--junit", "verdict.xml")
        assert done.status == 1, done.output
        assert done.json()["verdict"] == "fail"
        assert done.json()["rows"] == []
        assert "wrong  sanity" in done.output
        shown = command(server.base, "--tasks", STS, "--against", "none", "--quiet")
    assert shown.output.strip() == "FAIL: the check of the server found something wrong; nothing was evaluated"
    assert not (tmp_path / "outputs").exists()
    assert ET.parse(tmp_path / "verdict.xml").find(".//error") is not None


def test_a_server_that_is_not_there_fails(command: Command) -> None:
    done = command("http://127.0.0.1:9", "--tasks", STS, "--against", "none", "--json")
    assert done.status == 1, done.output
    assert done.json()["check"][0]["findings"][0]["check"] == "reachable"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tasks", STS], "no scores are published under the name minilm"),
        (["--tasks", STS, "--against", "sentence-transformers/all-MiniLM-L6-v2"], "has no score of VaccDemoSTS"),
        (["--tasks", "STSBenchmrk", "--against", "none"], "did you mean 'STSBenchmark'?"),
        (["--against", "none"], "eval: no task"),
        (["--tasks", STS, "--set", "max_tokns=3", "--against", "none"], "max_tokens"),
        (["--tasks", STS, "--model", "nobody", "--against", "none"], "nobody"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_line(
    command: Command, model: LoopbackServer, arguments: list[str], said: str, tmp_path: Path
) -> None:
    done = command(model.base, *arguments)
    assert done.status == (1 if "nobody" in arguments else 2), done.output
    assert said in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "outputs").exists()


def test_data_that_lack_are_named_before_anything_is_evaluated(
    command: Command, model: LoopbackServer, tmp_path: Path
) -> None:
    elsewhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf")}
    tasks = ["--tasks", f"SciFact,{STS}", "--against", "none", "--json"]
    done = command(model.base, *tasks, **elsewhere)
    assert done.status == 3, done.output
    found = done.json()
    assert (found["asked"], found["not_run"], found["judged"]) == (2, 2, 0)
    assert list(found["lacking"]) == ["SciFact"]
    assert "SciFact cannot be evaluated: its data set mteb/scifact is not in the cache" in done.output
    assert not (tmp_path / "outputs").exists()
    rest = command(model.base, *tasks, "--allow-partial", **elsewhere)
    assert rest.status == 0, rest.output
    found = rest.json()
    assert {row["task"] for row in found["rows"]} == {STS}
    assert (found["asked"], found["failed"]) == (2, 1)


@pytest.mark.parametrize("form", ["of its own", "inside a task file", "named by a task file"])
def test_the_secret_of_a_file_is_known_in_each_of_its_forms(tmp_path: Path, form: str) -> None:
    inner = {"tool": "MTEB", "models": [{"model_type": "vacc_api", "model_name": "m", "api_base": "http://h:1",
             "api_key": "sk-literal-0123456789"}], "eval": {"task_names": [STS]}}  # fmt: skip
    (tmp_path / "inner.json").write_text(json.dumps(inner))
    file = tmp_path / ("inner.json" if form == "of its own" else "task.json")
    if form != "of its own":
        held = inner if form == "inside a task file" else str(tmp_path / "inner.json")
        file.write_text(json.dumps({"eval_backend": "RAGEval", "eval_config": held}))
    assert "sk-literal-0123456789" in secrets_of(file)


def test_eval_names_what_lacks_at_the_start_and_does_the_rest(
    command: Command, model: LoopbackServer, tmp_path: Path
) -> None:
    entry = {"model_type": "vacc_api", "model_name": "minilm", "api_base": model.base}
    evaluation = {"task_names": ["SciFact", STS], "hub": "huggingface"}
    (tmp_path / "c.json").write_text(json.dumps({"tool": "MTEB", "models": [entry], "eval": evaluation}))
    done = command("c.json", command="eval", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path / "hf"))
    assert done.status == 1, done.output
    assert "SciFact: its data set mteb/scifact is not in the cache" in done.output
    assert list(tmp_path.glob(f"outputs/*/results/*/*/{STS}.json"))


@pytest.mark.slow
def test_the_same_command_goes_on_with_a_run_that_was_stopped(
    begin: Callable[..., Started], command: Command, model: Any, tmp_path: Path
) -> None:
    arguments = (
        model.base,
        "--tasks",
        f"VaccDemoClassification,{STS}",
        "--against",
        "none",
        "--set",
        "encode_kwargs={batch_size: 8}",
        "--json",
    )
    checks = (*PREFLIGHT_TEXTS, *PROBE_TEXTS)
    held = threading.Event()
    mine: list[str] = []

    def hold(texts: list[str]) -> None:
        if (tmp_path / "outputs").exists() and not set(texts) & set(checks):
            mine.extend(texts)
            if len(mine) > 80:
                held.set()
                model.stopped.wait(20 if not model.stopped.is_set() else 0)

    model.before_vectors = hold
    run = begin(*arguments)
    run.wait_until(held.is_set)
    run.send(signal.SIGINT)
    assert run.wait(60) == 130, run.output()
    assert "Run the same command again to continue" in run.output()
    in_flight = 4 * 8
    first = list(mine)
    mine.clear()
    model.before_vectors = lambda texts: mine.extend(texts if not set(texts) & set(checks) else ())
    (folder,) = (tmp_path / "outputs" / "minilm").iterdir()
    done = command(*arguments)
    assert done.status == 0, done.output
    assert "Continuing the unfinished run" in done.output
    assert list((tmp_path / "outputs" / "minilm").iterdir()) == [folder]
    twice = set(first) & set(mine)
    assert len(twice) <= in_flight + 8
    assert {row["task"] for row in done.json()["rows"]} == {STS, "VaccDemoClassification"}


@pytest.mark.slow
def test_the_act_from_python(model: LoopbackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import evalscope_vacc
    from evalscope_vacc.demo.tasks import register

    register()
    monkeypatch.chdir(tmp_path)
    answer = evalscope_vacc.verify(model.base, tasks=(STS,), against="none", work_dir=tmp_path / "here")
    assert (answer.verdict, answer.exit_status) == ("complete", 0)
    assert answer.counts["asked"] == 1
    assert answer.files["run"].is_relative_to(tmp_path / "here")
