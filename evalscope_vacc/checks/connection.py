"""Reachable, key, name, version, limits: what has to hold before a single text is sent."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

from evalscope_vacc.checks.findings import Finding
from evalscope_vacc.checks.target import NothingMoreError, Target
from evalscope_vacc.errors import (
    AuthenticationError,
    BadAnswerError,
    EngineDeadError,
    ModelNotServedError,
    NotFiniteError,
    RequestRefusedError,
    ServerError,
    ServerFaultError,
    ServerTimeoutError,
    ServerUnreachableError,
)
from evalscope_vacc.names import nearest
from evalscope_vacc.plugins import plugins
from evalscope_vacc.redact import clean
from evalscope_vacc.wire.dialects import DIALECTS
from evalscope_vacc.wire.engine import Engine
from evalscope_vacc.wire.probe import probe, spoken

WAIT_S = 5.0
_PAUSE_S = 0.25
_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")


def first_contact(engine: Engine, *, wait_s: float = WAIT_S) -> tuple[tuple[str, ...], float]:
    """Waits for a server's first answer, never longer than ``wait_s`` in all.

    Returns:
        The names that it serves (none where it does not list them), and the seconds of the answer.

    Raises:
        ServerError: There was no answer in that time, or the key is refused.
    """
    until = time.monotonic() + wait_s
    while True:
        left = until - time.monotonic()
        try:
            answer = engine.call("GET", "/v1/models", retry=False, timeout_s=max(0.2, left))
        except AuthenticationError:
            raise
        except RequestRefusedError:
            # it is there, and has no such list
            return (), 0.0
        except (ServerUnreachableError, ServerFaultError) as error:
            if isinstance(error, ServerTimeoutError) or time.monotonic() + _PAUSE_S >= until:
                raise
            time.sleep(_PAUSE_S)
        else:
            return _names(answer.body), answer.seconds


def check_contact(target: Target) -> Iterator[Finding]:
    """Whether the server answers and accepts the key."""
    _, seconds = first_contact(target.engine)
    yield target.finding("reachable", "ok", f"answers in {seconds * 1000:.0f} ms")
    yield target.finding("key", "ok", "the key is accepted" if target.config.api_key else "no key is asked for")


def check_facts(target: Target) -> Iterator[Finding]:
    """Name, version and limits, as the server states them."""
    families = {name: make() for name, make in {**DIALECTS, **plugins().dialects()}.items()}
    auto = target.config.dialect.strip().lower() == "auto"
    facts = target.facts = probe(
        target.engine,
        target.config.model_name,
        server=target.server,
        families=families.values(),
        configured=None if auto else target.dialect,
    )
    target.dialect = spoken(target.dialect, facts, families, auto=auto)
    yield from _model(target)
    yield _version(target)
    yield _max_length(target)
    if facts.tokenize or target.config.tokenizer:
        by = "the configured tokenizer" if target.config.tokenizer else "the server's /tokenize"
        yield target.finding("token-counts", "ok", f"by {by}")
    elif target.dialect.truncates and target.config.truncate == "cut" and target.config.rerank_template == "none":
        yield target.finding(
            "token-counts",
            "ok",
            "no /tokenize and no `tokenizer:`; the server cuts by itself",
            "how many texts were cut is not known afterwards",
        )
    else:
        yield target.finding(
            "token-counts",
            "warning",
            "the server has no /tokenize and no `tokenizer:` is configured",
            "a text that may be too long stops the run: it cannot be cut here",
            "set `tokenizer:` to the model's folder, its tokenizer.json or its hub name",
        )


def _model(target: Target) -> Iterator[Finding]:
    facts, name = target.facts, target.config.model_name
    if facts is None or facts.serves(name) is None:
        yield target.finding("model", "warning", f"the server does not list its models, so {name!r} is not confirmed")
        return
    if facts.serves(name):
        root = f", loaded from {facts.root}" if facts.root else ""
        yield target.finding("model", "ok", f"serves {name!r}{root}")
        return
    names = [clean(served, limit=200) for served in facts.served]
    near = nearest(name, names, 3, likeness=0.3) or names[:5]
    yield target.finding(
        "model",
        "wrong",
        f"{name!r} is not served; {', '.join(map(repr, near))} is",
        "every request will be refused",
        f"set model_name to {near[0]!r}" if near else "",
    )
    raise NothingMoreError


def _version(target: Target) -> Finding:
    said = target.facts.version if target.facts else None
    if said is None:
        return target.finding("version", "warning", "the server does not tell its version", "", "note it yourself")
    match = _VERSION.match(said)
    number = tuple(int(part or 0) for part in match.groups()) if match else ()
    if number and number < (0, 9, 2):
        return target.finding(
            "version",
            "warning",
            said,
            "older than the oldest vLLM (0.9.2) that this was tried with",
            "use 0.9.2 or later",
        )
    if number and number <= (0, 10, 1) and target.config.is_cross_encoder:
        return target.finding(
            "version",
            "warning",
            said,
            "vLLM up to 0.10.1 computes a reranker's last layer in bfloat16: its scores are grainy and tie",
            "use a later version for published comparisons",
        )
    return target.finding("version", "ok", said)


def _max_length(target: Target) -> Finding:
    has = target.facts.max_model_len if target.facts else None
    wants = target.config.max_tokens
    if has is None and wants is None:
        return target.finding(
            "max-length",
            "warning",
            "the server does not tell it, and max_tokens is not set",
            "texts that are too long are refused or cut without a word",
            "set max_tokens",
        )
    if has is None:
        return target.finding("max-length", "ok", f"not told by the server; texts are cut at max_tokens = {wants}")
    if wants is not None and wants > has:
        return target.finding(
            "max-length",
            "warning",
            f"the server takes {has} tokens, max_tokens is {wants}",
            f"texts are cut at {has}: on tasks with long documents the score is another than with {wants}",
            f"start the server with --max-model-len {wants} or more",
        )
    return target.finding("max-length", "ok", f"{has} tokens; texts are cut at {target.limit}")


def _names(body: bytes) -> tuple[str, ...]:
    try:
        listed = json.loads(body)
    except ValueError:
        return ()
    entries = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(entries, list):
        return ()
    return tuple(e["id"] for e in entries[:10_000] if isinstance(e, dict) and isinstance(e.get("id"), str))


def from_error(target: Target, error: ServerError, check: str) -> Finding:
    """What an error of a request says about the server.

    Args:
        target: The server.
        error: What was raised.
        check: The question that the request was to answer.
    """
    seen = str(error)
    if isinstance(error, AuthenticationError):
        sent = (
            "the key that was sent is refused" if target.config.api_key else "a key is asked for and none is configured"
        )
        return target.finding(
            "key", "wrong", f"{sent} ({seen})", "nothing can be asked", "set api_key, or export VACC_API_KEY"
        )
    if isinstance(error, ModelNotServedError):
        return target.finding(
            "model", "wrong", seen, "every request will be refused", "set model_name to what /v1/models lists"
        )
    if isinstance(error, EngineDeadError):
        return target.finding("reachable", "wrong", seen, "the server lives, its engine does not", "restart the server")
    if isinstance(error, ServerTimeoutError):
        action = "see whether the server is overloaded or still loading"
        return target.finding("reachable", "wrong", seen, "a run would wait, then stop", action)
    if isinstance(error, ServerUnreachableError):
        return target.finding(
            "reachable",
            "wrong",
            seen,
            "nothing can be asked",
            "start the server, or correct api_base (host, port, scheme)",
        )
    if isinstance(error, ServerFaultError):
        return target.finding("reachable", "wrong", seen, "the server fails", "read the server's own log")
    if isinstance(error, NotFiniteError):
        return target.finding(
            "finite",
            "wrong",
            seen,
            "NaN or infinity comes out of the model: an overflow in its number format, or a broken kernel",
            "serve with --dtype bfloat16 or float32 instead of float16, or without graph compilation (--enforce-eager)",
        )
    if isinstance(error, BadAnswerError):
        return target.finding(
            "answers", "wrong", seen, "a run would stop at this answer", "check `dialect` and the server"
        )
    return target.finding(check, "wrong", seen, "a run would be refused in the same way", "see the server's words")
