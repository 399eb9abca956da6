"""Exact search of a corpus, in chunks: while one is being encoded, the one before it is searched.

MTEB's own search encodes a chunk, then searches it, then encodes the next, so that the server waits for the search. Here
the chunks, the similarity and the order of equal scores are MTEB's; what differs is when things happen.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from typing import Any

import torch
from mteb._create_dataloaders import create_dataloader
from mteb.models.search_wrappers import SearchEncoderWrapper
from mteb.types import PromptType

SCORES_BYTES = 1 << 30
"""Memory that the scores of one chunk may take; where it is not enough, the queries are searched in blocks."""


class StreamedSearch(SearchEncoderWrapper):  # type: ignore[misc]
    """MTEB's search of an encoder, whose full search of a corpus does not keep the server waiting."""

    def _full_corpus_search(
        self,
        *,
        query_idx_to_id: dict[int, str],
        query_embeddings: Any,
        task_metadata: Any,
        hf_subset: str,
        hf_split: str,
        top_k: int,
        encode_kwargs: dict[str, Any],
        timer: Any = None,
    ) -> dict[str, list[tuple[float, str]]]:
        """Returns score and document of each query's best documents, by query."""
        corpus = self.task_corpus
        ids = corpus.select_columns("id")
        best = Best(len(query_idx_to_id), top_k, lambda rows: list(ids[rows]["id"]))
        searched: Future[None] | None = None
        with nullcontext() if timer is None else timer("Searching corpus", split=hf_split, subset=hf_subset):
            for begin in range(0, len(corpus), self.corpus_chunk_size):
                chunk = corpus.select(range(begin, min(begin + self.corpus_chunk_size, len(corpus))))
                documents = create_dataloader(
                    chunk,
                    task_metadata=task_metadata,
                    prompt_type=PromptType.document,
                    batch_size=encode_kwargs.get("batch_size", 32),
                )
                vectors = self.model.encode(
                    documents,
                    task_metadata=task_metadata,
                    hf_split=hf_split,
                    hf_subset=hf_subset,
                    prompt_type=PromptType.document,
                    **encode_kwargs,
                )
                if searched is not None:
                    searched.result()
                searched = _beside(best.add, self.model.similarity, query_embeddings, vectors)
            if searched is not None:
                searched.result()
        return dict(zip(query_idx_to_id.values(), best.found(), strict=True))


class Best:
    """The best documents of each query among those seen so far.

    Args:
        queries: How many.
        top_k: How many documents of each query are kept.
        ids: From documents' positions in the corpus to their ids: of equal scores the larger id wins, as in MTEB's heap.
    """

    def __init__(self, queries: int, top_k: int, ids: Callable[[list[int]], list[str]]) -> None:
        self.top_k = top_k
        self._ids = ids
        self._seen = 0
        self._scores = torch.empty(queries, 0)
        self._rows = torch.empty(queries, 0, dtype=torch.int64)

    def add(self, similarity: Callable[[Any, Any], Any], queries: Any, documents: Sequence[Any]) -> None:
        """Looks at the next documents of the corpus.

        Args:
            similarity: From vectors of queries and of documents to scores, shape (queries, documents).
            queries: Their vectors, shape (queries, dimensions).
            documents: Their vectors, shape (documents, dimensions).
        """
        count = len(documents)
        step = max(1, SCORES_BYTES // (4 * count))
        parts = []
        for begin in range(0, len(queries), step):
            scores = torch.as_tensor(similarity(queries[begin : begin + step], documents))
            # one more than are kept, as in MTEB: which of equal scores of a chunk are seen is the same then
            scores, rows = torch.topk(scores, min(self.top_k + 1, count), dim=1)
            earlier = slice(begin, begin + len(scores))
            scores = torch.cat([self._scores[earlier], scores.cpu()], dim=1)
            rows = torch.cat([self._rows[earlier], rows.cpu() + self._seen], dim=1)
            parts.append(self._kept(scores, rows))
        self._scores, self._rows = (torch.cat(part) for part in zip(*parts, strict=True))
        self._seen += count

    def found(self) -> list[list[tuple[float, str]]]:
        """Score and id of each query's documents."""
        rows, where = torch.unique(self._rows, return_inverse=True)
        ids = self._ids(rows.tolist())
        return [
            [(score, ids[i]) for score, i in zip(*pair, strict=True)]
            for pair in zip(self._scores.tolist(), where.tolist(), strict=True)
        ]

    def _kept(self, scores: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if scores.shape[1] <= self.top_k:
            return scores, rows
        kept, where = torch.topk(scores, self.top_k + 1, dim=1)
        kept_rows = rows.gather(1, where)
        # where several documents have the last place's score
        tied = torch.nonzero(kept[:, -2] == kept[:, -1]).flatten()
        least = kept[tied, -1:]
        better = (scores[tied] > least).sum(dim=1).tolist()
        same = scores[tied] == least
        documents = sorted(set(rows[tied][same].tolist()))
        names = dict(zip(documents, self._ids(documents), strict=True)) if documents else {}
        for query, among, taken in zip(tied.tolist(), same, better, strict=True):
            last = sorted(rows[query, among].tolist(), key=names.__getitem__, reverse=True)
            kept_rows[query, taken : self.top_k] = torch.tensor(last[: self.top_k - taken])
        return kept[:, : self.top_k], kept_rows[:, : self.top_k]


def _beside(function: Callable[..., None], *arguments: Any) -> Future[None]:
    """Calls a function in a thread that nobody waits for when the program ends."""
    future: Future[None] = Future()

    def call() -> None:
        try:
            function(*arguments)
            future.set_result(None)
        except BaseException as error:  # noqa: BLE001 -- whoever waits for the result gets it
            future.set_exception(error)

    threading.Thread(target=call, name="vacc-search", daemon=True).start()
    return future
