"""A session with the servers of one model: they are probed once; after that there are plain values and a way to send.

:func:`open_session` is the only place where the servers are probed, checked before a run, and asked for their template.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from evalscope_vacc.catalog import find
from evalscope_vacc.checks.findings import Report
from evalscope_vacc.checks.preflight import preflight
from evalscope_vacc.config import ModelConfig
from evalscope_vacc.errors import (
    AuthenticationError,
    BadAnswerError,
    ConfigError,
    ModelNotServedError,
    NotFiniteError,
    RequestRefusedError,
    ServerError,
)
from evalscope_vacc.evidence import TaskUsage
from evalscope_vacc.messages import Words
from evalscope_vacc.models.served import Served
from evalscope_vacc.plugins import plugins
from evalscope_vacc.progress import watcher
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
    require_model,
    spoken,
    tokenize_counter,
)
from evalscope_vacc.wire.trial import FIRST, Seen, try_pairs, try_texts

logger = logging.getLogger(__name__)

# so many requests to /tokenize are never in the way
_FEW_COUNTS = 64

# how services call the size of a vector
_SIZES = ("dimensions", "dimension", "output_dimension")
_CUT_HERE = "; texts that are too long are cut here, which needs the server's /tokenize or `tokenizer:`"

T = TypeVar("T")


@dataclass
class Session:
    """What the servers of a model are, and the connections to them.

    Attributes:
        served: The model as it is configured.
        engine: The connections.
        facts: What holds for all the servers.
        dialect: Their protocol.
        limit: Tokens that a text (or a pair, on a cross-encoder) may have; None if it is unknown.
        side: On which side a cross-encoder's template is applied.
        pairwise: Whether the limit counts the pair (a cross-encoder) or each text (an embedding server).
        see: Sees whether the servers cut to so many tokens, and returns the dialect with that; for a limit that was not
            known when the session was opened.
        report: What the short check before the run found; None where it is switched off.
        counter: Counts tokens: the local tokenizer where one is configured, else the server's, else None.
    """

    served: Served
    engine: Engine
    facts: ServerFacts
    dialect: Dialect
    limit: int | None
    see: Callable[[int], Dialect]
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
        texts = None if self.config.is_cross_encoder else self.dialect.max_batch
        most = (self.facts.max_batch, texts, self.engine.limits.items)
        return int(min([wanted, *(limit for limit in most if limit)]))

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
        self.dialect = self.see(tokens)

    def fields(self, side: str | None, task_type: str = "") -> dict[str, Any]:
        """Returns the further fields of a request for texts of one side (None in tasks without sides)."""
        name = self.config.model_name
        return {**self.dialect.side(name, side or "", task_type), **self.config.body_fields(side)}

    # -- counting tokens -----------------------------------------------------------------------------------------

    def _make_counter(self) -> TokenCounter | None:
        if self.config.tokenizer:
            return LocalTokenizer(self.config.tokenizer)
        if not self.facts.tokenize:
            return None
        ask = tokenize_counter(self.engine, self.dialect, self.config.model_name)
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
        name, dialect = self.config.model_name, self.dialect
        requests = (
            Request(*dialect.counting(name, text), 1, tag=text, describe="counting the tokens of a text")
            for text in dict.fromkeys(texts)
            if text not in self._counted
        )
        for request, count in self.engine.stream(requests, lambda _, answer: dialect.read_count(answer.body)):
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
        if evidence.wants((name, task.name, split, subset, side)):
            shown = "no instruction prefix"
            if instruction:
                shown = json.dumps(clean(instruction, limit=300), ensure_ascii=False)
            logger.debug("%s%s: %s", task.name or "texts", f" {side}" if side else "", shown)
        counts = TaskUsage(name, task.name, split, subset, side, instruction)
        usage = self.engine.usage
        before = (usage.requests, usage.retries, usage.seconds, usage.busy_share, usage.waited_seconds)
        start = time.monotonic()
        try:
            with self.engine.stops_on_interrupt():
                yield counts
        finally:
            counts.seconds = time.monotonic() - start
            if counts.unique == counts.stored:  # nothing was sent, and that is known
                counts.tokens, counts.at_limit = counts.tokens or 0, counts.at_limit or 0
            counts.requests = usage.requests - before[0]
            counts.retries = usage.retries - before[1]
            counts.waited = round(usage.waited_seconds - before[4], 3)
            seconds = usage.seconds - before[2]
            if seconds > 0:
                busy = usage.busy_share * usage.seconds - before[3] * before[2]
                counts.busy = round(min(1.0, max(0.0, busy / seconds)), 4)
            evidence.usage(counts)
        logger.debug("%s", counts.line())

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
        watching = watcher()
        with tqdm(total=total, desc=what, unit="text", mininterval=0.5, **hidden) as bar:
            tokens = sent = 0
            start = time.monotonic()
            for request, got in self.engine.stream(requests, parse):
                yield request, got
                tokens += getattr(got, "tokens", None) or 0
                if tokens:
                    bar.set_postfix_str(f"{tokens / max(time.monotonic() - start, 1e-6):,.0f} tokens/s", refresh=False)
                sent += request.items
                done = counts.texts - counts.unique + counts.stored + sent
                bar.update(done - bar.n)
                watching.moved(counts.side, done, total, sent, tokens)
            bar.update(counts.texts - bar.n)
            watching.moved(counts.side, counts.texts, total, sent, tokens)


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
    name = served.config.model_name
    auto = served.config.dialect.strip().lower() == "auto"
    asked = probe_all(engine, name, served.families.values(), None if auto else served.dialect)
    _take_root(served, asked)
    config = served.config
    common = in_common(asked)
    dialect = _choose_dialect(served, asked, auto=auto)
    limit = min((n for n in (config.max_tokens, common.max_model_len) if n), default=None)
    guess = auto and not common.family
    side, pairwise = TemplateSide(None), True
    rerank: list[RerankFacts] = []
    seen: list[Seen] = []
    try:
        if config.is_cross_encoder:
            rerank = [
                probe_reranker(engine, dialect, name, server=shown, extra=config.extra_body) for shown in engine.servers
            ]
            dialect, pairwise = rerank[0].dialect(dialect), not rerank[0].embeds
            see = partial(_try_pairs, served, engine, dialect, pairwise)
        else:
            see = partial(_try_texts, served, engine, asked, dialect, guess)
            dialect, seen, miscounts = _try_servers(served, engine, asked, dialect, limit, guess=guess)
            common = replace(common, tokenize=False) if miscounts else common
    except (RequestRefusedError, BadAnswerError) as error:
        raise _explained(error, name, asked, guess=guess) from None
    for facts in asked:
        if facts.serves(name) is False:
            shown = ", ".join(clean(other, limit=200) for other in facts.served[:5])
            logger.warning("%s does not list %r (it lists %s), but answers requests for it", facts.server, name, shown)
    _warn_of_two_prefixes(served, dialect)
    notes = [*config.notes, *served.rules.notes]
    for note in notes:
        logger.info("%s: %s", name, note)
    for warning in config.warnings:
        logger.warning("%s: %s", name, warning)
    served.evidence.config(served.name, {**config.public(), "notes": [*config.warnings, *notes]})
    served.record_server(servers=[asdict(facts) for facts in asked], dialect=dialect.name)
    if config.is_cross_encoder:
        side = _choose_side(served, rerank)
        if not dialect.truncates or side.template is not None or side.server_tokens:
            see = partial(_unchanged, dialect)
        dialect = dialect if limit is None else see(limit)
    limits = [each.limit for each in seen if each.limit is not None]
    report: Report | None = None
    if config.preflight and served.checks():
        report = preflight(config, engine, dialect, asked, rerank)
        told = [finding for finding in report.findings if finding.state != "ok"]
        served.record_server(
            preflight=[finding.line() for finding in told],
            preflight_zh=[finding.line(Words("zh")) for finding in told],
            preflight_checks={f.check: worst.state for f in report.findings if (worst := report.of(f.check))},
        )
    limit = min([*limits, *([limit] if limit else [])], default=None)
    return Session(served, engine, common, dialect, limit, see, side, pairwise, report)


def _choose_dialect(served: Served, asked: Sequence[ServerFacts], *, auto: bool) -> Dialect:
    """Returns the dialect to speak, and says what was found.

    Raises:
        ConfigError: The servers are of different families.
    """
    config, families = served.config, served.families
    found = sorted({facts.family for facts in asked})
    if auto and len(found) > 1:
        said = "; ".join(f"{facts.server}: {facts.family or 'not recognised'}" for facts in asked)
        raise ConfigError(f"model {config.model_name!r}: its servers are of different kinds ({said}): set `dialect`")
    facts = asked[0]
    if facts.family:
        title = families[facts.family].title or facts.family
        logger.info("%s: %s is %s (%s)", config.model_name, served.servers, title, facts.recognised_by)
        if not auto and facts.family != served.dialect.name:
            logger.warning(
                "%s: dialect is %s, but %s: write dialect: auto, or %s",
                config.model_name, config.dialect, facts.recognised_by, facts.family,
            )  # fmt: skip
    elif auto:
        logger.info("%s: %s was not recognised; it is treated like vLLM", config.model_name, served.servers)
    return spoken(served.dialect, facts, families, auto=auto)


def _warn_of_two_prefixes(served: Served, dialect: Dialect) -> None:
    """Says when a service that is told what a text is for, and puts its own prefix, would get ours too."""
    task = TaskInfo(name="", type="Retrieval", default_prompt="Retrieve text based on user query.")
    name = served.config.model_name
    fields, prefix = dialect.side(name, "query", task.type), served.rules.prefix(task, "query").text
    if fields and prefix:
        logger.warning(
            "%s: %s is told what a text is for (%s) and adds its own prefix, and %r is added here, too: write "
            "instruction_profile: none",
            name, dialect.title, ", ".join(fields), clean(prefix, limit=80),
        )  # fmt: skip


def _try_servers(
    served: Served,
    engine: Engine,
    asked: Sequence[ServerFacts],
    dialect: Dialect,
    limit: int | None,
    *,
    guess: bool,
) -> tuple[Dialect, list[Seen], bool]:
    """Sees what the servers do with two texts, says what is not as hoped, and writes all of it to the evidence.

    Returns:
        The dialect with what all of them were seen to do, what each was, and whether a /tokenize counts otherwise than
        its server reads.
    """
    config = served.config
    local = LocalTokenizer(config.tokenizer).count if config.tokenizer else None
    seen: list[Seen] = []
    told: list[dict[str, Any]] = []
    miscounts = False
    extra = {**dialect.side(config.model_name, "document", ""), **config.body_fields("document")}
    for shown, facts in zip(engine.servers, asked, strict=True):
        count = local or (tokenize_counter(engine, dialect, config.model_name, shown) if facts.tokenize else None)
        dialect, found = try_texts(
            engine, dialect, config.model_name, server=shown, limit=limit, extra=extra, count=count, guess=guess
        )
        wanted = next((extra[name] for name in _SIZES if type(extra.get(name)) is int), found.width)
        if found.width != wanted:
            raise ConfigError(
                f"model {config.model_name!r} on {shown}: extra_body asks for vectors of {wanted} numbers, the server "
                f"returns {found.width}: it ignores the field; write `dimensions` to cut vectors here"
            )
        seen.append(found)
        name = f"{config.model_name} on {shown}"
        if found.truncates is False:
            logger.warning("%s: truncation by the server is %s%s", name, found.truncation, _CUT_HERE)
        if found.base64 is False:
            logger.warning("%s: the server does not send base64, so plain numbers are requested", name)
        if found.counts == "characters":
            logger.warning("%s: the server counts characters, not tokens: its counts are not used", name)
        # what cuts texts here has to count as the server does
        counted = count(FIRST) if count is not None and (local is not None or not found.truncates) else None
        if counted is not None and found.counts == "tokens" and found.first_tokens not in (counted, limit):
            by = f"the tokenizer {config.tokenizer}" if local is not None else "its /tokenize"
            words = "%s: %s counts %d tokens in a text, and the server reads %s; %s"
            advice = "is it this model's?" if local is not None else "it is not used to cut texts: set `tokenizer:`"
            miscounts |= local is None
            logger.warning(words, name, by, counted, found.first_tokens, advice)
        told.append({**asdict(found), "counted": counted})
    served.record_server(seen=told)
    for found in seen:
        dialect = found.settled(dialect)
    return dialect, seen, miscounts


def _try_texts(
    served: Served, engine: Engine, asked: Sequence[ServerFacts], dialect: Dialect, guess: bool, limit: int
) -> Dialect:
    return _try_servers(served, engine, asked, dialect, limit, guess=guess)[0]


def _unchanged(dialect: Dialect, limit: int) -> Dialect:  # noqa: ARG001 -- whatever the limit is
    return dialect


def _try_pairs(served: Served, engine: Engine, dialect: Dialect, pairwise: bool, limit: int) -> Dialect:
    """Sees whether the servers cut a pair (or, on an embedding server, a text), and writes it to the evidence.

    Returns:
        The dialect with what all of them were seen to do.
    """
    config = served.config
    told: list[dict[str, Any]] = []
    for shown in engine.servers:
        if pairwise:
            truncates, words = try_pairs(engine, dialect, config.model_name, server=shown, extra=config.extra_body)
        else:
            _, found = try_texts(engine, dialect, config.model_name, server=shown, limit=limit, extra=config.extra_body)
            truncates, words = bool(found.truncates), found.truncation
        told.append({"server": shown, "truncates": truncates, "truncation": words})
        if not truncates:
            logger.warning("%s on %s: truncation by the server is %s%s", config.model_name, shown, words, _CUT_HERE)
    served.record_server(seen=told)
    return dialect if all(each["truncates"] for each in told) else dialect.changed(truncates=False)


def _explained(
    error: RequestRefusedError | BadAnswerError, name: str, asked: Sequence[ServerFacts], *, guess: bool
) -> ServerError:
    """Returns an error of the first real request with what is likely to be its reason."""
    if not isinstance(error, (AuthenticationError, NotFiniteError)):
        for facts in asked:
            try:
                require_model(facts, name)
            except ModelNotServedError as better:
                return better
        if guess:
            hint = " `dialect` is auto, and the server was not recognised: set `dialect`."
            error.args = (str(error) + hint, *error.args[1:])
    return error


def _take_root(served: Served, asked: Sequence[ServerFacts]) -> None:
    """Takes the rules of a model that is served under a name of its own, where the server tells its weights."""
    config, root = served.config, asked[0].root
    if config.entry is not None or find(config.model_name) is not None or not root:
        return
    parts = [part for part in root.replace("\\", "/").split("/") if part]
    entry = find(root) or next((entry for part in reversed(parts) if (entry := find(part)) is not None), None)
    if entry is None:
        return
    why = f"the server names its weights: {root}"
    if entry.is_cross_encoder != config.is_cross_encoder:
        kind = "a reranker" if entry.is_cross_encoder else "an encoder"
        logger.warning("%s is %s (%s), which is %s", config.model_name, entry.name, why, kind)
        return
    logger.warning("%s is %s (%s): its rules are used", config.model_name, entry.name, why)
    served.known_as(entry, why)


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
    entry = config.entry or find(config.model_name)
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
            "applied here; or write rerank_template: none to use the server's fixed instruction"
        )
    if side.conflict == "doubled":
        raise ConfigError(
            f"{name}: rerank_template is {config.rerank_template}, but the server wraps every pair in a template of its "
            f"own ({facts.prompt_tokens_short} tokens for a pair of two letters): a template that is "
            "applied twice makes scores wrong. Start it without --chat-template, or write rerank_template: auto or none"
        )
    if config.rerank_template == "none" and facts.template != "server" and entry is not None and entry.template_family:
        logger.warning(
            "%s: %s needs the template %s; without it its scores are close to random: write rerank_template: auto",
            name,
            entry.name,
            entry.template_family,
        )
    if facts.template is None and side.template is not None:
        logger.warning("%s: the server reports no token counts, so it is unknown whether it applies a template", name)
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
