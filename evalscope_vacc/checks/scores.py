"""What can be wrong with the scores of a reranker."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from evalscope_vacc.checks.findings import Finding
from evalscope_vacc.checks.grain import grain_finding
from evalscope_vacc.checks.sanity import judge, questions
from evalscope_vacc.checks.target import NothingMoreError, Target
from evalscope_vacc.checks.texts import SANITY_EN
from evalscope_vacc.errors import (
    BadAnswerError,
    ConfigError,
    EngineDeadError,
    NotFiniteError,
    RequestRefusedError,
    ServerFaultError,
)
from evalscope_vacc.plugins import plugins
from evalscope_vacc.text.side import decide_side
from evalscope_vacc.wire.probe import probe_reranker

_EQUAL = 1e-6
_NO_COUNTS = "no token counts are reported"


def check_kind(target: Target) -> Iterator[Finding]:
    """Whether it is a reranker: an embedding server answers /v1/score, too."""
    try:
        facts = probe_reranker(target.engine, target.dialect, target.config.model_name, server=target.server)
    except EngineDeadError:
        raise
    except (RequestRefusedError, BadAnswerError, ServerFaultError) as error:
        if isinstance(error, NotFiniteError):
            raise
        if _embeds(target):
            yield target.finding("kind.vectors", error=error)
            raise NothingMoreError from None
        raise
    target.rerank = facts
    target.dialect = facts.dialect(target.dialect)
    yield target.finding("kind.embeds" if facts.embeds else "kind.cross-encoder", path=facts.path)


def check_template(target: Target) -> Iterator[Finding]:
    """On which side the template is applied: here, on the server, nowhere, or on both."""
    yield template_finding(target)
    yield _instruction(target)


def template_finding(target: Target) -> Finding:
    """Judges the template, and sets the target's ``template`` and ``instruction`` as a run would."""
    wanted, facts = target.config.rerank_template, target.rerank
    tokens = facts.prompt_tokens_short if facts is not None else None
    counted = f"{tokens} tokens for a pair of two letters" if tokens is not None else _NO_COUNTS
    unknown = facts is not None and facts.template is None
    side = decide_side(
        wanted,
        family=None if target.entry is None else target.entry.template_family or "",
        server=facts.template if facts is not None else None,
        takes_instruction=facts.takes_instruction if facts is not None else None,
        server_tokens=tokens,
        extra=plugins().rerank_templates(),
    )
    if side.conflict:
        code = "template.doubled" if side.conflict == "doubled" else "template.deaf"
        return target.finding(code, counted=counted, wanted=wanted)
    target.template, target.instruction = side.template, side.default_instruction
    if facts is not None and facts.template == "server":
        return target.finding("template.server", counted=counted)
    if side.template is not None:
        code = "template.here-unsure" if unknown else "template.here"
        return target.finding(code, template=side.template.name, counted=counted)
    family = family_of(target)
    if wanted == "none" and family not in ("", "none"):
        known = target.entry.name if target.entry is not None else f"a model named {target.config.model_name!r}"
        return target.finding("template.missing", counted=counted, model=known, family=family)
    return target.finding("template.unsure" if unknown else "template.none", counted=counted)


def family_of(target: Target) -> str:
    """The template that the model was trained with, by the catalog or by its name; "" where nobody knows."""
    if target.entry is not None:
        return target.entry.template_family or "none"
    root = target.facts.root if target.facts is not None and target.facts.root else ""
    for name in (target.config.model_name, root.replace("\\", "/").rstrip("/").rpartition("/")[2]):
        word = name.casefold()
        if "qwen3" in word and "rerank" in word:
            return "qwen3"
    return ""


def _instruction(target: Target) -> Finding:
    facts = target.rerank
    if target.template is not None:
        return target.finding("instruction.template")
    if facts is None or facts.template != "server":
        return target.finding("instruction.no-place")
    if not facts.takes_instruction:
        return target.finding("instruction.ignored")
    if target.instruction is None:
        # nothing is sent beside the texts, as the configuration has it
        return target.finding("instruction.arrives")
    # counted tokens are a claim, scores are not
    question, documents = SANITY_EN[0][0], [document for _, document in SANITY_EN[:4]]
    first, second = (
        target.score(question, documents, instruction=text).values
        for text in ("Judge whether the document answers the question.", "Zähle alle Druckfehler im Dokument.")
    )
    if np.array_equal(first, second):
        return target.finding("instruction.unread", pairs=len(documents))
    return target.finding("instruction.arrives")


def check_ranking(target: Target) -> Iterator[Finding]:
    """Whether each question scores highest with its own answer, and whether scores differ at all."""
    tables = {}
    for code, pairs in questions().items():
        documents = [document for _, document in pairs]
        tables[code] = np.stack([target.score(query, documents).values for query, _ in pairs])
    every = np.concatenate([table.ravel() for table in tables.values()])
    spread = spread_finding(target, every)
    yield spread
    if spread.state == "wrong":
        return
    yield grain_finding(target, [row for table in tables.values() for row in table])
    yield judge(target, tables)


def spread_finding(target: Target, scores: NDArray[np.float64]) -> Finding:
    """Whether scores differ from each other."""
    low, high = float(scores.min()), float(scores.max())
    same = high - low <= _EQUAL * max(1.0, abs(high))
    return target.finding("spread.none" if same else "spread.ok", pairs=scores.size, low=low, high=high)


def _embeds(target: Target) -> bool:
    try:
        target.embed(["a"])
    except EngineDeadError:
        raise
    except (RequestRefusedError, BadAnswerError, ServerFaultError, ConfigError):
        return False
    return True
