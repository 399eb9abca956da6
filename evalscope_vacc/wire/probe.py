"""Asks a server what it is: version, models, limits, and whether a reranker applies a template by itself.

Only what every run needs is asked; servers that lack an endpoint leave a None, not an error. A server that cannot be
reached, refuses the key, or is not there at all, is an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from evalscope_vacc.errors import (
    AuthenticationError,
    BadAnswerError,
    EngineDeadError,
    ModelNotServedError,
    RequestRefusedError,
    ServerFaultError,
    VaccError,
)
from evalscope_vacc.names import nearest
from evalscope_vacc.redact import clean
from evalscope_vacc.wire.address import normalize_base, public_base
from evalscope_vacc.wire.dialects import Dialect
from evalscope_vacc.wire.engine import Engine
from evalscope_vacc.wire.messages import Answer
from evalscope_vacc.wire.parsing import check_no_error, parse
from evalscope_vacc.wire.refusals import is_missing_route, with_context

# A pair of single letters has 2 tokens in a causal reranker, 5 to 8 with the special tokens of BERT and XLM-RoBERTa;
# Qwen3-Reranker's template makes 116 of it.
_TEMPLATE_TOKENS = 20
# far more tokens than any difference between two counts of the same pair
_LONG_INSTRUCTION = " ".join(["Judge whether the document answers the question of the user."] * 6)
_INSTRUCTION_TOKENS = 20


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
    """

    server: str
    version: str | None = None
    served: tuple[str, ...] = ()
    max_model_len: int | None = None
    root: str | None = None
    tokenize: bool = False
    max_batch: int | None = None

    def serves(self, model: str) -> bool | None:
        """Whether the server serves this name; None where it does not say."""
        return model in self.served if self.served else None


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
        path: The endpoint that answered: "/v1/score", or the one of the dialect's fallback.
    """

    server: str
    template: Literal["none", "server"] | None
    takes_instruction: bool | None
    prompt_tokens_short: int | None
    embeds: bool
    path: str

    def dialect(self, asked: Dialect) -> Dialect:
        """Returns the dialect that answered: the one that was asked for, or its fallback."""
        return asked if self.path == "/v1/score" else asked.fallback() or asked


def probe(engine: Engine, model: str, *, server: str | None = None) -> ServerFacts:
    """Asks one server for its version and models; three small requests.

    Args:
        engine: Connections to the servers.
        model: The name that requests will carry.
        server: Address of the server to ask; None = the first one.

    Raises:
        ServerUnreachableError: It cannot be reached, also not after retries and waiting.
        AuthenticationError: It refuses the key.
        ServerFaultError: It fails.
    """
    shown = server if server is not None else engine.servers[0]
    listed = _ask(engine, "GET", "/v1/models", shown)
    served: tuple[str, ...] = ()
    max_model_len: int | None = None
    root: str | None = None
    version: str | None = None
    max_batch: int | None = None
    if listed is not None:
        entries = [e for e in _list(listed.get("data"))[:10_000] if isinstance(e.get("id"), str)]
        served = tuple(entry["id"] for entry in entries)
        mine = [entry for entry in entries if entry["id"] == model] or (entries if len(entries) == 1 else [])
        if mine:
            max_model_len = _count(mine[0].get("max_model_len"))
            root = _text(mine[0].get("root"))
    about = _optional(engine, "GET", "/version", shown)
    if about is not None:
        version = _text(about.get("version"))
    if max_model_len is None and listed is None:
        # text-embeddings-inference describes itself here
        info = _optional(engine, "GET", "/info", shown)
        if info is not None:
            max_model_len = _count(info.get("max_input_length"))
            root = _text(info.get("model_id"))
            max_batch = _count(info.get("max_client_batch_size"))
    counted = _optional(engine, "POST", "/tokenize", shown, {"model": model, "prompt": "a"})
    tokenize = counted is not None and _count(counted.get("count"), least=0) is not None
    return ServerFacts(public_base(normalize_base(shown)), version, served, max_model_len, root, tokenize, max_batch)


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
        path="/v1/models",
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


def probe_all(engine: Engine, model: str) -> tuple[ServerFacts, ...]:
    """Asks every server; see :func:`probe`."""
    return tuple(probe(engine, model, server=server) for server in engine.servers)


def probe_reranker(engine: Engine, dialect: Dialect, model: str, *, server: str | None = None) -> RerankFacts:
    """Finds out whether a reranker applies a template, and whether it takes an instruction; three small requests.

    A pair of single letters is scored and the server's token count read: a template shows in it. The same with a long
    instruction tells whether that arrives. An embedding model answers /v1/score, too (with the cosine), so
    /v1/embeddings is asked as well.

    Args:
        engine: Connections to the servers.
        dialect: The kind of server.
        model: The name that requests will carry.
        server: Address of the server to ask; None = the first one.

    Raises:
        ServerError: Scores cannot be had from it.
    """
    shown = server if server is not None else engine.servers[0]
    try:
        path, tokens = _score(engine, dialect, model, shown)
    except RequestRefusedError as error:
        other = dialect.fallback()
        if other is None or not is_missing_route(error):
            raise
        dialect = other
        path, tokens = _score(engine, dialect, model, shown)
    template: Literal["none", "server"] | None = None
    takes: bool | None = None
    if tokens is not None:
        template = "server" if tokens >= _TEMPLATE_TOKENS else "none"
        takes = _takes_instruction(engine, dialect, model, shown, tokens)
    return RerankFacts(
        public_base(normalize_base(shown)), template, takes, tokens, _embeds(engine, dialect, model, shown), path
    )


def tokenize_counter(engine: Engine, model: str) -> Callable[[str], int]:
    """Returns a function that counts a text's tokens with the server's /tokenize, special tokens included.

    The function raises ServerError when the server does not count.
    """

    def count(text: str) -> int:
        payload = {"model": model, "prompt": text}
        return read_token_count(engine.call("POST", "/tokenize", payload, describe="counting the tokens of a text"))

    return count


def read_token_count(answer: Answer) -> int:
    """Returns the count of a /tokenize answer.

    Raises:
        BadAnswerError: It holds none.
    """
    number = _count(_document(answer, "/tokenize").get("count"), least=0)
    if number is None:
        msg = f"{answer.server}/tokenize gave no count of tokens"
        raise BadAnswerError(msg, server=answer.server, status=answer.status, path="/tokenize")
    return number


def _ask(engine: Engine, method: str, path: str, server: str) -> dict[str, Any] | None:
    """Asks something that may be missing, but must not be refused; None where it is missing."""
    try:
        answer = engine.call(method, path, server=server)
    except AuthenticationError:
        raise
    except RequestRefusedError as error:
        if is_missing_route(error):
            return None
        raise
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


def _score(
    engine: Engine, dialect: Dialect, model: str, server: str, instruction: str | None = None
) -> tuple[str, int | None]:
    path, body = dialect.scores(model, "a", ["b"], instruction=instruction)
    answer = engine.call("POST", path, json.loads(body), server=server, describe="a pair of single letters")
    try:
        return path, dialect.read_scores(answer.body, 1).tokens
    except BadAnswerError as error:
        raise with_context(error, answer, path, engine.secrets) from None


def _takes_instruction(engine: Engine, dialect: Dialect, model: str, server: str, short: int) -> bool | None:
    try:
        _, tokens = _score(engine, dialect, model, server, instruction=_LONG_INSTRUCTION)
    except EngineDeadError:
        raise
    except VaccError:
        # refused, or a dialect that cannot send one
        return False
    return None if tokens is None else abs(tokens - short) >= _INSTRUCTION_TOKENS


def _embeds(engine: Engine, dialect: Dialect, model: str, server: str) -> bool:
    path, body = dialect.embeddings(model, ["a"], truncate_to=None)
    try:
        answer = engine.call("POST", path, json.loads(body), server=server)
        dialect.read_embeddings(answer.body, 1)
    except EngineDeadError:
        raise
    except (RequestRefusedError, BadAnswerError, ServerFaultError):
        return False
    return True


def _list(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _count(value: Any, least: int = 1) -> int | None:
    return value if type(value) is int and least <= value < 2**53 else None


def _text(value: Any) -> str | None:
    return clean(value, limit=500) if isinstance(value, str) and value else None
