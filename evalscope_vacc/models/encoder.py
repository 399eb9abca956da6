"""VaccEncoder: a served embedding model behind MTEB's ``EncoderProtocol`` and LangChain's embeddings interface."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalscope_vacc.config import ModelConfig
from evalscope_vacc.errors import BadAnswerError, ConfigError, TextTooLongError
from evalscope_vacc.evidence import TaskUsage
from evalscope_vacc.models.base import DEFAULT_BATCH, VaccModel
from evalscope_vacc.models.keeping import BLOCK, keep_vectors, stored_vectors
from evalscope_vacc.models.rows import read_rows
from evalscope_vacc.models.served import split_in_two
from evalscope_vacc.models.tasks import side_of, task_info
from evalscope_vacc.redact import clean
from evalscope_vacc.store import PROBE_TEXTS
from evalscope_vacc.text.task import Side, TaskInfo
from evalscope_vacc.text.truncation import cut_text, fits_by_bytes
from evalscope_vacc.wire.transport import Answer, Request

logger = logging.getLogger(__name__)

# what MTEB says of retrieval in general; LangChain's callers name no task
_NO_TASK = TaskInfo(name="", type="Retrieval", default_prompt="Retrieve text based on user query.")

Vectors = NDArray[np.float32]


class VaccEncoder(VaccModel):
    """A served embedding model.

    Args:
        model_name: The served name, as in ``--served-model-name``.
        revision: Part of the result's name; default from the addresses.
        api_base: Address or addresses of the server; default ``$VACC_API_BASE``.
        device: Accepted because MTEB passes it; the server has the device.
        **options: Every key of a model's entry (:class:`evalscope_vacc.config.ModelKeys`), and ``batch_size``,
            ``instruction_template`` … beside them.

    Raises:
        ConfigError: A key or value cannot be used.
    """

    _keeps = "embedding"

    def __init__(
        self,
        model_name: str,
        revision: str | None = None,
        *,
        api_base: str | Sequence[str] | None = None,
        device: str | None = None,  # noqa: ARG002 -- MTEB's protocol has it
        **options: Any,
    ) -> None:
        self._configure(model_name=model_name, revision=revision, api_base=api_base, **options)

    def _setup(self, config: ModelConfig, *, folder: Path | None = None, scope: str = "") -> None:
        if config.is_cross_encoder:
            raise ConfigError(
                f"model {config.model_name!r} is a cross-encoder (is_cross_encoder, or the catalog says so): "
                "use VaccCrossEncoder, or write is_cross_encoder: false"
            )
        self._width: int | None = None
        super()._setup(config, folder=folder, scope=scope)

    # -- MTEB's protocol -----------------------------------------------------------------------------------------

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any = None,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: Any = None,
        **kwargs: Any,
    ) -> Vectors:
        """Encodes the texts of a data loader.

        Args:
            inputs: The texts, as MTEB's data loader or as an iterable of strings.
            task_metadata: The task; decides the instruction.
            hf_split: Split, for messages and evidence.
            hf_subset: Subset, for messages and evidence.
            prompt_type: ``query``, ``document`` or None.
            **kwargs: MTEB's encode_kwargs: ``batch_size`` holds where the model's entry has none;
                ``show_progress_bar``. ``task_name`` is how MTEB 1.x names the task, to a model that it is given as it is.

        Returns:
            Vectors of unit or model-given length, shape (texts, dimensions), float32, in the order of the inputs.

        Raises:
            ServerError: The server could not be asked, refused, or gave an answer that cannot be right.
            TextError: A text cannot be sent as the configuration wants it.
        """
        told = task_metadata if task_metadata is not None else kwargs.get("task_name")
        task = task_info(told) if told is not None else _NO_TASK
        side = side_of(prompt_type)
        rows = read_rows(inputs, what=f"the inputs of {task.name or 'encode'}")
        self._keeper.announce(task.name, told, hf_split, hf_subset, len(rows.text))
        return self._encode(
            rows.text,
            task,
            side,
            split=hf_split,
            subset=hf_subset,
            **self._how(kwargs),
        )

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosine of every pair, shape (n1, n2): a float32 tensor, as MTEB's own models return."""
        import torch

        first, second = (_unit(torch.as_tensor(e, dtype=torch.float32)) for e in (embeddings1, embeddings2))
        return first @ second.T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosine of corresponding pairs, shape (n,): a float32 tensor."""
        import torch

        first, second = (_unit(torch.as_tensor(e, dtype=torch.float32)) for e in (embeddings1, embeddings2))
        return (first * second).sum(dim=-1)

    # -- LangChain's interface (EvalScope's RAGAS tool) ----------------------------------------------------------

    def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        """Embeds documents as LangChain means it."""
        return self._encode(list(texts), _NO_TASK, "document", shown=False).tolist()  # type: ignore[no-any-return]

    def embed_query(self, text: str) -> list[float]:
        """Embeds one query as LangChain means it."""
        return self._encode([text], _NO_TASK, "query", shown=False)[0].tolist()  # type: ignore[no-any-return]

    # -- how -----------------------------------------------------------------------------------------------------

    def _encode(
        self,
        texts: Sequence[str],
        task: TaskInfo,
        side: Side | None,
        *,
        split: str = "",
        subset: str = "",
        batch_size: int = DEFAULT_BATCH,
        shown: bool = True,
    ) -> Vectors:
        served = self.served
        prefix = served.rules.prefix(task, side)
        where = (served.name, task.name, split, subset, side or "")
        served.facts  # noqa: B018 -- a wrong model name, key or address stops here, before any work
        served.announce(task, split, subset, side or "", prefix.text)
        with served.counting(task, split, subset, side or "", prefix.text) as counts:
            position: dict[str, int] = {}
            order = np.fromiter(
                (position.setdefault(t, len(position)) for t in texts), dtype=np.int64, count=len(texts)
            )
            unique = [prefix.text + text for text in position] if prefix.text else list(position)
            counts.texts, counts.unique = len(texts), len(unique)
            del position
            unique, cut = self._within_limit(unique, task, split, side)
            counts.cut = cut
            if served.evidence.wants(*where):
                head = unique[:3]
                served.evidence.samples(*where, head, [self._count(text) for text in head])
            vectors = self._vectors(unique, counts, task, split, side, batch_size, shown)
            if len(unique) != len(texts):
                vectors = vectors[order]
            # equal texts only ever differ from their order of first appearance; without repeats `order` is 0, 1, 2 …
        return self._sized(vectors)

    def _vectors(
        self,
        texts: list[str],
        counts: TaskUsage,
        task: TaskInfo,
        split: str,
        side: Side | None,
        batch_size: int,
        shown: bool,
    ) -> Vectors:
        """Vectors of different texts, in their order, from the store and the server."""
        served = self.served
        scope = self._keeper.scope(task.name)
        out: Vectors | None = None if self._width is None else np.empty((len(texts), self._width), np.float32)
        missing: list[int] = []
        for start in range(0, len(texts), BLOCK):
            block = texts[start : start + BLOCK]
            positions, rows = stored_vectors(scope, block)
            if len(positions):
                self._check_width(rows.shape[1], f"the stored vectors of {_name(task, split, side)}", served.servers)
                if out is None:
                    out = np.empty((len(texts), rows.shape[1]), np.float32)
                out[start + positions] = rows
            known = set(positions.tolist())
            missing += [start + i for i in range(len(block)) if i not in known]
        counts.stored = len(texts) - len(missing)
        # the longest first: the last requests are then the short ones, and no slot waits for a straggler
        missing.sort(key=lambda i: len(texts[i]), reverse=True)
        batch_size = served.per_request(batch_size)

        def make(indices: Sequence[int]) -> Request:
            path, body = served.dialect.embeddings(
                served.config.model_name, [texts[i] for i in indices], truncate_to=served.limit
            )
            return Request(
                path,
                body,
                len(indices),
                tag=_Batch(indices),
                split=(lambda: [make(half) for half in split_in_two(indices)]) if len(indices) > 1 else None,
                describe=f"{_name(task, split, side)}: {_quote(texts[indices[0]])}",
            )

        def handle(request: Request, answer: Answer) -> None:
            nonlocal out
            indices = request.tag.indices
            got = served.dialect.read_embeddings(answer.body, len(indices))
            self._check_width(got.values.shape[1], f"the vectors of {_name(task, split, side)}", answer.server)
            if out is None:
                out = np.empty((len(texts), got.values.shape[1]), np.float32)
            out[indices] = got.values
            request.tag.tokens = got.tokens
            if got.tokens is not None:
                counts.tokens = (counts.tokens or 0) + got.tokens
                if served.limit is not None and got.tokens == served.limit * len(indices):
                    counts.at_limit += len(indices)
            keep_vectors(scope, [texts[i] for i in indices], got.values)

        batches: Iterator[Request] = (make(missing[i : i + batch_size]) for i in range(0, len(missing), batch_size))
        if missing:
            served.send(batches, handle, what=_name(task, split, side), total=len(missing), shown=shown)
        return out if out is not None else np.empty((0, self._width or 0), np.float32)

    def _check_width(self, width: int, what: str, server: str) -> None:
        if self._width is None:
            self._width = width
        if width != self._width:
            raise BadAnswerError(
                f"{server}: {what} have {width} numbers, those before had {self._width}: was another model started "
                "behind this address, or do several servers serve different ones?",
                server=server,
            )

    def _probe(self) -> Vectors:
        """Asks for the store's fixed texts twice, shape (2, texts, dimensions)."""
        served = self.served
        limit = served.limit
        texts = [t for t in PROBE_TEXTS if limit is None or served.dialect.truncates or fits_by_bytes(t, limit)]
        answers: dict[tuple[int, ...], Vectors] = {}

        def ask(indices: tuple[int, ...]) -> Request:
            path, body = served.dialect.embeddings(
                served.config.model_name, [texts[i] for i in indices], truncate_to=limit
            )
            return Request(path, body, len(indices), tag=indices, describe="the store's probe texts")

        def handle(request: Request, answer: Answer) -> None:
            answers[request.tag] = served.dialect.read_embeddings(answer.body, request.items).values

        # once each alone and once together, so that what a batch changes of a vector counts as noise
        together = tuple(range(len(texts)))
        served.transport.run([ask((i,)) for i in together], handle)
        alone = np.concatenate([answers[i,] for i in together])
        answers.clear()
        served.transport.run([ask(together)], handle)
        return np.stack([alone, answers[together]])

    def _within_limit(
        self, texts: list[str], task: TaskInfo, split: str, side: Side | None
    ) -> tuple[list[str], int | None]:
        """The texts as they may be sent, and how many were, or will be, cut (None: nobody can count here)."""
        served = self.served
        limit = served.limit
        if limit is None:
            return texts, 0
        long = [i for i, text in enumerate(texts) if not fits_by_bytes(text, limit)]
        if not long:
            return texts, 0
        by_server = getattr(served.dialect, "truncates", False)
        strict = served.config.truncate == "error"
        if by_server and not strict and not served.may_count(len(long), DEFAULT_BATCH, of=len(texts)):
            return texts, None
        counter = served.need_counter(
            f"{len(long)} texts of {_name(task, split, side)} may be longer than {limit} tokens"
        )
        served.count_ahead([texts[i] for i in long])
        cut = 0
        for index in long:
            tokens = counter.count(texts[index])
            if tokens <= limit:
                continue
            if strict:
                raise TextTooLongError(
                    f"{_name(task, split, side)}: {_quote(texts[index])} has {tokens} tokens, the limit is {limit}: "
                    "write truncate: cut, or raise max_tokens"
                )
            cut += 1
            if not by_server:
                texts[index] = cut_text(texts[index], limit, counter).text
        return texts, cut

    def _count(self, text: str) -> int | None:
        limit = self.served.limit
        tokens = self.served.counter.count(text) if self.served.counter is not None else None
        return tokens if tokens is None or limit is None else min(tokens, limit)

    def _sized(self, vectors: Vectors) -> Vectors:
        """Cuts to the Matryoshka size and renormalises, as the model's card prescribes."""
        size = self.served.config.dimensions
        if size is None or not len(vectors):
            return vectors
        if size > vectors.shape[1]:
            raise ConfigError(
                f"dimensions is {size}, but {self.served.config.model_name!r} gives vectors of {vectors.shape[1]} numbers"
            )
        if size == vectors.shape[1]:
            return vectors
        cut = np.ascontiguousarray(vectors[:, :size])
        norms = np.linalg.norm(cut, axis=1, keepdims=True)
        if not norms.all():
            raise BadAnswerError(
                f"a vector of {self.served.config.model_name!r} is zero in its first {size} numbers: "
                "this model cannot be cut to that size"
            )
        return np.asarray(cut / norms, np.float32)


class _Batch:
    """Which texts a request holds, and what its answer cost."""

    __slots__ = ("indices", "tokens")

    def __init__(self, indices: Sequence[int]) -> None:
        self.indices = indices
        self.tokens: int | None = None


def _unit(tensor: Any) -> Any:
    import torch

    return torch.nn.functional.normalize(tensor if tensor.dim() > 1 else tensor[None], p=2, dim=-1)


def _name(task: TaskInfo, split: str, side: str | None) -> str:
    return " ".join(part for part in (task.name or "texts", split, side) if part)


def _quote(text: str) -> str:
    return repr(clean(text, limit=80))
