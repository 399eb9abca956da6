"""Jina's API; its vectors are asked for as floats, the only form that is the same for all its models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from evalscope_vacc.wire.dialects.base import Dialect, Introduction, cohere_pairs

# those without adapters: the field is none of theirs
_NO_TASK = re.compile(r"-v[12]\b|clip|colbert", re.IGNORECASE)
_TASKS = {"Classification": "classification", "MultilabelClassification": "classification", "Clustering": "separation"}


class JinaDialect(Dialect):
    """OpenAI's embeddings with fields of its own for the form and the purpose, and Cohere's reranking."""

    name = "jina"
    title = "Jina"
    prefixes = True
    encoding: Mapping[str, str] = {"embedding_type": "float"}

    def recognises(self, said: Introduction) -> str:
        """By its host."""
        return said.at_host("api.jina.ai")

    def pairs(self, model: str, query: str, documents: list[str]) -> dict[str, Any]:
        """Returns the body of /v1/rerank."""
        return cohere_pairs(model, query, documents)

    def side(self, model: str, side: str, task_type: str) -> Mapping[str, Any]:
        """Returns ``task``, which chooses the adapter of jina-embeddings-v3 and later."""
        if "jina" not in model.lower() or _NO_TASK.search(model):
            return {}
        if side:
            return {"task": "retrieval.query" if side == "query" else "retrieval.passage"}
        # the later ones have an adapter for texts without sides, and no other
        tasks = _TASKS if "v3" in model.lower() else {}
        return {"task": tasks.get(task_type, "text-matching")}
