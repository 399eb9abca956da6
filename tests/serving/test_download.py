from __future__ import annotations

import json
import shutil
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
from evalscope_vacc.serving.download import HUBS, MARKER, RESERVE_BYTES, prepare, repository_of

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


@pytest.mark.parametrize("name", HUBS)
def test_a_model_is_downloaded_whole_and_nothing_else(name: str, hub: Any, command: Any, tmp_path: Path) -> None:
    to = tmp_path / "weights" / "here"
    done = command("download", "qwen3-embedding-0.6b", "--from", name, "--endpoint", hub.url, "--to", str(to))
    assert done.exit_code == 0, done.exception
    assert downloaded(to) == NEEDED
    assert all((to / path).read_bytes() == hub.files[path] for path in NEEDED)
    assert f"Qwen/Qwen3-Embedding-0.6B is complete in {to}" in done.stdout
    assert "7 files (3 that serving does not need are left out)" in done.stderr
    marker = json.loads((to / MARKER).read_text())
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
    prepare("Qwen3-Embedding-0.6B", name, endpoint=hub.url, to=tmp_path / "m").run()
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
    hub.files["model-1.safetensors"] = bytes(24_000_000)  # the client writes 10 MiB at a time
    hub.break_once = "model-1.safetensors"
    prepare("Qwen3-Embedding-0.6B", endpoint=hub.url, to=tmp_path / "m").run()
    assert (tmp_path / "m" / "model-1.safetensors").read_bytes() == hub.files["model-1.safetensors"]
    assert any("range" in headers for _, path, headers in hub.requests if "model-1" in path)


@pytest.mark.parametrize("name", HUBS)
def test_an_unknown_model_is_a_plain_error(name: str, hub: Any, tmp_path: Path) -> None:
    with pytest.raises(RequestRefusedError, match="has no model nobody/nothing") as caught:
        prepare("nobody/nothing", name, endpoint=hub.url, to=tmp_path / "m")
    assert caught.value.server == hub.url
    assert not (tmp_path / "m").exists()


def test_a_hub_that_cannot_be_reached_is_a_plain_error(tmp_path: Path, command: Any) -> None:
    for name in HUBS:
        done = command(
            "download", "bge-m3", "--from", name, "--endpoint", "http://127.0.0.1:9", "--to", str(tmp_path / "m")
        )
        assert isinstance(done.exception, ServerUnreachableError)
        assert "http://127.0.0.1:9 cannot be reached" in str(done.exception)
        for way in ("--endpoint https://hf-mirror.com", "HF_ENDPOINT", "--from modelscope"):
            assert way in str(done.exception)
    assert not (tmp_path / "m").exists()


def test_a_hub_out_of_order_is_named_with_its_status(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.status = 418
    with pytest.raises(ServerFaultError, match="answered 418 for BAAI/bge-m3"):
        prepare("bge-m3", endpoint=hub.url, to=tmp_path / "m")


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_disk_without_space_is_found_before_the_first_file(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = prepare("Qwen3-Embedding-0.6B", endpoint=hub.url, to=tmp_path / "a" / "b")
    needed = sum(len(hub.files[path]) for path in NEEDED)
    assert sum(planned.missing().values()) == needed
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, needed + RESERVE_BYTES - 1))
    with pytest.raises(HostError, match=f"{tmp_path} has .* free, the download needs .* --to"):
        planned.run()
    assert not hub.asked("/resolve/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, needed + RESERVE_BYTES))
    planned.run()
    assert not planned.missing()


def test_a_folder_keeps_one_model(hub: Any, tmp_path: Path) -> None:
    to = tmp_path / "weights"
    prepare("Qwen3-Embedding-0.6B", endpoint=hub.url, to=to).run()
    with pytest.raises(ConfigError, match=r"another model already, Qwen/Qwen3-Embedding-0\.6B; give BAAI/bge-m3 its"):
        prepare("bge-m3", endpoint=hub.url, to=to)
    (to / MARKER).unlink()
    with pytest.raises(ConfigError, match="holds another model already, weights"):
        prepare("bge-m3", endpoint=hub.url, to=to)
    to = to.rename(tmp_path / "qwen3-embedding-0.6b")  # put there by other means, but its name says what it is
    assert not prepare("Qwen3-Embedding-0.6B", endpoint=hub.url, to=to).missing()
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigError, match="is a file"):
        prepare("bge-m3", endpoint=hub.url, to=file)


@pytest.mark.parametrize("name", HUBS)
def test_a_file_that_is_cut_off_is_fetched_again_or_named(name: str, hub: Any, tmp_path: Path) -> None:
    planned = prepare("Qwen3-Embedding-0.6B", name, endpoint=hub.url, to=tmp_path / "m")
    planned.run()
    file, whole = tmp_path / "m" / "model-1.safetensors", hub.files["model-1.safetensors"]
    file.write_bytes(whole[:-1])
    assert planned.missing() == {"model-1.safetensors": len(whole)}
    refused = ""
    try:
        planned.run()
    except ServerError as error:
        refused = str(error)
    if file.read_bytes() != whole:
        assert "is not whole: model-1.safetensors" in refused
        file.unlink()
        planned.run()
    assert file.read_bytes() == whole


def test_a_repository_without_a_model_is_refused(hub: Any, tmp_path: Path) -> None:
    del hub.files["config.json"]
    with pytest.raises(ServerError, match=r"lists no config\.json"):
        prepare("Qwen3-Embedding-0.6B", endpoint=hub.url, to=tmp_path / "m")


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil", ""])
def test_a_path_that_leaves_the_folder_is_refused(path: str, hub: Any, tmp_path: Path) -> None:
    hub.files[path] = b"evil"
    with pytest.raises(ServerError, match="whose path is not safe"):
        prepare("Qwen3-Embedding-0.6B", endpoint=hub.url, to=tmp_path / "m")


def test_pickled_weights_are_left_out_only_where_safetensors_are_there(hub: Any, tmp_path: Path) -> None:
    def kept(*paths: str) -> list[str]:
        hub.files = dict.fromkeys(["config.json", *paths], b"")
        return [*prepare("Qwen3-Embedding-0.6B", endpoint=hub.url, to=tmp_path / "m").sizes][1:]

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


def test_names_mean_the_catalogs_repositories_or_themselves() -> None:
    def meant(name: str) -> str:
        return repository_of(name, "modelscope")

    assert meant("BGE-M3") == "BAAI/bge-m3"
    assert meant("baai/BGE-M3") == "BAAI/bge-m3"
    assert meant("mirror/bge-m3") == "mirror/bge-m3"
    assert meant("nobody/nothing") == "nobody/nothing"
    with pytest.raises(ConfigError, match="not in the catalog"):
        meant("nothing")
    for entry in catalog.entries():
        if not entry.rules_only:
            assert meant(entry.name) == entry.modelscope


@pytest.mark.parametrize(
    "endpoint", ["hf-mirror.com", "ftp://x", "https://user:pass@x", "http://", "https://x?token=1"]
)
def test_an_endpoint_must_be_a_plain_address(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="give an address such as") as caught:
        prepare("bge-m3", endpoint=endpoint)
    assert "pass" not in str(caught.value)


def test_an_unknown_hub_is_named() -> None:
    with pytest.raises(ConfigError, match="'pypi' is not one of huggingface, modelscope"):
        prepare("bge-m3", "pypi")


def test_models_lists_every_model_with_the_columns_of_the_vendors_table(command: Callable[..., Any]) -> None:
    done = command("models")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    table = lines[: lines.index("")]
    assert max(map(len, table)) <= 80
    rows = {line.split()[0]: line.split()[1:] for line in table}
    headings = rows.pop("Model")
    assert list(rows) == [e.name for e in catalog.entries() if not e.rules_only]
    assert headings == ["Size", "Layers", "Length", "Dim", "MRL", "Instruct", "TP", "Conc"]
    assert rows["Qwen3-Embedding-8B"] == ["8B", "36", "32768", "4096", "yes", "yes", "2/4/8", "4"]
    assert rows["Qwen3-Reranker-0.6B"] == ["0.6B", "28", "32768", "–", "–", "yes", "1/2/4/8", "4"]
    assert rows["bge-m3"] == ["568M", "24", "8192", "1024", "–", "–", "1/2/4/8", "4"]
    for term in ("Matryoshka", "instruction aware", "tensor parallel", "concurrency"):
        assert term in " ".join(done.stdout.split())


def test_models_lists_what_the_other_models_texts_get(command: Callable[..., Any]) -> None:
    lines = command("models").stdout.split("\n\n")[-1].splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    others = [e.name for e in catalog.entries() if e.rules_only]
    assert [name for name in rows if name in others] == others
    assert rows["multilingual-e5-base"] == ["278M", "512", "768", "prefixes"]
    assert rows["gte-Qwen2-7B-instruct"] == ["7B", "32768", "3584", "instructions"]
    assert rows["mxbai-rerank-base-v2"] == ["494M", "32768", "–", "a", "template"]
    assert rows["gte-base"] == ["109M", "512", "768", "nothing"]


def test_models_shows_one_whole(command: Callable[..., Any]) -> None:
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
