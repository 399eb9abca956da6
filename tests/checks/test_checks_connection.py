"""Dead, slow, guarded and misnamed servers, and the command's exit status for each."""

from __future__ import annotations

import json
import re
import socket
import time
from pathlib import Path

import pytest
import typer
from loopback_server import LoopbackServer, Reply
from sound_server import SoundServer
from typer.testing import CliRunner

from evalscope_vacc.checks.run import check_address, check_model
from evalscope_vacc.cli import check as command
from evalscope_vacc.config import configure
from evalscope_vacc.errors import ConfigError

RUNNER = CliRunner()
APP = typer.Typer()
APP.command("check")(command.check)


def run(*arguments: str) -> tuple[int, str]:
    result = RUNNER.invoke(APP, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write(folder: Path, *models: dict, **more: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({"tool": "MTEB", "models": list(models), "eval": {"task_names": ["STS12"]}, **more}))
    return path


def test_a_dead_server_is_waited_for_five_seconds_and_no_longer() -> None:
    start = time.monotonic()
    report = check_address(f"http://127.0.0.1:{free_port()}", model="some-model")
    seconds = time.monotonic() - start
    assert 4 < seconds < 15
    assert [(f.check, f.state) for f in report.findings] == [("reachable", "wrong")]
    assert "start the server" in report.findings[0].action


def test_a_server_that_comes_up_within_the_wait_is_checked() -> None:
    import threading

    with SoundServer() as server:
        server.stop()
        late = threading.Timer(1.0, server.start)
        late.start()
        report = check_model(configure({"model_name": server.name, "api_base": server.base}))
        late.join()
    assert report.state == "ok"


@pytest.mark.slow
def test_a_server_that_never_answers_is_given_five_seconds() -> None:
    with SoundServer(every_delay_s=30) as server:
        start = time.monotonic()
        report = check_address(server.base, model=server.name)
        seconds = time.monotonic() - start
        again = check_model(configure({"model_name": server.name, "api_base": server.base}))
    assert seconds < 15
    for found in (report, again):
        assert [(f.check, f.state) for f in found.findings] == [("reachable", "wrong")]
        assert "did not answer" in found.findings[0].seen


def test_a_dead_engine_is_told_from_a_dead_server() -> None:
    def answer(got, sock) -> Reply:
        if got.path == "/v1/models":
            return Reply.of({"data": [{"id": "m", "max_model_len": 512}]})
        return Reply.of({"error": {"message": "EngineCore encountered an issue. See stack trace.", "code": 400}}, 400)

    with LoopbackServer(answer) as server:
        found = check_model(configure({"model_name": "m", "api_base": server.base})).of("reachable")
    assert found.state == "wrong"
    assert found.action == "restart the server"


@pytest.mark.parametrize(("key", "says"), [("wrong-key-123", "refuses the key"), (None, "none is configured")])
def test_a_refused_key_is_wrong_and_never_shown(key: str | None, says: str) -> None:
    with SoundServer(key="right-key-456") as server:
        arguments = [server.base, "--model", server.name, *(["--key", key] if key else [])]
        status, shown = run(*arguments)
        as_json = run(*arguments, "--json")[1]
    assert status == 1
    found = json.loads(as_json)["models"][0]["findings"]
    assert [(f["check"], f["state"]) for f in found] == [("key", "wrong")]
    assert says in found[0]["seen"]
    assert "wrong-key-123" not in shown + as_json


def test_the_right_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "right-key-456")
    with SoundServer(key="right-key-456") as server:
        status, shown = run(server.base, "--key", "${MY_KEY}", "-v")
    assert status == 0
    assert "the key is accepted" in shown
    assert "right-key-456" not in shown


def test_a_wrong_name_is_wrong_and_the_nearest_is_offered() -> None:
    with SoundServer("Qwen3-Embedding-0.6B") as server:
        status, shown = run(server.base, "--model", "qwen3-embedding-0.6b", "--json")
    assert status == 1
    findings = json.loads(shown)["models"][0]["findings"]
    wrong = [f for f in findings if f["state"] == "wrong"]
    assert [f["check"] for f in wrong] == ["model"]
    assert wrong[0]["action"] == "set model_name to 'Qwen3-Embedding-0.6B'"


def test_an_address_alone_is_enough_for_one_model() -> None:
    with SoundServer() as server:
        status, shown = run(server.base)
        plain, _ = run(server.base.removeprefix("http://"))
    assert (status, plain) == (0, 0)
    assert re.search(r"^\d+ checks passed \(-v lists them\)\nPASSED  \d+ passed in \d+ s$", shown, re.MULTILINE), shown
    assert "some-model at " + server.base + ", encoder" in shown
    with SoundServer(kind="cross-encoder") as server:
        assert "cross-encoder" in run(server.base)[1]


def test_what_is_wrong_comes_first_and_the_last_line_is_the_verdict() -> None:
    with SoundServer(faults=("wrong order", "long vectors")) as server:
        status, shown = run(server.base)
    lines = shown.strip().splitlines()
    assert status == 1
    at = [
        next(n for n, line in enumerate(lines) if line.startswith(word)) for word in ("wrong  order", "warning  norm")
    ]
    assert at == sorted(at)
    assert lines[at[0] + 2].startswith("  → ")
    assert re.fullmatch(r"FAILED  \d wrong, 1 warning, \d+ passed in \d+ s", lines[-1]), lines[-1]


def test_a_dialect_can_be_named_for_an_address(tmp_path: Path) -> None:
    with SoundServer() as server:
        assert run(server.base, "--model", server.name, "--dialect", "openai", "--json")[0] == 0
        assert not any("truncate_prompt_tokens" in got.body.decode() for got in server.requests)
    with pytest.raises(ConfigError, match="write the key `dialect`"):
        run(str(write(tmp_path)), "--dialect", "openai")


def test_several_models_need_a_name() -> None:
    def answer(got, sock) -> Reply:
        return Reply.of({"data": [{"id": "one"}, {"id": "two"}]})

    with LoopbackServer(answer) as server, pytest.raises(ConfigError, match="serves one, two: say which with --model"):
        run(server.base)


def test_a_file_has_all_its_served_models_checked(tmp_path: Path) -> None:
    with SoundServer("first") as one, SoundServer("second", kind="cross-encoder") as two:
        models = [
            {"model_type": "vacc_api", "model_name": "first", "api_base": one.base},
            {"model_type": "vacc_api", "model_name": "second", "api_base": two.base, "is_cross_encoder": True},
            {"model_type": "openai_api", "model_name": "third"},
        ]
        path = write(tmp_path, *models)
        status, shown = run(str(path), "--json")
        only = run(str(path), "--model", "second", "--json")[1]
        whole = tmp_path / "task.json"
        whole.write_text(json.dumps({"eval_backend": "RAGEval", "eval_config": json.loads(path.read_text())}))
        wrapped = run(str(whole), "--model", "first", "--json")
        table = run(str(path))[1]
    found = json.loads(shown)
    assert status == found["exit_status"] == 0
    assert [(m["model"], m["kind"], m["state"]) for m in found["models"]] == [
        ("first", "encoder", "ok"),
        ("second", "cross-encoder", "ok"),
    ]
    assert [m["model"] for m in json.loads(only)["models"]] == ["second"]
    assert wrapped[0] == 0
    assert "first at" in table
    assert "second at" in table


def test_one_wrong_model_of_a_file_makes_the_status_1(tmp_path: Path) -> None:
    with SoundServer("first") as one, SoundServer("second", faults=("wrong order",)) as two:
        models = [{"model_type": "vacc_api", "model_name": s.name, "api_base": s.base} for s in (one, two)]
        assert run(str(write(tmp_path, *models)))[0] == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read"),
        ({"tool": "MTEB"}, "expected a list `models`"),
        ({"models": [{"model_type": "other", "model_name": "x"}], "eval": {}}, "no model has model_type: vacc_api"),
        (
            {"models": [{"model_type": "vacc_api", "model_name": "x", "api_bsae": "y"}], "eval": {}},
            "did you mean 'api_base'",
        ),
    ],
)
def test_a_configuration_that_cannot_be_used_is_a_usage_error(tmp_path: Path, content: dict | None, says: str) -> None:
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=says):
        run(str(path))


def test_the_older_spelling_is_read_too(tmp_path: Path) -> None:
    with SoundServer() as server:
        entry = {"model_type": "vacc_api", "model_name": server.name, "api_base": server.base}
        path = tmp_path / "old.json"
        path.write_text(json.dumps({"tool": "MTEB", "model": [entry], "eval": {"tasks": ["STS12"]}}))
        assert run(str(path))[0] == 0


def test_a_fresh_server_is_checked_from_its_entry(capsys: pytest.CaptureFixture[str]) -> None:
    entry = {"model_type": "vacc_api", "model_name": "some-model", "is_cross_encoder": False}
    with SoundServer() as server:
        assert command.check_served({**entry, "api_base": server.base}) == 0
    with SoundServer(faults=("nan",)) as server:
        assert command.check_served({**entry, "api_base": server.base}) == 1
    assert "not a finite number" in capsys.readouterr().out


def test_a_servers_words_cannot_paint_the_terminal() -> None:
    with SoundServer("evil\x1b[31m[bold]name") as server:
        shown = run(server.base, "--model", "other")[1]
    assert "\x1b[31m" not in shown
    assert "[bold]name" in shown
