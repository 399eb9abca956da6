"""Reading dictionaries of instructions, and fetching the published one."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from evalscope_vacc.errors import (
    BadAnswerError,
    ConfigError,
    RequestRefusedError,
    ServerFaultError,
    ServerUnreachableError,
)
from evalscope_vacc.text import dictionary
from evalscope_vacc.text.dictionary import default_dictionary_path, fetch, find_dictionary, load_dictionary


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own, so that neither the user's is read nor anything is left in it."""
    monkeypatch.setenv("VACC_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    return tmp_path / "home"


def test_the_published_dictionary_is_read_whole(shared: Path) -> None:
    read = load_dictionary(shared / "facts" / "task_prompts.json")
    assert len(read) == 251
    assert sorted(name for name, entry in read.items() if not isinstance(entry, str)) == [
        "ArguAna",
        "CQADupstackGamingRetrieval",
        "CQADupstackUnixRetrieval",
    ]
    assert all(set(entry) == {"query", "document"} for entry in read.values() if not isinstance(entry, str))
    # the key occurs twice in the file
    assert read["AlloProfClusteringS2S"] == "Identify the topic of document titles from Allo Prof dataset"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"A": "x",\n "B": }', r"not JSON: line 2, column 7"),
        (b"", "not JSON: line 1, column 1"),
        (b'["A"]', "expected a JSON object of task names, found a list"),
        (b"null", "found null"),
        (b"{}", "holds no task"),
        (b'{"A": "x",\n\n "B": 3}', r"line 3: 'B' is a number"),
        (b'{"A": "x",\n "B": null}', r"line 2: 'B' is null"),
        (b'{"A": "x",\n "B": ["x"]}', r"line 2: 'B' is a list"),
        (b'{"A": {"query": "x", "passages": "y"}}', r"'A' has the key 'passages'; expected query and document"),
        (b'{"A": {"query": true}}', r"'A', key 'query' is true or false"),
        (b'{"A": {"passage": "x", "document": "y"}}', "document and passage"),
        (b'{"A": "\xff"}', "not UTF-8 at byte 7"),
        (b'{"A": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not a dictionary of instructions|is a list"),
        (b'{"A": ' + b"9" * 5000 + b"}", "not a dictionary of instructions|is a number"),
    ],
)
def test_an_unusable_file_is_refused_with_the_place(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "own.json"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_dictionary(file)
    assert str(file) in str(caught.value)


def test_a_missing_file_is_refused_with_the_ways_on(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.json does not exist.*prompts fetch.*metadata"):
        load_dictionary(tmp_path / "absent.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_dictionary(tmp_path)


def test_a_huge_file_is_not_read_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dictionary, "MAX_BYTES", 100)
    file = tmp_path / "own.json"
    file.write_text(json.dumps({"A": "x" * 100}))
    with pytest.raises(ConfigError, match="larger than"):
        load_dictionary(file)


def test_a_byte_order_mark_and_the_home_sign_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.json").write_text('{"任务": "检索"}', encoding="utf-8-sig")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert load_dictionary("~/own.json") == {"任务": "检索"}


def test_without_a_dictionary_both_ways_on_are_named() -> None:
    with pytest.raises(ConfigError, match=r"prompts fetch.*instruction_dict_path.*metadata"):
        find_dictionary(None)
    assert find_dictionary("metadata") is None


def test_the_fetched_dictionary_is_found(shared: Path, own_cache: Path) -> None:
    target = default_dictionary_path()
    assert target.is_relative_to(own_cache)
    target.parent.mkdir(parents=True)
    target.write_bytes((shared / "facts" / "task_prompts.json").read_bytes())
    assert find_dictionary(None) == load_dictionary(shared / "facts" / "task_prompts.json")
    target.write_text('{"A": "changed"}')
    with pytest.raises(ConfigError, match="not the published dictionary any more"):
        find_dictionary(None)


def test_without_vacc_home_the_users_cache_is_meant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VACC_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "evalscope-vacc" in str(default_dictionary_path())
    assert default_dictionary_path(tmp_path / "x").is_relative_to(tmp_path / "x")


@contextmanager
def serving(status: int, body: bytes, *, declared: int | None = None) -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) if declared is None else declared))
            self.end_headers()
            with suppress(OSError):  # the client may have had enough
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/prompts.json", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_fetching_keeps_the_very_bytes_and_the_profile_then_works(shared: Path) -> None:
    content = (shared / "facts" / "task_prompts.json").read_bytes()
    with serving(200, content) as (url, asked):
        path = fetch(url)
    assert asked == ["/prompts.json"]
    assert path == default_dictionary_path()
    assert path.read_bytes() == content
    assert find_dictionary(None) is not None
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_other_bytes_are_not_kept() -> None:
    with serving(200, b'{"A": "another"}') as (url, _), pytest.raises(BadAnswerError, match="not the expected file"):
        fetch(url)
    assert not default_dictionary_path().exists()


def test_bytes_with_the_right_digest_that_are_no_dictionary_are_not_kept(tmp_path: Path) -> None:
    body = b"[]"
    with serving(200, body) as (url, _), pytest.raises(ConfigError, match="expected a JSON object"):
        fetch(url, sha256=hashlib.sha256(body).hexdigest())
    assert not default_dictionary_path().exists()


def test_a_failed_download_keeps_the_earlier_file(tmp_path: Path) -> None:
    target = tmp_path / "kept.json"
    target.write_text("earlier")
    with serving(200, b"later") as (url, _), pytest.raises(BadAnswerError):
        fetch(url, destination=target)
    assert target.read_text() == "earlier"


@pytest.mark.parametrize(("status", "kind"), [(404, RequestRefusedError), (503, ServerFaultError)])
def test_an_error_status_names_the_way_on(status: int, kind: type[Exception]) -> None:
    with serving(status, b"no") as (url, _), pytest.raises(kind, match=rf"answered {status}.*instruction_dict_path"):
        fetch(url)


def test_the_published_addresses_are_tried_in_turn(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = (shared / "facts" / "task_prompts.json").read_bytes()
    with (
        serving(404, b"no") as (missing, _),
        serving(200, b"{}") as (wrong, _),
        serving(200, content) as (right, asked),
    ):
        monkeypatch.setattr(dictionary, "PUBLISHED_URLS", (missing, wrong, right))
        path = fetch()
        assert path.read_bytes() == content
        monkeypatch.setenv("HF_ENDPOINT", right.removesuffix("/prompts.json") + "/")
        monkeypatch.setattr(dictionary, "PUBLISHED_URLS", (missing,))
        fetch()
    assert asked == [
        "/prompts.json",
        "/Vastai/VastModelZOO/resolve/main/nlp/text2vec/qwen3/vllm/task_prompts.json",
    ]


def test_when_no_address_has_it_the_error_names_each_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(404, b"no") as (missing, _), serving(200, b"{}") as (wrong, _):
        monkeypatch.setattr(dictionary, "PUBLISHED_URLS", (missing, wrong))
        with pytest.raises(BadAnswerError) as caught:
            fetch()
    told = str(caught.value)
    assert f"{missing} answered 404" in told
    assert f"{wrong} is not the expected file" in told
    for needed in ("task_prompts.json", dictionary.PUBLISHED_SHA256, "model_kwargs.instruction_dict_path", "--url"):
        assert needed in told
    assert not default_dictionary_path().exists()


def test_an_endless_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dictionary, "MAX_BYTES", 1000)
    with serving(200, b"x" * 100_000) as (url, _), pytest.raises(BadAnswerError, match="sent more than"):
        fetch(url)


def test_a_broken_transfer_and_a_dead_server_are_said_without_the_password() -> None:
    cannot = pytest.raises(ServerUnreachableError, match="cannot be downloaded")
    with serving(200, b"x", declared=1000) as (url, _), cannot:
        fetch(url)
    with serving(200, b"") as (url, _):
        pass
    with pytest.raises(ServerUnreachableError) as caught:
        fetch(url.replace("//", "//someone:hunter2@"))
    assert "hunter2" not in str(caught.value)


def test_a_cache_that_cannot_be_written_is_named(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    content = (shared / "facts" / "task_prompts.json").read_bytes()
    with serving(200, content) as (url, _), pytest.raises(ConfigError, match=r"cannot be written.*VACC_HOME"):
        fetch(url, destination=tmp_path / "file" / "below.json")
