"""No key, password or header reaches anything that a run prints or writes, whatever the server repeats of it."""

from __future__ import annotations

import base64
import gzip
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from loopback_server import Got, Reply
from served_model import ServedModel
from warm_process import Started, WarmProcess

pytestmark = pytest.mark.host
pytest.importorskip("mteb", minversion="2.7", reason="the newer line's tests; tests/legacy has the older one's")

RETRIEVAL, STS = "VaccDemoRetrieval", "VaccDemoSTS"
LITERAL, REFERENCED, HEADER = "sk-literal-0123456789", "sk-from-the-environment-42", "header-value-77aa"
PASSWORD = "pa55/word"
SECRETS = (LITERAL, REFERENCED, HEADER, PASSWORD)


def forms(secret: str) -> Iterator[bytes]:
    """A secret as it might be written."""
    yield secret.encode()
    yield quote(secret, safe="").encode()
    yield base64.b64encode(secret.encode()).rstrip(b"=")
    yield base64.b64encode(f"user:{secret}".encode())
    yield json.dumps(secret).strip('"').encode()


class Telltale(ServedModel):
    """Repeats in its refusals everything that it was sent, as some proxies do.

    Args:
        name: The served name.
        busy: Requests that are refused as too many, before it does its work.
        refuses: Whether it then refuses the key.
    """

    def __init__(self, name: str, *, busy: int = 2, refuses: bool = False, **options: Any) -> None:
        super().__init__(name, **options)
        self.busy = busy
        self.refuses = refuses

    def _answer(self, got: Got, sock: socket.socket) -> Reply:
        kind, _, key = got.headers.get("authorization", "").partition(" ")
        key = base64.b64decode(key).decode().partition(":")[2] if kind == "Basic" else key
        said = f"you sent {got.headers} to {got.path}: key {key}, {quote(key, safe='')}, {got.headers.get('x-auth')}"
        body = {"error": {"message": said, "type": said, "code": 429}}
        if got.path in ("/v1/embeddings", "/v1/score"):
            if self.busy > 0:
                self.busy -= 1
                return Reply.of(body, 429, **{"Retry-After": "0"})
            if self.refuses:
                return Reply.of(body, 401)
        return super()._answer(got, sock)


def written(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, but not the configuration that has the secrets from the user."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    del files["config.json"]
    for name, content in list(files.items()):
        if content.startswith(b"\x1f\x8b"):
            files[name] = gzip.decompress(content)
    return files


def check(folder: Path, run: Started, wanted: tuple[str, ...]) -> None:
    files = written(folder)
    names = "\n".join(files)
    for part in wanted:
        assert part in names, names
    leaks = [
        (name, secret) for name, content in files.items() for s in SECRETS for secret in forms(s) if secret in content
    ]
    assert leaks == [], run.output()[-3000:]
    assert not any(secret.decode() in names for s in SECRETS for secret in forms(s))


def begin(
    warm: WarmProcess, folder: Path, command: list[str], models: list[dict[str, Any]], tasks: list[str]
) -> Started:
    folder.mkdir(parents=True, exist_ok=True)
    entries = [{"model_type": "vacc_api", "store": str(folder / "store"), **model} for model in models]
    config = {
        "tool": "MTEB",
        "models": entries,
        "eval": {"task_names": tasks, "hub": "huggingface", "top_k": 5, "verbosity": 3},
    }
    (folder / "config.json").write_text(json.dumps(config))
    places = {"VACC_HOME": "home", "TMPDIR": "tmp", "MTEB_CACHE": "mteb", "XDG_CACHE_HOME": "cache"}
    environment = {name: str(folder / place) for name, place in places.items()}
    (folder / "tmp").mkdir(exist_ok=True)
    return warm.start(command, folder, environment={**environment, "MY_KEY": REFERENCED, "MY_HEADER": HEADER})


EVAL = {
    "evalscope-vacc": ["evalscope-vacc", "--debug", "eval", "config.json"],
    "evalscope": ["evalscope", "eval", "--debug", "--eval-backend", "RAGEval", "--eval-config", "config.json"],
}


@pytest.mark.parametrize("command", EVAL)
def test_no_secret_is_in_anything_that_a_run_of_two_stages_writes(
    command: str, warm: WarmProcess, tmp_path: Path
) -> None:
    with (
        Telltale("enc") as encoder,
        Telltale("rank", kind="cross-encoder") as reranker,
    ):
        with_user = reranker.base.replace("http://", f"http://user:{quote(PASSWORD, safe='')}@")
        models = [
            {"model_name": "enc", "api_base": encoder.base, "api_key": LITERAL, "headers": {"X-Auth": HEADER}},
            {
                "model_name": "rank",
                "api_base": with_user,
                "is_cross_encoder": True,
                "headers": {"X-Auth": "${MY_HEADER}"},
            },
        ]
        run = begin(warm, tmp_path, EVAL[command], models, [RETRIEVAL, STS])
        assert run.wait() == 0, run.output()[-5000:]
        assert any(got.headers.get("authorization") == f"Bearer {LITERAL}" for got in encoder.requests)
        assert all(got.headers["authorization"].startswith("Basic ") for got in reranker.requests)
        assert {got.headers["x-auth"] for got in [*encoder.requests, *reranker.requests]} == {HEADER}
    wanted = ("usage.json", "sent_samples.jsonl", "server.json", ".sqlite", "configs/", "logs/", "output-0.txt")
    check(tmp_path, run, (*wanted, "_predictions.json", f"{STS}.json", "reports/"))
    assert "takes requests again" in run.output() or "retry (" in run.output(), "the refusals were met, and told of"


@pytest.mark.parametrize("command", EVAL)
def test_no_secret_is_in_the_traceback_of_a_run_that_failed(command: str, warm: WarmProcess, tmp_path: Path) -> None:
    with Telltale("enc", refuses=True) as server:
        headers = {"X-Auth": "${MY_HEADER}"}
        models = [{"model_name": "enc", "api_base": server.base, "api_key": "${MY_KEY}", "headers": headers}]
        run = begin(warm, tmp_path, EVAL[command], models, [STS])
        assert run.wait() == 1
        assert any(got.headers.get("authorization") == f"Bearer {REFERENCED}" for got in server.requests)
    assert "refuses the key" in run.output()
    check(tmp_path, run, ("configs/", "logs/", "output-0.txt"))
    dumped = b"".join(content for name, content in written(tmp_path).items() if "configs/" in name)
    assert b"${MY_KEY}" in dumped, "the reference, so that the run can be repeated"


def test_no_secret_is_in_a_message_about_a_configuration_that_cannot_be(warm: WarmProcess, tmp_path: Path) -> None:
    models = [
        {"model_name": "enc", "api_base": f"http://user:{quote(PASSWORD, safe='')}@127.0.0.1:1", "api_key": LITERAL},
        {"model_name": "enc", "api_base": "http://127.0.0.1:1", "api_key": LITERAL, "headers": {"X-Auth": [HEADER]}},
        {"model_name": "enc", "api_base": "http://127.0.0.1:1", "api_key": LITERAL, "timeout_s": {"a": HEADER}},
        {"model_name": "enc", "api_base": "http://127.0.0.1:1", "api_key": [LITERAL], "api_kay": LITERAL},
    ]
    for number, model in enumerate(models):
        for name, command in EVAL.items():
            folder = tmp_path / f"{number}-{name}"
            run = begin(warm, folder, command, [model], [STS])
            assert run.wait() in (1, 2), run.output()[-3000:]
            check(folder, run, ("output-0.txt",))
