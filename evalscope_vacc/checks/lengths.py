"""What a server does with long texts: whether it cuts, what it keeps, and what it says."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from evalscope_vacc.checks.findings import Finding
from evalscope_vacc.checks.target import Target, cosines
from evalscope_vacc.checks.texts import CUT_LONG, CUT_SHORT, LONG_1, longer_than
from evalscope_vacc.errors import BadAnswerError, InputTooLongError, RequestRefusedError

# LONG_1 in tokens, roughly; only a time is estimated with it
_LONG_TOKENS = 170
# a text that would keep the server busy longer than this is not sent
_PATIENCE_S = 8.0
_CUT_SAME = 1e-5


def check_truncation(target: Target) -> Iterator[Finding]:
    """Cut by the server to the tokens of its own beginning, a text must give that beginning's vector.

    That holds only when the server keeps the beginning and puts the end-of-sequence token behind it, which the vector
    of a last-token model is read from.
    """
    if not target.dialect.truncates:
        yield _cut_here(target)
        return
    short = target.embed([CUT_SHORT])
    tokens = short.tokens
    if tokens is None or tokens < 2:
        meaning = "whether it cuts cannot be told"
        yield target.finding("truncation", "warning", "the server reports no token counts", meaning)
        return
    try:
        cut = target.embed([CUT_LONG], truncate_to=tokens)
    except (RequestRefusedError, BadAnswerError) as error:
        yield target.finding(
            "truncation",
            "wrong" if not target.counts else "warning",
            f"truncate_prompt_tokens is refused: {error}",
            "a run asks the server to cut texts that are too long",
            "see `dialect`; the server may not be vLLM",
        )
        return
    same = float(cosines(cut.values, short.values)[0, 0])
    if cut.tokens is not None and cut.tokens > tokens:
        yield target.finding(
            "truncation",
            "warning",
            f"asked to keep {tokens} tokens it read {cut.tokens}",
            "truncate_prompt_tokens is ignored: texts that are too long are refused, or cut at the server's own length",
            "choose the `dialect` of this server",
        )
        return
    yield target.finding("truncation", "ok", f"asked to keep {tokens} tokens it keeps {cut.tokens or tokens}")
    if 1 - same <= max(_CUT_SAME, 4 * target.noise):
        yield target.finding("end-token", "ok", "a text cut by the server has the vector of its beginning")
        return
    yield target.finding(
        "end-token",
        "wrong",
        f"a text cut to {tokens} tokens has a cosine of {same:.4f} with its own beginning of {tokens} tokens",
        "the server drops the end-of-sequence token, or keeps another part of the text: vectors of long texts are wrong",
        "do not set truncation_side on the server; or raise --max-model-len so that nothing is cut",
    )


def _cut_here(target: Target) -> Finding:
    if target.counts:
        return target.finding("truncation", "ok", "long texts are cut here, by counted tokens")
    return target.finding(
        "truncation",
        "warning",
        f"the dialect {target.dialect.name!r} cannot ask for it, and tokens cannot be counted here",
        "a text that is too long stops the run",
        "set `tokenizer:`",
    )


def check_long_texts(target: Target) -> Iterator[Finding]:
    """Texts past the limit: cut when asked, refused when not."""
    limit, longest = target.limit, target.facts.max_model_len if target.facts else None
    if limit is None or longest is None:
        return
    expected = target.second * (limit / _LONG_TOKENS) * 1.5
    if expected > min(_PATIENCE_S, target.left_s / 3):
        yield target.finding(
            "long-texts", "ok", f"not tried: a text of {limit} tokens would take this server about {expected:.0f} s"
        )
        return
    if target.dialect.truncates:
        try:
            cut = target.embed([longer_than(limit)], truncate_to=limit)
        except (RequestRefusedError, BadAnswerError) as error:
            yield target.finding(
                "long-texts",
                "wrong",
                f"a text of more than {limit} tokens is refused although it may be cut: {error}",
                "a run would stop at the first long text",
                "set max_tokens below the server's --max-model-len",
            )
            return
        if cut.tokens is not None and cut.tokens < limit:
            yield target.finding(
                "long-texts",
                "warning",
                f"a text of more than {limit} tokens was cut to {cut.tokens}, not {limit}",
                "the server reads less of long texts than the run believes",
                f"set max_tokens to {cut.tokens}, or start the server with a larger --max-model-len",
            )
            return
    try:
        whole = target.embed([longer_than(longest)])
    except InputTooLongError:
        yield target.finding("long-texts", "ok", f"cut to {limit} tokens when asked, refused past {longest} when not")
    except (RequestRefusedError, BadAnswerError) as error:
        yield target.finding("long-texts", "ok", f"refused past {longest} tokens: {error}")
    else:
        read = f" ({whole.tokens} tokens were read)" if whole.tokens is not None else ""
        yield target.finding(
            "long-texts",
            "warning",
            f"a text of more than {longest} tokens is accepted without being asked to cut it{read}",
            "the server cuts without a word: nobody knows which texts were cut",
            "set max_tokens to what the model was evaluated with",
        )


def check_long_pairs(target: Target) -> Iterator[Finding]:
    """What happens to a pair that is longer than the limit."""
    limit = target.limit
    if limit is None:
        return
    if target.template is not None:
        if target.counts:
            yield target.finding(
                "long-texts", "ok", f"documents are cut here, inside their template, to {limit} tokens a pair"
            )
        else:
            yield target.finding(
                "long-texts",
                "warning",
                "tokens cannot be counted, so a document cannot be cut inside its template",
                "a pair that may be too long stops the run",
                "set `tokenizer:`",
            )
        return
    if target.rerank is not None and target.rerank.template == "server":
        yield target.finding(
            "long-texts",
            "warning",
            f"the server wraps each pair in its template, then cuts to {limit} tokens",
            "of a pair that is too long it cuts off the template's end: all such documents of a query get meaningless scores",
            "start it without --chat-template and write rerank_template: auto, or see that no pair is that long",
        )
        return
    if not target.dialect.truncates:
        yield _cut_here(target)
        return
    expected = target.second * (limit / _LONG_TOKENS) * 1.5
    if expected > min(_PATIENCE_S, target.left_s / 3):
        yield target.finding(
            "long-texts", "ok", f"not tried: a pair of {limit} tokens would take about {expected:.0f} s"
        )
        return
    try:
        scores = target.score("Which mill grinds on Monday?", [LONG_1, longer_than(limit)], cut=True)
    except (RequestRefusedError, BadAnswerError) as error:
        yield target.finding(
            "long-texts",
            "wrong",
            f"a pair of more than {limit} tokens is refused although it may be cut: {error}",
            "a run would stop at the first long document",
            "set max_tokens below the server's --max-model-len",
        )
    else:
        shown = ", ".join(f"{score:.4f}" for score in np.asarray(scores.values))
        yield target.finding(
            "long-texts", "ok", f"a pair of more than {limit} tokens is cut when asked (scores {shown})"
        )
