"""A small server that answers as vLLM 0.32 does, with real weights: ``python -m evalscope_vacc.demo.server``.

It stands in for vLLM where there is no accelerator: the demo, and tests that need true vectors over true HTTP. Once
the model is loaded it writes one JSON line, ``{"url": "http://127.0.0.1:41234"}``, to standard output.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import os
import socket
import sys
import threading
import time
import uuid
from array import array
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pydantic
from aiohttp import web
from pydantic import AliasChoices, Field

from evalscope_vacc._version import __version__
from evalscope_vacc.demo.model import Limit, Model, RefusedError
from evalscope_vacc.demo.process import DEFAULT_NAME, KEY_VARIABLE
from evalscope_vacc.errors import ConfigError

Vector = npt.NDArray[np.float32]
_Prompt = str | list[int]
_Json = dict[str, Any]
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_MAX_BODY_BYTES = 256 * 2**20


class _Request(pydantic.BaseModel):
    """What every request has; fields that no class names are ignored, as vLLM ignores them."""

    model_config = pydantic.ConfigDict(strict=True)

    model: str | None = None


class _Pooling(_Request):
    truncate_prompt_tokens: int | None = Field(None, ge=-1)
    truncation_side: Literal["left", "right"] | None = None
    add_special_tokens: bool = True

    @property
    def limit(self) -> Limit:
        return Limit(self.truncate_prompt_tokens, self.truncation_side, self.add_special_tokens)


class _Embeddings(_Pooling):
    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    embed_dtype: Literal["float32"] | None = None
    endianness: Literal["native", "little"] | None = None
    dimensions: int | None = None
    normalize: object = None


class _Score(_Pooling):
    text_1: str | list[str] = Field(validation_alias=AliasChoices("text_1", "queries", "data_1"))
    text_2: str | list[str] = Field(validation_alias=AliasChoices("text_2", "documents", "data_2"))


class _Rerank(_Pooling):
    query: str
    documents: str | list[str]
    top_n: int = Field(0, ge=0)


class _Tokenize(_Request):
    prompt: str
    add_special_tokens: bool = True
    return_token_strs: bool | None = False


class _Detokenize(_Request):
    tokens: list[int]


class Server:
    """The answers of one model.

    Args:
        model: The model.
        names: Served names, all of them this model; the first is what a request without ``model`` gets.
        api_key: Guards ``/v1`` and ``/v2``, as vLLM's ``--api-key`` does; None guards nothing.
        record: File that gets one JSON line for each request.
        remember: Vectors that are kept, the least recently used going first.
    """

    def __init__(
        self, model: Model, names: Sequence[str], *, api_key: str | None, record: Path | None, remember: int
    ) -> None:
        self.model = model
        self.names = names
        self._api_key = api_key
        self._record = None if record is None else record.open("a", encoding="utf-8")
        self._remember = remember
        self._vectors: OrderedDict[bytes, Vector] = OrderedDict()
        self._threads = ThreadPoolExecutor(min(8, os.cpu_count() or 1), "vacc-demo-model")
        self._in_flight = self._requests = self._encoded = self._remembered = 0

    def app(self) -> web.Application:
        """Returns the application with all its routes."""
        app = web.Application(middlewares=[self._around], client_max_size=_MAX_BODY_BYTES)
        for path, get in {
            "/health": web.Response,
            "/ping": web.Response,
            "/version": lambda: web.json_response({"version": f"evalscope-vacc-demo {__version__}"}),
            "/load": lambda: web.json_response({"server_load": self._in_flight - 1}),
            "/metrics": self._metrics,
            "/v1/models": self._models,
        }.items():
            app.router.add_get(path, self._get(get))
        posts: Sequence[tuple[Sequence[str], type[_Request], Callable[[Any], Awaitable[_Json]]]] = (
            (("/v1/embeddings",), _Embeddings, self._embeddings),
            (("/v1/score", "/score"), _Score, self._score),
            (("/v1/rerank", "/v2/rerank", "/rerank"), _Rerank, self._rerank),
            (("/tokenize",), _Tokenize, self._tokenize),
            (("/detokenize",), _Detokenize, self._detokenize),
        )
        for paths, kind, post in posts:
            for path in paths:
                app.router.add_post(path, self._post(kind, post))
        return app

    @web.middleware
    async def _around(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Counts and records each request, looks at its key, and turns what a handler raises into an answer."""
        self._requests += 1
        self._in_flight += 1
        answer: web.StreamResponse
        try:
            key = request.headers.get("authorization")
            if self._api_key and request.path.startswith(("/v1", "/v2")) and key != f"Bearer {self._api_key}":
                answer = web.json_response({"error": "Unauthorized"}, status=401)
            else:
                answer = await handler(request)
        except RefusedError as refused:
            error = {"message": str(refused), "type": refused.kind, "param": refused.param, "code": refused.status}
            answer = web.json_response({"error": error}, status=refused.status)
        except web.HTTPException as error:  # no such path, or not with this method
            answer = web.json_response({"detail": error.reason}, status=error.status)
        finally:
            self._in_flight -= 1
        if self._record is not None:
            body = (await request.read()).decode("utf-8", "replace")
            # no headers: they hold the key
            line = {"time": time.time(), "method": request.method, "path": request.path, "status": answer.status}
            self._record.write(json.dumps({**line, "body": _json_or_text(body)}, ensure_ascii=False) + "\n")
            self._record.flush()
        return answer

    def _get(self, answer: Callable[[], web.Response]) -> _Handler:
        async def handle(_: web.Request) -> web.Response:
            return answer()

        return handle

    def _post(self, kind: type[_Request], answer: Callable[[Any], Awaitable[_Json]]) -> _Handler:
        async def handle(request: web.Request) -> web.Response:
            if request.content_type != "application/json":
                raise RefusedError(
                    "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed",
                    kind="Bad Request",
                )
            asked = _parsed(kind, await request.read())
            if asked.model is not None and asked.model not in self.names:
                about_text = isinstance(asked, (_Tokenize, _Detokenize))
                hint = f" Valid aliases: {', '.join(self.names)}." if about_text else ""
                raise RefusedError(
                    f"The model `{asked.model}` does not exist.{hint}",
                    status=404,
                    kind="NotFoundError",
                    param="model" if about_text else None,
                )
            return web.json_response(await answer(asked))

        return handle

    async def _embeddings(self, asked: _Embeddings) -> _Json:
        if asked.normalize is not None:
            raise RefusedError(
                "Parameter `normalize` was removed; use `use_activation` instead. (parameter=normalize)",
                param="normalize",
            )
        if asked.dimensions is not None:
            raise RefusedError(
                f"Model '{asked.model or self.names[0]}' does not support Matryoshka embeddings; dimensions must be "
                f"unset (received dimensions={asked.dimensions})."
            )
        prompts: Any = asked.input
        if isinstance(prompts, str) or (prompts and isinstance(prompts[0], int)):
            prompts = [prompts]
        if not prompts:
            raise RefusedError("You must pass at least one prompt")
        vectors, tokens = await self._embed(prompts, asked.limit)
        packed = asked.encoding_format == "base64"
        data = [
            {"index": index, "object": "embedding", "embedding": _base64(vector) if packed else vector.tolist()}
            for index, vector in enumerate(vectors)
        ]
        return {**self._about("embd", asked, tokens), "data": data}

    async def _score(self, asked: _Score) -> _Json:
        scores, tokens = await self._cosines(_texts(asked.text_1), _texts(asked.text_2), asked.limit)
        data = [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores)]
        return {**self._about("score", asked, tokens), "data": data}

    async def _rerank(self, asked: _Rerank) -> _Json:
        documents = _texts(asked.documents)
        scores, tokens = await self._cosines([asked.query], documents, asked.limit)
        best = sorted(range(len(scores)), key=lambda index: -scores[index])[: asked.top_n or len(scores)]
        results = [
            {
                "index": index,
                "document": {"text": documents[index], "multi_modal": None},
                "relevance_score": scores[index],
            }
            for index in best
        ]
        return {**self._about("score", asked, tokens), "results": results}

    async def _tokenize(self, asked: _Tokenize) -> _Json:
        ids = self.model.tokenize(asked.prompt, special=asked.add_special_tokens)
        spelled = self.model.token_strings(ids) if asked.return_token_strs else None
        return {
            "count": len(ids),
            "max_model_len": self.model.max_model_len,
            "tokens": ids,
            "token_strs": spelled,
        }

    async def _detokenize(self, asked: _Detokenize) -> _Json:
        return {"prompt": self.model.detokenize(asked.tokens)}

    async def _cosines(self, left: list[str], right: list[str], limit: Limit) -> tuple[list[float], int]:
        """Returns the cosines of 1:1, 1:N or N:N texts, and how many tokens the texts have together."""
        if not left or not right:
            raise RefusedError("At least one text_pair element must be given")
        if len(left) not in (1, len(right)):
            raise RefusedError("Input lengths must be either 1:1, 1:N or N:N")
        vectors, tokens = await self._embed([*left, *right], limit)
        wide = np.stack(vectors).astype("float64")
        return (wide[: len(left)] * wide[len(left) :]).sum(axis=1).tolist(), tokens

    async def _embed(self, prompts: Sequence[_Prompt], limit: Limit) -> tuple[list[Vector], int]:
        """Returns the vectors of the prompts, in their order, and how many tokens they have together."""
        ids = [self.model.prepare(prompt, limit) for prompt in prompts]
        keys = [_key(row) for row in ids]
        found = {key: self._vectors[key] for key in keys if key in self._vectors}
        for key in found:
            self._vectors.move_to_end(key)
        missing = {key: row for key, row in zip(keys, ids, strict=True) if key not in found}
        if missing:
            loop = asyncio.get_running_loop()
            made = await loop.run_in_executor(self._threads, self.model.embed, list(missing.values()))
            self._vectors.update(zip(missing, made, strict=True))
            found.update(zip(missing, made, strict=True))
            while len(self._vectors) > self._remember:
                self._vectors.popitem(last=False)
        self._encoded += len(missing)
        self._remembered += len(keys) - len(missing)
        return [found[key] for key in keys], sum(map(len, ids))

    def _models(self) -> web.Response:
        about = {"object": "model", "created": int(time.time()), "owned_by": "evalscope-vacc", "parent": None}
        about |= {"root": str(self.model.folder), "max_model_len": self.model.max_model_len}
        return web.json_response({"object": "list", "data": [{"id": name, **about} for name in self.names]})

    def _metrics(self) -> web.Response:
        counts = {"requests": self._requests, "texts_encoded": self._encoded, "texts_remembered": self._remembered}
        return web.Response(text="".join(f"vacc_demo_{name}_total {count}\n" for name, count in counts.items()))

    def _about(self, kind: str, asked: _Request, tokens: int) -> _Json:
        return {
            "id": f"{kind}-{uuid.uuid4().hex[:16]}",
            "object": "list",
            "created": int(time.time()),
            "model": asked.model or self.names[0],
            "usage": {
                "prompt_tokens": tokens,
                "total_tokens": tokens,
                "completion_tokens": 0,
                "prompt_tokens_details": None,
                "completion_tokens_details": None,
            },
        }


def _parsed(kind: type[_Request], body: bytes) -> _Request:
    """Reads a request's body; what is wrong with it is told in pydantic's words, as by vLLM."""
    try:
        return kind.model_validate(json.loads(body))
    except pydantic.ValidationError as error:
        wrong = [(e["type"], ".".join(["body", *map(str, e["loc"][:1])]), e["msg"], e["input"]) for e in error.errors()]
    except ValueError as error:
        wrong = [("json_invalid", f"body.{getattr(error, 'pos', 0)}", "JSON decode error", {})]
    lines = [
        str({"type": kind_of_error, "loc": place, "msg": message, "input": _described(value)})
        for kind_of_error, place, message, value in wrong
    ]
    head = f"{len(lines)} validation error{'s' if len(lines) > 1 else ''}:"
    raise RefusedError("\n  ".join([head, *lines]), kind="Bad Request", param=wrong[0][1])


def _described(value: object) -> str:
    """A text is described and not repeated, because errors end up in logs."""
    if isinstance(value, (dict, list)):
        return f"<{type(value).__name__} of {len(value)} items>"
    return f"<str of {len(value)} characters>" if isinstance(value, str) else str(value)


def _key(ids: Sequence[int]) -> bytes:
    """Returns a digest of a prompt's tokens: the memory is bounded by the number of vectors alone."""
    return hashlib.blake2b(array("i", ids).tobytes(), digest_size=20).digest()


def _base64(vector: Vector) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")


def _texts(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _json_or_text(body: str) -> object:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return body


def _leave_with_parent() -> None:
    """Ends the process when standard input ends: the one who started it holds the other side of the pipe."""

    def wait() -> None:
        # not sys.stdin: its lock, held by a blocked thread, would make a normal exit fail
        while os.read(0, 4096):
            pass
        os._exit(0)

    threading.Thread(target=wait, name="vacc-demo-parent", daemon=True).start()


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until stopped.

    Args:
        argv: Arguments, without the program's name; None takes the process's.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m evalscope_vacc.demo.server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one; the line on standard output says it")
    parser.add_argument("--served-model-name", action="append", help=f"may be repeated; default {DEFAULT_NAME}")
    parser.add_argument("--max-model-len", type=int, default=256, help="longer texts are refused, or cut on request")
    parser.add_argument("--remember", type=int, default=100_000, help="vectors kept in memory; about 1.7 kB each")
    parser.add_argument("--api-key", default=os.environ.get(KEY_VARIABLE), help=f"or by {KEY_VARIABLE}")
    parser.add_argument("--record", type=Path, help="a JSON line for each request is appended to this file")
    parser.add_argument("--with-parent", action="store_true", help="stop when standard input ends")
    arguments = parser.parse_args(argv)
    if arguments.with_parent:
        _leave_with_parent()
    try:
        model = Model(arguments.max_model_len)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    server = Server(
        model,
        arguments.served_model_name or [DEFAULT_NAME],
        api_key=arguments.api_key,
        record=arguments.record,
        remember=arguments.remember,
    )
    with socket.create_server((arguments.host, arguments.port), backlog=256) as listener:
        url = f"http://{arguments.host}:{listener.getsockname()[1]}"
        # connections wait in the socket's queue until the loop takes them
        sys.stdout.write(json.dumps({"url": url}) + "\n")
        sys.stdout.flush()
        web.run_app(server.app(), sock=listener, print=None, access_log=None, shutdown_timeout=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
