"""Whether the rules for texts are right: those of the configuration beside the catalog's, and a server's own prefix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from evalscope_vacc.checks.findings import Finding
from evalscope_vacc.checks.target import REFUSED, Target
from evalscope_vacc.messages import Reason
from evalscope_vacc.text.truncation import LocalTokenizer

# a letter is one token (two where the start of a word counts), and no model puts more than two around a text
_A_LETTER = 4
# the shortest prefix in use ("query: ") has two; one may be an end token that a tokenizer's file leaves to the server
_A_PREFIX = 2


def check_configuration(target: Target) -> Iterator[Finding]:
    """What the configuration says otherwise than the catalog, or what nobody chose."""
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
