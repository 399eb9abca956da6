"""A served model that is in order, and how each of its properties can be broken; answers depend on words alone.

A text's vector is the sum of its words' (and Chinese signs') vectors, each a little weaker than the one before, and of
an end-of-sequence token's: texts that share words are near to each other, and a lost end or a cut shows.
"""

from __future__ import annotations

import base64
import json
import random
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from embedding_answers import vector
from loopback_server import Got, LoopbackServer, Reply

from evalscope_vacc.checks.texts import CHARACTERS, SANITY_EN, SANITY_ZH

END = "<end>"
TEMPLATE = 110
_WORD = re.compile(r"[a-z0-9]+|[\u4e00-\u9fff]")
_SMALL = {
    "the",
    "is",
    "a",
    "of",
    "in",
    "to",
    "and",
    "for",
    "its",
    "how",
    "what",
    "does",
    "do",
    "的",
    "是",
    "可",
    "以",
    "在",
}


# what a trained model knows and words do not tell: which of the texts mean the same
_MEANING = {text: f"meaning{n}" for n, pair in enumerate((*SANITY_EN, *SANITY_ZH)) for text in pair}


def words(text: str) -> list[str]:
    found = _WORD.findall(text.lower())
    meaning = _MEANING.get(text.strip())
    return [meaning, *found] if meaning else found


@lru_cache(maxsize=20_000)
def _word(word: str, size: int) -> np.ndarray:
    return vector(word, size).astype(np.float64) * (0.05 if word in _SMALL else 1.0)


def embed(tokens: tuple[str, ...], size: int) -> np.ndarray:
    total = np.zeros(size)
    for place, token in enumerate(tokens):
        total += (
            _word(token, size)
            * (4.0 if "meaning" in token else 1.0)
            * (0.3 if token == END else 1 / (1 + 0.01 * place))
        )
    return (total / max(np.linalg.norm(total), 1e-9)).astype(np.float32)


class SoundServer(LoopbackServer):
    """Answers as vLLM 0.32 does.

    Args:
        kind: "encoder" or "cross-encoder".
        template: For a cross-encoder: "none", "fixed" or "instruction", on the server.
        faults: Names of what is broken; see the methods.
        delay_s: Seconds that every answer of a model takes; ``serial`` lets one at a time through.
    """

    def __init__(
        self,
        name: str = "some-model",
        *,
        kind: str = "encoder",
        template: str = "none",
        faults: tuple[str, ...] = (),
        max_model_len: int = 512,
        size: int = 64,
        key: str | None = None,
        version: str | None = "0.32.0",
        delay_s: float = 0.0,
        every_delay_s: float = 0.0,
        seed: str = "",
        chance: int = 1,
    ) -> None:
        super().__init__(self._answer)
        self.name, self.kind, self.template, self.faults = name, kind, template, set(faults)
        self.max_model_len, self.size, self.key, self.version = max_model_len, size, key, version
        self.delay_s, self.every_delay_s, self.seed = delay_s, every_delay_s, seed
        self._turn = threading.Lock()
        self._chance = random.Random(chance)
        self._seen: set[str] = set()
        self._tokenized = 0

    # -- the model -----------------------------------------------------------------------------------------------

    def read(self, text: str) -> str:
        """What the model gets of a text."""
        if "re-encodes" in self.faults:
            return text.encode().decode("latin-1")
        return next((b for name, (a, b) in CHARACTERS.items() if f"loses {name}" in self.faults and text == a), text)

    def tokens(self, text: str, keep: int | None = None) -> list[str]:
        found = [self.seed + word for word in (text if "by character" in self.faults else words(text))]
        cuts = re.search(r"cuts at (\d+) silently", " ".join(self.faults))
        if cuts:
            return [*found[: int(cuts[1]) - 1], END]
        if "keeps the last 100" in self.faults:
            return [*found[-99:], END]
        if keep is not None and len(found) + 1 > keep:
            if "end lost" in self.faults:
                return found[:keep]
            found = found[: keep - 1] if "keeps the end" not in self.faults else found[-(keep - 1) :]
        return [*found, END]

    def vector(self, text: str, keep: int | None = None) -> np.ndarray:
        out = embed(tuple(self.tokens(self.read(text), keep)), self.size)
        if "capitals count" in self.faults and text != text.lower():
            out = np.roll(out, 1)
        if "all alike" in self.faults:
            out = embed(("one",), self.size)
        if "second differs" in self.faults and text in self._seen and len(text) > 200:
            out = np.roll(out, 1)
        if "second rounded" in self.faults and text in self._seen:
            out = (out * (1 + np.where(np.arange(self.size) % 2, 3e-3, -3e-3))).astype(np.float32)
        self._seen.add(text)
        if "grainy" in self.faults:
            out = (out.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
        return out * np.float32(7.0 if "long vectors" in self.faults else 1.0)

    def score(self, query: str, document: str) -> float:
        if "half" in self.faults:
            return 0.5
        # what a template puts around the texts does not make them alike
        query = query.rpartition("<Query>: ")[2]
        if "cuts queries" in self.faults:
            query = query[:64]
        document = document.removeprefix("<Document>: ").partition("<|im_end|>")[0]
        a, b = (embed(tuple(words(t)) or (END,), self.size).astype(np.float64) for t in (query, document))
        sign = -1 if "worst first" in self.faults else 1
        value = 1 / (1 + np.exp(-6 * (sign * float(a @ b) - 0.3)))
        if "grainy" in self.faults:
            bits = np.float32(value).view(np.uint32) & np.uint32(0xFFFF0000)
            value = float(bits.view(np.float32))
        if "rounded" in self.faults:
            value = round(value, 3)
        if "logits" in self.faults:
            value *= 200
        if "other kernel" in self.faults:
            value *= 1 + 4e-5
        return float(np.float32(value)) if "rounded" not in self.faults else value

    # -- the server ----------------------------------------------------------------------------------------------

    def _answer(self, got: Got, sock: socket.socket) -> Reply | None:
        if self.every_delay_s and self.stopped.wait(self.every_delay_s):
            return None
        if self.key and got.path.startswith("/v1") and got.headers.get("authorization") != f"Bearer {self.key}":
            return Reply.of({"error": "Unauthorized"}, 401)
        if got.path == "/health":
            return Reply(content_type="")
        if got.path == "/version" and self.version:
            return Reply.of({"version": self.version})
        if got.path == "/v1/models" and "no list" not in self.faults:
            return Reply.of({"data": [{"id": self.name, "root": "weights", "max_model_len": self.max_model_len}]})
        if got.method != "POST":
            return Reply.of({"detail": "Not Found"}, 404)
        request = got.json()
        if got.path == "/tokenize" and "no tokenize" not in self.faults:
            tokens = [zlib.crc32(token.encode()) for token in self.tokens(request["prompt"])]
            self._tokenized += 1
            if "tokenize fails" in self.faults and self._tokenized > 5:
                return Reply.of({"error": "overloaded"}, 503)
            if "made-up tokens" in self.faults:
                tokens = list(range(len(tokens)))
            return Reply.of({"count": len(tokens), "max_model_len": self.max_model_len, "tokens": tokens})
        if request.get("model") != self.name:
            return self.refuse(f"The model `{request.get('model')}` does not exist.", 404)
        if got.path == "/v1/embeddings" and self.kind == "encoder":
            return self._slowly(lambda: self._embeddings(request))
        if got.path == "/v1/score" and "no score" not in self.faults:
            return self._slowly(lambda: self._scores(request))
        return Reply.of({"detail": "Not Found"}, 404)

    def _slowly(self, answer: Callable[[], Reply]) -> Reply:
        if "serial" in self.faults:
            with self._turn:
                time.sleep(self.delay_s)
                return answer()
        time.sleep(self.delay_s)
        return answer()

    def refuse(self, message: str, status: int = 400) -> Reply:
        return Reply.of(
            {"error": {"message": message, "type": "BadRequestError", "param": None, "code": status}}, status
        )

    def too_long(self) -> Reply:
        return self.refuse(f"This model's maximum context length is {self.max_model_len} tokens. Please reduce it.")

    def _embeddings(self, request: dict[str, Any]) -> Reply:
        texts = [request["input"]] if isinstance(request["input"], str) else request["input"]
        keep = request.get("truncate_prompt_tokens")
        if "ignores truncation" in self.faults:
            keep = None
        elif "refuses truncation" in self.faults and keep is not None:
            return self.refuse("truncate_prompt_tokens is not supported")
        if "cuts silently" in self.faults:
            keep = keep or self.max_model_len
        if "cuts short" in self.faults:
            keep = min(keep or 10**6, self.max_model_len // 2)
        if keep is None and any(len(self.tokens(t)) > self.max_model_len for t in texts):
            return self.too_long()
        read = self.read if "re-encodes" in self.faults else str
        count = sum(len(self.tokens(read(text), keep)) for text in texts)
        if "counts characters" in self.faults:
            count = sum(map(len, texts))
        values = [self.vector(text, keep) for text in texts]
        if "sixteen at most" in self.faults and len(values) > 16:
            return self.refuse("at most 16 texts")
        if "wrong order" in self.faults:
            values = values[::-1]
        if "sixteen, then the first" in self.faults:
            values[16:] = values[:1] * len(values[16:])
        if "depends on neighbours" in self.faults and len(values) > 1:
            values = [v + 0.3 * values[0] for v in values]
        if "padding counts" in self.faults:
            most = max(len(self.tokens(text, keep)) for text in texts)
            values = [
                v + np.float32(0.1 * (most - len(self.tokens(t, keep)))) / most
                for v, t in zip(values, texts, strict=True)
            ]
        spoil = {"one wrong in eight", "two swapped in eight"} & self.faults
        if spoil and len(values) > 1 and self._chance.random() < 1 / 8:
            if "one wrong in eight" in spoil:
                values[0] = np.roll(values[0], 1)
            else:
                values[0], values[-1] = values[-1], values[0]
        plain = request.get("encoding_format") != "base64"
        if "one too few" in self.faults and len(values) > 1:
            values = values[:-1]
        rows = []
        for index, value in enumerate(values):
            if ("nan" in self.faults and index == len(values) - 1) or (
                "nan for emoji" in self.faults and "😀" in texts[index]
            ):
                value = value.copy()
                value[3] = np.nan
            dtype = ">f4" if "big end first" in self.faults else "<f4"
            packed = value.tolist() if plain else base64.b64encode(value.astype(dtype).tobytes()).decode()
            rows.append({"object": "embedding", "index": index, "embedding": packed})
        usage = {} if "no counts" in self.faults else {"usage": {"prompt_tokens": count, "total_tokens": count}}
        return Reply.of({"object": "list", "model": self.name, "data": rows, **usage})

    def _scores(self, request: dict[str, Any]) -> Reply:
        query, documents = request["text_1"], request["text_2"]
        given = {"fixed": TEMPLATE, "instruction": TEMPLATE + len(words(str(request.get("instruction", ""))))}
        around = given.get(self.template, 0)
        counts = [len(words(query)) + len(words(document)) + around for document in documents]
        keep = request.get("truncate_prompt_tokens")
        if keep is None and max(counts) > self.max_model_len:
            return self.too_long()
        if "refuses truncation" in self.faults and keep is not None:
            return self.refuse("truncate_prompt_tokens is not supported")
        values = [self.score(query, document) for document in documents]
        if self.template == "instruction" and "deaf" not in self.faults:
            values = [v + 1e-3 * len(str(request.get("instruction", ""))) for v in values]
        if "two digits" in self.faults:
            values = [round(v, 2) for v in values]
        if "long ones alike" in self.faults:
            values = [0.0 if len(document) > 900 else v for v, document in zip(values, documents, strict=True)]
        if "second differs" in self.faults:
            values = [v + 0.1 if document in self._seen else v for v, document in zip(values, documents, strict=True)]
            self._seen.update(documents)
        if "ten, then the tenth" in self.faults:
            values[10:] = values[9:10] * len(values[10:])
        if "wrong order" in self.faults:
            values = sorted(values, reverse=True)
        if "depends on neighbours" in self.faults and len(values) > 1:
            values = [v + 0.05 * i for i, v in enumerate(values)]
        if "nan" in self.faults:
            values[-1] = float("nan")
        rows = [{"object": "score", "index": index, "score": value} for index, value in enumerate(values)]
        total = sum(min(count, keep or count) for count in counts)
        usage = {} if "no counts" in self.faults else {"usage": {"prompt_tokens": total, "total_tokens": total}}
        return Reply(200, json.dumps({"object": "list", "model": self.name, "data": rows, **usage}).encode())
