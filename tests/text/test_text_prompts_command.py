"""``evalscope-vacc prompts``, as a process would run it, against a loopback server."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evalscope_vacc.cli.prompts import app
from evalscope_vacc.errors import BadAnswerError, ConfigError
from evalscope_vacc.text.dictionary import default_dictionary_path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VACC_HOME", str(tmp_path))


@pytest.fixture
def published(shared: Path) -> Path:
    return shared / "facts" / "task_prompts.json"


@pytest.fixture
def mirror(published: Path) -> Iterator[str]:
    bodies = {"/prompts.json": published.read_bytes(), "/other.json": b'{"A": "x"}'}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = bodies[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_fetch_then_path_then_show(mirror: str, published: Path) -> None:
    run = CliRunner()
    before = run.invoke(app, ["path"])
    assert before.exit_code == 1
    assert str(default_dictionary_path()) in before.output

    fetched = run.invoke(app, ["fetch", "--url", f"{mirror}/prompts.json"])
    assert fetched.exit_code == 0, fetched.output
    assert "251 tasks" in fetched.output
    assert default_dictionary_path().read_bytes() == published.read_bytes()
    assert run.invoke(app, ["path"]).exit_code == 0

    shown = run.invoke(app, ["show", "SciFact", "ArguAna"])
    assert shown.exit_code == 0
    rows = [line.split("\t") for line in shown.output.splitlines()]
    assert [row[:2] for row in rows] == [["SciFact", "-"], ["ArguAna", "query"], ["ArguAna", "document"]]
    assert len(run.invoke(app, ["show"]).output.splitlines()) == 254


def test_another_file_is_refused_and_nothing_is_kept(mirror: str) -> None:
    result = CliRunner().invoke(app, ["fetch", "--url", f"{mirror}/other.json"])
    assert isinstance(result.exception, BadAnswerError)
    assert not default_dictionary_path().exists()


def test_a_task_that_is_not_there_and_a_missing_dictionary_are_explained(published: Path) -> None:
    run = CliRunner()
    assert isinstance(run.invoke(app, ["show"]).exception, ConfigError)
    missing = run.invoke(app, ["show", "SciFacts", "--dictionary", str(published)]).exception
    assert isinstance(missing, ConfigError)
    assert "did you mean 'SciFact'" in str(missing)
