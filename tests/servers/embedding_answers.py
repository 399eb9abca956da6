"""What a well-behaved server answers: vectors and scores that depend on the text alone."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

DIMENSIONS = 16


def vector(text: str, dimensions: int = DIMENSIONS) -> npt.NDArray[np.float32]:
    """The vector of a text, float32, shape (dimensions,), length 1."""
    seed = int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
    values = np.random.default_rng(seed).standard_normal(dimensions)
    return (values / np.linalg.norm(values)).astype(np.float32)


def vectors(texts: Sequence[str], dimensions: int = DIMENSIONS) -> npt.NDArray[np.float32]:
    """The vectors of many texts, float32, shape (n, dimensions)."""
    return np.stack([vector(text, dimensions) for text in texts])


def score(query: str, document: str) -> float:
    """The score of a pair: the cosine."""
    return float(vector(query).astype(np.float64) @ vector(document).astype(np.float64))


def embeddings(request: dict[str, Any], dimensions: int = DIMENSIONS) -> dict[str, Any]:
    """The answer of /v1/embeddings."""
    texts = [request["input"]] if isinstance(request["input"], str) else request["input"]
    as_text = request.get("encoding_format") == "base64"

    def encode(text: str) -> Any:
        values = vector(text, dimensions)
        return base64.b64encode(values.astype("<f4").tobytes()).decode() if as_text else values.tolist()

    return {
        "object": "list",
        "model": request["model"],
        "data": [{"object": "embedding", "index": i, "embedding": encode(text)} for i, text in enumerate(texts)],
        "usage": {"prompt_tokens": sum(len(t.split()) for t in texts), "total_tokens": 0},
    }


def scores(request: dict[str, Any]) -> dict[str, Any]:
    """The answer of /v1/score."""
    documents = request["text_2"]
    return {
        "object": "list",
        "data": [
            {"object": "score", "index": i, "score": score(request["text_1"], document)}
            for i, document in enumerate(documents)
        ],
        "usage": {"prompt_tokens": 2 * len(documents), "total_tokens": 2 * len(documents)},
    }


def rerank(request: dict[str, Any]) -> dict[str, Any]:
    """The answer of /v1/rerank: sorted by score."""
    found = [
        {"index": i, "document": {"text": document}, "relevance_score": score(request["query"], document)}
        for i, document in enumerate(request["documents"])
    ]
    found.sort(key=lambda row: -row["relevance_score"])
    return {"results": found, "usage": {"total_tokens": 2 * len(found)}}
