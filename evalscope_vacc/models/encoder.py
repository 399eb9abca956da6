"""VaccEncoder: a served embedding model behind MTEB's ``EncoderProtocol`` and LangChain's embeddings interface."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalscope_vacc.config import DEFAULT_BATCH, ModelConfig
from evalscope_vacc.errors import BadAnswerError, ConfigError, TextError, TextTooLongError
from evalscope_vacc.evidence import TaskUsage
from evalscope_vacc.models.base import Table, VaccModel, quote
from evalscope_vacc.models.keeping import fields_key
from evalscope_vacc.models.rows import Rows, count_rows, read_rows
from evalscope_vacc.models.session import Session, halves
from evalscope_vacc.models.tasks import side_of, task_info
from evalscope_vacc.store import PROBE_TEXTS, Scope, text_keys
from evalscope_vacc.text.task import Side, TaskInfo
from evalscope_vacc.text.truncation import cut_text, fits_by_bytes
from evalscope_vacc.wire import dialects
from evalscope_vacc.wire.engine import Answer, Request

# what MTEB says of retrieval in general; LangChain's callers name no task
_NO_TASK = TaskInfo(name="", type="Retrieval", default_prompt="Retrieve text based on user query.")

Vectors = NDArray[np.float32]
# a text as it is sent, with its index among the different texts of a call
_Indexed = tuple[int, str]


class VaccEncoder(VaccModel):
    """A served embedding model.

    Args:
        model_name: The served name, as in ``--served-model-name``.
        revision: Part of the result's name; default from the addresses.
        api_base: Address or addresses of the server; default ``$VACC_API_BASE``.
        device: Accepted because MTEB passes it; the server has the device.
        **options: Every key of a model's entry (:class:`evalscope_vacc.config.ModelConfig`), and ``batch_size``,
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
        config: ModelConfig | None = None,
        folder: Path | None = None,
        scope: str = "",
        **options: Any,
    ) -> None:
        given = {**options, "model_name": model_name, "revision": revision, "api_base": api_base}
        super().__init__(config, folder, scope, **given)
        self._width: int | None = None
        self._search: Any = None

    def _check_kind(self, config: ModelConfig) -> None:
        if config.is_cross_encoder:
            raise ConfigError(
                f"model {config.model_name!r} is a cross-encoder (is_cross_encoder, or the catalog says so): "
                "use VaccCrossEncoder, or write is_cross_encoder: false"
            )

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
            ServerError: The server could not be reached, refused a request, or gave a wrong answer.
            TextError: A text cannot be sent as the configuration wants it.
        """
        told = task_metadata if task_metadata is not None else kwargs.get("task_name")
        task = task_info(told) if told is not None else _NO_TASK
        call = _Call(task, side_of(prompt_type), hf_split, hf_subset, told)
        return self._encode(inputs, call, **self._how(kwargs))

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

    def index(self, corpus: Any, **kwargs: Any) -> None:
        """Takes the corpus that :meth:`search` will search, as MTEB's ``SearchProtocol`` means it."""
        from evalscope_vacc.models.search import StreamedSearch

        self._search = StreamedSearch(self)
        self._search.index(corpus, **kwargs)

    def search(self, queries: Any, **kwargs: Any) -> dict[str, dict[str, float]]:
        """Searches the corpus; returns each query's best documents with their scores, as MTEB's own search does."""
        return self._search.search(queries, **kwargs)  # type: ignore[no-any-return]

    # -- LangChain's interface (EvalScope's RAGAS tool) ----------------------------------------------------------

    def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        """Embeds documents as LangChain means it."""
        return self._encode(list(texts), _Call(_NO_TASK, "document"), shown=False).tolist()  # type: ignore[no-any-return]

    def embed_query(self, text: str) -> list[float]:
        """Embeds one query as LangChain means it."""
        return self._encode([text], _Call(_NO_TASK, "query"), shown=False)[0].tolist()  # type: ignore[no-any-return]

    # -- how -----------------------------------------------------------------------------------------------------

    def _encode(self, inputs: Any, call: _Call, *, batch_size: int = DEFAULT_BATCH, shown: bool = True) -> Vectors:
        """Reads texts, looks them up, sends what is missing, and puts the vectors where they belong."""
        session = self.open()
        found = self.served.rules.prefix(call.task, call.side)
        prefix = "" if session.dialect.prefixes and found.source.startswith("catalog ") else found.text
        scope = self._keeper.scope(call.task.name, session)
        beside = fields_key(session.fields(call.side, call.task.type))
        total = count_rows(inputs)
        self._keeper.announce(session, call.task.name, call.told, call.split, call.subset, total or 0)
        table = Table(total)
        order = call.order
        with session.counting(call.task, call.split, call.subset, call.side or "", prefix) as counts:
            call.counts = counts
            windows = read_rows(inputs, what=f"the inputs of {call.task.name or 'encode'}")
            fresh = self._fresh(session, call, windows, prefix)
            missing = self._missing(scope, fresh, table, call, beside)
            requests = (
                self._request(session, call, batch)
                for batch in _batches(missing, lambda: session.per_request(batch_size))
            )

            def parse(request: Request, answer: Answer) -> dialects.Vectors:
                got = session.dialect.read_embeddings(answer.body, request.items)
                self._check_width(got.values.shape[1], f"the vectors of {call}", answer.server)
                return got

            for request, got in session.send(requests, parse, what=str(call), total=total, counts=counts, shown=shown):
                indices, texts = zip(*request.tag, strict=True)
                table.put(np.array(indices), got.values)
                if got.tokens is not None:
                    counts.tokens = (counts.tokens or 0) + got.tokens
                    if session.limit is not None:
                        full = got.tokens == session.limit * request.items
                        counts.at_limit = (counts.at_limit or 0) + (request.items if full else 0)
                if scope is not None:
                    scope.put(text_keys(scope.identity + beside, texts), got.values)
        if call.zeros:
            if self._width is None:
                raise TextError(f"{call}: every text is empty, so the size of a vector is unknown")
            table.put(np.array(call.zeros), np.zeros((len(call.zeros), self._width), np.float32))
        if table.filled != counts.unique:
            raise TextError(f"{call}: {counts.unique - table.filled} texts have no vector; this is a defect here")
        vectors = table.rows()
        if not len(vectors):
            return np.empty((0, self._width or 0), np.float32)
        # equal texts only ever differ from their order of first appearance; without repeats `order` is 0, 1, 2 …
        return self._sized(vectors if len(vectors) == len(order) else vectors[np.array(order)])

    def _fresh(self, session: Session, call: _Call, windows: Iterator[Rows], prefix: str) -> Iterator[list[_Indexed]]:
        """Yields, for each window, the texts that no earlier one had, as they are sent; notes the order of all."""
        order, counts = call.order, call.counts
        seen: dict[str, int] = {}
        where = (self.served.name, call.task.name, call.split, call.subset, call.side or "")
        for window in windows:
            first = len(seen)
            texts: list[str] = []
            for text in window.text:
                index = seen.setdefault(text, len(seen))
                if index == first + len(texts):
                    texts.append(prefix + text)
                order.append(index)
            counts.texts, counts.unique = len(order), len(seen)
            skipped = self._empty(call, texts, first)
            self._fit(session, call, texts)
            if self.served.evidence.wants(where):
                head = texts[:3]
                self.served.evidence.samples(where, head, [_count(session, text) for text in head])
            yield [item for item in enumerate(texts, start=first) if item[0] not in skipped]

    def _empty(self, call: _Call, texts: list[str], first: int) -> set[int]:
        """Treats the empty texts of a window as `empty` says; returns the indices of those that are not sent.

        Args:
            call: Counts them, and keeps the indices.
            texts: Of the window, as they are sent; changed.
            first: The index of the first.
        """
        found = [at for at, text in enumerate(texts) if not text.strip()]
        call.counts.empty += len(found)
        how = self.served.config.empty
        if how == "space":
            for at in found:
                texts[at] = " "
        skipped = [first + at for at in found] if how == "skip-as-zero" else []
        call.zeros += skipped
        return set(skipped)

    def _missing(
        self, scope: Scope | None, fresh: Iterator[list[_Indexed]], table: Table, call: _Call, beside: str
    ) -> Iterator[list[_Indexed]]:
        """Yields, for each window, the texts that are not in the store; puts the vectors of the others into the table."""
        for window in fresh:
            if scope is None:
                yield window
                continue
            positions, rows = scope.get(text_keys(scope.identity + beside, [text for _, text in window]), "<f4")
            if len(positions):
                self._check_width(rows.shape[1], f"the stored vectors of {call}", self.served.servers)
                table.put(np.array([index for index, _ in window])[positions], rows)
                call.counts.stored += len(positions)
            known = set(positions.tolist())
            yield [item for at, item in enumerate(window) if at not in known]

    def _request(self, session: Session, call: _Call, batch: Sequence[_Indexed]) -> Request:
        fields = session.fields(call.side, call.task.type)
        further: dict[str, Any] = {"extra": fields} if fields else {}
        path, body = session.dialect.embeddings(
            session.config.model_name,
            [text for _, text in batch],
            truncate_to=session.limit if session.dialect.truncates else None,
            **further,
        )
        limit = session.limit

        def shorten(tokens: int) -> Request | None:
            if limit is not None and tokens >= limit:
                return None
            session.learn_limit(tokens)
            texts = [text for _, text in batch]
            self._fit(session, call, texts)
            return self._request(session, call, [(index, text) for (index, _), text in zip(batch, texts, strict=True)])

        def describe() -> str:
            index, text = batch[0]
            row = f" (row {call.order.index(index)})" if len(call.order) else ""
            return f"{call}: {quote(text)}{row}"

        return Request(
            path,
            body,
            len(batch),
            tag=batch,
            split=(lambda: [self._request(session, call, half) for half in halves(batch)]) if len(batch) > 1 else None,
            shorten=shorten,
            describe=describe,
        )

    def _check_width(self, width: int, what: str, server: str) -> None:
        if self._width is None:
            self._width = width
        if width != self._width:
            raise BadAnswerError(
                f"{server}: {what} have {width} numbers, those before had {self._width}: was another model started at "
                f"this address, or do several servers serve different models?",
                server=server,
            )

    def _probe(self, session: Session) -> Vectors:
        """Asks for the store's fixed texts twice, shape (2, texts, dimensions)."""
        limit = session.limit
        texts = [t for t in PROBE_TEXTS if limit is None or session.dialect.truncates or fits_by_bytes(t, limit)]
        items = list(enumerate(texts))
        call = _Call(TaskInfo(name="the store's probe"), None)

        def ask(batches: list[list[_Indexed]]) -> Vectors:
            table = Table(len(items))
            requests = (self._request(session, call, batch) for batch in batches)
            read = session.dialect.read_embeddings
            for request, got in session.engine.stream(requests, lambda r, a: read(a.body, r.items).values):
                table.put(np.array([index for index, _ in request.tag]), got)
            return table.rows()

        # once each alone and once together, so that what a batch changes of a vector counts as noise
        return np.stack([ask([[item] for item in items]), ask([items])])

    def _fit(self, session: Session, call: _Call, texts: list[str]) -> None:
        """Cuts the texts of a window that are too long, and counts those that are, or will be, cut.

        ``counts.cut`` becomes None where nobody can count them.
        """
        limit, counts = session.limit, call.counts
        if limit is None:
            # the server cuts, or refuses, what is too long for it: nobody says how many those are
            counts.cut = None
            return
        long = [i for i, text in enumerate(texts) if not fits_by_bytes(text, limit)]
        if not long:
            return
        by_server = session.dialect.truncates
        strict = session.config.truncate == "error"
        countable = counts.cut is not None and session.may_count(len(long), DEFAULT_BATCH, of=len(texts))
        if by_server and not strict and not countable:
            counts.cut = None
            return
        counter = session.need_counter(f"{call}: {len(long)} of {len(texts)} may be longer than {limit} tokens")
        session.count_ahead([texts[i] for i in long])
        cut = 0
        for index in long:
            tokens = counter.count(texts[index])
            if tokens <= limit:
                continue
            if strict:
                raise TextTooLongError(
                    f"{call}: {quote(texts[index])} has {tokens} tokens, the limit is {limit}: "
                    "write truncate: cut, or raise max_tokens"
                )
            cut += 1
            if not by_server:
                texts[index] = cut_text(texts[index], limit, counter).text
        counts.cut = (counts.cut or 0) + cut

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
        if self.served.config.empty == "skip-as-zero":
            norms[~vectors.any(axis=1)] = 1
        if not norms.all():
            raise BadAnswerError(
                f"a vector of {self.served.config.model_name!r} is zero in its first {size} numbers: "
                "this model cannot be cut to that size"
            )
        return np.asarray(cut / norms, np.float32)


@dataclass
class _Call:
    """One call of MTEB; as a string, for messages.

    Attributes:
        task: What is known of the task.
        side: Of its texts.
        split: Of the task.
        subset: Of the task.
        told: What MTEB told of the task.
        order: For each row, the index of its text among the different ones.
        zeros: Indices of the texts that are not sent because they are empty.
        counts: What was read and sent.
    """

    task: TaskInfo
    side: Side | None
    split: str = ""
    subset: str = ""
    told: Any = None
    order: array[int] = field(default_factory=lambda: array("q"))
    zeros: list[int] = field(default_factory=list)
    counts: TaskUsage = field(default_factory=lambda: TaskUsage("", "", "", "", ""))

    def __str__(self) -> str:
        return " ".join(part for part in (self.task.name or "texts", self.split, self.side) if part)


def _batches(windows: Iterator[list[_Indexed]], size: Callable[[], int]) -> Iterator[list[_Indexed]]:
    """Yields batches, the longest texts of each window first: the last requests are short, and no slot waits for one.

    Args:
        windows: Of texts.
        size: Asked before each batch, because a server may show its limit in the middle of a run.
    """
    left: deque[_Indexed] = deque()
    for window in windows:
        left = deque(sorted([*left, *window], key=lambda item: len(item[1]), reverse=True))
        while len(left) >= size():
            yield [left.popleft() for _ in range(size())]
    while left:
        yield [left.popleft() for _ in range(min(size(), len(left)))]


def _count(session: Session, text: str) -> int | None:
    tokens = session.counter.count(text) if session.counter is not None else None
    return tokens if tokens is None or session.limit is None else min(tokens, session.limit)


def _unit(tensor: Any) -> Any:
    import torch

    return torch.nn.functional.normalize(tensor if tensor.dim() > 1 else tensor[None], p=2, dim=-1)
