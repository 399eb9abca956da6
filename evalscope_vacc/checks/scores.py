"""What can be wrong with the scores of a reranker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from evalscope_vacc.checks.findings import Finding
from evalscope_vacc.checks.sanity import QUESTIONS, judge
from evalscope_vacc.checks.target import REFUSED, NothingMoreError, Target
from evalscope_vacc.checks.texts import SANITY_EN
from evalscope_vacc.checks.tolerance import grid
from evalscope_vacc.errors import ConfigError, EngineDeadError, NotFiniteError, ServerFaultError
from evalscope_vacc.messages import Reason
from evalscope_vacc.plugins import plugins
from evalscope_vacc.text.side import decide_side
from evalscope_vacc.wire.probe import probe_reranker

TIED = 0.01
"""The share of pairs that may have the score of another pair of their query."""
_EQUAL = 1e-6
# so few are written for people to read; more are a server's own rounding
_FEW_DECIMALS = 3


def check_kind(target: Target) -> Iterator[Finding]:
    """Whether it is a reranker: an embedding server answers /v1/score, too."""
    try:
        facts = probe_reranker(target.engine, target.dialect, target.config.model_name, server=target.server)
    except (EngineDeadError, NotFiniteError):
        raise
    except (*REFUSED, ServerFaultError) as error:
        if not target.answers(pairs=False):
            raise
        yield target.finding("kind.vectors", error=error)
        raise NothingMoreError from None
    target.rerank = facts
    target.dialect = facts.dialect(target.dialect)
    yield target.finding("kind.embeds" if facts.embeds else "kind.cross-encoder", path=facts.path)


def check_template(target: Target) -> Iterator[Finding]:
    """On which side the template is applied: here, on the server, nowhere, or on both; and where an instruction goes."""
    yield template_finding(target)
    if target.template is not None:
        yield target.finding("instruction.template")
    elif target.rerank is None or not target.templated:
        yield target.finding("instruction.no-place")
    elif not target.rerank.takes_instruction:
        yield target.finding("instruction.ignored")
    elif target.instruction is None:
        # nothing is sent beside the texts, as the configuration has it
        yield target.finding("instruction.arrives")
    else:
        # counted tokens are a claim, scores are not
        question, documents = SANITY_EN[0][0], [document for _, document in SANITY_EN[:4]]
        first, second = (
            target.score(question, documents, instruction=text).values
            for text in ("Judge whether the document answers the question.", "Zähle alle Druckfehler im Dokument.")
        )
        code = "instruction.unread" if np.array_equal(first, second) else "instruction.arrives"
        yield target.finding(code, pairs=len(documents))


def template_finding(target: Target) -> Finding:
    """Judges the template, and sets the target's ``template`` and ``instruction`` as a run would."""
    wanted, facts = target.config.rerank_template, target.rerank
    tokens = facts.prompt_tokens_short if facts is not None else None
    counted = Reason("no_pair_tokens") if tokens is None else Reason.of("pair_tokens", tokens=tokens)
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
    if target.templated:
        return target.finding("template.server", counted=counted)
    if side.template is not None:
        code = "template.here-unsure" if unknown else "template.here"
        return target.finding(code, template=side.template.name, counted=counted)
    family = family_of(target)
    if wanted == "none" and family not in ("", "none"):
        named = Reason.of("named_model", name=target.config.model_name)
        known = target.entry.name if target.entry is not None else named
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


def check_ranking(target: Target) -> Iterator[Finding]:
    """Whether each question scores highest with its own answer, and whether scores differ at all."""
    tables = {}
    for code, pairs in QUESTIONS.items():
        documents = [document for _, document in pairs]
        tables[code] = np.stack([target.score(query, documents).values for query, _ in pairs])
    spread = spread_finding(target, np.concatenate([table.ravel() for table in tables.values()]))
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


def grain_finding(target: Target, rows: Sequence[NDArray[np.float64]]) -> Finding:
    """Whether the scores of each query's documents, not all the same, are finely graded.

    Ties are broken by the order of the documents, not by the model.
    """
    scores = np.concatenate(rows)
    if target.config.raw_scores and scores.min() >= 0 and scores.max() <= 1:
        return target.finding("grain.raw", pairs=scores.size)
    counts = np.concatenate([np.unique(row, return_counts=True)[1] for row in rows])
    tied = int(counts[counts > 1].sum())
    said = {"tied": tied, "pairs": scores.size, "raw": Reason("ask_raw") if _may_ask_raw(target) else ""}
    digits = next((n for n in range(1, 5) if np.allclose(scores, np.round(scores, n), rtol=0, atol=1e-9)), None)
    if digits is not None:
        wrong = digits <= _FEW_DECIMALS and tied > 0
        return target.finding("grain.decimals" if wrong else "grain.rounded", digits=digits, **said)
    written = grid(scores)
    if written is not None:
        return target.finding("grain.format", grid=written, **said)
    return target.finding("grain.ok" if tied <= TIED * scores.size else "grain.ties", **said)


def _may_ask_raw(target: Target) -> bool:
    """Whether the server can be asked for scores before the activation, and is not yet."""
    try:
        target.dialect.raw_scores()
    except ConfigError:
        return False
    return not target.config.raw_scores
