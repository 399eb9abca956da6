"""A session with the servers of one model: asked once what they are, then plain values and a way to send.

:func:`open_session` is the only place where the servers are probed, checked before a run, and asked for their template.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from evalscope_vacc.catalog import find
from evalscope_vacc.checks.findings import Report
from evalscope_vacc.checks.preflight import preflight
from evalscope_vacc.config import ModelConfig
from evalscope_vacc.errors import ConfigError
from evalscope_vacc.evidence import TaskUsage
from evalscope_vacc.models.served import Served
from evalscope_vacc.plugins import plugins
from evalscope_vacc.redact import clean
from evalscope_vacc.text.side import TemplateSide, decide_side
from evalscope_vacc.text.task import TaskInfo
from evalscope_vacc.text.truncation import CountingFunction, LocalTokenizer, TokenCounter
from evalscope_vacc.wire.dialects import Dialect
from evalscope_vacc.wire.engine import Answer, Connection, Engine, Request
from evalscope_vacc.wire.probe import (
    RerankFacts,
    ServerFacts,
    in_common,
    probe_all,
    probe_reranker,
    read_token_count,
    require_model,
    tokenize_counter,
)

logger = logging.getLogger(__name__)

# so many requests to /tokenize are never in the way
_FEW_COUNTS = 64

T = TypeVar("T")


@dataclass
class Session:
    """What the servers of a model are, and the connections to them.

    Attributes:
        served: The model as it is configured.
        engine: The connections.
        facts: What holds for all the servers.
        dialect: How they are spoken to.
        limit: Tokens that a text (or a pair, on a cross-encoder) may have; None where nobody says.
        side: On which side a cross-encoder's template is applied.
        pairwise: Whether the limit counts the pair (a cross-encoder) or each text (an embedding server).
        report: What the short check before the run found; None where it is switched off.
        counter: Counts tokens: the local tokenizer where one is configured, else the server's, else None.
    """

    served: Served
    engine: Engine
    facts: ServerFacts
    dialect: Dialect
    limit: int | None
    side: TemplateSide = field(default_factory=lambda: TemplateSide(None))
    pairwise: bool = True
    report: Report | None = None
    counter: TokenCounter | None = field(init=False)
    _counted: dict[str, int] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.counter = self._make_counter()

    @property
    def config(self) -> ModelConfig:
        """The model's configuration."""
        return self.served.config

    def close(self) -> None:
        """Closes the connections."""
        self.engine.close()

    def per_request(self, wanted: int) -> int:
        """Texts, or documents of one query, in one request: as many as wanted, at most what the servers take."""
        return int(min(wanted, self.facts.max_batch or wanted, self.engine.limits.items))

    def learn_limit(self, tokens: int) -> None:
        """Notes the limit that a server named when it refused a text; longer ones are cut from now on."""
        if self.limit is not None and self.limit <= tokens:
            return
        logger.warning(
            "%s: the server takes at most %d tokens, as it says in a refusal; longer texts are cut (max_tokens: %d says "
            "so from the start)",
            self.served.name,
            tokens,
            tokens,
        )
        self.limit = tokens
        self.served.record_server(limit_in_a_refusal=tokens)

    # -- counting tokens -----------------------------------------------------------------------------------------

    def _make_counter(self) -> TokenCounter | None:
        if self.config.tokenizer:
            return LocalTokenizer(self.config.tokenizer)
        if not self.facts.tokenize:
            return None
        ask = tokenize_counter(self.engine, self.config.model_name)
        # a language model reads the templated pair as one text: exact at the seam of the two
        overhead = None if self.config.rerank_template != "none" else 0
        return CountingFunction(
            lambda text: self._counted.pop(text) if text in self._counted else ask(text), pair_overhead=overhead
        )

    def may_count(self, long: int, batch_size: int, *, of: int) -> bool:
        """Whether texts that the server cuts may be counted, which is only for the evidence.

        A local tokenizer counts them all. The server's /tokenize takes one text a request: with a limit of 512 tokens
        it would be asked for nearly every text, and the run would take twice as long.

        Args:
            long: Texts that may be longer than the limit.
            batch_size: Texts per request.
            of: Texts in all.
        """
        if self.counter is None:
            return False
        return bool(self.config.tokenizer) or long <= max(_FEW_COUNTS, of // batch_size)

    def count_ahead(self, texts: Sequence[str]) -> None:
        """Counts texts with the server's /tokenize, as many at a time as there are slots.

        It answers one text a request; asked one after the other, a corpus would wait for its counts longer than for
        its vectors. A local tokenizer needs no such help.
        """
        if self.config.tokenizer or not self.facts.tokenize:
            return
        requests = (
            Request(
                "/tokenize",
                {"model": self.config.model_name, "prompt": text},
                1,
                tag=text,
                describe="counting the tokens of a text",
            )
            for text in dict.fromkeys(texts)
            if text not in self._counted
        )
        for request, count in self.engine.stream(requests, lambda _, answer: read_token_count(answer)):
            self._counted[request.tag] = count

    def need_counter(self, why: str) -> TokenCounter:
        """Returns the counter.

        Raises:
            ConfigError: There is none; the message says why one is needed and how to give one.
        """
        if self.counter is None:
            raise ConfigError(
                f"model {self.config.model_name!r}: {why}, and {self.served.servers} has no /tokenize: "
                "set `tokenizer:` to the model's folder, its tokenizer.json or its hub name"
            )
        return self.counter

    # -- one call of MTEB ----------------------------------------------------------------------------------------

    @contextmanager
    def counting(self, task: TaskInfo, split: str, subset: str, side: str, instruction: str) -> Iterator[TaskUsage]:
        """Counts one call of MTEB: what was sent meanwhile, and how long it took; says so at the end.

        Raises:
            RunInterrupted: Ctrl-C inside the block.
        """
        evidence, name = self.served.evidence, self.served.name
        if evidence.wants(name, task.name, split, subset, side):
            shown = json.dumps(clean(instruction, limit=300), ensure_ascii=False) if instruction else "nothing added"
            logger.info("%s%s: %s", task.name or "texts", f" {side}" if side else "", shown)
        counts = TaskUsage(name, task.name, split, subset, side, instruction)
        usage = self.engine.usage
        before = (usage.requests, usage.retries, usage.seconds, usage.busy_share, usage.waited_seconds)
        start = time.monotonic()
        try:
            with self.engine.stops_on_interrupt():
                yield counts
        finally:
            counts.seconds = time.monotonic() - start
            counts.requests = usage.requests - before[0]
            counts.retries = usage.retries - before[1]
            counts.waited = round(usage.waited_seconds - before[4], 3)
            seconds = usage.seconds - before[2]
            if seconds > 0:
                busy = usage.busy_share * usage.seconds - before[3] * before[2]
                counts.busy = round(min(1.0, max(0.0, busy / seconds)), 4)
            evidence.usage(counts)
        logger.info("%s", counts.line())

    def send(
        self,
        requests: Iterator[Request],
        parse: Callable[[Request, Answer], T],
        *,
        what: str,
        total: int | None,
        counts: TaskUsage,
        shown: bool,
    ) -> Iterator[tuple[Request, T]]:
        """Sends every request and yields it with its parsed answer, under MTEB's kind of progress bar.

        Args:
            requests: Made lazily; pulled only as slots become free.
            parse: Reads an answer; its ``tokens`` are counted.
            what: Label of the bar.
            total: Items in all, or None where that is not known.
            counts: Of this call; repeated and stored items move the bar, too.
            shown: Whether the bar is shown; ``TQDM_DISABLE=1`` hides every bar.
        """
        from tqdm.auto import tqdm

        hidden: dict[str, Any] = {} if shown else {"disable": True}
        with tqdm(total=total, desc=what, unit="text", mininterval=0.5, **hidden) as bar:
            tokens = sent = 0
            start = time.monotonic()
            for request, got in self.engine.stream(requests, parse):
                yield request, got
                tokens += getattr(got, "tokens", None) or 0
                if tokens:
                    bar.set_postfix_str(f"{tokens / max(time.monotonic() - start, 1e-6):,.0f} tokens/s", refresh=False)
                sent += request.items
                bar.update(counts.texts - counts.unique + counts.stored + sent - bar.n)
            bar.update(counts.texts - bar.n)


def open_session(served: Served) -> Session:
    """Opens the connections and asks the servers what they are; writes it to the evidence.

    Raises:
        ServerError: A server cannot be reached, refuses the key, or does not serve the model.
        ConfigError: The servers are not alike, or the template would be applied on both sides.
    """
    engine = Engine(Connection.of(served.config))
    try:
        return _ask(served, engine)
    except BaseException:
        engine.close()
        raise


def _ask(served: Served, engine: Engine) -> Session:
    config = served.config
    asked = probe_all(engine, config.model_name)
    for facts in asked:
        require_model(facts, config.model_name)
    notes = [*config.notes, *served.rules.notes]
    for note in notes:
        logger.info("%s: %s", config.model_name, note)
    for warning in config.warnings:
        logger.warning("%s: %s", config.model_name, warning)
    served.evidence.config(served.name, {**config.public(), "notes": [*config.warnings, *notes]})
    served.record_server(servers=[asdict(facts) for facts in asked])
    common = in_common(asked)
    known = [n for n in (config.max_tokens, common.max_model_len) if n]
    dialect, side, pairwise = served.dialect, TemplateSide(None), True
    rerank: list[RerankFacts] = []
    if config.is_cross_encoder:
        rerank = [probe_reranker(engine, served.dialect, config.model_name, server=shown) for shown in engine.servers]
        side = _choose_side(served, rerank)
        dialect, pairwise = rerank[0].dialect(served.dialect), not rerank[0].embeds
    report: Report | None = None
    if config.preflight:
        report = preflight(config, engine, served.dialect, asked, rerank)
        served.record_server(preflight=[finding.line() for finding in report.findings if finding.state != "ok"])
    return Session(served, engine, common, dialect, min(known, default=None), side, pairwise, report)


def _choose_side(served: Served, asked: Sequence[RerankFacts]) -> TemplateSide:
    """Decides on which side the template is applied, from what the servers said, and says so.

    Raises:
        ConfigError: The template would be applied on both sides, or the server has one and cannot take the task's
            instruction.
    """
    config = served.config
    name = f"model {config.model_name!r} on {served.servers}"
    if len({(facts.template, facts.takes_instruction, facts.prompt_tokens_short, facts.embeds) for facts in asked}) > 1:
        raise ConfigError(
            f"{name}: the servers differ, in the template that they wrap every pair in, in whether it takes a request's "
            "instruction, or in that some are embedding servers: start them alike"
        )
    facts = asked[0]
    entry = find(config.model_name)
    side = decide_side(
        config.rerank_template,
        family=None if entry is None else entry.template_family or "",
        server=facts.template,
        takes_instruction=facts.takes_instruction,
        server_tokens=facts.prompt_tokens_short,
        extra=plugins().rerank_templates(),
    )
    if side.conflict == "no instruction":
        raise ConfigError(
            f"{name}: rerank_template is auto, and the server wraps every pair in a template of its own but ignores a "
            "request's instruction (vLLM 0.14 to 0.21 do): start it without --chat-template, then the template is "
            "applied here; or write rerank_template: none to go on with the server's fixed instruction"
        )
    if side.conflict == "doubled":
        raise ConfigError(
            f"{name}: rerank_template is {config.rerank_template}, but the server wraps every pair in a template of its "
            f"own ({facts.prompt_tokens_short} tokens for a pair of two letters): applied twice the scores are wrong. "
            "Start it without --chat-template, or write rerank_template: auto or none"
        )
    if config.rerank_template == "none" and facts.template != "server" and entry is not None and entry.template_family:
        logger.warning(
            "%s: %s needs the template %s; without it its scores are close to random: write rerank_template: auto",
            name,
            entry.name,
            entry.template_family,
        )
    if facts.template is None and side.template is not None:
        logger.warning("%s: it reports no token counts, so a template on its side cannot be told", name)
    if facts.embeds:
        logger.warning(
            "%s answers /v1/embeddings too: it is an embedding server, whose /score is the cosine of two vectors", name
        )
    logger.info("%s: %s", name, side.why)
    served.record_server(rerank=[asdict(facts) for facts in asked], template=side.why)
    return side


def halves(items: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    """Halves a batch, to find the item that a server refuses."""
    middle = (len(items) + 1) // 2
    return items[:middle], items[middle:]
