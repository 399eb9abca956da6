"""What can be wrong with the vectors of an embedding server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from evalscope_vacc.checks.findings import Finding
from evalscope_vacc.checks.target import NothingMoreError, Target, cosines
from evalscope_vacc.checks.texts import LONG_1, LONG_2, SANITY_EN, SANITY_ZH, SHORT_EN, SHORT_ZH
from evalscope_vacc.errors import (
    BadAnswerError,
    ConfigError,
    EngineDeadError,
    NotFiniteError,
    RequestRefusedError,
    ServerFaultError,
    VaccError,
)
from evalscope_vacc.plugins import plugins
from evalscope_vacc.text.instructions import make_rules
from evalscope_vacc.text.task import TaskInfo

# two answers to one text may differ by this much in their cosine: float32 sums in another order differ by about 1e-7
SAME = 1e-6
# above this a difference is of the size that bfloat16 makes; below it no rounding explains it
ROUNDING = 1e-3
_NORM = 0.02
_LANGUAGES = (("English", "en", SANITY_EN), ("Chinese", "zh", SANITY_ZH))
_RETRIEVAL = TaskInfo(name="", type="Retrieval", default_prompt="Retrieve text based on user query.")


def check_kind(target: Target) -> Iterator[Finding]:
    """Whether it is an embedding server at all, and the size and length of its vectors."""
    try:
        got = target.embed([SHORT_EN])
    except EngineDeadError:
        raise
    except (RequestRefusedError, BadAnswerError, ServerFaultError) as error:
        if isinstance(error, NotFiniteError):
            # it may be the packing alone that is broken
            yield from _formats(target)
            raise
        if _scores(target):
            yield target.finding(
                "kind",
                "wrong",
                f"it scores pairs and gives no vectors: {error}",
                "this is a cross-encoder, configured as an embedding model",
                "write is_cross_encoder: true",
            )
            raise NothingMoreError from None
        raise
    yield target.finding("kind", "ok", "an embedding model")
    yield from _formats(target)
    yield from check_size(target, got.values)


def check_size(target: Target, values: NDArray[np.float32]) -> Iterator[Finding]:
    """Size and length of vectors, float32 of shape (n, d)."""
    size = values.shape[1]
    yield size_finding(target, size)
    lengths = np.linalg.norm(values.astype(np.float64), axis=1)
    low, high = float(lengths.min()), float(lengths.max())
    if abs(low - 1) <= _NORM and abs(high - 1) <= _NORM:
        yield target.finding("norm", "ok", "1")
    else:
        seen = f"{low:.4g}" if high - low < 1e-3 else f"{low:.4g} to {high:.4g}"
        yield target.finding(
            "norm",
            "warning",
            f"{seen}, not 1",
            "cosine scores stay the same; whoever takes the dot product of two vectors gets something else",
            "if the model's card says normalised, see the server's pooler settings (normalize, softmax, activation)",
        )


def size_finding(target: Target, size: int) -> Finding:
    """Whether vectors of ``size`` numbers fit the configuration and the catalog."""
    wanted, entry = target.config.dimensions, target.entry
    known = entry.dimensions if entry is not None and not entry.is_cross_encoder else None
    if wanted is not None and wanted > size:
        return target.finding(
            "dimensions",
            "wrong",
            f"vectors have {size} numbers, `dimensions` asks for {wanted}",
            "a vector can be cut, not made longer",
            f"set dimensions to {size} or less, or remove it",
        )
    if known is not None and entry is not None and size not in (known, wanted):
        return target.finding(
            "dimensions",
            "wrong",
            f"vectors have {size} numbers, {entry.name} gives {known}",
            "another model is served under this name, or the server cuts its vectors",
            "serve the model of that name, or give the server another --served-model-name",
        )
    if wanted is not None and wanted < size:
        if entry is not None and (entry.matryoshka is None or wanted < entry.matryoshka[0]):
            trained = "not at all" if entry.matryoshka is None else f"down to {entry.matryoshka[0]}"
            return target.finding(
                "dimensions",
                "warning",
                f"{size}, cut to {wanted} here",
                f"{entry.name} was trained to be cut {trained}: expect a lower score",
            )
        return target.finding("dimensions", "ok", f"{size}, cut to {wanted} and renormalised here")
    return target.finding("dimensions", "ok", f"{size}" + (", as in the catalog" if known == size else ""))


def check_sameness(target: Target) -> Iterator[Finding]:
    """One text, one vector: again, in a batch, at another position, and as numbers instead of base64."""
    texts = (LONG_1, LONG_2, SHORT_EN, SHORT_ZH)
    limit = target.limit if target.dialect.truncates else None
    alone_answers = [target.embed([text], truncate_to=limit) for text in texts]
    target.second = max(answer.seconds for answer in alone_answers[:2])
    alone = np.concatenate([answer.values for answer in alone_answers])
    again = np.concatenate([target.embed([text], truncate_to=limit).values for text in (LONG_1, SHORT_EN)])
    target.memory["vectors"] = alone
    repeat = float(np.diag(cosines(again, alone[[0, 2]])).min())
    yield _same(
        target,
        "repeat",
        repeat,
        "the second answer to the same text",
        "the prefix cache gives another vector than the computation does (seen with Qwen3 on accelerators)",
        "start the server with --no-enable-prefix-caching, and check again",
    )
    positions = (3, 1, 2, 0, 2, 1)
    batch = target.embed([texts[i] for i in positions], truncate_to=limit)
    table = cosines(batch.values, alone)
    right = table[np.arange(len(positions)), positions]
    best = table.argmax(axis=1)
    moved = [
        place
        for place, text in enumerate(positions)
        if best[place] != text and right[place] < 1 - SAME and table[place, best[place]] > right[place] + SAME
    ]
    # a vector that clearly is another text's, not one between the two
    swapped = [place for place in moved if table[place].max() > 1 - ROUNDING]
    if swapped:
        place = swapped[0]
        yield target.finding(
            "order",
            "wrong",
            f"the text at position {place} of a batch gets the vector of the text at position "
            f"{positions.index(int(best[place]))}",
            "vectors belong to other texts than they say: every score is wrong",
            "set encode_kwargs.batch_size: 1 to go on, and report it to whoever makes the server",
        )
    else:
        yield target.finding("order", "ok", f"{len(positions)} texts in one request, each with its own vector")
        yield _same(
            target,
            "batch",
            float(right.min()),
            "the answer within a batch of six",
            "what stands beside a text in a batch, or its position, changes its vector",
            "set encode_kwargs.batch_size: 1 to go on; try the server with --enforce-eager or --dtype float32",
        )
    least = float(min(repeat, 1.0 if swapped else right.min()))
    target.noise = max(0.0, 1 - least)


def _same(target: Target, check: str, cosine: float, what: str, meaning: str, action: str) -> Finding:
    gap = 1 - cosine
    if gap <= SAME:
        return target.finding(check, "ok", f"{what} has a cosine of {_near_one(cosine)} with the first")
    seen = f"{what} has a cosine of {_near_one(cosine)} with the first, allowed is 1 - {SAME:g}"
    if gap <= ROUNDING:
        meaning = (
            "of the size that rounding in bfloat16 or float16 makes when a batch or the cache changes the order of sums: "
            f"scores move in their third digit at most, and not twice in the same way. Or else {meaning}"
        )
        action = f"serve with --dtype float32 to tell the two apart; {action}"
    return target.finding(check, "wrong", seen, meaning, action)


def _near_one(cosine: float) -> str:
    gap = 1 - cosine
    return "1" if gap < 1e-9 else f"1 - {gap:.1e}" if gap < 0.01 else f"{cosine:.4f}"


def _formats(target: Target) -> Iterator[Finding]:
    """Whether base64 holds the numbers that the server writes out; nothing else is worth asking where it does not."""
    _, body = target.dialect.embeddings(target.config.model_name, [SHORT_EN])
    if json.loads(body).get("encoding_format") != "base64":
        return
    texts = [SHORT_EN, SHORT_ZH]
    try:
        plain = target.embed(texts, plain=True)
    except (RequestRefusedError, BadAnswerError) as error:
        yield target.finding("base64", "warning", f"numbers cannot be had to compare with: {error}")
        return
    try:
        packed = target.embed(texts)
        gap = 1 - float(np.diag(cosines(plain.values, packed.values)).min())
    except NotFiniteError:
        gap = 1.0
    except ValueError:
        # vectors of two sizes
        gap = 1.0
    if gap <= SAME:
        yield target.finding("base64", "ok", "the same vectors as numbers")
    elif gap <= ROUNDING:
        yield target.finding(
            "base64",
            "warning",
            f"vectors as base64 and as numbers have a cosine of {_near_one(1 - gap)}",
            "numbers are rounded in one of the two, or the server does not repeat itself (see `repeat`)",
        )
    else:
        yield target.finding(
            "base64",
            "wrong",
            f"vectors as base64 and as numbers have a cosine of {1 - gap:.4f}",
            "the server packs another number format or byte order than float32, little end first",
            "choose a `dialect` that asks for numbers (jina), and report it to whoever makes the server",
        )
        raise NothingMoreError


def check_sanity(target: Target) -> Iterator[Finding]:
    """Whether each question is nearest to its own answer, in English and Chinese, sent as a retrieval task sends them."""
    try:
        query, document = _prefixes(target)
    except ConfigError:
        query = document = ""
    sent = [query + q for _, _, pairs in _LANGUAGES for q, _ in pairs]
    sent += [document + d for _, _, pairs in _LANGUAGES for _, d in pairs]
    limit = target.limit if target.dialect.truncates else None
    values = target.embed(sent, truncate_to=limit).values
    half = len(sent) // 2
    table = cosines(values[:half], values[half:])
    yield sanity_finding(target, table)


def sanity_finding(target: Target, table: NDArray[np.float64]) -> Finding:
    """Judges a table of similarities or scores, shape (questions, answers), questions and answers in one order."""
    if float(np.ptp(table)) < SAME:
        return target.finding(
            "sanity",
            "wrong",
            f"every question is equally near to every answer ({table.flat[0]:.4g})",
            "the model answers the same to everything",
            "see the server's log: wrong weights, pooling or head",
        )
    spoken = target.entry.languages if target.entry else ()
    found: list[tuple[str, int, int, bool]] = []
    start = 0
    for name, code, pairs in _LANGUAGES:
        stop = start + len(pairs)
        block = table[start:stop, start:stop]
        found.append(
            (name, int((block.argmax(axis=1) == np.arange(len(pairs))).sum()), len(pairs), _knows(spoken, code))
        )
        start = stop
    seen = ", ".join(f"{name}: {right} of {n}" for name, right, n, _ in found) + " questions find their answer"
    judged = [(right, n) for _, right, n, known in found if known] or [(right, n) for _, right, n, _ in found]
    if all(right == n for right, n in judged):
        return target.finding("sanity", "ok", seen)
    if any(2 * right > n for right, n in judged):
        meaning = "the model is weak in a language, or something is not as in training (prefix, template, pooling)"
        return target.finding(
            "sanity", "warning", seen, meaning, "compare with the weights in process: evalscope-vacc parity"
        )
    return target.finding(
        "sanity",
        "wrong",
        seen,
        "not better than chance: wrong or random weights, another pooling, a missing or doubled template",
        "compare with the weights in process: evalscope-vacc parity",
    )


def _knows(languages: tuple[str, ...], code: str) -> bool:
    return not languages or code in languages or "multilingual" in languages


def check_instruction(target: Target) -> Iterator[Finding]:
    """What is put before a query, and whether the dictionary that it comes from is there."""
    try:
        query, document = _prefixes(target)
    except ConfigError as error:
        yield target.finding(
            "instruction", "warning", f"a run would stop: {error}", "", "do what it says before the run"
        )
        return
    name = target.config.instruction_profile
    if not query and not document:
        said = f"nothing is put before a text (profile {name})"
        aware = target.entry is not None and target.entry.instruction_aware
        if aware:
            meaning = "this model was trained with an instruction before each query: expect a lower score"
            yield target.finding("instruction", "warning", said, meaning, "remove instruction_profile, or set it")
        else:
            yield target.finding("instruction", "ok", said)
        return
    shown = ", ".join(f"{side} {text[:100]!r}" for side, text in (("query", query), ("document", document)) if text)
    yield target.finding("instruction", "ok", f"put before a text without a task: {shown} (profile {name})")


def _prefixes(target: Target) -> tuple[str, str]:
    rules = make_rules(target.config, extra=plugins().instruction_profiles())
    return rules.prefix(_RETRIEVAL, "query").text, rules.prefix(_RETRIEVAL, "document").text


def _scores(target: Target) -> bool:
    try:
        target.score("a", ["b"], raw=True)
    except EngineDeadError:
        raise
    except VaccError:
        return False
    return True
