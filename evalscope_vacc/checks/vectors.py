"""What can be wrong with the vectors of an embedding server, and with the rules for what stands before a text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from evalscope_vacc.checks.findings import Finding
from evalscope_vacc.checks.sanity import QUESTIONS, judge
from evalscope_vacc.checks.target import REFUSED, NothingMoreError, Target, cosines
from evalscope_vacc.checks.texts import SHORT_EN, SHORT_ZH
from evalscope_vacc.checks.tolerance import COSINES
from evalscope_vacc.errors import BadAnswerError, ConfigError, EngineDeadError, NotFiniteError, ServerFaultError
from evalscope_vacc.messages import Reason
from evalscope_vacc.plugins import plugins
from evalscope_vacc.text.instructions import make_rules
from evalscope_vacc.text.task import TaskInfo
from evalscope_vacc.text.truncation import LocalTokenizer

# vectors as base64 and as numbers that differ by more are not the same numbers rounded
_ROUNDED = 1e-3
_NORM = 0.02
# a letter is one token (two where the start of a word counts), and no model puts more than two around a text
_A_LETTER = 4
# the shortest prefix in use ("query: ") has two; one may be an end token that a tokenizer's file leaves to the server
_A_PREFIX = 2
_RETRIEVAL = TaskInfo(name="", type="Retrieval", default_prompt="Retrieve text based on user query.")


def check_kind(target: Target) -> Iterator[Finding]:
    """Whether it is an embedding server at all, and the size and length of its vectors."""
    try:
        got = target.embed([SHORT_EN])
    except EngineDeadError:
        raise
    except NotFiniteError:
        # it may be the packing alone that is broken
        yield from _formats(target)
        raise
    except (*REFUSED, ServerFaultError) as error:
        if not target.answers(pairs=True):
            raise
        yield target.finding("kind.scores", error=error)
        raise NothingMoreError from None
    yield target.finding("kind.encoder")
    yield from _formats(target)
    yield from check_size(target, got.values)


def check_size(target: Target, values: NDArray[np.float32]) -> Iterator[Finding]:
    """Size and length of vectors, float32 of shape (n, d)."""
    yield size_finding(target, values.shape[1])
    lengths = np.linalg.norm(values.astype(np.float64), axis=1)
    low, high = float(lengths.min()), float(lengths.max())
    if abs(low - 1) <= _NORM and abs(high - 1) <= _NORM:
        yield target.finding("norm.ok")
    elif high - low < 1e-3:
        yield target.finding("norm.other", length=f"{low:.4g}")
    else:
        yield target.finding("norm.other", length=Reason.of("to", first=f"{low:.4g}", last=f"{high:.4g}"))


def size_finding(target: Target, size: int) -> Finding:
    """Whether vectors of ``size`` numbers fit the configuration and the catalog."""
    wanted, entry = target.config.dimensions, target.entry
    known = entry.dimensions if entry is not None and not entry.is_cross_encoder else None
    if wanted is not None and wanted > size:
        return target.finding("dimensions.small", size=size, wanted=wanted)
    if known is not None and entry is not None and size not in (known, wanted):
        return target.finding("dimensions.other", size=size, known=known, name=entry.name)
    if wanted is None or wanted == size:
        return target.finding("dimensions.known" if known == size else "dimensions.ok", size=size)
    if entry is not None and entry.matryoshka is None:
        return target.finding("dimensions.untrained", size=size, wanted=wanted, name=entry.name)
    if entry is not None and entry.matryoshka is not None and wanted < entry.matryoshka[0]:
        return target.finding("dimensions.below", size=size, wanted=wanted, name=entry.name, least=entry.matryoshka[0])
    return target.finding("dimensions.cut", size=size, wanted=wanted)


def _formats(target: Target) -> Iterator[Finding]:
    """Whether base64 holds the numbers that the server writes out; nothing else is worth asking where it does not."""
    _, body = target.dialect.embeddings(target.config.model_name, [SHORT_EN])
    if json.loads(body).get("encoding_format") != "base64":
        return
    texts = [SHORT_EN, SHORT_ZH]
    try:
        plain = target.embed(texts, plain=True)
    except REFUSED as error:
        yield target.finding("base64.refused", error=error)
        return
    try:
        packed = target.embed(texts)
        gap = 1 - float(np.diag(cosines(plain.values, packed.values)).min())
    except BadAnswerError:
        gap = 1.0
    if gap <= COSINES.floor:
        yield target.finding("base64.ok")
    elif gap <= _ROUNDED:
        yield target.finding("base64.rounded", gap=gap)
    else:
        yield target.finding("base64.other", cosine=1 - gap)
        raise NothingMoreError


def check_sanity(target: Target) -> Iterator[Finding]:
    """Whether each question is nearest to its own answer, in English and Chinese, sent as a retrieval task sends them."""
    try:
        query, document = _prefixes(target)
    except ConfigError:
        query = document = ""
    limit = target.limit if target.dialect.truncates else None

    tables, answers = {}, []
    for code, pairs in QUESTIONS.items():
        questions = target.embed([query + question for question, _ in pairs], truncate_to=limit).values
        answers.append(target.embed([document + answer for _, answer in pairs], truncate_to=limit).values)
        tables[code] = cosines(questions, answers[-1])
    documents = np.concatenate(answers)
    between = cosines(documents, documents)[~np.eye(len(documents), dtype=bool)]
    yield judge(target, tables, alike=float(between.mean()))


def check_instruction(target: Target) -> Iterator[Finding]:
    """What is put before a query, and whether the dictionary that it comes from is there."""
    try:
        query, document = _prefixes(target)
    except ConfigError as error:
        yield target.finding("instruction.stops", error=error)
        return
    name = target.config.instruction_profile
    if query or document:
        sides = (("query", query), ("document", document))
        shown = tuple(Reason.of(f"before_{side}", text=text[:100]) for side, text in sides if text)
        yield target.finding("instruction.shown", shown=shown, profile=name)
    else:
        aware = target.entry is not None and target.entry.instruction_aware
        yield target.finding("instruction.absent" if aware else "instruction.none", profile=name)


def _prefixes(target: Target) -> tuple[str, str]:
    rules = make_rules(target.config, extra=plugins().instruction_profiles())
    return rules.prefix(_RETRIEVAL, "query").text, rules.prefix(_RETRIEVAL, "document").text


def check_configuration(target: Target) -> Iterator[Finding]:
    """Where the configuration contradicts the catalog, and what nobody chose."""
    said = target.config.warnings
    if target.entry is None:
        # a run says it; here it is no fault of the server or the file
        yield target.finding("catalog.unknown", said="; ".join(said) or Reason("no_rule"))
    elif said:
        yield from (target.finding("catalog.contradicted", said=warning) for warning in said)
    else:
        yield target.finding("catalog.ok", name=target.entry.name)


def check_prefix(target: Target) -> Iterator[Finding]:
    """Whether the server puts a text of its own before every text that it embeds: the tokens of one letter show it."""
    try:
        tokens = target.embed(["a"]).tokens
        if tokens is None:
            yield target.finding("prefix.uncounted")
            return
        added = tokens - _tokens_alone(target, tokens)
    except REFUSED:
        return
    config = target.config
    ours = config.prompt or config.prompts or config.catalog_prompts or config.instruction_profile != "none"
    code = "prefix.ok" if added < _A_PREFIX else "prefix.doubled" if ours else "prefix.server"
    yield target.finding(code, added=added, tokens=tokens)


def _tokens_alone(target: Target, at_most: int) -> int:
    """The tokens of the letter without a prefix, by the tokenizer or the server's; else all of them, where so few are usual."""
    if target.config.tokenizer:
        return LocalTokenizer(target.config.tokenizer).count("a")
    if target.facts is not None and target.facts.tokenize:
        with suppress(*REFUSED):
            path, payload = target.dialect.counting(target.config.model_name, "a")
            return target.dialect.read_count(target.call("POST", path, payload, describe="a letter").body)
    return at_most if at_most <= _A_LETTER else _A_LETTER - 1
