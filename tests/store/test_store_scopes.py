"""Putting, getting, and who sees what: scopes and modes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalscope_vacc.errors import ConfigError, StoreError
from evalscope_vacc.store import Store, default_folder, make_identity, text_keys

A = make_identity("model-a", kind="embedding", max_tokens=512)
B = make_identity("model-b", kind="embedding", max_tokens=512)
KEYS = text_keys(A, [f"text {n}" for n in range(500)])
VECTORS = np.random.default_rng(0).standard_normal((500, 48), dtype=np.float32)


def stored(scope: object, keys: list[bytes] = KEYS) -> set[int]:
    positions, values = scope.get(keys, "<f4")
    assert values.tobytes() == VECTORS[positions].tobytes()
    return set(positions.tolist())


def test_what_was_put_is_there_at_once_after_the_commit_and_in_the_next_process(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s") as store:
        scope = store.scope("run", A)
        for at in range(0, 500, 32):
            scope.put(KEYS[at : at + 32], VECTORS[at : at + 32])
            assert stored(scope) == set(range(min(at + 32, 500)))
        assert stored(scope) == set(range(500))
        store.flush()
        assert stored(scope) == set(range(500))
    with Store.open(tmp_path / "s") as store:
        scope = store.scope("run", A)
        assert stored(scope) == set(range(500))
        assert len(scope) == 500
        assert not len(scope.get([b"?" * 16], "<f4")[0])


def test_the_array_may_be_changed_after_it_was_put(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        scope = store.scope("run", A)
        buffer = VECTORS[:4].copy()
        scope.put(KEYS[:4], buffer)
        buffer[:] = 7
        scope.put(KEYS[4:6], VECTORS[4:6])
        # rows of a larger array, and columns, as a decoder may hand them over
        wide = np.zeros((9, 100), np.float32)
        wide[2:5, 10:58] = VECTORS[6:9]
        scope.put(KEYS[6:9], wide[2:5, 10:58])
        scope.put(KEYS[9:10], VECTORS[9:10].astype(">f4"))
        assert stored(scope) == set(range(10))
        store.flush()
        assert stored(scope) == set(range(10))


def test_one_call_may_put_more_than_is_written_at_once(tmp_path: Path) -> None:
    keys = text_keys(A, [f"text {n}" for n in range(10_000)])
    rows = np.arange(10_000, dtype=np.float32)[:, None]
    with Store.open(tmp_path) as store:
        scope = store.scope("run", A)
        scope.put(keys, rows)
        for _ in range(2):
            positions, values = scope.get(keys, "<f4")
            assert sorted(positions.tolist()) == list(range(10_000))
            assert (values[:, 0] == positions).all()
            store.flush()


def test_vectors_of_two_sizes_are_refused_not_mixed(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        scope = store.scope("run", A)
        scope.put(KEYS[:2], VECTORS[:2])
        scope.put(KEYS[2:4], VECTORS[2:4, :32])
        with pytest.raises(StoreError, match=r"different sizes \(32, 48\).*store rm"):
            scope.get(KEYS[:4], "<f4")


def test_a_run_started_again_finds_its_entries_and_another_configuration_does_not(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.scope("configuration 1 / SciFact", A).put(KEYS, VECTORS)
    with Store.open(tmp_path) as store:
        assert len(stored(store.scope("configuration 1 / SciFact", A))) == 500
        assert not stored(store.scope("configuration 2 / SciFact", A))
        assert not stored(store.scope("configuration 1 / NFCorpus", A))
        assert not stored(store.scope("configuration 1 / SciFact", B))


def test_a_finished_task_leaves_nothing_and_the_others_stay(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        one, other = store.scope("run/1", A), store.scope("run/2", A)
        one.put(KEYS, VECTORS)
        other.put(KEYS, VECTORS)
        store.drop("run/1")
        store.drop("run/1")
        assert not list(tmp_path.glob(f"{one.path.stem}*"))
        assert len(stored(other)) == 500
        assert not stored(store.scope("run/1", A))


def test_dropping_by_name_takes_every_identity_also_those_of_earlier_processes(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.scope("run", A).put(KEYS, VECTORS)
    with Store.open(tmp_path) as store:
        store.scope("run", B).put(KEYS, VECTORS)
        store.drop("run")
        assert list(tmp_path.iterdir()) == []


def test_reuse_serves_every_run_and_is_not_dropped(tmp_path: Path) -> None:
    with Store.open(tmp_path, mode="reuse") as store:
        scope = store.scope("run 1", A)
        scope.put(KEYS, VECTORS)
        scope.release()
        store.drop("run 1")
    with Store.open(tmp_path, mode="reuse") as store:
        assert len(stored(store.scope("run 2", A))) == 500
        assert not stored(store.scope("run 2", B))
    with Store.open(tmp_path) as store:
        assert not stored(store.scope("run 1", A))


def test_many_threads_may_put_and_get(tmp_path: Path) -> None:
    failures: list[BaseException] = []
    with Store.open(tmp_path) as store:
        scope = store.scope("run", A)

        def work(start: int) -> None:
            try:
                for at in range(start, 500, 8):
                    scope.put(KEYS[at : at + 1], VECTORS[at : at + 1])
                    assert stored(scope, KEYS[: at + 1]) >= set(range(start, at + 1, 8))
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert stored(scope) == set(range(500))


def test_files_and_folders_are_the_users_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with Store.open(tmp_path / "s") as store:
            store.scope("run", A).put(KEYS, VECTORS)
            store.flush()
            assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
            modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "s").iterdir()}
            assert modes == {0o600}
    finally:
        os.umask(before)


def test_neither_texts_nor_passwords_are_in_the_file(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        scope = store.scope("api_key=sk-abc run", A, label="SciFact http://me:hunter2@h:8000\x1b[2J")
        scope.put(text_keys(A, ["the secret text"]), VECTORS[:1])
    raw = scope.path.read_bytes()
    for secret in (b"secret text", b"hunter2", b"sk-abc", b"\x1b[2J"):
        assert secret not in raw
    assert b"http://***@h:8000" in raw


def test_a_closed_store_says_so_and_closing_twice_is_fine(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    store = Store.open(tmp_path)
    scope = store.scope("run", A)
    scope.put(KEYS, VECTORS)
    store.close()
    store.close()
    for call in (lambda: scope.put(KEYS, VECTORS), lambda: scope.get(KEYS, "<f4"), store.flush):
        with pytest.raises(StoreError, match="closed"):
            call()
    assert not [t for t in set(threading.enumerate()) - before if t.name == "evalscope-vacc store"]


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'keep' is not a mode; use resume, reuse"):
        Store.open(tmp_path, mode="keep")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least one MiB"):
        Store.open(tmp_path, limit_bytes=5)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be made.*VACC_HOME"):
        Store.open(tmp_path / "file" / "s")
    with Store.open(tmp_path) as store:
        scope = store.scope("run", A)
        with pytest.raises(ValueError, match="16 bytes"):
            scope.put([b"short"], VECTORS[:1])
        with pytest.raises(ValueError, match="2 keys for values of the shape"):
            scope.put(KEYS[:2], VECTORS[:3])


def test_the_folder_follows_vacc_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VACC_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "store"
    monkeypatch.delenv("VACC_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert default_folder().name == "store"
    assert "evalscope-vacc" in default_folder().parts


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.floats(width=32)), max_size=40), st.integers(1, 7))
def test_vectors_come_back_bit_for_bit_and_the_newest_wins(
    tmp_path_factory: pytest.TempPathFactory, items: list[tuple[int, float]], batch: int
) -> None:
    folder = tmp_path_factory.mktemp("s")
    newest: dict[int, bytes] = {}
    keys = [n.to_bytes(16, "big") for n in range(9)]

    def found(scope: object) -> dict[int, bytes]:
        positions, values = scope.get(keys, "<f4")
        return {at: row.tobytes() for at, row in zip(positions.tolist(), values, strict=True)}

    with Store.open(folder) as store:
        scope = store.scope("run", A)
        for at in range(0, len(items), batch):
            rows = np.array([[value, at] for _, value in items[at : at + batch]], np.float32)
            some = [keys[n] for n, _ in items[at : at + batch]]
            scope.put(some, rows)
            newest.update({n: row.tobytes() for (n, _), row in zip(items[at : at + batch], rows, strict=True)})
            assert found(scope) == newest
    with Store.open(folder) as store:
        assert found(store.scope("run", A)) == newest


def test_scores_are_float64(tmp_path: Path) -> None:
    scores = np.array([[0.1], [-1e300], [3.0]])
    with Store.open(tmp_path) as store:
        scope = store.scope("run", A)
        scope.put(KEYS[:3], scores)
        store.flush()
        positions, found = scope.get([KEYS[2], KEYS[9], KEYS[0]], "<f8")
        assert (positions.tolist(), found.tolist()) == ([0, 2], [[3.0], [0.1]])
