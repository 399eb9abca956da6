"""The streamed search finds what MTEB's own search finds, with the same scores and the same order of equal ones."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("mteb", minversion="2.7", reason="the older line has no search of its own")

import torch
from datasets import Dataset
from mteb.models.search_wrappers import SearchEncoderWrapper

from evalscope_vacc.models import search as search_module
from evalscope_vacc.models.encoder import VaccEncoder
from evalscope_vacc.models.search import Best, StreamedSearch

METADATA = SimpleNamespace(name="T", type="Retrieval", is_aggregate=False, modalities=["text"])


class Numbers:
    """An encoder of texts that are numbers; few different ones, so that many scores are equal."""

    mteb_model_meta: Any = None

    def __init__(self) -> None:
        self.encoded: list[int] = []

    def encode(self, inputs: Any, **_: Any) -> np.ndarray:
        texts = [text for batch in inputs for text in batch["text"]]
        self.encoded.append(len(texts))
        angles = np.array([int(text.split()[-1]) for text in texts], np.float32)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)

    def similarity(self, a: Any, b: Any) -> torch.Tensor:
        return torch.as_tensor(a) @ torch.as_tensor(b).T


def loader(dataset: Any, *_: Any, **__: Any) -> list[dict[str, list[str]]]:
    return [{"text": [row["text"]]} for row in dataset]


@pytest.fixture(scope="module", autouse=True)
def plain_loaders() -> Any:
    """MTEB's own would want the whole of a task's metadata."""
    import mteb.models.search_wrappers as theirs

    with pytest.MonkeyPatch.context() as patched:
        for module in (theirs, search_module):
            patched.setattr(module, "create_dataloader", loader)
        yield


def searched(wrapper: Any, corpus: Dataset, queries: Dataset, top_k: int, **more: Any) -> dict[str, dict[str, float]]:
    where: dict[str, Any] = {"task_metadata": METADATA, "hf_split": "test", "hf_subset": "default"}
    where |= {"encode_kwargs": {}, "num_proc": None}
    wrapper.index(corpus, **where)
    return wrapper.search(queries, top_k=top_k, **where, **more)  # type: ignore[no-any-return]


def rows(prefix: str, numbers: list[int], order: int) -> Dataset:
    # ids whose order as strings is not the order of the rows
    ids = [f"{prefix}{(i * 7 + order) % 1000}" for i in range(len(numbers))]
    return Dataset.from_dict({"id": ids, "text": [f"number {n}" for n in numbers]})


@settings(max_examples=80, deadline=None)
@given(
    documents=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    queries=st.lists(st.integers(0, 3), min_size=1, max_size=5),
    top_k=st.integers(1, 12),
    chunk=st.integers(1, 45),
    order=st.integers(0, 99),
)
def test_scores_documents_and_ties_are_mtebs(
    documents: list[int], queries: list[int], top_k: int, chunk: int, order: int
) -> None:
    corpus, asked = rows("d", documents, order), rows("q", queries, order)
    theirs, ours = (kind(Numbers(), chunk) for kind in (SearchEncoderWrapper, StreamedSearch))
    assert searched(ours, corpus, asked, top_k) == searched(theirs, corpus, asked, top_k)
    assert ours.model.encoded == theirs.model.encoded


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.lists(st.sampled_from([0.0, 0.25, 0.5]), min_size=9, max_size=9), min_size=1, max_size=4),
    top_k=st.integers(1, 10),
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=9),
    limit=st.sampled_from([1, 40, 1 << 30]),
)
def test_the_best_are_the_largest_of_score_and_id_whatever_the_chunks_and_blocks(
    scores: list[list[float]], top_k: int, sizes: list[int], limit: int
) -> None:
    table = torch.tensor(scores)
    best = Best(len(scores), top_k, lambda rows: [f"id{row}" for row in rows])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(search_module, "SCORES_BYTES", limit)
        begin = 0
        for size in [*sizes, 9]:
            part = list(range(begin, min(begin + size, 9)))
            if part:
                # a chunk's own ties beyond top_k + 1 are as torch has them, so chunks here are no larger than that
                part = part[: top_k + 1]
                best.add(lambda queries, documents: table[queries][:, documents], torch.arange(len(scores)), part)
                begin += len(part)
    for found, row in zip(best.found(), scores, strict=True):
        expected = sorted(((score, f"id{i}") for i, score in enumerate(row[:begin])), reverse=True)[:top_k]
        assert sorted(found, reverse=True) == expected


def test_the_next_chunk_is_encoded_while_one_is_searched() -> None:
    encoding_second = threading.Event()

    class Watched(Numbers):
        def encode(self, inputs: Any, **more: Any) -> np.ndarray:
            vectors = super().encode(inputs, **more)
            if self.encoded == [1, 2, 2]:
                encoding_second.set()
            return vectors

        def similarity(self, a: Any, b: Any) -> torch.Tensor:
            assert len(self.encoded) != 2 or encoding_second.wait(30), (
                "the second chunk waits for the first one's search"
            )
            return super().similarity(a, b)

    found = searched(StreamedSearch(Watched(), 2), rows("d", [0, 1, 2, 3], 0), rows("q", [0], 0), 2)
    assert len(found["q0"]) == 2


def test_what_fails_in_the_search_fails_the_search() -> None:
    class Failing(Numbers):
        def similarity(self, a: Any, b: Any) -> torch.Tensor:
            raise MemoryError("no room for the scores")

    with pytest.raises(MemoryError, match="no room"):
        searched(StreamedSearch(Failing(), 2), rows("d", [0, 1, 2], 0), rows("q", [0], 0), 2)


def test_an_encoder_is_searched_by_this() -> None:
    from mteb.models import EncoderProtocol, SearchProtocol

    model = VaccEncoder("m", api_base="http://127.0.0.1:9", preflight=False)
    assert isinstance(model, EncoderProtocol)
    assert isinstance(model, SearchProtocol)
    # MTEB calls this method of its own class; with another name its search would be used, which does not stream
    assert callable(SearchEncoderWrapper._full_corpus_search)
