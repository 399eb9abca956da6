"""Data to carry: what the manifest says is compared with the files, and nothing is written outside the folder."""

from __future__ import annotations

import io
import json
import random
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from evalscope_vacc.cli.app import app
from evalscope_vacc.errors import ConfigError, DataError
from evalscope_vacc.hosts import bundle
from evalscope_vacc.hosts.bundle import Manifest

pytest.importorskip("datasets")
ARROW = "datasets/o___d/default/0.0.0/abc/d.arrow"
TASK = {"dataset": "o/d", "revision": "abc", "subsets": ["en", "zh"], "splits": ["test"], "data": []}


def manifest(place: Path, files: dict[str, Any]) -> Manifest:
    return Manifest(tasks={"T": TASK}, files=files, hub="http://hub", versions={"mteb": "2"}, place=place)


def folder_of(path: Path) -> Path:
    """A small folder as `prefetch` leaves it, with what is not carried."""
    for name in (ARROW, "hub/datasets--o--d/snapshots/abc/README.md"):
        (path / name).parent.mkdir(parents=True)
        (path / name).write_bytes(name.encode() * 1000)
    for name in ("datasets/x.lock", "hub/.locks/y", "hub/z.incomplete"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).touch()
    manifest(path, dict(bundle.digests(path))).write(path)
    return path


def packed(path: Path) -> Path:
    folder, archive = folder_of(path / "folder"), path / "data.tar.zst"
    bundle.pack(folder, bundle.read_manifest(folder), archive)
    return archive


def task(**changes: Any) -> Any:
    dataset = {"path": "o/d", "revision": changes.pop("revision", "abc")}
    metadata = SimpleNamespace(name=changes.pop("name", "T"), dataset=dataset)
    return SimpleNamespace(**{"metadata": metadata, "hf_subsets": ["en"], "eval_splits": ["test"], **changes})


def test_an_archive_gives_back_the_files_and_nothing_else(tmp_path: Path) -> None:
    archive = packed(tmp_path)
    assert bundle.verify(archive)[1] == {}
    bundle.unpack(archive, tmp_path / "out")
    found = sorted(
        file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("*") if file.is_file()
    )
    assert found == [ARROW, "hub/datasets--o--d/snapshots/abc/README.md", "manifest.json"]
    assert (tmp_path / "out" / ARROW).read_bytes() == ARROW.encode() * 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.tar.zst", "folder", "out"]


def test_a_damaged_byte_and_a_missing_file_are_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "folder")
    content = bytearray((folder / ARROW).read_bytes())
    content[77] ^= 1
    (folder / ARROW).write_bytes(content)
    (folder / "hub/datasets--o--d/snapshots/abc/README.md").unlink()
    done = CliRunner().invoke(app, ["prefetch", "--verify", str(folder)])
    assert done.exit_code == 1
    assert sorted(done.output.splitlines()) == [
        f"{ARROW}: damaged",
        "hub/datasets--o--d/snapshots/abc/README.md: missing",
    ]
    assert json.loads(CliRunner().invoke(app, ["prefetch", "--verify", str(folder), "--json"]).output)["wrong"] == {
        ARROW: "file damaged",
        "hub/datasets--o--d/snapshots/abc/README.md": "file missing",
    }
    assert "已损坏" in CliRunner().invoke(app, ["prefetch", "--verify", str(folder), "--lang", "zh"]).output


def test_a_whole_folder_passes(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["prefetch", "--verify", str(folder_of(tmp_path / "folder"))])
    assert (done.exit_code, done.output.strip()) == (0, "1 tasks, 2 files, 0.1 MB: every file is as it was fetched")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_damaged_byte_of_an_archive_is_unpacked(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    place = tmp_path_factory.mktemp("damaged")
    archive = packed(place)
    content = bytearray(archive.read_bytes())
    where = data.draw(st.integers(0, len(content) - 1))
    content[where] ^= 1 << data.draw(st.integers(0, 7))
    archive.write_bytes(content)
    try:
        bundle.unpack(archive, place / "out")
    except (DataError, ConfigError):
        assert not (place / "out").exists()
    else:  # a byte that says nothing of a file: padding, or a time
        assert bundle.verify(place / "out")[1] == {}
    assert not [path for path in place.iterdir() if path.name.startswith(".")], "nothing half-done stays"


def test_an_archive_that_was_cut_off_is_refused_and_its_lost_files_are_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "folder")
    (folder / ARROW).write_bytes(random.Random(1).randbytes(300_000))
    manifest(folder, dict(bundle.digests(folder))).write(folder)
    archive = tmp_path / "data.tar.zst"
    bundle.pack(folder, bundle.read_manifest(folder), archive)
    archive.write_bytes(archive.read_bytes()[:-1000])
    assert bundle.verify(archive)[1]
    with pytest.raises(DataError, match="cannot be read"):
        bundle.unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("name", ["../outside", "/tmp/vacc-outside"])
def test_a_member_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "data.tar.zst"
    with zstandard.open(archive, "wb") as stream, tarfile.open(fileobj=stream, mode="w|") as file:
        for member, content in (("manifest.json", b"{}"), (name, b"bad")):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    # an absolute name is taken as one within the folder, which has no manifest that names it
    with pytest.raises((DataError, ConfigError), match=r"cannot be read|not filled"):
        bundle.unpack(archive, tmp_path / "out" / "in")
    assert not (tmp_path / "out" / "outside").exists()
    assert not Path("/tmp/vacc-outside").exists()
    assert not (tmp_path / "out" / "in").exists()


def test_what_a_whole_manifest_does_not_name_is_not_unpacked(tmp_path: Path) -> None:
    folder, archive = folder_of(tmp_path / "folder"), tmp_path / "data.tar.zst"
    named = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    others = ["../outside", str(tmp_path / "absolute"), "beside"]
    with zstandard.open(archive, "wb") as stream, tarfile.open(fileobj=stream, mode="w|") as file:
        for path in (folder / "manifest.json", *named):
            file.add(path, path.relative_to(folder).as_posix())
        for member in others:
            info = tarfile.TarInfo(member)
            info.size = 3
            file.addfile(info, io.BytesIO(b"bad"))
    bundle.unpack(archive, tmp_path / "out" / "in")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.tar.zst", "folder", "out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["in"]
    assert not (tmp_path / "out" / "in" / "beside").exists()
    assert bundle.verify(tmp_path / "out" / "in")[1] == {}


def test_a_manifest_that_names_a_file_outside_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "folder")
    outside = {"bytes": 1, "sha256": "0"}
    for name in ("../x", "/etc/passwd"):
        manifest(folder, {name: outside}).write(folder)
        with pytest.raises(ConfigError, match=r"no manifest\.json that this version can read"):
            bundle.read_manifest(folder)


def test_an_archive_of_another_kind_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"NAME\.tar\.zst"):
        bundle.is_archive(tmp_path / "data.tar.gz")


@pytest.mark.parametrize(
    "content", ["", "[]", "nonsense", '{"files": {"a": 1}}', '{"format": 2}', '{"tasks": {"T": {}}}', '{"unknown": 1}']
)
def test_what_is_no_manifest_is_a_usage_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ConfigError, match=r"manifest\.json"):
        bundle.read_manifest(tmp_path)


def test_a_place_without_data_names_the_command_that_fetches_some(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="evalscope-vacc prefetch --to"), bundle.used(tmp_path / "absent.tar.zst"):
        pass
    with pytest.raises(ConfigError, match="evalscope-vacc prefetch --to"), bundle.used(tmp_path):
        pass


def test_a_folder_that_was_not_filled_to_its_end_is_not_taken_for_whole(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "folder")
    manifest(folder, {}).write(folder)
    with pytest.raises(ConfigError, match="not filled to its end"):
        bundle.verify(folder)
    with pytest.raises(ConfigError, match="not filled to its end"), bundle.used(folder):
        pass


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"name": "Other"}, "data.tar does not hold its data"),
        ({"revision": "f" * 40}, "data.tar holds its data set o/d at abc, and the task is of o/d at ffffffffffff"),
        ({"hf_subsets": ["en", "fr"]}, "of its data data.tar lacks the subsets fr"),
        ({"eval_splits": ["dev"]}, "of its data data.tar lacks the splits dev"),
    ],
)
def test_a_task_is_held_against_the_manifest(changes: dict[str, Any], said: str) -> None:
    assert manifest(Path("data.tar"), {}).lacks(task(**changes)) == said


def test_the_libraries_look_there_inside_the_block_alone_and_an_archive_is_unpacked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    import datasets
    from huggingface_hub import constants

    monkeypatch.setenv("VACC_HOME", str(tmp_path / "home"))
    archive = packed(tmp_path)
    before = (constants.HF_HUB_CACHE, datasets.config.HF_DATASETS_CACHE, constants.HF_HUB_OFFLINE, dict(os.environ))
    unpacked: list[Path] = []
    for _ in range(2):
        with bundle.used(archive, lambda archive, folder: unpacked.append(folder)):
            assert constants.HF_HUB_OFFLINE
            assert datasets.config.HF_HUB_OFFLINE
            assert os.environ["HF_HUB_OFFLINE"] == "1", "for processes that a loader starts"
            (folder,) = unpacked
            assert str(datasets.config.HF_DATASETS_CACHE) == os.environ["HF_DATASETS_CACHE"] == str(folder / "datasets")
            assert str(constants.HF_HUB_CACHE) == str(folder / "hub")
            assert (folder / ARROW).is_file()
            assert bundle.in_use() is not None
    assert bundle.in_use() is None
    assert before == (
        constants.HF_HUB_CACHE, datasets.config.HF_DATASETS_CACHE, constants.HF_HUB_OFFLINE, dict(os.environ),
    )  # fmt: skip


def test_a_file_of_another_size_is_noticed_before_a_run(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "folder")
    (folder / ARROW).write_bytes(b"half")
    with pytest.raises(ConfigError, match=r"d\.arrow is missing or damaged: .*--verify"), bundle.used(folder):
        pass
