"""VaccCrossEncoder: a served reranker behind MTEB's ``CrossEncoderProtocol``."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalscope_vacc.config import ModelConfig
from evalscope_vacc.errors import ConfigError, TextError, TextTooLongError
from evalscope_vacc.evidence import TaskUsage
from evalscope_vacc.models.base import DEFAULT_BATCH, VaccModel
from evalscope_vacc.models.keeping import keep_scores, stored_scores
from evalscope_vacc.models.rows import read_rows
from evalscope_vacc.models.served import split_in_two
from evalscope_vacc.models.side import TemplateSide, choose_side
from evalscope_vacc.models.tasks import task_info
from evalscope_vacc.redact import clean
from evalscope_vacc.store import PROBE_PAIRS
from evalscope_vacc.text.task import TaskInfo
from evalscope_vacc.text.truncation import SPECIAL_OF_A_PAIR, cut_document, cut_text, fits_by_bytes
from evalscope_vacc.wire.engine import Answer, Request

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Query:
    """One query with its instruction, and the positions of the different documents that go with it."""

    text: str
    instruction: str | None
    documents: dict[str, list[int]]


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
        **options: Any,
    ) -> None:
        given = {**options, "is_cross_encoder": True}
        self._configure(model_name=model_name, revision=revision, api_base=api_base, **given)

    def _setup(self, config: ModelConfig, *, folder: Path | None = None, scope: str = "") -> None:
        if not config.is_cross_encoder:
            raise ConfigError(
                f"model {config.model_name!r} is an encoder: use VaccEncoder, or write is_cross_encoder: true"
            )
        self._side: TemplateSide | None = None
        super()._setup(config, folder=folder, scope=scope)

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
            ServerError: The server could not be asked, refused, or gave an answer that cannot be right.
            TextError: A pair cannot be sent as the configuration wants it.
        """
        task = task_info(task_metadata) if task_metadata is not None else TaskInfo(name="", type="Reranking")
        queries = read_rows(inputs1, what=f"the queries of {task.name or 'predict'}")
        documents = read_rows(inputs2, what=f"the documents of {task.name or 'predict'}")
        if len(queries) != len(documents):
            raise TextError(f"{task.name or 'predict'}: {len(queries)} queries for {len(documents)} documents")
        # where the instruction column has a place of its own, the query must be the one without it; elsewhere (a bge
        # reranker) the query carries it, as MTEB's own cross-encoders read it
        self.served.facts  # noqa: B018 -- a wrong model name, key or address stops here, before the template is asked for
        apart = queries.instruction is not None and queries.query is not None and self.side.places_instructions
        return self.score(
            queries.query if apart and queries.query is not None else queries.text,
            documents.text,
            instructions=queries.instruction if apart else None,
            task=task,
            split=hf_split,
            subset=hf_subset,
            **self._how(kwargs),
        )

    # -- how -----------------------------------------------------------------------------------------------------

    @property
    def side(self) -> TemplateSide:
        """Which side applies the template, decided once; asking the server where the configuration says ``auto``."""
        if self._side is None:
            self._side = choose_side(self.served)
        return self._side

    def score(
        self,
        queries: Sequence[str],
        documents: Sequence[str],
        *,
        instructions: Sequence[str] | None = None,
        task: TaskInfo,
        split: str = "",
        subset: str = "",
        batch_size: int = DEFAULT_BATCH,
        shown: bool = True,
    ) -> NDArray[np.float32]:
        """Scores corresponding queries and documents; as :meth:`predict`, with plain texts.

        Returns:
            Scores of shape (pairs,), float32.
        """
        served = self.served
        served.facts  # noqa: B018 -- a wrong model name, key or address stops here, before any work
        fallback = self.side.instruction(served.rules.rerank_instruction(task))
        served.announce(task, split, subset, "pair", fallback or "")
        with served.counting(task, split, subset, "pair", fallback or "") as counts:
            counts.texts = len(queries)
            queries = _prefixed(queries, served.rules.pair_prefix(task, "query"))
            documents = _prefixed(documents, served.rules.pair_prefix(task, "document"))
            groups = _group(queries, documents, instructions, fallback)
            counts.unique = sum(len(group.documents) for group in groups)
            return self._scores(groups, len(queries), counts, task, split, subset, batch_size, shown)

    def _scores(
        self,
        groups: list[_Query],
        n: int,
        counts: TaskUsage,
        task: TaskInfo,
        split: str,
        subset: str,
        batch_size: int,
        shown: bool,
    ) -> NDArray[np.float32]:
        served, side = self.served, self.side
        batch_size = served.per_request(batch_size)
        out = np.full(n, np.nan, np.float32)
        scope = self._keeper.scope(task.name)
        where = (served.name, task.name, split, subset, "pair")
        what = " ".join(part for part in (task.name or "pairs", split) if part)
        cut_unknown = False

        def requests() -> Iterator[Request]:
            nonlocal cut_unknown
            for group in groups:
                query = side.query(group.text, group.instruction)
                about = f"{what}: query {_quote(group.text)}"
                sent: dict[str, list[int]] = {}
                for document, positions in group.documents.items():
                    text, was_cut = self._document(query, document, group.instruction, about)
                    if was_cut is None:
                        cut_unknown = True
                    counts.cut = (counts.cut or 0) + bool(was_cut)
                    sent.setdefault(text, []).extend(positions)
                if served.evidence.wants(*where):
                    served.evidence.samples(*where, [(query, text) for text in list(sent)[:3]])
                per_request = side.request_instruction(group.instruction)
                missing: list[tuple[str, list[int]]] = []
                known = stored_scores(scope, query, list(sent), per_request)
                for at, (text, positions) in enumerate(sent.items()):
                    if at in known:
                        out[positions] = known[at]
                        counts.stored += 1
                    else:
                        missing.append((text, positions))
                for start in range(0, len(missing), batch_size):
                    yield make(query, per_request, missing[start : start + batch_size], group.text)

        def make(
            query: str, instruction: str | None, part: Sequence[tuple[str, list[int]]], shown_query: str
        ) -> Request:
            path, body = served.dialect.scores(
                served.config.model_name,
                query,
                [text for text, _ in part],
                truncate_to=None if side.template is not None or side.server_tokens else served.limit,
                instruction=instruction,
            )
            return Request(
                path,
                body,
                sum(len(positions) for _, positions in part),
                tag=_Part(query, instruction, part),
                split=(lambda: [make(query, instruction, half, shown_query) for half in split_in_two(part)])
                if len(part) > 1
                else None,
                describe=f"{what}: query {_quote(shown_query)}, document {_quote(part[0][0])}",
            )

        def handle(request: Request, answer: Answer) -> None:
            tag = request.tag
            got = served.dialect.read_scores(answer.body, len(tag.part))
            for (_, positions), score in zip(tag.part, got.values, strict=True):
                out[positions] = score
            tag.tokens = got.tokens
            if got.tokens is not None:
                counts.tokens = (counts.tokens or 0) + got.tokens
            keep_scores(scope, tag.query, [text for text, _ in tag.part], tag.instruction, got.values)

        if groups:
            served.send(requests(), handle, what=what, total=n, shown=shown)
        if cut_unknown:
            counts.cut = None
        lost = np.flatnonzero(~np.isfinite(out))
        if len(lost):
            raise TextError(
                f"{what}: {len(lost)} pairs have no score, the first is pair {lost[0]}; this is a defect here"
            )
        return out

    def _probe(self) -> NDArray[np.float64]:
        """Asks for the scores of the store's fixed pairs twice, through the template in use, shape (2, pairs)."""
        served, side = self.served, self.side
        instruction = side.instruction(None)
        limit = served.limit
        pairs = [(side.query(query, instruction), side.document(document)) for query, document in PROBE_PAIRS]
        pairs = [p for p in pairs if limit is None or fits_by_bytes(p[0] + p[1], limit, SPECIAL_OF_A_PAIR)] or pairs[:2]
        answers = np.empty((2, len(pairs)))

        def handle(request: Request, answer: Answer) -> None:
            answers[request.tag] = served.dialect.read_scores(answer.body, 1).values[0]

        requests = []
        for repeat in range(2):
            for at, (query, document) in enumerate(pairs):
                path, body = served.dialect.scores(
                    served.config.model_name,
                    query,
                    [document],
                    truncate_to=None if side.template or side.server_tokens else limit,
                    instruction=side.request_instruction(instruction),
                )
                requests.append(Request(path, body, 1, tag=(repeat, at), describe="the store's probe pairs"))
        deque(served.engine.stream(requests, handle), maxlen=0)
        return answers

    def _document(self, query: str, document: str, instruction: str | None, what: str) -> tuple[str, bool | None]:
        """The document as it is sent (``text_2``), and whether it was, or will be, cut (None: nobody can count)."""
        served, template, limit = self.served, self.side.template, self.served.limit
        if limit is None:
            return self.side.document(document), False
        if template is not None:
            if fits_by_bytes(query + template.document(document), limit):
                return template.document(document), False
            counter = served.need_counter(f"{what}: a pair may be longer than {limit} tokens")
            cut = cut_document(query, document, template, limit, counter)
            if cut.was_cut and served.config.truncate == "error":
                raise TextTooLongError(
                    f"{what} with document {_quote(document)} is longer than {limit} tokens: "
                    "write truncate: cut, or raise max_tokens"
                )
            return cut.text, cut.was_cut
        if self.side.server_tokens:
            beside = self.side.request_instruction(instruction) or ""
            return self._document_for_template(query, document, beside, limit - self.side.server_tokens, what)
        # no template: the server cuts where it can be told to, per text on an embedding server, per pair on a cross-encoder
        if fits_by_bytes(query + document, limit, SPECIAL_OF_A_PAIR):
            return document, False
        by_server = getattr(served.dialect, "truncates", False)
        strict = served.config.truncate == "error"
        if by_server and not strict and not served.config.tokenizer:
            # only the evidence would want to know, and /tokenize takes one text a request
            return document, None
        counter = served.need_counter(f"{what}: a pair may be longer than {limit} tokens")
        pairwise = self.side.pairwise
        tokens = counter.count_pair(query, document) if pairwise else max(counter.count(query), counter.count(document))
        if tokens <= limit:
            return document, False
        if strict:
            raise TextTooLongError(
                f"{what} with document {_quote(document)} has {tokens} tokens, the limit is "
                f"{limit}: write truncate: cut, or raise max_tokens"
            )
        if by_server:
            return document, True
        cut = cut_document(query, document, None, limit, counter) if pairwise else cut_text(document, limit, counter)
        return cut.text, cut.was_cut

    def _document_for_template(
        self, query: str, document: str, instruction: str, room: int, what: str
    ) -> tuple[str, bool]:
        """The document cut so that the server's template, the query and the request's instruction fit beside it."""
        served = self.served
        if fits_by_bytes(instruction + query + document, room):
            return document, False
        counter = served.need_counter(f"{what}: a pair may be longer than {served.limit} tokens")
        room -= counter.count(query) + (counter.count(instruction) if instruction else 0)
        if counter.count(document) <= room:
            return document, False
        if room < 1 or served.config.truncate == "error":
            raise TextTooLongError(
                f"{what} with document {_quote(document)} does not fit into {served.limit} tokens beside the server's "
                "template: write truncate: cut, raise max_tokens, or serve it without --chat-template"
            )
        return cut_text(document, room, counter).text, True


class _Part:
    """What one request holds, and what its answer cost."""

    __slots__ = ("instruction", "part", "query", "tokens")

    def __init__(self, query: str, instruction: str | None, part: Sequence[tuple[str, list[int]]]) -> None:
        self.query = query
        self.instruction = instruction
        self.part = part
        self.tokens: int | None = None


def _prefixed(texts: Sequence[str], prefix: str) -> Sequence[str]:
    return [prefix + text for text in texts] if prefix else texts


def _group(
    queries: Sequence[str], documents: Sequence[str], instructions: Sequence[str] | None, fallback: str | None
) -> list[_Query]:
    """Pairs by query, longest work first; a query's documents once each, however often they are asked for."""
    groups: dict[tuple[str, str | None], _Query] = {}
    for position, (query, document) in enumerate(zip(queries, documents, strict=True)):
        instruction = (instructions[position] or fallback) if instructions is not None else fallback
        group = groups.get((query, instruction))
        if group is None:
            group = groups[query, instruction] = _Query(query, instruction, {})
        group.documents.setdefault(document, []).append(position)
    # a query's requests stay together, so that the server's prefix cache hits; the largest groups lead, so that no
    # slot waits for a straggler at the end
    return sorted(
        groups.values(), key=lambda g: sum(map(len, g.documents)) + len(g.text) * len(g.documents), reverse=True
    )


def _quote(text: str) -> str:
    return repr(clean(text, limit=80))
