"""``evalscope-vacc store``."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from evalscope_vacc.cli.store import app
from evalscope_vacc.errors import ConfigError, StoreError
from evalscope_vacc.store import Store, files, listing, make_identity, text_keys
from evalscope_vacc.store import folder as folders

RUNNER = CliRunner()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("VACC_HOME", str(tmp_path))
    for mode, model, kind in (("resume", "org/encoder", "embedding"), ("reuse", "org/ranker", "score")):
        identity = make_identity(model, kind=kind)
        with Store.open(tmp_path / "store", mode=mode) as store:
            scope = store.scope("run", identity, label=f"SciFact [red]{mode}")
            scope.put(text_keys(identity, [f"t{n}" for n in range(1234)]), np.ones((1234, 64), np.float32))
    return tmp_path / "store"


def run(*arguments: str, status: int = 0, says: str | None = None) -> str:
    result = RUNNER.invoke(app, list(arguments), input=says)
    assert result.exit_code == status, (result.output, result.exception)
    return result.output


def test_ls_shows_model_task_number_size_and_age(folder: Path) -> None:
    shown = run("ls")
    for wanted in ("org/encoder", "org/ranker", "SciFact [red]reuse", "1,234", "KiB", " s"):
        assert wanted in shown
    assert str(folder) in shown.replace("\n", "")
    lines = json.loads(run("ls", "--json"))
    assert {(line["model"], line["mode"], line["kind"], line["entries"]) for line in lines} == {
        ("org/encoder", "resume", "embedding", 1234),
        ("org/ranker", "reuse", "score", 1234),
    }


def test_ls_of_nothing_and_of_another_folder(tmp_path: Path) -> None:
    assert "is empty" in run("ls", "--folder", str(tmp_path / "none"))
    assert json.loads(run("ls", "--json", "--folder", str(tmp_path))) == []
    assert "is empty" in run("verify", "--folder", str(tmp_path))


def test_ls_marks_what_is_in_use(folder: Path) -> None:
    with Store.open(folder) as store:
        store.scope("run", make_identity("org/encoder", kind="embedding"))
        assert run("ls").count("in use") == 1


def test_names_that_ls_prints_are_those_that_rm_takes(folder: Path) -> None:
    (name,) = [word for word in run("ls").split() if word.startswith("resume-")]
    assert "Removed 1 of 1" in run("rm", name, "--yes")
    assert [line.mode for line in listing(folder)] == ["reuse"]


def test_rm_asks_first(folder: Path) -> None:
    run("rm", "--all", says="n\n", status=1)
    assert len(files(folder)) == 2
    assert "Removed 2 of 2" in run("rm", "--all", says="y\n")
    assert files(folder) == []
    assert "Nothing to remove" in run("rm", "--all", "--yes")


def test_rm_by_age(folder: Path) -> None:
    old = files(folder)[0]
    os.utime(old, (time.time() - 5 * 86400,) * 2)
    assert "Removed 1 of 1" in run("rm", "--older-than", "3", "--yes")
    assert old not in files(folder)


def test_rm_says_what_is_wrong(folder: Path) -> None:
    for arguments in (["rm"], ["rm", "x", "--all"], ["rm", "--all", "--older-than", "1"]):
        assert isinstance(RUNNER.invoke(app, arguments).exception, ConfigError)
    for name in ("../outside", "nothing", ""):
        failed = RUNNER.invoke(app, ["rm", "--yes", name]).exception
        assert isinstance(failed, StoreError)
        assert "store ls" in str(failed)
    assert len(files(folder)) == 2


def test_rm_keeps_what_is_in_use_unless_forced(folder: Path) -> None:
    with Store.open(folder) as store:
        store.scope("run", make_identity("org/encoder", kind="embedding"))
        failed = RUNNER.invoke(app, ["rm", "--all", "--yes"])
        assert isinstance(failed.exception, StoreError)
        assert "--force" in str(failed.exception)
        assert len(files(folder)) == 1
        run("rm", "--all", "--yes", "--force")
        assert files(folder) == []


def test_a_file_that_cannot_be_read_is_listed_and_removable(folder: Path) -> None:
    path = files(folder)[0]
    path.write_bytes(b"\x1b[31m nonsense" * 99)
    shown = run("ls")
    assert "cannot be read" in shown
    assert "not a database" in shown
    run("verify", status=1)
    run("rm", path.stem, "--yes")
    assert not path.exists()


def test_verify_finds_damage_and_fails(folder: Path) -> None:
    assert run("verify").count("ok, 1,234 sound") == 2
    path = files(folder)[0]
    raw = bytearray(path.read_bytes())
    raw[raw.index(np.ones(64, np.float32).tobytes())] ^= 1
    path.write_bytes(raw)
    shown = run("verify", status=1)
    assert "damaged, 1,233 sound, 1 damaged" in shown
    assert "ok, 1,234 sound" in shown
    assert [found["ok"] for found in json.loads(run("verify", "--json", status=1))] == [False, True]
    run("verify", files(folder)[1].stem)
    assert "已损坏，1,233 个完好，1 个损坏" in run("verify", "--lang", "zh", status=1)


def test_files_of_0_1_0_are_listed_left_alone_and_removable_by_name(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = folder / "resume-0123456789abcdef-0123456789abcdef.sqlite"
    with sqlite3.connect(old) as db:
        db.execute("PRAGMA application_id=0x76616363")
        db.execute("PRAGMA user_version=1")
        db.execute("CREATE TABLE segment(id INTEGER PRIMARY KEY AUTOINCREMENT, size INTEGER, keys BLOB)")
    db.close()
    os.utime(old, (1, 1))
    before = old.read_bytes()
    folders.warn_of_other_versions.cache_clear()
    for _ in range(2):
        with Store.open(folder, limit_bytes=2**20) as store:
            store.scope("run", make_identity("org/encoder", kind="embedding"))
    assert caplog.text.count("1 files") == caplog.text.count("of evalscope-vacc 0.1.0 and are not used") == 1
    assert old.read_bytes() == before
    assert "the layout 1 of another evalscope-vacc" in run("ls")
    assert "Removed 1 of 1" in run("rm", "resume-0123456789abcdef", "--yes")
    assert not old.exists()
