"""A model hub on the loopback address (the calls that huggingface_hub and modelscope make for one small model), and a
runner of the commands."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import re
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def safetensors(numbers: int = 4) -> bytes:
    """A safetensors file with one float32 vector."""
    data = bytes(4 * numbers)
    header = json.dumps({"w": {"dtype": "F32", "shape": [numbers], "data_offsets": [0, len(data)]}}).encode()
    return struct.pack("<Q", len(header)) + header + data


def small_model() -> dict[str, bytes]:
    """A repository as the hubs show them: what serving needs, and a good deal more."""
    index = {"metadata": {}, "weight_map": {"w": "model-1.safetensors", "v": "model-2.safetensors"}}
    return {
        ".gitattributes": b"*.safetensors filter=lfs\n",
        "README.md": b"# tiny\n",
        "config.json": json.dumps({"architectures": ["BertModel"]}).encode(),
        "tokenizer.json": b"{}",
        "model.safetensors.index.json": json.dumps(index).encode(),
        "model-1.safetensors": safetensors(20_000),
        "model-2.safetensors": safetensors(8),
        "pytorch_model.bin": b"pickle" * 100,
        "onnx/model.onnx": b"onnx" * 100,
        "1_Pooling/config.json": b"{}",
    }


@dataclass
class HubServer:
    """What the server holds and what it was asked.

    Attributes:
        url: Its address.
        files: The repository's files.
        repository: Its name.
        requests: Method, path with query, and headers of each request.
        break_once: Path of a file whose first transfer stops half way.
        status: Answer everything with this status.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=small_model)
    repository: str = "Qwen/Qwen3-Embedding-0.6B"
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    break_once: str | None = None
    status: int | None = None
    sizes: bool = True

    def asked(self, pattern: str) -> list[str]:
        return [path for _, path, _ in self.requests if re.search(pattern, path)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        hub = self.hub
        hub.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), {k: v[0] for k, v in parse_qs(parts.query).items()}
        if hub.status is not None:
            self._json({"error": "out of order", "Code": hub.status, "Message": "out of order"}, hub.status)
        elif re.fullmatch(rf"/api/models/{hub.repository}(/revision/(main|v1|{COMMIT}))?", path):
            self._json(self._model_info(blobs=query.get("blobs") in ("true", "True", "1")))
        elif re.fullmatch(rf"/api/models/{hub.repository}/tree/(main|v1|{COMMIT})", path):
            self._json([{"type": "file", "path": p, "size": len(b), "oid": _sha1(b)} for p, b in hub.files.items()])
        elif found := re.fullmatch(rf"/{hub.repository}/resolve/(?:main|v1|{COMMIT})/(.+)", path):
            self._file(found[1], body=body)
        elif path == f"/api/v1/models/{hub.repository}/repo/files":
            self._json(_modelscope({"Files": self._modelscope_files()}))
        elif path == f"/api/v1/models/{hub.repository}/repo":
            self._file(query["FilePath"], body=body)
        elif path == f"/api/v1/models/{hub.repository}/revisions":
            self._json(_modelscope({"RevisionMap": {"Branches": [{"Revision": "master"}], "Tags": []}}))
        elif path == f"/api/v1/models/{hub.repository}":
            self._json(_modelscope({"Name": hub.repository.split("/")[1], "Path": hub.repository.split("/")[0]}))
        else:
            self._json({"error": "Repository not found", "Code": 404, "Message": "not found"}, 404)

    def _model_info(self, *, blobs: bool) -> dict[str, Any]:
        siblings: list[dict[str, Any]] = [{"rfilename": path} for path in self.hub.files]
        if blobs and self.hub.sizes:
            for row in siblings:
                row |= {"size": len(self.hub.files[row["rfilename"]]), "blobId": "0"}
        name = self.hub.repository
        return {"_id": "1", "id": name, "modelId": name, "sha": COMMIT, "private": False, "siblings": siblings}

    def _modelscope_files(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = [{"Name": "1_Pooling", "Path": "1_Pooling", "Type": "tree", "Size": 0}]
        for path, content in self.hub.files.items():
            sha = hashlib.sha256(content).hexdigest()
            row = {"Name": path.rpartition("/")[2], "Path": path, "Type": "blob", "Size": len(content), "Sha256": sha}
            rows.append(row | {"Revision": COMMIT, "CommittedDate": 1_700_000_000, "IsLFS": False})
        return rows

    def _file(self, path: str, *, body: bool) -> None:
        content = self.hub.files.get(path)
        if content is None:
            self._json({"error": "Entry not found"}, 404)
            return
        start, end, status = 0, len(content), 200
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, status = int(wanted[1]), 206
            end = min(end, int(wanted[2]) + 1) if wanted[2] else end
        self.send_response(status)
        self.send_header("Content-Length", str(end - start))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{_sha1(content)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if broken := body and self.hub.break_once == path:
            self.hub.break_once = None
            self.close_connection = True
            end = start + (end - start) // 2
        self.end_headers()
        if body:
            self.wfile.write(content[start:end])
        if broken:
            self.wfile.flush()

    def _json(self, content: Any, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 404 and "error" in content:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _modelscope(data: Any) -> dict[str, Any]:
    return {"Code": 200, "Success": True, "Message": "success", "RequestId": "0", "Data": data}


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextlib.contextmanager
def _serve() -> Iterator[HubServer]:
    hub = HubServer()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[HubServer]:
    """A running hub; the user's own tokens are set, so that a test can see where they go."""
    callspec = getattr(request.node, "callspec", None)
    if callspec is not None and callspec.params.get("name") == "modelscope":
        from modelscope.hub.snapshot_download import snapshot_download

        if "endpoint" not in inspect.signature(snapshot_download).parameters:
            pytest.skip("modelscope before 1.38 reaches https addresses only; the loopback hub speaks http")
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_user")
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "ms_of_the_user")
    with _serve() as server:
        yield server


@pytest.fixture
def command() -> Callable[..., Result]:
    """Runs one of the commands as the application would."""
    from evalscope_vacc.cli.download import download
    from evalscope_vacc.cli.models import models
    from evalscope_vacc.cli.serve import serve

    app = typer.Typer()
    for function in (download, models, serve):
        app.command(function.__name__)(function)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments))

    return run
