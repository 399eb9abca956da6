"""Asks a server what it is: version, models, limits, and whether a reranker applies a template by itself.

Only what every run needs is asked; servers that lack an endpoint leave a None, not an error. A server that cannot be
reached, refuses the key, or is not there at all, is an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from evalscope_vacc.errors import (
    AuthenticationError,
    BadAnswerError,
    EngineDeadError,
    ModelNotServedError,
    RequestRefusedError,
    ServerError,
    ServerFaultError,
    VaccError,
)
from evalscope_vacc.names import nearest
from evalscope_vacc.redact import clean
from evalscope_vacc.wire.address import normalize_base, public_base
from evalscope_vacc.wire.dialects import DIALECTS, Dialect, Introduction, VllmDialect
from evalscope_vacc.wire.engine import Engine
from evalscope_vacc.wire.messages import Answer
from evalscope_vacc.wire.parsing import check_no_error, parse
from evalscope_vacc.wire.refusals import SPLITTABLE_STATUS, is_missing_route, with_context

# A pair of single letters has 2 tokens in a causal reranker, 5 to 8 with the special tokens of BERT and XLM-RoBERTa;
# Qwen3-Reranker's template makes 116 of it.
_TEMPLATE_TOKENS = 20
# far more tokens than any difference between two counts of the same pair
_LONG_INSTRUCTION = " ".join(["Judge whether the document answers the question of the user."] * 6)
_INSTRUCTION_TOKENS = 20
# where nothing is counted, an instruction that arrives shows in the score; far more than rounding makes
_OTHER_SCORE = 1e-3
_WORD = "reproducibility"


@dataclass(frozen=True)
class ServerFacts:
    """What a server says of itself.

    Attributes:
        server: Its address, as it may be printed.
        version: vLLM's version, or None.
        served: Names of the models that it serves, its aliases included; empty where it does not say.
        max_model_len: Tokens that the model takes, or None.
        root: Where the server loaded the model from (a path or a hub name), or None.
        tokenize: Whether its /tokenize counts tokens.
        max_batch: Texts, or documents, that it takes in one request, or None where it does not say.
        family: The name of the dialect that it is recognised as speaking, or "".
        recognised_by: What that is concluded from.
        models_path: Where its list of models is, or "".
        auto_truncate: Whether it says that it cuts long texts by itself; None where it does not say.
    """

    server: str
    version: str | None = None
    served: tuple[str, ...] = ()
    max_model_len: int | None = None
    root: str | None = None
    tokenize: bool = False
    max_batch: int | None = None
    family: str = ""
    recognised_by: str = ""
    models_path: str = ""
    auto_truncate: bool | None = None

    def serves(self, model: str) -> bool | None:
        """Whether the server's list has this name, or a pattern such as ``*`` for it; None where it does not say."""
        if not self.served:
            return None
        return model in self.served or any("*" in name and fnmatchcase(model, name) for name in self.served)


@dataclass(frozen=True)
class RerankFacts:
    """How a reranker is served.

    Attributes:
        server: Its address, as it may be printed.
        template: "server": it puts a template around every pair; "none": it takes the texts as they are; None: it
            does not report token counts, so nobody knows.
        takes_instruction: Whether an instruction sent with a request reaches the template; None: not known.
        prompt_tokens_short: Tokens that it counts for the pair "a", "b"; None where it does not report them.
        embeds: Whether /v1/embeddings answers with vectors: then the scores are cosines of an embedding model.
        path: The endpoint that answered: the dialect's, or the one of its fallback.
        characters: Whether its counts are of characters, not tokens; ``prompt_tokens_short`` is None then.
    """

    server: str
    template: Literal["none", "server"] | None
    takes_instruction: bool | None
    prompt_tokens_short: int | None
    embeds: bool
    path: str
    characters: bool = False

    def dialect(self, asked: Dialect) -> Dialect:
        """Returns the dialect that answered: the one that was asked for, or its fallback."""
        spoken = asked if self.path == asked.scores_path else asked.fallback() or asked
        return spoken.changed(counts=False) if self.characters else spoken


def probe(
    engine: Engine,
    model: str,
    *,
    server: str | None = None,
    families: Iterable[Dialect] | None = None,
    configured: Dialect | None = None,
) -> ServerFacts:
    """Asks one server what it is; three small requests, two more where it has no /v1/models.

    Args:
        engine: Connections to the servers.
        model: The name that requests will carry.
        server: Address of the server to ask; None = the first one.
        families: The dialects that it may speak; None = ours.
        configured: The one that it is spoken to in whatever it is; None = the recognised one, else vLLM's.

    Raises:
        ServerUnreachableError: It cannot be reached, also not after retries and waiting.
        AuthenticationError: It refuses the key.
        ServerFaultError: It fails.
    """
    shown = server if server is not None else engine.servers[0]
    said = _introduction(engine, shown)
    families = [make() for make in DIALECTS.values()] if families is None else list(families)
    dialect, why = next(((each, why) for each in families if (why := each.recognises(said))), (None, ""))
    speaks = configured or dialect or VllmDialect()
    entries = [entry for entry in said.models if isinstance(entry.get("id"), str)]
    served = tuple(entry["id"] for entry in entries)
    mine = [entry for entry in entries if entry["id"] == model] or (entries if len(entries) == 1 else [])
    return ServerFacts(
        public_base(normalize_base(shown)),
        _text(said.version.get("version")),
        served,
        _count(speaks.max_tokens(mine[0]) if mine else said.info.get("max_input_length")),
        _text(mine[0].get("root") if mine else said.info.get("model_id")),
        _counts_tokens(engine, speaks, model, shown),
        _count(said.info.get("max_client_batch_size")),
        family="" if dialect is None else dialect.name,
        recognised_by=why,
        models_path=said.models_path,
        auto_truncate=said.info.get("auto_truncate") if isinstance(said.info.get("auto_truncate"), bool) else None,
    )


def _introduction(engine: Engine, server: str) -> Introduction:
    """Collects what a server says of itself."""
    found: list[Answer] = []
    listed, path = _ask(engine, "GET", "/v1/models", server, found), "/v1/models"
    version = _optional(engine, "GET", "/version", server)
    info: Mapping[str, Any] | None = None
    if listed is None:
        # infinity without a prefix lists them here; text-embeddings-inference has no list and describes itself
        listed, path = _optional(engine, "GET", "/models", server), "/models"
        info = _optional(engine, "GET", "/info", server) if listed is None else None
    liveliness = "" if version or info else _said(engine, "/health/liveliness", server)
    models = _list(listed.get("data"))[:10_000] if listed is not None else []
    headers = {name.lower(): value for answer in found for name, value in answer.headers.items()}
    return Introduction(
        public_base(normalize_base(server)),
        models,
        path if listed is not None else "",
        headers,
        version or {},
        info or {},
        liveliness,
    )


def _said(engine: Engine, path: str, server: str) -> str:
    """Returns the first words of an endpoint that may be missing, which need not be JSON; "" where there are none."""
    try:
        return engine.call("GET", path, server=server).body[:200].decode(errors="replace")
    except EngineDeadError:
        raise
    except (RequestRefusedError, BadAnswerError, ServerFaultError):
        return ""


def spoken(asked: Dialect, facts: ServerFacts, families: Mapping[str, Dialect], *, auto: bool) -> Dialect:
    """Returns the dialect to speak with a server.

    Args:
        asked: The one that is configured, or the guess.
        facts: What the server said.
        families: Those that it may have been recognised as speaking, by name.
        auto: Whether it is a guess, in whose place the recognised one is taken.
    """
    dialect = families.get(facts.family) if auto or facts.family == asked.name else None
    said = Introduction(facts.server, models_path=facts.models_path)
    return asked if dialect is None else dialect.at(said)


def require_model(facts: ServerFacts, model: str) -> None:
    """Refuses a server that lists its models without this one.

    Raises:
        ModelNotServedError: It does; the nearest names are offered.
    """
    if facts.serves(model) is not False:
        return
    names = [clean(name, limit=200) for name in facts.served]
    near = nearest(model, names, 3, likeness=0.3) or names[:5]
    raise ModelNotServedError(
        f"{facts.server} does not serve {model!r}; it serves {', '.join(map(repr, near))}: set model_name to one of them",
        server=facts.server,
        path=facts.models_path or "/v1/models",
    )


def in_common(asked: Sequence[ServerFacts]) -> ServerFacts:
    """Returns what holds for all servers of a model: the first one's words, and the least of each limit."""
    lengths = [facts.max_model_len for facts in asked if facts.max_model_len]
    batches = [facts.max_batch for facts in asked if facts.max_batch]
    return replace(
        asked[0],
        max_model_len=min(lengths, default=None),
        tokenize=all(facts.tokenize for facts in asked),
        max_batch=min(batches, default=None),
    )


def probe_all(
    engine: Engine, model: str, families: Iterable[Dialect] | None = None, configured: Dialect | None = None
) -> tuple[ServerFacts, ...]:
    """Asks every server; see :func:`probe`."""
    families = None if families is None else list(families)
    return tuple(
        probe(engine, model, server=server, families=families, configured=configured) for server in engine.servers
    )


def probe_reranker(
    engine: Engine,
    dialect: Dialect,
    model: str,
    *,
    server: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> RerankFacts:
    """Finds out whether a reranker applies a template, and whether it takes an instruction; three small requests.

    A pair of single letters is scored and the server's token count read: a template shows in it. The same with a long
    instruction tells whether that arrives. An embedding model answers /v1/score, too (with the cosine), so
    /v1/embeddings is asked as well.

    Args:
        engine: Connections to the servers.
        dialect: The kind of server.
        model: The name that requests will carry.
        server: Address of the server to ask; None = the first one.
        extra: Further fields of every request for scores.

    Raises:
        ServerError: It gives no scores.
    """
    shown = server if server is not None else engine.servers[0]
    asking = _Pairs(engine, model, shown, extra or {})
    try:
        path, score, tokens = asking.score(dialect)
    except RequestRefusedError as error:
        other = dialect.fallback()
        # SGLang has a /v1/score of another kind, which refuses the fields
        if other is None or not (is_missing_route(error) or error.status in SPLITTABLE_STATUS):
            raise
        try:
            path, score, tokens = asking.score(other)
        except ServerError:
            if is_missing_route(error):
                raise
            raise error from None
        dialect = other
    # a causal model has one token for each letter, and infinity counts characters: a word tells them apart
    characters = tokens == 2 and asking.score(dialect, document=_WORD)[2] == 1 + len(_WORD)
    tokens = None if characters else tokens
    template: Literal["none", "server"] | None = None
    if tokens is not None:
        template = "server" if tokens >= _TEMPLATE_TOKENS else "none"
    takes = _takes_instruction(asking, dialect, score, tokens)
    embeds = _embeds(engine, dialect, model, shown)
    return RerankFacts(public_base(normalize_base(shown)), template, takes, tokens, embeds, path, characters)


def tokenize_counter(engine: Engine, dialect: Dialect, model: str, server: str | None = None) -> Callable[[str], int]:
    """Returns a function that counts a text's tokens with the server's /tokenize, special tokens included.

    The function raises ServerError when the server does not count.
    """

    def count(text: str) -> int:
        path, payload = dialect.counting(model, text)
        answer = engine.call("POST", path, payload, server=server, describe="counting the tokens of a text")
        try:
            return dialect.read_count(answer.body)
        except BadAnswerError as error:
            raise with_context(error, answer, path, engine.secrets) from None

    return count


def _counts_tokens(engine: Engine, dialect: Dialect, model: str, server: str) -> bool:
    try:
        tokenize_counter(engine, dialect, model, server)("a")
    except EngineDeadError:
        raise
    except (RequestRefusedError, BadAnswerError, ServerFaultError):
        return False
    return True


def _ask(engine: Engine, method: str, path: str, server: str, found: list[Answer]) -> dict[str, Any] | None:
    """Asks something that may be missing, but must not be refused; None where it is missing.

    The answer itself goes into ``found``.
    """
    try:
        answer = engine.call(method, path, server=server)
    except AuthenticationError:
        raise
    except RequestRefusedError as error:
        if is_missing_route(error):
            return None
        raise
    found.append(answer)
    try:
        return _document(answer, path, engine.secrets)
    except BadAnswerError:
        return None


def _optional(
    engine: Engine, method: str, path: str, server: str, payload: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """Asks something that does not matter when it is missing, refused or broken."""
    try:
        answer = engine.call(method, path, payload, server=server)
        return _document(answer, path, engine.secrets)
    except EngineDeadError:
        raise
    except (RequestRefusedError, BadAnswerError, ServerFaultError):
        return None


def _document(answer: Answer, path: str, secrets: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the JSON object of an answer.

    Raises:
        BadAnswerError: It is not one, or it carries an error.
    """
    try:
        document = parse(answer.body)
        check_no_error(document)
    except BadAnswerError as error:
        raise with_context(error, answer, path, secrets) from None
    if not isinstance(document, dict):
        msg = f"{answer.server}{path} did not answer with a JSON object"
        raise BadAnswerError(msg, server=answer.server, status=answer.status, path=path)
    return document


@dataclass(frozen=True)
class _Pairs:
    """One server that is asked for the score of a pair of single letters, again and again a little differently."""

    engine: Engine
    model: str
    server: str
    extra: Mapping[str, Any]

    def score(
        self, dialect: Dialect, document: str = "b", instruction: str | None = None
    ) -> tuple[str, float, int | None]:
        """Returns path, score and token count of the pair of "a" and a document."""
        more: dict[str, Any] = {"extra": self.extra} if self.extra else {}
        path, body = dialect.scores(self.model, "a", [document], instruction=instruction, **more)
        answer = self.engine.call(
            "POST", path, json.loads(body), server=self.server, describe="a pair of single letters"
        )
        try:
            got = dialect.read_scores(answer.body, 1)
        except BadAnswerError as error:
            raise with_context(error, answer, path, self.engine.secrets) from None
        return path, float(got.values[0]), got.tokens


def _takes_instruction(asking: _Pairs, dialect: Dialect, score: float, short: int | None) -> bool | None:
    try:
        _, other, tokens = asking.score(dialect, instruction=_LONG_INSTRUCTION)
    except EngineDeadError:
        raise
    except VaccError:
        # refused, or a dialect that cannot send one; without counts that says nothing of the template
        return None if short is None else False
    if tokens is None or short is None:
        return True if abs(other - score) > _OTHER_SCORE else None
    return abs(tokens - short) >= _INSTRUCTION_TOKENS


def _embeds(engine: Engine, dialect: Dialect, model: str, server: str) -> bool:
    path, body = dialect.embeddings(model, ["a"], truncate_to=None)
    try:
        answer = engine.call("POST", path, json.loads(body), server=server)
        got = dialect.read_embeddings(answer.body, 1)
    except EngineDeadError:
        raise
    except (RequestRefusedError, BadAnswerError, ServerFaultError):
        return False
    # llama.cpp answers for a reranker, too, with its score and zeros
    return bool(got.values[0, 1:].any())


def _list(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _count(value: Any, least: int = 1) -> int | None:
    return value if type(value) is int and least <= value < 2**53 else None


def _text(value: Any) -> str | None:
    return clean(value, limit=500) if isinstance(value, str) and value else None
