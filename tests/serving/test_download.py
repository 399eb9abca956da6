from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from evalscope_vacc import catalog
from evalscope_vacc.errors import (
    ConfigError,
    HostError,
    RequestRefusedError,
    ServerError,
    ServerFaultError,
    ServerUnreachableError,
)
from evalscope_vacc.serving import download as downloads
from evalscope_vacc.serving.files import RepoFile, faults, missing_bytes, select_files
from evalscope_vacc.serving.hubs import HUBS, open_hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEEDED = [
    "1_Pooling/config.json",
    "README.md",
    "config.json",
    "model-1.safetensors",
    "model-2.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
]


def downloaded(folder: Path) -> list[str]:
    found = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if not path.startswith("."))


def safetensors(hub: Any) -> bytes:
    return bytes(hub.files["model-2.safetensors"])


@pytest.mark.parametrize("name", HUBS)
def test_a_model_is_downloaded_whole_and_nothing_else(name: str, hub: Any, command: Any, tmp_path: Path) -> None:
    to = tmp_path / "weights" / "here"
    done = command("download", "qwen3-embedding-0.6b", "--from", name, "--endpoint", hub.url, "--to", str(to))
    assert done.exit_code == 0, done.exception
    assert downloaded(to) == NEEDED
    assert all((to / path).read_bytes() == hub.files[path] for path in NEEDED)
    assert f"Qwen/Qwen3-Embedding-0.6B is complete in {to}" in done.stdout
    assert "7 files (3 that serving does not need are left out)" in done.stderr
    marker = json.loads((to / downloads.MARKER).read_text())
    assert marker["hub"] == name
    # again: nothing is transferred a second time
    before = len(hub.asked(r"safetensors"))
    assert (
        command("download", "Qwen3-Embedding-0.6B", "--from", name, "--endpoint", hub.url, "--to", str(to)).exit_code
        == 0
    )
    again = [r for r in hub.requests[-20:] if r[0] == "GET" and "model-1.safetensors" in r[1]]
    assert len(again) == 1
    assert len(hub.asked(r"safetensors")) <= before + 1


@pytest.mark.parametrize("name", HUBS)
def test_the_users_token_does_not_go_to_a_mirror(name: str, hub: Any, tmp_path: Path) -> None:
    opened = open_hub(name, hub.url)
    downloads.download(opened, downloads.plan(opened, "Qwen3-Embedding-0.6B", tmp_path / "m"))
    assert hub.requests
    assert "_of_the_user" not in json.dumps(hub.requests)


def test_hugging_face_is_asked_for_the_commit_that_a_revision_names(hub: Any, command: Any, tmp_path: Path) -> None:
    done = command(
        "download",
        "Qwen3-Embedding-0.6B",
        "--endpoint",
        hub.url,
        "--to",
        str(tmp_path / "m"),
        "--revision",
        "v1",
        "--json",
    )
    told = json.loads(done.stdout)
    assert (told["revision"], told["hub"], told["endpoint"]) == (COMMIT, "huggingface", hub.url)
    assert sorted(file["path"] for file in told["files"]) == NEEDED
    assert hub.asked(r"/revision/v1")
    assert all(COMMIT in path for path in hub.asked("/resolve/"))


def test_a_broken_transfer_is_resumed_by_the_client(hub: Any, tmp_path: Path) -> None:
    size = 24_000_000  # the client writes 10 MiB at a time
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    hub.files["model-1.safetensors"] = struct.pack("<Q", len(header)) + header + bytes(size)
    hub.break_once = "model-1.safetensors"
    opened = open_hub("huggingface", hub.url)
    planned = downloads.plan(opened, "Qwen3-Embedding-0.6B", tmp_path / "m")
    downloads.download(opened, planned)
    assert (tmp_path / "m" / "model-1.safetensors").read_bytes() == hub.files["model-1.safetensors"]
    assert any("range" in headers for _, path, headers in hub.requests if "model-1" in path)


@pytest.mark.parametrize("name", HUBS)
def test_an_unknown_model_is_a_plain_error(name: str, hub: Any, tmp_path: Path) -> None:
    with pytest.raises(RequestRefusedError, match="has no model nobody/nothing") as caught:
        downloads.plan(open_hub(name, hub.url), "nobody/nothing", tmp_path / "m")
    assert caught.value.server == hub.url
    assert not (tmp_path / "m").exists()


def test_a_hub_that_cannot_be_reached_is_a_plain_error(tmp_path: Path, command: Any) -> None:
    for name in HUBS:
        done = command(
            "download", "bge-m3", "--from", name, "--endpoint", "http://127.0.0.1:9", "--to", str(tmp_path / "m")
        )
        assert isinstance(done.exception, ServerUnreachableError)
        assert "http://127.0.0.1:9 cannot be reached" in str(done.exception)
        assert "--endpoint" in str(done.exception)
    assert not (tmp_path / "m").exists()


def test_a_hub_out_of_order_is_named_with_its_status(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.status = 418
    with pytest.raises(ServerFaultError, match="answered 418 for BAAI/bge-m3"):
        downloads.plan(open_hub("huggingface", hub.url), "bge-m3", tmp_path / "m")


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize("sizes", [True, False])
def test_a_disk_without_space_is_found_before_the_first_file(
    sizes: bool, hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.sizes = sizes  # without them, the catalog's own figure counts
    needed = 80_310 if sizes else 1205 * 10**6
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, needed + downloads.RESERVE_BYTES - 1))
    opened = open_hub("huggingface", hub.url)
    with pytest.raises(HostError, match=f"{tmp_path} has .* free, the download needs .* --to"):
        downloads.plan(opened, "Qwen3-Embedding-0.6B", tmp_path / "a" / "b")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, needed + downloads.RESERVE_BYTES))
    assert downloads.plan(opened, "Qwen3-Embedding-0.6B", tmp_path / "a" / "b").to_get == needed
    assert not hub.asked("/resolve/")


def test_a_folder_keeps_one_model(hub: Any, tmp_path: Path) -> None:
    opened = open_hub("huggingface", hub.url)
    to = tmp_path / "weights"
    downloads.download(opened, downloads.plan(opened, "Qwen3-Embedding-0.6B", to))
    with pytest.raises(ConfigError, match=r"holds Qwen/Qwen3-Embedding-0\.6B already; give BAAI/bge-m3 a folder"):
        downloads.plan(opened, "bge-m3", to)
    (to / downloads.MARKER).unlink()
    with pytest.raises(ConfigError, match="holds another model already"):
        downloads.plan(opened, "bge-m3", to)
    to.rename(tmp_path / "qwen3-embedding-0.6b")  # put there by other means, but its name says what it is
    assert downloads.plan(opened, "Qwen3-Embedding-0.6B", tmp_path / "qwen3-embedding-0.6b").to_get == 0
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigError, match="is a file"):
        downloads.plan(opened, "bge-m3", file)


def test_files_that_stay_incomplete_are_an_error_that_names_them(hub: Any, tmp_path: Path) -> None:
    hub.files["model.safetensors.index.json"] = json.dumps({"weight_map": {"w": "model-3.safetensors"}}).encode()
    hub.files["model-2.safetensors"] = safetensors(hub)[:-1]
    opened = open_hub("huggingface", hub.url)
    planned = downloads.plan(opened, "Qwen3-Embedding-0.6B", tmp_path / "m")
    with pytest.raises(ServerError) as caught:
        downloads.download(opened, planned)
    assert "model-3.safetensors, listed in model.safetensors.index.json, is missing" in str(caught.value)
    assert "model-2.safetensors has 101 bytes, its header says 102" in str(caught.value)


def test_a_repository_without_a_model_is_refused(hub: Any, tmp_path: Path) -> None:
    del hub.files["config.json"]
    with pytest.raises(ServerError, match=r"lists no config\.json"):
        downloads.plan(open_hub("huggingface", hub.url), "Qwen3-Embedding-0.6B", tmp_path / "m")


def test_a_path_that_leaves_the_folder_is_refused(hub: Any, tmp_path: Path) -> None:
    for path in ("../evil", "/etc/evil", "a/../../evil", "a\\..\\evil", ""):
        with pytest.raises(ServerError, match="which cannot be meant"):
            select_files([RepoFile("config.json", 1), RepoFile(path, 1)])


def test_pickled_weights_are_left_out_only_where_safetensors_are_there() -> None:
    def kept(*paths: str) -> list[str]:
        return [file.path for file in select_files([RepoFile(path) for path in paths])]

    assert kept("pytorch_model.bin", "sparse_linear.pt") == ["pytorch_model.bin", "sparse_linear.pt"]
    assert kept("pytorch_model.bin", "model.safetensors") == ["model.safetensors"]
    assert kept("pytorch_model.bin.index.json", "pytorch_model-1.bin", "m.safetensors") == ["m.safetensors"]
    assert kept("2_Dense/pytorch_model.bin", "model.safetensors") == ["2_Dense/pytorch_model.bin", "model.safetensors"]
    other = (
        "onnx/model.onnx",
        "onnx/tokenizer.json",
        "openvino/a.bin",
        "tf_model.h5",
        "rust_model.ot",
        ".gitattributes",
    )
    assert kept("sentencepiece.bpe.model", *other) == ["sentencepiece.bpe.model"]


def test_missing_bytes_counts_what_is_not_there_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert missing_bytes(tmp_path, [RepoFile("a", 5), RepoFile("b", 7)]) == 7
    assert missing_bytes(tmp_path, [RepoFile("a", 6)]) == 6
    assert missing_bytes(tmp_path, [RepoFile("a", 5), RepoFile("b", None)]) is None


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"model.safetensors": b"\x05"}, "model.safetensors is cut off or no safetensors file"),
        ({"model.safetensors": struct.pack("<Q", 10**9)}, "model.safetensors is cut off or no safetensors file"),
        ({"model.safetensors": struct.pack("<Q", 2) + b"[]"}, "model.safetensors has a header that cannot be read"),
        ({"model.safetensors": struct.pack("<Q", 2) + b"{}x"}, "model.safetensors has 11 bytes, its header says 10"),
        ({"model.safetensors": None}, "there are no weights"),
        ({"config.json": b"[]"}, "config.json is missing or no JSON object"),
        ({"config.json": None}, "config.json is missing"),
        ({"tokenizer.json": None}, "there is no tokenizer"),
        ({"pytorch_model.bin.index.json": b"{}"}, "pytorch_model.bin.index.json lists no weight files"),
    ],
)
def test_every_kind_of_fault_is_found(change: dict[str, bytes | None], fault: str, tmp_path: Path) -> None:
    whole = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": struct.pack("<Q", 2) + b"{}"}
    for path, content in whole.items():
        (tmp_path / path).write_bytes(content)
    assert faults(tmp_path, [RepoFile(path, len(content)) for path, content in whole.items()]) == []
    for path, new in change.items():
        (tmp_path / path).unlink(missing_ok=True)
        if new is not None:
            (tmp_path / path).write_bytes(new)
    assert any(line.startswith(fault) for line in faults(tmp_path, []))


def test_names_mean_the_catalogs_repositories_or_themselves() -> None:
    class Hub:
        name, endpoint = "modelscope", ""

    def meant(name: str) -> tuple[str, bool]:
        repository, entry = downloads.repository_of(name, Hub())  # type: ignore[arg-type]
        return repository, entry is not None

    assert meant("BGE-M3") == ("BAAI/bge-m3", True)
    assert meant("baai/BGE-M3") == ("BAAI/bge-m3", True)
    assert meant("mirror/bge-m3") == ("mirror/bge-m3", False)
    assert meant("nobody/nothing") == ("nobody/nothing", False)
    with pytest.raises(ConfigError, match="not in the catalog"):
        meant("nothing")
    for entry in catalog.entries():
        assert meant(entry.name) == (entry.modelscope, True)


@pytest.mark.parametrize(
    "endpoint", ["hf-mirror.com", "ftp://x", "https://user:pass@x", "http://", "https://x?token=1"]
)
def test_an_endpoint_must_be_a_plain_address(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="give an address such as") as caught:
        open_hub("huggingface", endpoint)
    assert "pass" not in str(caught.value)


def test_an_unknown_hub_is_named() -> None:
    with pytest.raises(ConfigError, match="'pypi' is not one of huggingface, modelscope"):
        open_hub("pypi")


def test_models_lists_every_model_and_shows_one_whole(command: Callable[..., Any]) -> None:
    done = command("models")
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == [e.name for e in catalog.entries()]
    one = command("models", "qwen/qwen3-reranker-8b").stdout
    for fact in (
        "Qwen3-Reranker-8B",
        "cross-encoder",
        "36",
        "32768 tokens",
        "2, 4, 8",
        "auto",
        "is_original_qwen3_reranker",
    ):
        assert fact in one
    assert "为这个句子生成表示以用于检索相关文章：" in command("models", "bge-base-zh-v1.5").stdout


def test_models_as_json(command: Callable[..., Any]) -> None:
    everything = json.loads(command("models", "--json").stdout)
    assert [row["name"] for row in everything] == [e.name for e in catalog.entries()]
    assert json.loads(command("models", "bge-m3", "--json").stdout) == catalog.get("bge-m3").to_dict()
    assert isinstance(command("models", "bge-m9").exception, ConfigError)
