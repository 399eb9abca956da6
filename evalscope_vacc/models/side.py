"""On which side a reranker's template is applied: here, on the server, or nowhere; never on both.

Both a missing and a doubled template give plausible scores without any error, so ``auto`` asks the server first: its
token counts of a short pair tell whether it wraps the texts, and whether a per-request instruction arrives.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace

from evalscope_vacc.catalog import find
from evalscope_vacc.errors import ConfigError
from evalscope_vacc.models.served import Served
from evalscope_vacc.plugins import plugins
from evalscope_vacc.text.templates import RerankTemplate, get_template
from evalscope_vacc.wire.probe import probe_reranker

logger = logging.getLogger(__name__)

FAMILY = "qwen3"


@dataclass(frozen=True)
class TemplateSide:
    """What was decided.

    Attributes:
        template: Applied here; None where the texts go out as they are.
        on_server: Whether the server applies a template of its own.
        pairwise: Whether the server's limit counts the pair (a cross-encoder) or each text (an embedding server).
        default_instruction: What stands in for a task that has none, where an instruction is sent with the request.
        why: One line for people.
        server_tokens: Tokens that the server's own template adds to every pair; 0 where it has none. Such a server may
            not be asked to truncate: it would cut off the template's end, and all long documents would score alike.
    """

    template: RerankTemplate | None
    on_server: bool = False
    pairwise: bool = True
    default_instruction: str | None = None
    why: str = ""
    server_tokens: int = 0

    @property
    def places_instructions(self) -> bool:
        """Whether an instruction has a place of its own; elsewhere the query's text has to carry it."""
        return self.on_server or (self.template is not None and self.template.default_instruction is not None)

    def query(self, query: str, instruction: str | None) -> str:
        """The query as it is sent (``text_1``)."""
        return self.template.query(query, instruction) if self.template is not None else query

    def document(self, document: str) -> str:
        """The document as it is sent (``text_2``)."""
        return self.template.document(document) if self.template is not None else document

    def instruction(self, of_task: str | None) -> str | None:
        """The instruction in force for a task, or None where none is sent."""
        if self.template is not None:
            return of_task or self.template.default_instruction
        return (of_task or self.default_instruction) if self.on_server else None

    def request_instruction(self, instruction: str | None) -> str | None:
        """The instruction that travels beside the texts."""
        return instruction if self.on_server else None


def choose_side(served: Served) -> TemplateSide:
    """Decides, asking the server.

    Raises:
        ConfigError: The template would be applied on both sides, or the server has one and cannot take the task's
            instruction.
    """
    config = served.config
    wanted = config.rerank_template
    asked = [probe_reranker(served.engine, served.dialect, config.model_name, server=base) for base in config.bases]
    name = f"model {config.model_name!r} on {served.servers}"
    if len({(facts.template, facts.takes_instruction, facts.prompt_tokens_short, facts.embeds) for facts in asked}) > 1:
        raise ConfigError(
            f"{name}: the servers differ, in the template that they wrap every pair in, in whether it takes a request's "
            "instruction, or in that some are embedding servers: start them alike"
        )
    facts = asked[0]
    served.dialect = facts.dialect(served.dialect)
    on_server = facts.template == "server"
    pairwise = not facts.embeds
    extra = plugins().rerank_templates()
    entry = find(config.model_name)

    if wanted == "auto":
        # a model that the catalog knows to have no template gets none; for an unknown one the user's `auto` means Qwen3
        family = FAMILY if entry is None else entry.template_family or "none"
        template = get_template(family, extra=extra)
        if template is None:
            side = TemplateSide(
                None, on_server and bool(facts.takes_instruction), pairwise, why="the model has no template"
            )
        elif not on_server:
            known = "the server has none" if facts.template else "whether the server has one of its own is not known"
            side = TemplateSide(template, False, pairwise, why=f"template {family} here; {known}")
        elif facts.takes_instruction:
            default = template.default_instruction if template is not None else None
            side = TemplateSide(
                None, True, pairwise, default, why="the server's own template, instruction in each request"
            )
        else:
            raise ConfigError(
                f"{name}: rerank_template is auto, and the server wraps every pair in a template of its own but ignores a "
                "request's instruction (vLLM 0.14 to 0.21 do): start it without --chat-template, then the template is "
                "applied here; or write rerank_template: none to go on with the server's fixed instruction"
            )
    elif wanted == "none":
        why = "no template here; the server has one of its own" if on_server else "no template on either side"
        side = TemplateSide(None, on_server and bool(facts.takes_instruction), pairwise, why=why)
    else:
        if on_server:
            raise ConfigError(
                f"{name}: rerank_template is {wanted}, but the server wraps every pair in a template of its own "
                f"({facts.prompt_tokens_short} tokens for a pair of two letters): applied twice the scores are wrong. "
                "Start it without --chat-template, or write rerank_template: auto or none"
            )
        side = TemplateSide(get_template(wanted, extra=extra), False, pairwise, why=f"template {wanted} here")
    if on_server:
        side = replace(side, server_tokens=facts.prompt_tokens_short or 0)
    if wanted == "none" and not on_server and entry is not None and entry.template_family:
        logger.warning(
            "%s: %s needs the template %s; without it its scores are close to random: write rerank_template: auto",
            name,
            entry.name,
            entry.template_family,
        )
    if facts.template is None and side.template is not None:
        logger.warning("%s: it reports no token counts, so a template on its side cannot be told", name)
    if facts.embeds:
        logger.warning(
            "%s answers /v1/embeddings too: it is an embedding server, whose /score is the cosine of two vectors", name
        )
    logger.info("%s: %s", name, side.why)
    served.record_server(rerank=[asdict(facts) for facts in asked], template=side.why)
    return side
