"""The demo's server with real weights, taken into stages so that each can be broken.

A text passes ``read`` (text to text), the tokenizer, ``keep`` (what of its tokens is read, whatever the server reports),
the network, ``pool``, ``finish`` (of a vector), ``answer`` (of a batch). A reranker reads a prompt as a language model
does: it judges by meaning what stands in the template's places, and little of anything else.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import re
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from aiohttp import web
from torch.nn.utils.rnn import pad_sequence

from evalscope_vacc.demo.model import Limit, Model, RefusedError
from evalscope_vacc.demo.server import Server, _Score
from evalscope_vacc.text.templates import TEMPLATES

Texts = Sequence[str]
TEMPLATE_TOKENS = 116
MINILM = "all-MiniLM-L6-v2"
RERANKER = "Qwen3-Reranker-0.6B"
_PART = 200
_SUFFIX = TEMPLATES["qwen3"].document("")[-20:]


@lru_cache(maxsize=1)
def weights(max_model_len: int = 256) -> Model:
    """The weights, loaded once a process."""
    return Model(max_model_len)


def weights_net() -> Any:
    return weights()._model[0].auto_model


# of the weights as they are: most faults lie beside them, and all are asked for the same texts
_POOLED: dict[Any, dict[tuple[int, ...], np.ndarray]] = {}
_TOGETHER = 8


def mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def unit(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)


class Mutant:
    """A sound server until a fault changes one of its stages; answers as vLLM 0.32 does.

    Attributes:
        read: Text to the text that the tokenizer gets.
        keep: Token ids to those that the network gets; token counts do not show it.
        net: The network, float32.
        attends: Whether the network is told what is padding.
        pool: States (texts, tokens, 384) and mask (texts, tokens) to vectors (texts, 384).
        finish: Vectors to vectors.
        answer: Texts and their vectors, of one request, to the vectors that are sent.
        judge: Scores of one query's documents, to the scores that are sent.
        prompt: Query and document, as they were sent, to those that the reranker reads.
        status: Called for each request; a status other than None is answered with an error.
        template: For a reranker: "none" or "instruction", on the server.
        requests: With texts or pairs, so far.
    """

    name = MINILM
    kind = "encoder"

    def __init__(self) -> None:
        self.model = copy.copy(weights())
        self.net = weights_net()
        self.read: Callable[[str], str] = lambda text: text
        self.keep: Callable[[list[int]], list[int]] = lambda ids: ids
        self.attends = True
        self.pool = mean
        self.finish: Callable[[torch.Tensor], torch.Tensor] = unit
        self.answer: Callable[[Texts, np.ndarray], np.ndarray] = lambda texts, vectors: vectors
        self.judge: Callable[[str, Texts, np.ndarray], np.ndarray] = lambda query, documents, scores: scores
        self.prompt: Callable[[str, str], tuple[str, str]] = lambda query, document: (query, document)
        self.status: Callable[[], int | None] = lambda: None
        self.template = "none"
        self.hears = True
        self.max_batch = 10_000
        self.version = "0.32.0"
        self.remembers = True
        self.requests = 0
        self._known: dict[tuple[int, ...], np.ndarray] = {}
        self._meanings: dict[str, np.ndarray] = {}  # of instructions and queries, which come with many documents

    # -- the model -----------------------------------------------------------------------------------------------

    def change_net(self, change: Callable[[torch.nn.Module], None]) -> None:
        self.net = copy.deepcopy(self.net)
        change(self.net)

    def ids(self, text: str, limit: Limit) -> list[int]:
        return self.model.prepare(self.read(text), limit)

    def encode(self, prompts: Sequence[list[int]]) -> np.ndarray:
        """Vectors of prompts, computed together, as one padded batch; alone or without padding they are remembered."""
        kept = [self.keep(list(ids)) for ids in prompts]
        if self.remembers and self.attends:
            known = _POOLED.setdefault(self.pool, {}) if self.net is weights_net() else self._known
            # those of a length together, so that little is padded
            missing = sorted({key for key in map(tuple, kept) if key not in known}, key=len)
            for i in range(0, len(missing), _TOGETHER):
                some = missing[i : i + _TOGETHER]
                known.update(zip(some, self._forward([list(key) for key in some]), strict=True))
            pooled = np.stack([known[tuple(ids)] for ids in kept])
        else:
            parts = [kept[i : i + self.max_batch] for i in range(0, len(kept), self.max_batch)]
            pooled = np.concatenate([self._forward(part) for part in parts])
        return self.finish(torch.tensor(pooled)).float().numpy()

    def _forward(self, prompts: Sequence[list[int]]) -> np.ndarray:
        """Pooled states of prompts that are computed together, as one padded batch."""
        ids = pad_sequence([torch.tensor(prompt) for prompt in prompts], batch_first=True)
        mask = pad_sequence([torch.ones(len(prompt)) for prompt in prompts], batch_first=True)
        seen = mask if self.attends else torch.ones_like(mask)
        with torch.inference_mode():
            states = self.net(input_ids=ids, attention_mask=seen).last_hidden_state.float()
            return self.pool(states, seen).float().numpy()

    def vectors(self, texts: Texts, limit: Limit) -> tuple[np.ndarray, int]:
        prompts = [self.ids(text, limit) for text in texts]
        values = self.encode(prompts)
        return np.array(self.answer(texts, values), np.float32), sum(map(len, prompts))

    # -- a reranker over the same vectors -------------------------------------------------------------------------

    def meaning(self, text: str) -> np.ndarray:
        """Vector of a text of any length: the mean of its parts'."""
        ids = self.model.tokenize(self.read(text))
        parts = [[ids[0], *ids[i : i + _PART], ids[-1]] for i in range(1, max(len(ids) - 1, 2), _PART)]
        vector = self.encode(parts).astype(np.float64).mean(axis=0)
        return np.asarray(vector / np.linalg.norm(vector))

    def score(self, query: str, document: str, instruction: str) -> float:
        query, document = self.prompt(query, document)
        if self.template == "instruction":
            template = TEMPLATES["qwen3"]
            query, document = template.query(query, instruction or None), template.document(document)
        whole = query + document
        noise = int.from_bytes(hashlib.blake2b(whole.encode(), digest_size=4).digest(), "little") / 2**32 - 0.5
        if not whole.endswith(_SUFFIX):
            # the place where yes or no is read is not there
            return 1 / (1 + np.exp(-0.02 * noise))
        found = re.search(r"<Instruct>: (.*?)\n<Query>: (.*?)\n<Document>: (.*?)<\|im_end\|>", whole, re.DOTALL)
        doubled = whole.count("<Instruct>") > 1
        if not found:
            return 1 / (1 + np.exp(-noise))
        asked, question, answer = found.groups()
        for text in (asked, question):
            if text not in self._meanings:
                self._meanings[text] = self.meaning(text)
        meant = self.meaning(answer)
        like = float(self._meanings[question] @ meant)
        told = float(self._meanings[asked] @ meant) if self.hears else 0.0
        return 1 / (1 + np.exp(-(12 * (like - 0.3) + told + (4 * noise if doubled else 0.0))))


class Reranker(Mutant):
    """The same weights as a reranker that needs Qwen3's template."""

    name = RERANKER
    kind = "cross-encoder"

    def __init__(self) -> None:
        super().__init__()
        self.model.max_model_len = 1024


class _ScoreWithInstruction(_Score):
    instruction: str | None = None


class MutantServer(Server):
    """Serves a mutant over HTTP, from a thread of its own."""

    def __init__(self, mutant: Mutant) -> None:
        super().__init__(mutant.model, [mutant.name], api_key=None, record=None, remember=0)
        self.mutant = mutant
        self.lock = threading.Lock()

    async def _embeddings(self, asked: Any) -> dict[str, Any]:
        self._look()
        if self.mutant.kind != "encoder":
            raise RefusedError("The model does not support Embeddings API", status=404, kind="NotFoundError")
        return await super()._embeddings(asked)

    async def _embed(self, prompts: Any, limit: Limit) -> tuple[list[np.ndarray], int]:
        def made() -> tuple[list[np.ndarray], int]:
            with self.lock:
                values, tokens = self.mutant.vectors([str(prompt) for prompt in prompts], limit)
                return list(values), tokens

        return await asyncio.get_running_loop().run_in_executor(self._threads, made)

    async def _score(self, asked: Any) -> dict[str, Any]:
        self._look()
        documents = [asked.text_2] if isinstance(asked.text_2, str) else asked.text_2
        if self.mutant.kind == "encoder":
            return await super()._score(asked)
        instruction = asked.instruction or ""

        def made() -> np.ndarray:
            with self.lock:
                scores = np.array([self.mutant.score(asked.text_1, text, instruction) for text in documents])
                return self.mutant.judge(asked.text_1, documents, scores)

        scores = await asyncio.get_running_loop().run_in_executor(self._threads, made)
        around = 0
        if self.mutant.template == "instruction":
            around = TEMPLATE_TOKENS + len(self.model.tokenize(instruction))
        tokens = sum(len(self.model.tokenize(asked.text_1 + text, special=False)) + around for text in documents)
        data = [{"index": i, "object": "score", "score": float(score)} for i, score in enumerate(scores)]
        return {**self._about("score", asked, tokens), "data": data}

    def _look(self) -> None:
        self.mutant.requests += 1
        status = self.mutant.status()
        if status is not None:
            raise RefusedError("try again", status=status, kind="ServiceUnavailable")

    def _post(self, kind: Any, answer: Any) -> Any:
        return super()._post(_ScoreWithInstruction if kind is _Score else kind, answer)


class Serving:
    """A mutant being served, on a free port of the loopback address; ``with Serving(mutant) as url``."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    async def _start(self) -> str:
        self._runner = web.AppRunner(MutantServer(self.mutant).app(), access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"

    def __enter__(self) -> str:
        self._thread.start()
        return asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(60)

    def __exit__(self, *exc_info: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
