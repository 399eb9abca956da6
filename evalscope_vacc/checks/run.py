"""The full check of one model: every server, every question, within a minute."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from evalscope_vacc.checks import connection, lengths, rules, sameness, scores, speed, vectors
from evalscope_vacc.checks.findings import Finding, Report
from evalscope_vacc.checks.target import NothingMoreError, OutOfTimeError, Target, connect
from evalscope_vacc.config import ModelConfig, configure
from evalscope_vacc.errors import (
    BadAnswerError,
    ConfigError,
    EngineDeadError,
    RequestRefusedError,
    ServerError,
    ServerFaultError,
)
from evalscope_vacc.plugins import plugins
from evalscope_vacc.redact import clean
from evalscope_vacc.wire.dialects import Dialect, get_dialect

BUDGET_S = 60.0

Check = Callable[[Target], Iterator[Finding]]
_CONNECTION: tuple[tuple[str, Check], ...] = (
    ("reachable", connection.check_contact),
    ("model", connection.check_facts),
    ("catalog", rules.check_configuration),
)
_ENCODER: tuple[tuple[str, Check], ...] = (
    ("kind", vectors.check_kind),
    ("prefix", rules.check_prefix),
    ("repeat", sameness.check_sameness),
    ("truncation", lengths.check_truncation),
    ("whole-texts", lengths.check_whole_texts),
    ("instruction", vectors.check_instruction),
    ("sanity", vectors.check_sanity),
    ("speed", speed.check_speed),
    ("concurrency", speed.check_concurrency),
    ("long-texts", lengths.check_long_texts),
)
_CROSS_ENCODER: tuple[tuple[str, Check], ...] = (
    ("kind", scores.check_kind),
    ("template", scores.check_template),
    ("repeat", sameness.check_sameness),
    ("whole-texts", lengths.check_whole_texts),
    ("sanity", scores.check_ranking),
    ("speed", speed.check_speed),
    ("concurrency", speed.check_concurrency),
    ("long-texts", lengths.check_long_pairs),
)


def check_model(config: ModelConfig, *, budget_s: float = BUDGET_S) -> Report:
    """Asks everything about one served model.

    Args:
        config: The complete configuration; how long a run would wait and how often it would repeat is not used.
        budget_s: Seconds in all; what is not answered by then is named in a warning.

    Returns:
        The findings; nothing that a server does raises.

    Raises:
        ConfigError: The configuration cannot be used (a dialect or template of no plugin).
    """
    start = time.monotonic()
    findings: list[Finding] = []
    targets: list[Target] = []
    share = budget_s / len(config.bases)
    kind = "cross-encoder" if config.is_cross_encoder else "encoder"
    for number, base in enumerate(config.bases):
        with connect(config, base) as engine:
            target = Target(
                config,
                engine,
                engine.servers[0],
                _dialect(config),
                several=len(config.bases) > 1,
                until=start + share * (number + 1),
            )
            targets.append(target)
            found = list(_ask_all(target, (*_CONNECTION, *(_CROSS_ENCODER if config.is_cross_encoder else _ENCODER))))
            findings += [*found, *_nothing_wrong(target, found)]
    findings += sameness.alike(targets)
    return Report(config.model_name, config.servers, kind, tuple(findings), time.monotonic() - start)


def _ask_all(target: Target, checks: Sequence[tuple[str, Check]]) -> Iterator[Finding]:
    for number, (name, check) in enumerate(checks):
        try:
            yield from check(target)
        except NothingMoreError:
            return
        except OutOfTimeError:
            left = ", ".join(name for name, _ in checks[number:])
            yield target.finding("time.over", left=left)
            return
        except ServerError as error:
            finding = connection.from_error(target, error, name)
            yield finding
            if finding.check in ("reachable", "key", "model") or (name == "kind" and not target.answered):
                return


def _nothing_wrong(target: Target, found: Sequence[Finding]) -> Iterator[Finding]:
    """The findings about answers in general: they are good where there were some and none was refused."""
    if target.answered and not {finding.check for finding in found} & {"finite", "answers"}:
        yield target.finding("finite.ok", answers=target.answered)
        yield target.finding("answers.ok", answers=target.answered)


def find_entry(
    url: str, *, model: str | None = None, api_key: str | None = None, dialect: str | None = None
) -> dict[str, Any]:
    """Returns a model's entry for a server of which only the address is known.

    The kind of the model comes from the catalog, else from what the server answers.

    Args:
        url: Its address, in any spelling.
        model: The served name; not needed where the server serves one model only.
        api_key: As in a model's entry.
        dialect: As in a model's entry.

    Raises:
        ConfigError: The address cannot be used, or the server serves several models and none was named.
        ServerError: The server did not answer within 5 seconds, or refuses the key.
    """
    where = clean(url, limit=200)
    entry = _entry(url, model, api_key, dialect)
    config = configure(entry, where=where)
    if len(config.bases) > 1:
        raise ConfigError("give one address, or a configuration file with a list in api_base")
    with connect(config, config.bases[0]) as engine:
        target = Target(config, engine, engine.servers[0], _dialect(config))
        names, _ = connection.first_contact(engine)
        if model is None:
            if len(names) != 1:
                shown = ", ".join(clean(name, limit=200) for name in names) or "no list of its models"
                raise ConfigError(f"{target.server} serves {shown}: say which with --model")
            entry["model_name"] = names[0]
            config = target.config = configure(entry, where=where)
        if target.entry is None:
            connection.introduce(target)
            entry["is_cross_encoder"] = bool(_is_cross_encoder(target))
            config = target.config = configure(entry, where=where)
        if config.is_cross_encoder and target.entry is None and scores.family_of(target):
            # its name says which template it was trained with; what a configuration should say then
            entry["rerank_template"] = "auto"
    return entry


def check_address(
    url: str,
    *,
    model: str | None = None,
    api_key: str | None = None,
    dialect: str | None = None,
    budget_s: float = BUDGET_S,
) -> Report:
    """Asks everything about a server of which only the address is known; see :func:`find_entry`.

    Args:
        url: Its address, in any spelling.
        model: The served name; not needed where the server serves one model only.
        api_key: As in a model's entry.
        dialect: As in a model's entry.
        budget_s: Seconds in all.

    Raises:
        ConfigError: The address cannot be used, or the server serves several models and none was named.
    """
    where = clean(url, limit=200)
    try:
        entry = find_entry(url, model=model, api_key=api_key, dialect=dialect)
    except ServerError as error:
        config = configure(_entry(url, model, api_key, dialect), where=where)
        with connect(config, config.bases[0]) as engine:
            target = Target(config, engine, engine.servers[0], _dialect(config))
            finding = connection.from_error(target, error, "reachable")
        return Report(model or "?", config.servers, "", (finding,))
    return check_model(configure(entry, where=where), budget_s=budget_s)


def _entry(url: str, model: str | None, api_key: str | None, dialect: str | None) -> dict[str, Any]:
    given = {"model_name": model or "?", "api_base": url, "api_key": api_key, "dialect": dialect}
    return {key: value for key, value in given.items() if value is not None}


def _dialect(config: ModelConfig) -> Dialect:
    return get_dialect(config.dialect, extra=plugins().dialects())


def _is_cross_encoder(target: Target) -> bool | None:
    """What a server of unknown kind serves; None where it answers neither question."""
    for crossed, ask in ((False, lambda: target.embed(["a"])), (True, lambda: target.score("a", ["b"], raw=True))):
        try:
            ask()
        except EngineDeadError:
            return None
        except (RequestRefusedError, BadAnswerError, ServerFaultError):
            continue
        except ServerError:
            return None
        return crossed
    return None
