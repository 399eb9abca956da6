"""The full check of one model: every server, every question, within a minute."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from evalscope_vacc.checks import characters, connection, lengths, rate, sameness, scores, vectors
from evalscope_vacc.checks.findings import Finding, Report
from evalscope_vacc.checks.target import NothingMoreError, OutOfTimeError, Target, connect
from evalscope_vacc.config import ModelConfig, configure
from evalscope_vacc.errors import ConfigError, ServerError
from evalscope_vacc.redact import clean

BUDGET_S = 60.0

Check = Callable[[Target], Iterator[Finding]]
_CONNECTION: dict[str, Check] = {
    "reachable": connection.check_contact,
    "model": connection.check_facts,
    "catalog": vectors.check_configuration,
}
_SPEED: dict[str, Check] = {"speed": rate.check_speed, "concurrency": rate.check_concurrency}
_ENCODER: dict[str, Check] = {
    **_CONNECTION,
    "kind": vectors.check_kind,
    "prefix": vectors.check_prefix,
    "repeat": sameness.check_sameness,
    "truncation": lengths.check_truncation,
    "whole-texts": lengths.check_whole_texts,
    "instruction": vectors.check_instruction,
    "sanity": vectors.check_sanity,
    "characters": characters.check_characters,
    **_SPEED,
    "long-texts": lengths.check_long_texts,
}
_CROSS_ENCODER: dict[str, Check] = {
    **_CONNECTION,
    "kind": scores.check_kind,
    "template": scores.check_template,
    "repeat": sameness.check_sameness,
    "whole-texts": lengths.check_whole_texts,
    "sanity": scores.check_ranking,
    **_SPEED,
    "long-texts": lengths.check_long_pairs,
}


def check_model(config: ModelConfig, *, budget_s: float = BUDGET_S) -> Report:
    """Checks one served model; nothing that a server does raises an exception.

    What is not answered within ``budget_s`` seconds in all is named in a warning. A run's waiting time and retries are
    not used.

    Raises:
        ConfigError: The configuration cannot be used (a dialect or template of no plugin).
    """
    start = time.monotonic()
    findings: list[Finding] = []
    targets: list[Target] = []
    share = budget_s / len(config.bases)
    kind, checks = ("cross-encoder", _CROSS_ENCODER) if config.is_cross_encoder else ("encoder", _ENCODER)
    for number, base in enumerate(config.bases):
        with connect(config, base) as engine:
            target = Target.at(config, engine, several=len(config.bases) > 1, until=start + share * (number + 1))
            targets.append(target)
            found = list(_ask_all(target, checks))
            findings += [*found, *_nothing_wrong(target, found)]
    findings += sameness.alike(targets)
    return Report(config.model_name, config.servers, kind, tuple(findings), time.monotonic() - start)


def _ask_all(target: Target, checks: dict[str, Check]) -> Iterator[Finding]:
    names = list(checks)
    for name, check in checks.items():
        try:
            yield from check(target)
        except NothingMoreError:
            return
        except OutOfTimeError:
            yield target.finding("time.over", left=", ".join(names[names.index(name) :]))
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
    """Returns a model's entry for a server of which only the address is known, in any spelling.

    The kind of the model comes from the catalog, else from what the server answers; its name is not needed where the server
    serves one model only.

    Raises:
        ConfigError: The address cannot be used, or the server serves several models and none was named.
        ServerError: The server did not answer within 5 seconds, or refuses the key.
    """
    entry, config = _entry(url, model, api_key, dialect)
    if len(config.bases) > 1:
        raise ConfigError("give one address, or a configuration file with a list in api_base")
    with connect(config, config.bases[0]) as engine:
        target = Target.at(config, engine)
        names, _ = connection.first_contact(engine)
        if model is None:
            if len(names) != 1:
                shown = ", ".join(clean(name, limit=200) for name in names) or "no list of its models"
                raise ConfigError(f"{target.server} serves {shown}: say which with --model")
            entry, target.config = _entry(url, names[0], api_key, dialect)
        if target.entry is None:
            connection.introduce(target)
            crossed = False
            with suppress(ServerError):  # what cannot be told now is told by the check
                crossed = not target.answers(pairs=False) and target.answers(pairs=True)
            entry["is_cross_encoder"] = crossed
            target.config = configure(entry, where=clean(url, limit=200))
            if crossed and scores.family_of(target):
                # its name says which template it was trained with; what a configuration should say then
                entry["rerank_template"] = "auto"
    return entry


def check_address(
    url: str,
    *,
    model: str | None = None,
    api_key: str | None = None,
    dialect: str | None = None,
) -> Report:
    """Asks everything about a server of which only the address is known; takes and raises what :func:`find_entry` does.

    A server that does not answer is a finding.
    """
    try:
        entry = find_entry(url, model=model, api_key=api_key, dialect=dialect)
    except ServerError as error:
        _, config = _entry(url, model, api_key, dialect)
        with connect(config, config.bases[0]) as engine:
            finding = connection.from_error(Target.at(config, engine), error, "reachable")
        return Report(model or "?", config.servers, "", (finding,))
    return check_model(configure(entry, where=clean(url, limit=200)))


def _entry(url: str, model: str | None, api_key: str | None, dialect: str | None) -> tuple[dict[str, Any], ModelConfig]:
    given = {"model_name": model or "?", "api_base": url, "api_key": api_key, "dialect": dialect}
    entry = {key: value for key, value in given.items() if value is not None}
    return entry, configure(entry, where=clean(url, limit=200))
