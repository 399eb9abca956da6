"""VaccCrossEncoder: a served reranker behind MTEB's ``CrossEncoderProtocol``."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalscope_vacc.config import DEFAULT_BATCH, ModelConfig
from evalscope_vacc.errors import ConfigError, TextError, TextTooLongError
from evalscope_vacc.evidence import TaskUsage
from evalscope_vacc.models.base import Table, VaccModel, quote
from evalscope_vacc.models.keeping import fields_key
from evalscope_vacc.models.rows import Rows, count_rows, read_rows
from evalscope_vacc.models.session import Session, halves
from evalscope_vacc.models.tasks import task_info
from evalscope_vacc.store import PROBE_PAIRS, Scope, text_key
from evalscope_vacc.text.instructions import TextRules
from evalscope_vacc.text.query import cut_query
from evalscope_vacc.text.side import TemplateSide
from evalscope_vacc.text.task import TaskInfo
from evalscope_vacc.text.truncation import SPECIAL_OF_A_PAIR, cut_document, cut_text, fits_by_bytes
from evalscope_vacc.wire import dialects
from evalscope_vacc.wire.engine import Answer, Request

# a document as it is sent, with the index of its pair among the different pairs of a call
_Indexed = tuple[int, str]


@dataclass(frozen=True)
class _Query:
    """A query as it is sent, with what its documents share.

    Attributes:
        text: The query (``text_1``).
        bare: The query without the template, for messages.
        instruction: What travels beside the texts, or None.
    """

    text: str
    bare: str
    instruction: str | None


@dataclass(frozen=True)
class _Batch:
    """What one request holds: documents of one query."""

    query: _Query
    documents: Sequence[_Indexed]

    @property
    def texts(self) -> list[str]:
        """The documents as they are sent (``text_2``)."""
        return [text for _, text in self.documents]

    def keys(self, scope: Scope, config: ModelConfig) -> list[bytes]:
        """The keys of the scores in the store; what a request says beside the texts is part of them."""
        beside = () if self.query.instruction is None else (self.query.instruction,)
        fields = {**config.extra_body, **({"raw_scores": True} if config.raw_scores else {})}
        identity = scope.identity + fields_key(fields)
        return [text_key(identity, self.query.text, text, *beside) for text in self.texts]


class VaccCrossEncoder(VaccModel):
    """A served cross-encoder.

    Args:
        model_name: The served name, as in ``--served-model-name``.
        revision: Part of the result's name; default from the addresses.
        device: Accepted because MTEB passes it; the server has the device.
        api_base: Address or addresses of the server; default ``$VACC_API_BASE``.
        **options: Every key of a model's entry (:class:`evalscope_vacc.config.ModelConfig`).

    Raises:
        ConfigError: A key or value cannot be used.
    """

    _keeps = "score"

    def __init__(
        self,
        model_name: str,
        revision: str | None = None,
        device: str | None = None,  # noqa: ARG002 -- MTEB's protocol has it
        *,
        api_base: str | Sequence[str] | None = None,
        config: ModelConfig | None = None,
        folder: Path | None = None,
        scope: str = "",
        **options: Any,
    ) -> None:
        given = {**options, "model_name": model_name, "revision": revision, "api_base": api_base}
        super().__init__(config, folder, scope, **{**given, "is_cross_encoder": True})

    def _check_kind(self, config: ModelConfig) -> None:
        if not config.is_cross_encoder:
            raise ConfigError(
                f"model {config.model_name!r} is an encoder: use VaccEncoder, or write is_cross_encoder: true"
            )
        if config.empty == "skip-as-zero":
            raise ConfigError(
                f"model {config.model_name!r}: empty: skip-as-zero is for encoders, because a pair has no score that "
                "means nothing; write space or error"
            )

    # -- MTEB's protocol -----------------------------------------------------------------------------------------

    def predict(
        self,
        inputs1: Any,
        inputs2: Any,
        *,
        task_metadata: Any = None,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: Any = None,  # noqa: ARG002 -- MTEB never passes it here
        **kwargs: Any,
    ) -> NDArray[np.float32]:
        """Scores pairs of a query and a document.

        Args:
            inputs1: The queries, one for each pair.
            inputs2: The documents, one for each pair.
            task_metadata: The task; decides the instruction.
            hf_split: Split, for messages and evidence.
            hf_subset: Subset, for messages and evidence.
            prompt_type: Not used.
            **kwargs: MTEB's encode_kwargs: ``batch_size`` (documents of one query per request) holds where the
                model's entry has none; ``show_progress_bar``.

        Returns:
            Scores of shape (pairs,), float32, in the order of the inputs.

        Raises:
            ServerError: The server could not be reached, refused a request, or gave a wrong answer.
            TextError: A pair cannot be sent as the configuration wants it.
        """
        task = task_info(task_metadata) if task_metadata is not None else TaskInfo(name="", type="Reranking")
        return self.score(inputs1, inputs2, task=task, split=hf_split, subset=hf_subset, **self._how(kwargs))

    # -- how -----------------------------------------------------------------------------------------------------

    def score(
        self,
        queries: Any,
        documents: Any,
        *,
        task: TaskInfo,
        split: str = "",
        subset: str = "",
        batch_size: int = DEFAULT_BATCH,
        shown: bool = True,
    ) -> NDArray[np.float32]:
        """Scores corresponding queries and documents: reads them, looks them up, sends what is missing.

        Returns:
            Scores of shape (pairs,), float32, in the order of the inputs.

        Raises:
            ServerError: As :meth:`predict`.
            TextError: As :meth:`predict`.
        """
        session = self.open()
        rules = self.served.rules
        instruction = session.side.instruction(rules.rerank_instruction(task))
        scope = self._keeper.scope(task.name, session)
        total = count_rows(queries)
        table = Table(total)
        order = array("q")
        what = " ".join(part for part in (task.name or "pairs", split) if part)
        with session.counting(task, split, subset, "pair", instruction or "") as counts:
            windows = _grouped(
                session.side, _pairs(queries, documents, task.name), rules, task, instruction, order, counts
            )
            missing = self._missing(session, scope, windows, table, counts, what, (task.name, split, subset))
            requests = (
                self._request(session, what, batch)
                for batch in _batches(missing, lambda: session.per_request(batch_size))
            )

            def parse(request: Request, answer: Answer) -> dialects.Scores:
                return session.dialect.read_scores(answer.body, request.items)

            for request, got in session.send(requests, parse, what=what, total=total, counts=counts, shown=shown):
                batch: _Batch = request.tag
                table.put(np.array([index for index, _ in batch.documents]), got.values)
                if got.tokens is not None:
                    counts.tokens = (counts.tokens or 0) + got.tokens
                if scope is not None:
                    scope.put(batch.keys(scope, session.config), np.asarray(got.values, np.float64)[:, None])
        if table.filled != counts.unique:
            raise TextError(f"{what}: {counts.unique - table.filled} pairs have no score; this is a defect here")
        scores = table.rows()
        return scores if len(scores) == len(order) else scores[np.array(order)]

    def _missing(
        self,
        session: Session,
        scope: Scope | None,
        windows: Iterator[list[_Group]],
        table: Table,
        counts: TaskUsage,
        what: str,
        where: tuple[str, str, str],
    ) -> Iterator[list[_Batch]]:
        """Yields, for each window, the documents that are not in the store, as they are sent, by query.

        The scores of the others go into the table. ``counts.cut`` becomes None where nobody can count cut documents.
        """
        seen = (self.served.name, *where, "pair")
        for window in windows:
            found: list[_Batch] = []
            for group in window:
                about = f"{what}: query {quote(group.query)}"
                query, query_cut = self._query(session, group, about)
                sent: list[_Indexed] = []
                for index, document in group.documents:
                    text, was_cut = self._document(session, query, document, about)
                    if was_cut is None or counts.cut is None:
                        counts.cut = None
                    else:
                        counts.cut += was_cut or query_cut
                    if not text.strip():
                        counts.empty += 1
                        text = " " if session.config.empty == "space" else text
                    sent.append((index, text))
                if self.served.evidence.wants(seen):
                    self.served.evidence.samples(seen, [(query.text, text) for _, text in sent[:3]])
                batch = _Batch(query, sent)
                if scope is not None:
                    at, scores = scope.get(batch.keys(scope, session.config), "<f8")
                    if len(at):
                        table.put(np.array([index for index, _ in sent])[at], scores[:, 0])
                        counts.stored += len(at)
                        batch = _Batch(query, [sent[left] for left in np.delete(np.arange(len(sent)), at)])
                found.append(batch)
            yield found

    def _request(self, session: Session, what: str, batch: _Batch) -> Request:
        side, documents = session.side, batch.documents
        cut_there = session.dialect.truncates and side.template is None and not side.server_tokens
        path, body = session.dialect.scores(
            session.config.model_name,
            batch.query.text,
            batch.texts,
            truncate_to=session.limit if cut_there else None,
            instruction=batch.query.instruction,
            raw=session.config.raw_scores,
            **({"extra": session.config.extra_body} if session.config.extra_body else {}),
        )

        def split() -> list[Request]:
            return [self._request(session, what, _Batch(batch.query, half)) for half in halves(documents)]

        limit = session.limit

        def shorten(tokens: int) -> Request | None:
            # a document inside a template cannot be cut any more
            if side.template is not None or (limit is not None and tokens >= limit):
                return None
            session.learn_limit(tokens)
            cut = [(index, self._document(session, batch.query, text, what)[0]) for index, text in documents]
            return self._request(session, what, _Batch(batch.query, cut))

        return Request(
            path,
            body,
            len(documents),
            tag=batch,
            shorten=shorten,
            split=split if len(documents) > 1 else None,
            describe=lambda: f"{what}: query {quote(batch.query.bare)}, document {quote(documents[0][1])}",
        )

    def _probe(self, session: Session) -> NDArray[np.float64]:
        """Asks for the scores of the store's fixed pairs twice, through the template in use, shape (2, pairs)."""
        side, limit = session.side, session.limit
        instruction = side.instruction(None)
        pairs = [(side.query(query, instruction), side.document(document)) for query, document in PROBE_PAIRS]
        pairs = [p for p in pairs if limit is None or fits_by_bytes(p[0] + p[1], limit, SPECIAL_OF_A_PAIR)] or pairs[:2]
        answers = np.empty((2, len(pairs)))
        batches = [
            _Batch(_Query(query, query, side.request_instruction(instruction)), [(repeat * len(pairs) + at, document)])
            for repeat in range(2)
            for at, (query, document) in enumerate(pairs)
        ]
        requests = (self._request(session, "the store's probe", batch) for batch in batches)
        read = session.dialect.read_scores
        for request, score in session.engine.stream(requests, lambda _, answer: read(answer.body, 1).values[0]):
            answers.flat[request.tag.documents[0][0]] = score
        return answers

    def _query(self, session: Session, group: _Group, what: str) -> tuple[_Query, bool]:
        """The query as it is sent, and whether it was cut because no document would have fitted beside it."""
        side, limit = session.side, session.limit
        instruction = side.request_instruction(group.instruction)
        whole = _Query(side.query(group.query, group.instruction), group.query, instruction)
        bare = side.template is None and not side.server_tokens
        if limit is None or session.config.truncate == "error":
            return whole, False
        if bare and (session.dialect.truncates or not session.pairwise):
            return whole, False  # the server cuts both texts of a pair, or counts each for itself
        nothing = side.document("")
        if fits_by_bytes((instruction or "") + whole.text + nothing, limit - side.server_tokens, SPECIAL_OF_A_PAIR):
            return whole, False
        counter = session.need_counter(f"{what}: a pair may be longer than {limit} tokens")
        around = side.server_tokens + (counter.count(instruction) if instruction else 0)

        def tokens(query: str) -> int:
            text = side.query(query, group.instruction)
            return around + (counter.count(text) if side.server_tokens else counter.count_pair(text, nothing))

        query = cut_query(group.query, tokens, limit)
        return replace(whole, text=side.query(query, group.instruction)), query != group.query

    def _document(self, session: Session, of: _Query, document: str, what: str) -> tuple[str, bool | None]:
        """The document as it is sent (``text_2``), and whether it was, or will be, cut (None: nobody can count)."""
        side, limit, query = session.side, session.limit, of.text
        template, config = side.template, session.config
        if limit is None:
            return side.document(document), None
        if template is not None:
            if fits_by_bytes(query + template.document(document), limit):
                return template.document(document), False
            counter = session.need_counter(f"{what}: a pair may be longer than {limit} tokens")
            cut = cut_document(query, document, template, limit, counter)
            if cut.was_cut and config.truncate == "error":
                raise TextTooLongError(
                    f"{what} with document {quote(document)} is longer than {limit} tokens: "
                    "write truncate: cut, or raise max_tokens"
                )
            return cut.text, cut.was_cut
        if side.server_tokens:
            return self._document_for_template(session, of, document, limit - side.server_tokens, what)
        # no template: the server cuts where it can be told to, per text on an embedding server, per pair on a cross-encoder
        if fits_by_bytes(query + document, limit, SPECIAL_OF_A_PAIR):
            return document, False
        by_server = session.dialect.truncates
        strict = config.truncate == "error"
        if by_server and not strict and not config.tokenizer:
            # only the evidence would want to know, and /tokenize takes one text a request
            return document, None
        counter = session.need_counter(f"{what}: a pair may be longer than {limit} tokens")
        pairwise = session.pairwise
        tokens = counter.count_pair(query, document) if pairwise else max(counter.count(query), counter.count(document))
        if tokens <= limit:
            return document, False
        if strict:
            raise TextTooLongError(
                f"{what} with document {quote(document)} has {tokens} tokens, the limit is "
                f"{limit}: write truncate: cut, or raise max_tokens"
            )
        if by_server:
            return document, True
        cut = cut_document(query, document, None, limit, counter) if pairwise else cut_text(document, limit, counter)
        return cut.text, cut.was_cut

    def _document_for_template(
        self, session: Session, of: _Query, document: str, room: int, what: str
    ) -> tuple[str, bool]:
        """The document cut so that the server's template, the query and the request's instruction fit beside it."""
        query, instruction = of.text, of.instruction or ""
        if fits_by_bytes(instruction + query + document, room):
            return document, False
        counter = session.need_counter(f"{what}: a pair may be longer than {session.limit} tokens")
        room -= counter.count(query) + (counter.count(instruction) if instruction else 0)
        if counter.count(document) <= room:
            return document, False
        if room < 1 or session.config.truncate == "error":
            raise TextTooLongError(
                f"{what} with document {quote(document)} does not fit into {session.limit} tokens beside the server's "
                "template: write truncate: cut, raise max_tokens, or serve it without --chat-template"
            )
        return cut_text(document, room, counter).text, True


@dataclass(frozen=True)
class _Group:
    """Documents of one query that no earlier window had.

    Attributes:
        query: The query without the template.
        instruction: The instruction in force.
        documents: The bare documents, each with its index.
    """

    query: str
    instruction: str | None
    documents: list[_Indexed]

    @property
    def work(self) -> int:
        """Characters that its requests carry."""
        return sum(len(self.query) + len(text) for _, text in self.documents)


def _pairs(queries: Any, documents: Any, task: str) -> Iterator[tuple[Rows, Rows]]:
    """Yields windows of queries and documents of one length.

    Raises:
        TextError: There are more of the ones than of the others.
    """
    n, m = count_rows(queries), count_rows(documents)
    if n is not None and m is not None and n != m:
        raise TextError(f"{task or 'predict'}: {n} queries for {m} documents")
    first = read_rows(queries, what=f"the queries of {task or 'predict'}")
    second = read_rows(documents, what=f"the documents of {task or 'predict'}")
    for left, right in zip_longest(first, second, fillvalue=Rows(())):
        if len(left) != len(right):
            raise TextError(f"{task or 'predict'}: the numbers of queries and documents differ")
        yield left, right


def _grouped(
    side: TemplateSide,
    pairs: Iterator[tuple[Rows, Rows]],
    rules: TextRules,
    task: TaskInfo,
    fallback: str | None,
    order: array[int],
    counts: TaskUsage,
) -> Iterator[list[_Group]]:
    """Yields, for each window, the pairs that no earlier one had, by query; notes the order of all.

    Where the instruction column has a place of its own, the query is the one without it; elsewhere (a bge reranker) the
    query carries it, as MTEB's own cross-encoders read it.
    """
    seen: dict[tuple[str, str | None], dict[str, int]] = {}
    before_query, before_document = rules.pair_prefix(task, "query"), rules.pair_prefix(task, "document")
    for queries, documents in pairs:
        texts, instructions = queries.text, None
        if side.places_instructions and queries.instruction is not None and queries.query is not None:
            texts, instructions = queries.query, queries.instruction
        groups: dict[tuple[str, str | None], _Group] = {}
        for at, text in enumerate(texts):
            key = (before_query + text, (instructions[at] if instructions is not None else None) or fallback)
            document = before_document + documents.text[at]
            known = seen.setdefault(key, {})
            if document not in known:
                known[document] = counts.unique
                groups.setdefault(key, _Group(*key, [])).documents.append((counts.unique, document))
                counts.unique += 1
            order.append(known[document])
        counts.texts = len(order)
        last = groups.popitem()[1] if groups else None
        # the largest first, so that no slot waits for a straggler at the end; the last query may go on in the next window
        yield [*sorted(groups.values(), key=lambda group: group.work, reverse=True), *([last] if last else [])]


def _batches(windows: Iterator[list[_Batch]], size: Callable[[], int]) -> Iterator[_Batch]:
    """Yields batches of the documents of one query.

    A query's requests stay together, so that the server's prefix cache hits. The last query of a window waits with what
    fills no batch: the next window may go on with it.

    Args:
        windows: Of documents by query.
        size: Asked before each batch, because a server may show its limit in the middle of a run.
    """
    held: _Batch | None = None
    for window in windows:
        last = window[-1] if window else None
        if held is not None and all(batch.query != held.query for batch in window):
            yield from _full(held, size)
            held = None
        for batch in window:
            documents = list(batch.documents)
            if held is not None and batch.query == held.query:
                documents, held = [*held.documents, *documents], None
            if batch is not last:
                yield from _full(_Batch(batch.query, documents), size)
                continue
            while len(documents) >= size():
                sent = size()
                yield _Batch(batch.query, documents[:sent])
                documents = documents[sent:]
            held = _Batch(batch.query, documents) if documents else None
    if held is not None:
        yield from _full(held, size)


def _full(batch: _Batch, size: Callable[[], int]) -> Iterator[_Batch]:
    """Yields all the documents of a query."""
    documents = batch.documents
    while documents:
        sent = size()
        yield _Batch(batch.query, documents[:sent])
        documents = documents[sent:]
