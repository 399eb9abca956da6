"""The size and age limits: the oldest goes first, never what is in use, never the newest."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from evalscope_vacc.store import DEFAULT_LIMIT, Store, make_identity, text_keys, upkeep

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
        scope.put_vectors(keys(count), rows(count))
    then = time.time() - age_s
    os.utime(scope.path, (then, then))
    return scope.path


def test_the_file_that_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    old, older, new = (fill(tmp_path, name, 250, age) for name, age in (("x", 500), ("y", 900), ("z", 100)))
    with Store.open(tmp_path, limit_bytes=3 * MIB) as store:
        assert not older.exists()
        assert old.exists()
        assert new.exists()
        assert store.stats.evicted > MIB


def test_an_abandoned_task_goes_when_it_is_old_and_a_kept_model_does_not(tmp_path: Path) -> None:
    abandoned, recent = fill(tmp_path, "x", 5, 40 * 86400), fill(tmp_path, "y", 5, 20 * 86400)
    with Store.open(tmp_path, mode="reuse") as store:
        kept = store.scope("", A)
        kept.put_vectors(keys(5), rows(5))
    os.utime(kept.path, (1, 1))
    with Store.open(tmp_path):
        assert not abandoned.exists()
        assert recent.exists()
        assert kept.path.exists()


def test_one_file_over_the_limit_loses_its_oldest_entries_and_stays_within_it(tmp_path: Path) -> None:
    limit = 8 * MIB
    with Store.open(tmp_path, limit_bytes=limit) as store:
        scope = store.scope("run", A)
        for at in range(0, 8000, 100):
            scope.put_vectors(keys(100, at), rows(100))
            if at % 200 == 0:
                store.flush()
        store.flush()
        newest, _ = scope.get_vectors(keys(1000, 7000))
        oldest, _ = scope.get_vectors(keys(1000, 0))
        assert len(newest) == 1000
        assert len(oldest) == 0
        assert store.stats.evicted > 20 * MIB
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1.5 * limit
    verdict = upkeep.verify(scope.path)
    assert verdict.ok
    assert 1000 <= verdict.sound < 2500


def test_what_is_in_use_is_not_evicted_by_another_store(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        scope = store.scope("run", A)
        scope.put_vectors(keys(500), rows(500))
        store.flush()
        with Store.open(tmp_path, limit_bytes=MIB) as other:
            other.scope("run 2", B).put_vectors(keys(5), rows(5))
            other.flush()
        assert len(scope.get_vectors(keys(500))[0]) == 500


def test_foreign_files_in_the_folder_are_neither_counted_nor_touched(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(b"x" * 5 * MIB)
    (tmp_path / "other.sqlite").write_bytes(b"x" * 5 * MIB)
    mine = fill(tmp_path, "x", 50, 500)
    with Store.open(tmp_path, limit_bytes=MIB):
        assert mine.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "other.sqlite", mine.name}


def test_a_store_takes_no_more_than_half_of_what_its_disk_has_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**30))
    held = fill(tmp_path, "x", 250, 1).stat().st_size
    with Store.open(tmp_path) as store:
        assert store.limit_bytes == held + 2**29
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**60))
    with Store.open(tmp_path) as store:
        assert store.limit_bytes == DEFAULT_LIMIT


def test_what_is_released_stays_and_may_go_for_newer_entries(tmp_path: Path) -> None:
    with Store.open(tmp_path, limit_bytes=5 * MIB) as store:
        first = store.scope("x", A)
        first.put_vectors(keys(500), rows(500))
        first.release()
        assert len(store.scope("x", A)) == 500
        store.scope("x", A).release()
        second = store.scope("y", A)
        for at in range(0, 810, 30):
            second.put_vectors(keys(30, at), rows(30))
            store.flush()
        assert not first.path.exists()
        assert len(second) == 810
