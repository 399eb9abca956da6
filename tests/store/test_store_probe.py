"""A changed model is told from an unchanged one by its answers to fixed texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evalscope_vacc.store import PROBE_PAIRS, PROBE_TEXTS, Scope, Store, compare, make_identity, text_keys

IDENTITY = make_identity("m", kind="embedding")
RNG = np.random.default_rng(3)
BASE = RNG.standard_normal((len(PROBE_TEXTS), 384)).astype(np.float32)
BASE /= np.linalg.norm(BASE, axis=1, keepdims=True)


def answers(noise: float, base: np.ndarray = BASE) -> np.ndarray:
    """Two repeats, each off by ``noise`` relative to the vector's length."""
    off = RNG.standard_normal((2, *base.shape)).astype(np.float32)
    off /= np.linalg.norm(off, axis=-1, keepdims=True)
    return (base + noise * off).astype(np.float32)


def fill(scope: Scope) -> None:
    scope.put(text_keys(IDENTITY, ["a", "b"]), np.ones((2, 4), np.float32))


def test_the_texts_are_english_and_chinese_and_one_fills_a_block() -> None:
    assert any("\u4e00" <= c <= "\u9fff" for text in PROBE_TEXTS for c in text)
    assert max(len(text.split()) for text in PROBE_TEXTS) > 128
    assert len(set(PROBE_PAIRS)) == 4


@pytest.mark.parametrize("noise", [0.0, 1e-7, 2e-6, 1e-4, 1e-3])
def test_the_same_model_with_its_own_noise_is_admitted(tmp_path: Path, noise: float) -> None:
    with Store.open(tmp_path) as store:
        scope = store.scope("run", IDENTITY)
        assert scope.admit_probe(answers(noise)).state == "new"
        fill(scope)
    with Store.open(tmp_path) as store:
        scope = store.scope("run", IDENTITY)
        assert scope.admit_probe(answers(noise)).state == "ok"
        assert len(scope) == 2


@pytest.mark.parametrize("change", [1e-4, 1e-3, 0.02, 1.0])
def test_another_model_behind_the_same_name_is_refused_with_its_entries(tmp_path: Path, change: float) -> None:
    with Store.open(tmp_path) as store:
        scope = store.scope("run", IDENTITY)
        scope.admit_probe(answers(1e-7))
        fill(scope)
    other = BASE.copy()
    other[1] += change * BASE[2]
    with Store.open(tmp_path) as store:
        scope = store.scope("run", IDENTITY)
        result = scope.admit_probe(answers(1e-7, other))
        assert (result.state, result.dropped, len(scope)) == ("differs", 2, 0)
        assert "probe text 2" in result.details
        assert "2 stored answers are refused" in result.details
        assert not len(scope.get(text_keys(IDENTITY, ["a", "b"]), "<f4")[0])
        assert scope.admit_probe(answers(1e-7, other)).state == "ok"


def test_entries_that_no_probe_vouches_for_are_refused(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        scope = store.scope("run", IDENTITY)
        fill(scope)
        result = scope.admit_probe(answers(0))
        assert (result.state, result.dropped, len(scope)) == ("differs", 2, 0)


def test_a_server_that_contradicts_itself_is_never_the_same() -> None:
    broken = answers(0.5)
    assert compare(broken, broken).state == "differs"


def test_a_changed_scale_or_size_is_a_changed_model() -> None:
    assert compare(answers(0), 1.01 * answers(0)).state == "differs"
    result = compare(answers(0), answers(0)[:, :, :128])
    assert result.state == "differs"
    assert "(3, 384)" in result.details
    assert "(3, 128)" in result.details


def test_scores_are_compared_over_all_pairs(tmp_path: Path) -> None:
    scores = np.array([[0.98, 0.0001, 0.93, 0.02]] * 2)
    with Store.open(tmp_path) as store:
        scope = store.scope("run", make_identity("m", kind="score"))
        assert scope.admit_probe(scores).state == "new"
        assert scope.admit_probe(scores + np.array([0, 1e-7, 0, 0])).state == "ok"
        assert scope.admit_probe(scores + np.array([0, 0, 0.001, 0])).state == "differs"


@pytest.mark.parametrize("wrong", [np.ones(3), np.ones((0, 3, 4)), np.full((1, 3, 4), np.nan), np.ones((1, 1, 1, 1))])
def test_answers_that_are_none_are_refused(tmp_path: Path, wrong: np.ndarray) -> None:
    with Store.open(tmp_path) as store:
        scope = store.scope("run", IDENTITY)
        with pytest.raises(ValueError, match="answers to the probe"):
            scope.admit_probe(wrong)


def test_each_scope_has_its_own_probe(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.scope("run", IDENTITY).admit_probe(answers(0))
        assert store.scope("run 2", IDENTITY).admit_probe(answers(0)).state == "new"
