"""Reachable, key, name, version, limits: what has to hold before a single text is sent."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

from evalscope_vacc import errors
from evalscope_vacc.checks.findings import Finding
from evalscope_vacc.checks.target import NothingMoreError, Target
from evalscope_vacc.names import nearest
from evalscope_vacc.plugins import plugins
from evalscope_vacc.redact import clean
from evalscope_vacc.wire.dialects import DIALECTS
from evalscope_vacc.wire.engine import Engine
from evalscope_vacc.wire.probe import ServerFacts, probe, spoken

WAIT_S = 5.0
_PAUSE_S = 0.25
_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")
# the first that fits: some are kinds of others
_ERRORS: tuple[tuple[type[errors.ServerError], str], ...] = (
    (errors.ModelNotServedError, "model.refused"),
    (errors.EngineDeadError, "reachable.engine"),
    (errors.ServerTimeoutError, "reachable.slow"),
    (errors.ServerUnreachableError, "reachable.dead"),
    (errors.ServerFaultError, "reachable.fault"),
    (errors.NotFiniteError, "finite.not"),
    (errors.BadAnswerError, "answers.bad"),
)


def first_contact(engine: Engine) -> tuple[tuple[str, ...], float]:
    """Waits up to five seconds for a server's first answer; returns the names that it lists, and the time it took.

    Raises:
        ServerError: There was no answer in that time, or the key is refused.
    """
    until = time.monotonic() + WAIT_S
    path = "/v1/models"
    while True:
        left = until - time.monotonic()
        try:
            answer = engine.call("GET", path, retry=False, timeout_s=max(0.2, left))
        except errors.AuthenticationError:
            raise
        except errors.RequestRefusedError:
            # it is there, and has no such list; infinity without a prefix has it elsewhere
            if path == "/models":
                return (), 0.0
            path = "/models"
        except (errors.ServerUnreachableError, errors.ServerFaultError) as error:
            if isinstance(error, errors.ServerTimeoutError) or time.monotonic() + _PAUSE_S >= until:
                raise
            time.sleep(_PAUSE_S)
        else:
            return _names(answer.body), answer.seconds


def _names(body: bytes) -> tuple[str, ...]:
    try:
        entries = json.loads(body)["data"][:10_000]
    except (ValueError, TypeError, KeyError):
        return ()
    return tuple(e["id"] for e in entries if isinstance(e, dict) and isinstance(e.get("id"), str))


def check_contact(target: Target) -> Iterator[Finding]:
    """Whether the server answers and accepts the key."""
    _, seconds = first_contact(target.engine)
    yield target.finding("reachable.ok", ms=seconds * 1000)
    yield target.finding("key.ok" if target.config.api_key else "key.none")


def introduce(target: Target) -> ServerFacts:
    """Probes the server and chooses its dialect; raises ServerError if it cannot be reached."""
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
    return facts


def check_facts(target: Target) -> Iterator[Finding]:
    """Name, version and limits, as the server states them."""
    facts = introduce(target)
    yield from _model(target, facts)
    yield _version(target, facts)
    has, wants = facts.max_model_len, target.config.max_tokens
    if has is None:
        yield target.finding("max-length.unknown" if wants is None else "max-length.own", wants=wants)
    elif wants is not None and wants > has:
        yield target.finding("max-length.less", has=has, wants=wants)
    else:
        yield target.finding("max-length.ok", has=has, limit=target.limit)
    config = target.config
    if config.tokenizer:
        yield target.finding("token-counts.tokenizer")
    elif facts.tokenize:
        yield target.finding("token-counts.server")
    elif target.dialect.truncates and config.truncate == "cut" and config.rerank_template == "none":
        yield target.finding("token-counts.unneeded")
    elif target.limit is None:
        yield target.finding("token-counts.no-limit")
    else:
        yield target.finding("token-counts.none", limit=target.limit)


def _model(target: Target, facts: ServerFacts) -> Iterator[Finding]:
    name = target.config.model_name
    served = facts.serves(name)
    names = [clean(other, limit=200) for other in facts.served]
    if served is None:
        yield target.finding("model.unlisted", name=name)
    elif served:
        yield target.finding("model.root" if facts.root else "model.ok", name=name, root=facts.root)
    elif target.answers(pairs=target.config.is_cross_encoder):
        yield target.finding("model.alias", name=name, listed=", ".join(names[:5]))
    else:
        near = nearest(name, names, 3, likeness=0.3) or names[:5]
        yield target.finding("model.other", name=name, near=", ".join(map(repr, near)), best=near[0])
        raise NothingMoreError


def _version(target: Target, facts: ServerFacts) -> Finding:
    said = facts.version
    if said is None:
        return target.finding("version.untold")
    match = _VERSION.match(said)
    number = tuple(int(part or 0) for part in match.groups()) if match else ()
    if number and number < (0, 9, 2):
        return target.finding("version.old", version=said)
    if number and number <= (0, 10, 1) and target.config.is_cross_encoder:
        return target.finding("version.grainy", version=said)
    return target.finding("version.ok", version=said)


def from_error(target: Target, error: errors.ServerError, check: str) -> Finding:
    """What an error of a request says about the server; ``check`` is the question that the request was to answer."""
    if isinstance(error, errors.AuthenticationError):
        code = "key.refused" if target.config.api_key else "key.missing"
    else:
        code = next((code for kind, code in _ERRORS if isinstance(error, kind)), f"{check}.request")
    return target.finding(code, error=error)
