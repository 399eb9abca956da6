"""Alibaba Cloud's DashScope (Model Studio): its native API, which takes what a text is for and a reranker's instruction.

Its OpenAI form (/compatible-mode/v1) has no field for the former; it is used where the native endpoint does not exist.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evalscope_vacc.wire.dialects.base import Dialect, Introduction
from evalscope_vacc.wire.messages import encode_json
from evalscope_vacc.wire.parsing import Vectors, read_vectors


class DashScopeDialect(Dialect):
    """Ten texts a request; texts above the service's limit are cut by it without a word."""

    name = "dashscope"
    title = "DashScope"
    max_batch = 10
    # "//": behind the host, whichever of its forms the address names
    embeddings_path = "//api/v1/services/embeddings/text-embedding/text-embedding"
    encoding: Mapping[str, str] = {}
    scores_path = "//api/v1/services/rerank/text-rerank/text-rerank"
    score_list = "output.results"

    def recognises(self, said: Introduction) -> str:
        """By its hosts."""
        return said.at_host("dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com", "dashscope-us.aliyuncs.com")

    def embeddings(
        self,
        model: str,
        texts: Sequence[str],
        *,
        truncate_to: int | None = None,  # noqa: ARG002 -- cannot be asked for
        dimensions: int | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> tuple[str, bytes]:
        """Returns path and body of the native request; further fields are its ``parameters``."""
        parameters: dict[str, Any] = {"output_type": "dense"}
        if dimensions is not None:
            parameters["dimension"] = dimensions
        parameters.update(extra or {})
        return self.embeddings_path, encode_json(
            {"model": model, "input": {"texts": list(texts)}, "parameters": parameters}
        )

    def read_embeddings(self, body: bytes, n: int) -> Vectors:
        """Returns the vectors of ``output.embeddings``."""
        got = read_vectors(body, n, key="output.embeddings", index="text_index")
        return got if self.counts else replace(got, tokens=None)

    def scores(self, *args: Any, extra: Mapping[str, Any] | None = None, **fields: Any) -> tuple[str, bytes]:
        """Returns path and body of the native request; instruction and further fields are its ``parameters``."""
        path, body = super().scores(*args, **fields)
        document = json.loads(body)
        instruct = {"instruct": document.pop("instruct")} if "instruct" in document else {}
        document["parameters"].update({**instruct, **(extra or {})})
        return path, encode_json(document)

    def pairs(self, model: str, query: str, documents: list[str]) -> dict[str, Any]:
        """Returns the body of the native rerank."""
        parameters = {"top_n": len(documents), "return_documents": False}
        return {"model": model, "input": {"query": query, "documents": documents}, "parameters": parameters}

    def instruction(self, text: str) -> Mapping[str, Any]:
        """Returns ``instruct``."""
        return {"instruct": text}

    def side(self, model: str, side: str, task_type: str) -> Mapping[str, Any]:  # noqa: ARG002
        """Returns ``text_type``; a text that is compared with its like is a document."""
        return {"text_type": "query" if side == "query" else "document"}

    def fallback(self) -> Dialect:
        """Returns its OpenAI form."""
        return CompatibleModeDialect()


class CompatibleModeDialect(Dialect):
    """DashScope's OpenAI form: numbers only, ten texts a request."""

    name = "dashscope"
    title = "DashScope, OpenAI's form"
    max_batch = 10
    encoding: Mapping[str, str] = {"encoding_format": "float"}
