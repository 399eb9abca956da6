"""What an encoder and a cross-encoder share: one served model, its server, its text rules, its store, its evidence."""

from __future__ import annotations

import difflib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from evalscope_vacc.config import ModelConfig
from evalscope_vacc.errors import ConfigError, ModelNotServedError
from evalscope_vacc.evidence import Evidence, TaskUsage, new_run_folder
from evalscope_vacc.models.meta import build_meta, experiment_kwargs, result_name
from evalscope_vacc.plugins import plugins
from evalscope_vacc.redact import clean
from evalscope_vacc.text.instructions import TextRules, make_rules
from evalscope_vacc.text.task import TaskInfo
from evalscope_vacc.text.truncation import CountingFunction, LocalTokenizer, TokenCounter
from evalscope_vacc.wire.dialects import Dialect, get_dialect
from evalscope_vacc.wire.engine import Answer, Connection, Engine, Request
from evalscope_vacc.wire.probe import ServerFacts, probe_all, read_token_count, tokenize_counter

logger = logging.getLogger(__name__)


_OWN_FIELDS = (
    "experiment_kwargs", "revision", "loader_kwargs", "model_type", "is_cross_encoder", "max_tokens", "embed_dim",
    "use_instructions",
)  # fmt: skip


# so many requests to /tokenize are never in the way
_FEW_COUNTS = 64


class Served:
    """One served model, opened when it is first needed.

    Args:
        config: The complete configuration.
        folder: Where the evidence goes; default a new folder under ``$VACC_HOME``.
        scope: Names the unfinished run for the store, so that a run started again finds its own entries.
    """

    def __init__(self, config: ModelConfig, *, folder: Path | None = None, scope: str = "") -> None:
        self.config = config
        self.scope = scope
        self._folder = folder
        self._lock = threading.RLock()
        self._engine: Engine | None = None
        self.settings: dict[str, Any] = experiment_kwargs(config)
        self._meta: Any = None
        self._server_record: dict[str, Any] = {}
        self._counted: dict[str, int] = {}
        # made at once: a missing dictionary or an unknown profile must stop a run before anything is sent
        self.rules: TextRules = make_rules(config, extra=plugins().instruction_profiles())
        self.dialect: Dialect = get_dialect(config.dialect, extra=plugins().dialects())

    # -- names ---------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name that results, evidence and messages use."""
        return result_name(self.config.model_name)

    def settle(self, **settings: Any) -> None:
        """Adds what only the host knows (first stage, top_k) to the result's name."""
        self.settings = experiment_kwargs(self.config, **settings)
        self._meta = None

    @property
    def mteb_model_meta(self) -> Any:
        """MTEB's ``ModelMeta`` of this model."""
        if self._meta is None:
            self._meta = build_meta(self.config, settings=self.settings)
        return self._meta

    @mteb_model_meta.setter
    def mteb_model_meta(self, meta: Any) -> None:
        # MTEB puts every keyword of get_model() here, API keys included, and writes it to disk: keep our own. What it
        # made the meta of was the name alone: the keywords may have made a cross-encoder of it
        own = build_meta(self.config, settings=self.settings)
        update = {name: getattr(own, name) for name in _OWN_FIELDS if name in type(meta).model_fields}
        self._meta = meta.model_copy(update=update)

    # -- the server ----------------------------------------------------------------------------------------------

    @property
    def engine(self) -> Engine:
        """The connections to the server, opened on first use."""
        with self._lock:
            if self._engine is None:
                config = self.config
                self._engine = Engine(
                    Connection(
                        bases=config.bases,
                        api_key=config.api_key,
                        headers=dict(config.headers),
                        verify=config.verify,
                        trust_env=config.trust_env,
                        timeout_s=config.timeout_s,
                        retries=config.retries,
                        wait_for_server_s=config.wait_for_server_s,
                        max_concurrency=config.max_concurrency,
                    )
                )
            return self._engine

    @cached_property
    def facts(self) -> ServerFacts:
        """What the servers say of themselves, asked once; with several, what holds for all of them.

        Raises:
            ModelNotServedError: A server lists its models and this one is not among them.
        """
        asked = probe_all(self.engine, self.config.model_name)
        for facts in asked:
            if facts.serves(self.config.model_name) is False:
                names = [clean(name, limit=200) for name in facts.served]
                near = difflib.get_close_matches(self.config.model_name, names, n=3, cutoff=0.3) or names[:5]
                raise ModelNotServedError(
                    f"{facts.server} does not serve {self.config.model_name!r}; it serves "
                    f"{', '.join(map(repr, near))}: set model_name to one of them",
                    server=facts.server,
                    path="/v1/models",
                )
        lengths = [facts.max_model_len for facts in asked if facts.max_model_len]
        batches = [facts.max_batch for facts in asked if facts.max_batch]
        common = replace(
            asked[0],
            max_model_len=min(lengths) if lengths else None,
            tokenize=all(facts.tokenize for facts in asked),
            max_batch=min(batches) if batches else None,
        )
        notes = [*self.config.notes, *self.rules.notes]
        for note in notes:
            logger.info("%s: %s", self.config.model_name, note)
        self.evidence.config(self.name, {**self.config.public(), "notes": notes})
        self.record_server(servers=[asdict(facts) for facts in asked])
        if self.config.preflight:
            from evalscope_vacc.checks.preflight import preflight

            report = preflight(self, asked)
            self.record_server(preflight=[finding.line() for finding in report.findings if finding.state != "ok"])
        return common

    @property
    def server_record(self) -> dict[str, Any]:
        """What the evidence says of the server."""
        self.facts  # noqa: B018 -- asked once
        return self._server_record

    def record_server(self, **facts: Any) -> None:
        """Adds to what the evidence says of the server."""
        self._server_record.update(facts)
        self.evidence.server(self.name, self._server_record)

    @property
    def servers(self) -> str:
        """The addresses as they may be printed."""
        return ", ".join(self.config.servers)

    @cached_property
    def limit(self) -> int | None:
        """Tokens that a text (or a pair, on a cross-encoder) may have; None where nobody says."""
        known = [n for n in (self.config.max_tokens, self.facts.max_model_len) if n]
        return min(known) if known else None

    def per_request(self, wanted: int) -> int:
        """Texts, or documents of one query, in one request: as many as wanted, at most what the servers take."""
        return min(wanted, self.facts.max_batch or wanted)

    @cached_property
    def counter(self) -> TokenCounter | None:
        """Counts tokens: the local tokenizer where one is configured, else the server's, else None."""
        if self.config.tokenizer:
            return LocalTokenizer(self.config.tokenizer)
        if self.facts.tokenize:
            ask = tokenize_counter(self.engine, self.config.model_name)
            # a language model reads the templated pair as one text: exact at the seam of the two
            overhead = None if self.config.rerank_template != "none" else 0
            return CountingFunction(
                lambda text: self._counted.pop(text) if text in self._counted else ask(text), pair_overhead=overhead
            )
        return None

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
        with self._lock:
            for request, count in self.engine.stream(requests, lambda _, answer: read_token_count(answer)):
                self._counted[request.tag] = count

    def need_counter(self, why: str) -> TokenCounter:
        """Returns the counter.

        Raises:
            ConfigError: There is none; the message says why one is needed and how to give one.
        """
        if self.counter is None:
            raise ConfigError(
                f"model {self.config.model_name!r}: {why}, and {self.servers} has no /tokenize: "
                "set `tokenizer:` to the model's folder, its tokenizer.json or its hub name"
            )
        return self.counter

    # -- evidence ------------------------------------------------------------------------------------------------

    @cached_property
    def evidence(self) -> Evidence:
        """The evidence of this run."""
        return Evidence(self._folder or new_run_folder())

    @contextmanager
    def counting(self, task: TaskInfo, split: str, subset: str, side: str, instruction: str) -> Iterator[TaskUsage]:
        """Counts one call of MTEB: what the engine did meanwhile, and how long it took; says so at the end."""
        counts = TaskUsage(self.name, task.name, split, subset, side, instruction)
        usage = self.engine.usage
        before = (usage.requests, usage.retries, usage.seconds, usage.busy_share)
        start = time.monotonic()
        try:
            yield counts
        finally:
            counts.seconds = time.monotonic() - start
            counts.requests = usage.requests - before[0]
            counts.retries = usage.retries - before[1]
            seconds = usage.seconds - before[2]
            if seconds > 0:
                busy = usage.busy_share * usage.seconds - before[3] * before[2]
                counts.busy = round(min(1.0, max(0.0, busy / seconds)), 4)
            self.evidence.usage(counts)
        logger.info("%s", counts.line())

    def announce(self, task: TaskInfo, split: str, subset: str, side: str, instruction: str) -> None:
        """Prints, once per task and side, which instruction is in use."""
        if self.evidence.wants(self.name, task.name, split, subset, side):
            shown = json.dumps(clean(instruction, limit=300), ensure_ascii=False) if instruction else "nothing added"
            logger.info("%s%s: %s", task.name or "texts", f" {side}" if side else "", shown)

    # -- sending -------------------------------------------------------------------------------------------------

    def send(
        self,
        requests: Iterator[Request],
        handle: Callable[[Request, Answer], None],
        *,
        what: str,
        total: int,
        shown: bool,
    ) -> None:
        """Sends every request and hands each answer to ``handle``, with MTEB's kind of progress bar.

        Args:
            requests: Made lazily; pulled only as slots become free.
            handle: Reads an answer; runs in this thread.
            what: Label of the bar.
            total: Items in all.
            shown: Whether the bar is shown.
        """
        from tqdm.auto import tqdm

        with self._lock, tqdm(total=total, desc=what, unit="text", disable=not shown, mininterval=0.5) as bar:
            tokens = 0
            start = time.monotonic()

            for request, _ in self.engine.stream(requests, handle):
                tokens += getattr(request.tag, "tokens", None) or 0
                if tokens:
                    bar.set_postfix_str(f"{tokens / max(time.monotonic() - start, 1e-6):,.0f} tokens/s", refresh=False)
                bar.update(request.items)

    def close(self) -> None:
        """Closes the connections; the model can be used again and opens new ones."""
        with self._lock:
            if self._engine is not None:
                self._engine.close()
                self._engine = None

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError("a served model holds connections and a key; build it anew in the other process")


def split_in_two(items: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """Halves a batch, to find the item that a server refuses."""
    middle = (len(items) + 1) // 2
    return items[:middle], items[middle:]
