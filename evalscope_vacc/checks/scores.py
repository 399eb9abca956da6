"""What can be wrong with the scores of a reranker."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from evalscope_vacc.checks.findings import Finding, State
from evalscope_vacc.checks.grain import grain_finding
from evalscope_vacc.checks.target import NothingMoreError, Target
from evalscope_vacc.checks.texts import LONG_1, LONG_2, SANITY_EN, SANITY_ZH
from evalscope_vacc.checks.vectors import sanity_finding
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

# two scores of one pair may differ by this much; float32 sums in another order make 1e-7
SAME = 1e-5
_EQUAL = 1e-6


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
            yield target.finding(
                "kind",
                "wrong",
                f"it gives vectors and scores no pairs: {error}",
                "this is an embedding model, configured as a cross-encoder",
                "write is_cross_encoder: false",
            )
            raise NothingMoreError from None
        raise
    target.rerank = facts
    target.dialect = facts.dialect(target.dialect)
    if facts.embeds:
        yield target.finding(
            "kind",
            "wrong",
            f"/v1/embeddings answers, too: {facts.path} gives the cosine of two vectors",
            "this is an embedding model, configured as a cross-encoder: reranking with it repeats the first stage",
            "write is_cross_encoder: false, or serve a reranker",
        )
    else:
        yield target.finding("kind", "ok", f"a cross-encoder, asked at {facts.path}")


def check_template(target: Target) -> Iterator[Finding]:
    """On which side the template is applied: here, on the server, nowhere, or on both."""
    yield template_finding(target)
    yield _instruction(target)


def template_finding(target: Target) -> Finding:
    """Judges the template, and sets the target's ``template`` and ``instruction`` as a run would."""
    wanted, facts = target.config.rerank_template, target.rerank
    tokens = facts.prompt_tokens_short if facts is not None else None
    counted = f"{tokens} tokens for a pair of two letters" if tokens is not None else "no token counts are reported"
    unknown = facts is not None and facts.template is None
    side = decide_side(
        wanted,
        family=None if target.entry is None else target.entry.template_family or "",
        server=facts.template if facts is not None else None,
        takes_instruction=facts.takes_instruction if facts is not None else None,
        server_tokens=tokens,
        extra=plugins().rerank_templates(),
    )
    if side.conflict == "doubled":
        return target.finding(
            "template",
            "wrong",
            f"the server wraps every pair in a template ({counted}), and rerank_template: {wanted} would do it again",
            "applied twice nothing fails, and the scores are wrong",
            "start the server without --chat-template, or write rerank_template: auto",
        )
    if side.conflict == "no instruction":
        return target.finding(
            "template",
            "wrong",
            f"the server's template ({counted}) takes no instruction from a request",
            "vLLM 0.14 to 0.21: every task is scored with the template's own instruction; a run with auto stops",
            "start the server without --chat-template, then the template is applied here; or write rerank_template: none",
        )
    target.template, target.instruction = side.template, side.default_instruction
    if facts is not None and facts.template == "server":
        return target.finding("template", "ok", f"applied by the server ({counted})")
    if side.template is not None:
        return target.finding(
            "template",
            "warning" if unknown else "ok",
            f"{side.template.name}, applied here; the server has none ({counted})",
            "whether the server has one of its own, too, cannot be told" if unknown else "",
        )
    family = family_of(target)
    if wanted == "none" and family not in ("", "none"):
        known = target.entry.name if target.entry is not None else f"a model named {target.config.model_name!r}"
        return target.finding(
            "template",
            "wrong",
            f"none here and none on the server ({counted}); {known} was trained with the template {family}",
            "its scores are close to random without it (NFCorpus 0.257 instead of 0.335, vLLM #21681)",
            "write rerank_template: auto",
        )
    if unknown:
        return target.finding(
            "template", "warning", "none here; the server reports no token counts", "whether it has one cannot be told"
        )
    return target.finding("template", "ok", f"none here and none on the server ({counted})")


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
        return target.finding("instruction", "ok", "a part of the template that is applied here")
    if facts is None or facts.template != "server":
        return target.finding("instruction", "ok", "none: no template has a place for one")
    if facts.takes_instruction:
        return target.finding("instruction", "ok", "each request's own instruction reaches the server's template")
    return target.finding(
        "instruction",
        "warning",
        "the server's template ignores an instruction in the request",
        "every task is scored with the template's own instruction (vLLM up to 0.21)",
        "start the server without --chat-template and write rerank_template: auto",
    )


def check_sameness(target: Target) -> Iterator[Finding]:
    """One pair, one score: again, alone, in a batch, and at another position."""
    query = SANITY_EN[0][0]
    documents = [SANITY_EN[0][1], LONG_1, LONG_2, SANITY_ZH[0][1], SANITY_EN[3][1]]
    # long pairs fit every model but the smallest; those must be allowed to cut
    cut = target.template is None and not (target.rerank is not None and target.rerank.template == "server")
    alone = [target.score(query, [document], cut=cut) for document in documents[:2]]
    target.second = alone[1].seconds
    again = np.array([target.score(query, [document], cut=cut).values[0] for document in documents[:2]])
    first = np.array([answer.values[0] for answer in alone])
    repeat = _gap(again, first)
    yield _same(
        target,
        "repeat",
        repeat,
        "the second score of the same pair",
        "the prefix cache gives another score than the computation does",
        "start the server with --no-enable-prefix-caching, and check again",
    )
    batch = target.score(query, documents, cut=cut).values
    back = target.score(query, documents[::-1], cut=cut).values
    target.memory["scores"] = batch
    tolerance = max(SAME, 4 * repeat)
    if _gap(batch, back[::-1]) > tolerance and _gap(np.sort(batch), np.sort(back)) <= tolerance:
        stays = _gap(batch, back) <= tolerance
        how = "come in the same order whatever the order of the documents" if stays else "move between documents"
        yield target.finding(
            "order",
            "wrong",
            f"scores {how}: asked backwards, {len(documents)} documents get each other's scores",
            "scores belong to other documents than they say: every ranking is wrong",
            "set encode_kwargs.batch_size: 1 to go on, and report it to whoever makes the server",
        )
        return
    yield target.finding("order", "ok", f"{len(documents)} documents, forwards and backwards, each with its own score")
    yield _same(
        target,
        "batch",
        max(_gap(batch, back[::-1]), _gap(batch[:2], first)),
        "the score within a batch of five",
        "what stands beside a document in a batch, or its position, changes its score",
        "set encode_kwargs.batch_size: 1 to go on; try the server with --enforce-eager or --dtype float32",
    )


def _same(target: Target, check: str, gap: float, what: str, meaning: str, action: str) -> Finding:
    if gap <= SAME:
        return target.finding(check, "ok", f"{what} differs from the first by {gap:.1e}")
    state: State = "warning" if gap <= 1e-3 else "wrong"
    if state == "warning":
        meaning = f"of the size that rounding in bfloat16 or float16 makes. Or else {meaning}"
    return target.finding(
        check, state, f"{what} differs from the first by {gap:.2g}, allowed is {SAME:g}", meaning, action
    )


def _gap(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    scale = np.maximum(1.0, np.abs(second))
    return float((np.abs(first - second) / scale).max())


def check_ranking(target: Target) -> Iterator[Finding]:
    """Whether each question scores highest with its own answer, and whether scores differ at all."""
    documents = [document for _, document in (*SANITY_EN, *SANITY_ZH)]
    table = np.stack([target.score(query, documents).values for query, _ in (*SANITY_EN, *SANITY_ZH)])
    spread = spread_finding(target, table)
    yield spread
    if spread.state == "wrong":
        return
    yield grain_finding(target, table)
    yield sanity_finding(target, table)


def spread_finding(target: Target, scores: NDArray[np.float64]) -> Finding:
    """Whether scores differ from each other."""
    low, high = float(scores.min()), float(scores.max())
    if high - low > _EQUAL * max(1.0, abs(high)):
        return target.finding("spread", "ok", f"{scores.size} pairs score from {low:.4f} to {high:.4f}")
    return target.finding(
        "spread",
        "wrong",
        f"all {scores.size} pairs score {high:.6g}",
        "the classification head was not loaded, or the end of the prompt is cut off: the ranking is arbitrary",
        "for an original Qwen3-Reranker see its --hf-overrides (evalscope-vacc serve prints them); else convert the weights",
    )


def _embeds(target: Target) -> bool:
    try:
        target.embed(["a"])
    except EngineDeadError:
        raise
    except (RequestRefusedError, BadAnswerError, ServerFaultError, ConfigError):
        return False
    return True
