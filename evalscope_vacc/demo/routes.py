"""What the demo server answers: requests as vLLM 0.32 takes them, answers and refusals in its shapes.

Every function here takes a parsed request and returns an answer; HTTP is :mod:`evalscope_vacc.demo.server`'s part.
"""

from __future__ import annotations

import base64
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evalscope_vacc.demo.engine import Limit, RefusedError
from evalscope_vacc.demo.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from evalscope_vacc.demo.engine import Embedded, Engine

Json = dict[str, Any]


@dataclass(frozen=True)
class Service:
    """The answers of one engine under its served names.

    Attributes:
        engine: The model.
        names: Served names; the first is what a request without ``model`` gets.
        version: What ``/version`` says.
    """

    engine: Engine
    names: tuple[str, ...]
    version: str

    def get_routes(self) -> Mapping[str, Callable[[], Json]]:
        """Answers of GET, by path."""
        return {"/v1/models": self.models, "/version": lambda: {"version": self.version}}

    def post_routes(self) -> Mapping[str, Callable[[Fields], Json]]:
        """Answers of POST, by path."""
        return {
            "/v1/embeddings": self.embeddings,
            "/v1/score": self.score,
            "/score": self.score,
            "/v1/rerank": self.rerank,
            "/v2/rerank": self.rerank,
            "/rerank": self.rerank,
            "/tokenize": self.tokenize,
            "/detokenize": self.detokenize,
        }

    def models(self) -> Json:
        """``GET /v1/models``."""
        served = [
            {
                "id": name,
                "object": "model",
                "created": int(time.time()),
                "owned_by": "evalscope-vacc",
                "root": str(self.engine.folder),
                "parent": None,
                "max_model_len": self.engine.max_model_len,
            }
            for name in self.names
        ]
        return {"object": "list", "data": served}

    def embeddings(self, fields: Fields) -> Json:
        """``POST /v1/embeddings``: ``input`` as text, texts, token ids or lists of them; float or base64."""
        prompts = fields.prompts("input")
        encoding = fields.choice("encoding_format", ("float", "base64"), "float")
        fields.choice("embed_dtype", ("float32",), "float32")
        fields.choice("endianness", ("native", "little"), "native")
        limit = _limit(fields)
        if fields.has("normalize"):
            raise RefusedError(
                "Parameter `normalize` was removed; use `use_activation` instead. (parameter=normalize)",
                param="normalize",
            )
        model = self._model(fields)
        dimensions = fields.integer("dimensions")
        if dimensions is not None:
            raise RefusedError(
                f"Model '{model}' does not support Matryoshka embeddings; dimensions must be unset "
                f"(received dimensions={dimensions})."
            )
        if not prompts:
            raise RefusedError("You must pass at least one prompt")
        embedded = self.engine.embed(prompts, limit)
        data = [
            {"index": index, "object": "embedding", "embedding": _encode(vector, encoding)}
            for index, vector in enumerate(embedded.vectors)
        ]
        return {
            "id": _identifier("embd"),
            "object": "list",
            "created": int(time.time()),
            "model": model,
            "data": data,
            "usage": _usage(sum(embedded.tokens)),
        }

    def score(self, fields: Fields) -> Json:
        """``POST /v1/score``: cosines of 1:1, 1:N or N:N texts, in input order."""
        first, second = next(
            (pair for pair in (("queries", "documents"), ("data_1", "data_2")) if fields.has(pair[0])),
            ("text_1", "text_2"),
        )
        queries, documents = fields.texts(first), fields.texts(second)
        limit = _limit(fields)
        model = self._model(fields)
        scores, tokens = self._cosines(queries, documents, limit)
        return {
            "id": _identifier("score"),
            "object": "list",
            "created": int(time.time()),
            "model": model,
            "data": [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores)],
            "usage": _usage(tokens),
        }

    def rerank(self, fields: Fields) -> Json:
        """``POST /v1/rerank``: cosines of one query with documents, best first; ``top_n`` of 0 means all."""
        query, documents = fields.text("query"), fields.texts("documents")
        limit = _limit(fields)
        top_n = fields.integer("top_n", least=0, nullable=False) or len(documents)
        model = self._model(fields)
        scores, tokens = self._cosines([query], documents, limit)
        best = sorted(range(len(scores)), key=lambda index: -scores[index])[:top_n]
        return {
            "id": _identifier("score"),
            "model": model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "results": [
                {
                    "index": index,
                    "document": {"text": documents[index], "multi_modal": None},
                    "relevance_score": scores[index],
                }
                for index in best
            ],
        }

    def tokenize(self, fields: Fields) -> Json:
        """``POST /tokenize``: one text."""
        text = fields.text("prompt")
        special = fields.boolean("add_special_tokens", default=True)
        spelled = fields.boolean("return_token_strs", default=False)
        self._model(fields, aliases=True)
        ids = self.engine.tokenize(text, special=special)
        return {
            "count": len(ids),
            "max_model_len": self.engine.max_model_len,
            "tokens": ids,
            "token_strs": self.engine.token_strings(ids) if spelled else None,
        }

    def detokenize(self, fields: Fields) -> Json:
        """``POST /detokenize``."""
        ids = fields.token_ids("tokens")
        self._model(fields, aliases=True)
        return {"prompt": self.engine.detokenize(ids)}

    def _model(self, fields: Fields, *, aliases: bool = False) -> str:
        name = fields.optional_text("model")
        if name is None:
            return self.names[0]
        if name not in self.names:
            hint = f" Valid aliases: {', '.join(self.names)}." if aliases else ""
            raise RefusedError(
                f"The model `{name}` does not exist.{hint}",
                status=404,
                kind="NotFoundError",
                param="model" if aliases else None,
            )
        return name

    def _cosines(self, queries: Sequence[str], documents: Sequence[str], limit: Limit) -> tuple[list[float], int]:
        if not documents or not queries:
            raise RefusedError("At least one text_pair element must be given")
        if len(queries) not in (1, len(documents)):
            raise RefusedError("Input lengths must be either 1:1, 1:N or N:N")
        embedded: Embedded = self.engine.embed([*queries, *documents], limit)
        vectors = embedded.vectors.astype("float64")
        left, right = vectors[: len(queries)], vectors[len(queries) :]
        return (left * right).sum(axis=1).tolist(), sum(embedded.tokens)


def _limit(fields: Fields) -> Limit:
    return Limit(
        truncate=fields.integer("truncate_prompt_tokens", least=-1),
        side=fields.choice("truncation_side", ("left", "right"), None),
        special=fields.boolean("add_special_tokens", default=True),
    )


def _encode(vector: npt.NDArray[np.float32], encoding: str | None) -> list[float] | str:
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    values: list[float] = vector.tolist()
    return values


def _usage(tokens: int) -> Json:
    return {
        "prompt_tokens": tokens,
        "total_tokens": tokens,
        "completion_tokens": 0,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }


def _identifier(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex[:16]}"
