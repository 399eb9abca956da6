"""Damaged, foreign and old files: nothing wrong is returned, and the error says what to do."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from evalscope_vacc.errors import StoreError
from evalscope_vacc.store import Store, listing, make_identity, remove, text_keys, verify

IDENTITY = make_identity("m", kind="embedding")
KEYS = text_keys(IDENTITY, [f"text {n}" for n in range(300)])
VECTORS = np.random.default_rng(0).standard_normal((300, 256), dtype=np.float32)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    with Store.open(folder) as store:
        scope = store.scope("run", IDENTITY)
        scope.put(KEYS, VECTORS)
    return scope.path


def damage(path: Path, changes: list[tuple[int, int]]) -> None:
    raw = bytearray(path.read_bytes())
    for at, value in changes:
        raw[at % len(raw)] ^= value
    path.write_bytes(raw)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(changes=[(3926, 128)])  # in the text of the schema, which SQLite's message then repeats
@given(changes=st.lists(st.tuples(st.integers(0, 2**22), st.integers(1, 255)), min_size=1, max_size=6))
def test_flipped_bytes_anywhere_give_right_vectors_fewer_vectors_or_our_error(
    original: Path, tmp_path: Path, changes: list[tuple[int, int]]
) -> None:
    path = tmp_path / original.name
    shutil.copy(original, path)
    damage(path, changes)
    said = path.name
    try:
        with Store.open(tmp_path) as store:
            scope = store.scope("run", IDENTITY)
            positions, values = scope.get(KEYS, "<f4")
            assert values.tobytes() == VECTORS[positions].tobytes()
    except StoreError as error:
        said = str(error)
    assert path.name in said
    verdict = verify(path)
    assert verdict.sound <= 300
    path.unlink(missing_ok=True)


def test_a_flipped_byte_in_each_value_costs_those_values_and_no_other(original: Path, tmp_path: Path) -> None:
    path = tmp_path / original.name
    shutil.copy(original, path)
    raw = path.read_bytes()
    hit = range(0, 300, 7)
    places = [raw.index(VECTORS[n].tobytes()) + n for n in hit]
    damage(path, [(at, 0x10) for at in places])
    verdict = verify(path)
    assert (verdict.sound, verdict.damaged, verdict.ok) == (300 - len(hit), len(hit), False)
    with Store.open(tmp_path) as store:
        scope = store.scope("run", IDENTITY)
        positions, _ = scope.get(KEYS, "<f4")
        assert sorted(positions.tolist()) == [n for n in range(300) if n % 7]
        assert scope._table.damaged == len(hit)
        # asked of the server again and put again, they are there
        scope.put([KEYS[n] for n in hit], VECTORS[list(hit)])
        store.flush()
        positions, values = scope.get(KEYS, "<f4")
        assert len(positions) == 300
        assert values.tobytes() == VECTORS[positions].tobytes()


def test_damage_is_reported(original: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / original.name
    shutil.copy(original, path)
    damage(path, [(path.read_bytes().index(VECTORS[5].tobytes()), 1)])
    with Store.open(tmp_path) as store:
        store.scope("run", IDENTITY).get(KEYS, "<f4")
    assert KEYS[5].hex() in caplog.text
    assert path.name in caplog.text
    assert "store verify" in caplog.text


def foreign_text(path: Path) -> None:
    path.write_text("something else\n" * 500)


def foreign_sqlite(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE t(x)")
    db.close()


def half_a_file(path: Path) -> None:
    damage(path, [(at, 0xFF) for at in range(100, 32768, 97)])


def later_version(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=99")
    db.close()


def trigger(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TRIGGER t AFTER INSERT ON answer BEGIN DELETE FROM about; END")
    db.close()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (foreign_text, "file is not a database"),
        (foreign_sqlite, "SQLite file of something else"),
        (half_a_file, "malformed|tables that it should"),
        (later_version, "layout 99"),
        (trigger, "tables that it should"),
    ],
)
def test_a_file_that_is_not_ours_is_refused_named_and_left_alone(
    original: Path, tmp_path: Path, make: object, says: str
) -> None:
    path = tmp_path / original.name
    if make not in (foreign_text, foreign_sqlite):
        shutil.copy(original, path)
    make(path)
    before = path.read_bytes()
    with Store.open(tmp_path) as store, pytest.raises(StoreError, match=says) as raised:
        store.scope("run", IDENTITY)
    assert str(path) in str(raised.value)
    assert any(way in str(raised.value) for way in ("store rm", "move it away"))
    assert path.read_bytes() == before
    assert [line.problem != "" for line in listing(tmp_path)] == [True]
    assert verify(path).problem
    assert remove(path)
    with Store.open(tmp_path) as store:
        assert len(store.scope("run", IDENTITY)) == 0


def test_a_folder_in_the_files_place_is_an_error_of_ours(original: Path, tmp_path: Path) -> None:
    (tmp_path / original.name).mkdir()
    with Store.open(tmp_path) as store, pytest.raises(StoreError, match="could not be opened"):
        store.scope("run", IDENTITY)


def test_an_empty_file_left_by_a_killed_process_is_used(original: Path, tmp_path: Path) -> None:
    (tmp_path / original.name).touch()
    with Store.open(tmp_path) as store:
        scope = store.scope("run", IDENTITY)
        scope.put(KEYS, VECTORS)
        assert len(scope.get(KEYS, "<f4")[0]) == 300


def test_a_file_that_breaks_while_it_is_open_is_said_once_and_found_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Store.open(tmp_path) as store:
        scope = store.scope("run", IDENTITY)
        scope.put(KEYS, VECTORS)
        store.flush()

        def broken(keys: object) -> None:
            with scope._table.errors("read"):
                raise sqlite3.DatabaseError("database disk image is malformed")

        monkeypatch.setattr(scope._table, "get", broken)
        for _ in range(3):
            assert not len(scope.get(KEYS, "<f4")[0])
    assert caplog.text.count("malformed") == 1
    assert "The run continues" in caplog.text
