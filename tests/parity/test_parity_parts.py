"""Texts, stored answers, measures and what they look like."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalscope_vacc.checks.compare import compare_scores, compare_vectors
from evalscope_vacc.checks.reference import load, save, text_hash
from evalscope_vacc.checks.texts import MOST_TEXTS, own_pairs, own_samples, sample, stratify, task_samples
from evalscope_vacc.checks.tolerance import THRESHOLDS
from evalscope_vacc.errors import ConfigError
from evalscope_vacc.messages import ENGLISH

EXACT = THRESHOLDS["float32"]


def vectors(n: int, d: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def test_our_own_list_has_every_length_in_both_languages() -> None:
    samples = own_samples()
    counts = {bucket: sum(s.bucket == bucket for s in samples) for bucket in {s.bucket for s in samples}}
    assert set(counts) == {f"{a} {b}" for a in ("en", "zh") for b in ("short", "medium", "long")}
    assert min(counts.values()) >= 4
    assert len({s.text for s in samples}) == len(samples)
    assert max(s.tokens for s in samples) > 512


def test_our_own_pairs_have_twelve_documents_a_query() -> None:
    pairs = own_pairs()
    assert len(pairs) == len(set(pairs)) == 144
    assert len({query for query, _ in pairs}) == 12


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 900), min_size=1, max_size=200, unique=True), most=st.integers(1, 60))
def test_stratifying_keeps_every_bucket_and_never_more_than_asked(lengths: list[int], most: int) -> None:
    samples = [sample("word " * n) for n in lengths]
    chosen = stratify(samples, most)
    assert len(chosen) == min(most, len(samples))
    assert len({s.text for s in chosen}) == len(chosen)
    if most >= 3:
        assert {s.bucket for s in chosen} == {s.bucket for s in samples}


@pytest.mark.host
def test_a_tasks_texts_are_taken_from_its_data(hub: str) -> None:
    samples = task_samples("STSBenchmark")
    assert 50 < len(samples) <= MOST_TEXTS
    assert {s.language for s in samples} == {"en"}
    with pytest.raises(ConfigError, match="knows no task"):
        task_samples("NoSuchTask")


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(st.text(max_size=20), min_size=1, max_size=12, unique=True))
def test_stored_answers_come_back_for_any_order_of_texts(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    path = tmp_path_factory.mktemp("stored") / "a.npz"
    values = vectors(len(texts))
    save(path, "vectors", [text_hash(t) for t in texts], values, {"served": "m"})
    stored = load(path)
    np.testing.assert_array_equal(stored.values[stored.rows([text_hash(t) for t in texts[::-1]])], values[::-1])
    assert stored.about["served"] == "m"
    with pytest.raises(ConfigError, match=r"missing 1 of 1 texts"):
        stored.rows([text_hash("not there", "x")])


def test_a_stored_file_holds_no_text(tmp_path: Path) -> None:
    save(tmp_path / "a.npz", "vectors", [text_hash("a secret text")], vectors(1), {})
    assert b"secret" not in (tmp_path / "a.npz").read_bytes()
    assert text_hash("ab", "c") != text_hash("a", "bc")


def test_files_that_were_not_stored_by_us_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(path)
    np.savez(path, keys=np.array([object()], dtype=object), values=vectors(1), about=np.array("{}"))
    with pytest.raises(ConfigError, match="cannot be read"):
        load(path)
    note = json.dumps({"format": 1, "kind": "vectors"})
    np.savez(path, keys=np.array([b"x" * 64]), values=vectors(2), about=np.array(note))
    with pytest.raises(ConfigError, match="not a file that --save"):
        load(path)
    np.savez(path, keys=np.array([b"x" * 64]), values=vectors(1) * np.float32(np.nan), about=np.array(note))
    with pytest.raises(ConfigError, match="not finite"):
        load(path)


def test_equal_vectors_pass_whatever_their_lengths() -> None:
    samples = own_samples()
    values = vectors(len(samples))
    found = compare_vectors(samples, values * 3, values, EXACT)
    assert found.passed
    assert (found.figures["overlap_at_10"], found.looks_like) == (1.0, ())
    assert found.figures["max_absolute_difference"] < 1e-6


def test_one_language_alone_is_told() -> None:
    samples = own_samples()
    values = vectors(len(samples))
    served = values.copy()
    chinese = [i for i, s in enumerate(samples) if s.language == "zh"]
    served[chinese] = values[chinese] + 0.5 * vectors(len(chinese), seed=1)
    assert "only Chinese texts differ" in ENGLISH.say(compare_vectors(samples, served, values, EXACT).looks_like[0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "fp8", "int4"])
def test_thresholds_grow_with_the_coarseness_of_the_format(dtype: str) -> None:
    order = list(THRESHOLDS)
    before, here = THRESHOLDS[order[order.index(dtype) - 1]], THRESHOLDS[dtype]
    assert here.least >= before.least
    assert here.score >= before.score
    assert here.overlap <= before.overlap
    assert here.tau <= before.tau


def scores() -> tuple[list[str], np.ndarray]:
    queries = [query for query, _ in own_pairs()]
    return queries, np.random.default_rng(3).uniform(0.05, 0.95, len(queries))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: np.full_like(s, 0.5), "every pair scores the same"),
        (lambda s: s.reshape(12, 12)[:, ::-1].ravel(), "other documents"),
        (lambda s: 1 - s, "sign is reversed"),
        (lambda s: np.log(s / (1 - s)), "another activation"),
        (lambda s: s + np.random.default_rng(1).normal(0, 2e-3, s.shape), "rounding"),
        (lambda s: s + np.random.default_rng(1).normal(0, 0.15, s.shape), "another prompt"),
        (lambda s: np.random.default_rng(1).uniform(0, 1, s.shape), "other weights"),
    ],
    ids=["half", "swapped", "turned", "logits", "rounding", "prompt", "weights"],
)
def test_scores_that_differ_say_what_it_looks_like(change, says: str) -> None:
    queries, reference = scores()
    found = compare_scores(queries, change(reference), reference, EXACT)
    assert not found.passed
    assert says in ENGLISH.say(found.looks_like[0])


def test_equal_scores_pass() -> None:
    queries, reference = scores()
    found = compare_scores(queries, reference + 1e-7, reference, EXACT)
    assert found.passed
    assert [found.figures[f"kendall_tau_{name}"] for name in ("mean", "least")] == pytest.approx([1.0] * 2)
    assert found.figures["queries"] == 12
