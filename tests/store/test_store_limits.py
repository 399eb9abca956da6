"""The size and age limits: what others left goes first, and the run under way never loses its beginning."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from evalscope_vacc.store import Store, make_identity, text_keys, verify
from evalscope_vacc.store import folder as folders

A = make_identity("a", kind="embedding")
B = make_identity("b", kind="embedding")
MIB = 2**20


def rows(count: int) -> np.ndarray:
    return np.ones((count, 1024), np.float32)


def keys(count: int, first: int = 0) -> list[bytes]:
    return text_keys(A, [f"text {n}" for n in range(first, first + count)])


def fill(folder: Path, scope_id: str, count: int, age_s: float) -> Path:
    with Store.open(folder) as store:
        scope = store.scope(scope_id, A)
        scope.put(keys(count), rows(count))
    then = time.time() - age_s
    os.utime(scope.path, (then, then))
    return scope.path


def test_the_file_that_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    old, older, new = (fill(tmp_path, name, 250, age) for name, age in (("x", 500), ("y", 900), ("z", 100)))
    with Store.open(tmp_path, limit_bytes=3 * MIB):
        assert not older.exists()
        assert old.exists()
        assert new.exists()


def test_an_abandoned_task_goes_when_it_is_old_and_a_kept_model_does_not(tmp_path: Path) -> None:
    abandoned, recent = fill(tmp_path, "x", 5, 40 * 86400), fill(tmp_path, "y", 5, 20 * 86400)
    with Store.open(tmp_path, mode="reuse") as store:
        kept = store.scope("", A)
        kept.put(keys(5), rows(5))
    os.utime(kept.path, (1, 1))
    with Store.open(tmp_path):
        assert not abandoned.exists()
        assert recent.exists()
        assert kept.path.exists()


def test_what_is_in_use_is_not_evicted_by_another_store(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        scope = store.scope("run", A)
        scope.put(keys(500), rows(500))
        store.flush()
        with Store.open(tmp_path, limit_bytes=MIB) as other:
            other.scope("run 2", B).put(keys(5), rows(5))
            other.flush()
        assert len(scope.get(keys(500), "<f4")[0]) == 500


def test_what_is_in_use_in_another_folder_takes_no_room_here(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    mine = fill(here, "x", 500, 500)
    with Store.open(there) as other:
        other.scope("run", B).put(keys(500), rows(500))
        other.flush()
        with Store.open(here, limit_bytes=3 * MIB):
            assert mine.exists()


def test_foreign_files_in_the_folder_are_neither_counted_nor_touched(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(b"x" * 5 * MIB)
    (tmp_path / "other.sqlite").write_bytes(b"x" * 5 * MIB)
    mine = fill(tmp_path, "x", 50, 500)
    with Store.open(tmp_path, limit_bytes=MIB):
        assert mine.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "other.sqlite", mine.name}


def test_a_run_over_the_limit_keeps_its_beginning_and_says_what_a_restart_repeats(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limit = 8 * MIB
    with Store.open(tmp_path, limit_bytes=limit) as store:
        scope = store.scope("run", A)
        for at in range(0, 8000, 100):
            scope.put(keys(100, at), rows(100))
            store.flush()
        kept = len(scope.get(keys(8000), "<f4")[0])
        assert len(scope.get(keys(500, 0), "<f4")[0]) == 500
        assert not len(scope.get(keys(1000, 7000), "<f4")[0])
        assert kept + store.not_kept == 8000
    assert caplog.text.count("which is its limit") == 1
    assert f"{8000 - kept} answers were not kept" in caplog.text
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1.5 * limit
    assert verify(scope.path).sound == kept


def test_earlier_tasks_of_the_run_under_way_are_its_own(tmp_path: Path) -> None:
    left = fill(tmp_path, "another run", 500, 900)
    with Store.open(tmp_path, limit_bytes=5 * MIB) as store:
        first = store.scope("task 1", A)
        first.put(keys(500), rows(500))
        first.release()
        second = store.scope("task 2", A)
        for at in range(0, 1200, 30):
            second.put(keys(30, at), rows(30))
            store.flush()
        assert not left.exists()
        assert len(store.scope("task 1", A)) == 500
        assert 0 < len(second) < 1200


def test_the_two_models_of_a_run_do_not_evict_each_other(tmp_path: Path) -> None:
    with Store.open(tmp_path, limit_bytes=2 * MIB) as encoder:
        scope = encoder.scope("task", A)
        scope.put(keys(400), rows(400))
        scope.release()
        with Store.open(tmp_path, limit_bytes=2 * MIB) as reranker:
            reranker.scope("task", B).put(keys(500), rows(500))
            reranker.flush()
        assert len(encoder.scope("task", A)) == 400


def test_what_does_not_fit_is_said_before_it_is_sent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(tmp_path, limit_bytes=2**30) as store:
        store.announce("Fits", 200_000, 1024)
        assert caplog.text == ""
        store.announce("MSMARCO", 8_841_823, 4096)
    assert "MSMARCO: to keep 8,841,823 vectors of 4096 numbers takes 152." in caplog.text
    assert "has room for 1.0 GiB" in caplog.text
    assert "sends the other 8,783,771 (99 %) again" in caplog.text
    caplog.clear()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**20))
    with Store.open(tmp_path, limit_bytes=2**30) as store:
        store.announce("Fits", 200_000, 1024)
    assert "has room for 1.0 MiB" in caplog.text


def test_what_others_left_may_take_twenty_gib_and_a_run_half_of_the_free_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**40))
    old, recent = fill(tmp_path, "x", 250, 100_000), fill(tmp_path, "y", 250, 50_000)
    held = old.stat().st_size + recent.stat().st_size
    monkeypatch.setattr(folders, "LEFTOVERS", MIB // 2)
    with Store.open(tmp_path) as store:
        assert store.limit_bytes == held + 2**39
        assert not old.exists()
        # perhaps it is this very run, which was killed yesterday evening and is started again
        assert recent.exists()
