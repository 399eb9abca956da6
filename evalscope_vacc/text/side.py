"""On which side a reranker's template is applied: here, on the server, or nowhere; never on both.

Both a missing and a doubled template give plausible scores without any error, so the server is asked first, and what it
said is an argument here: this module asks nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from evalscope_vacc.text.templates import NO_TEMPLATE, RerankTemplate, get_template


@dataclass(frozen=True)
class TemplateSide:
    """What was decided.

    Attributes:
        template: Applied here; None where the texts go out as they are.
        on_server: Whether the server applies a template of its own and takes the instruction with the request.
        default_instruction: What stands in for a task that has none, where an instruction is sent with the request.
        why: One line for people.
        server_tokens: Tokens that the server's own template adds to every pair; 0 where it has none. Such a server may
            not be asked to truncate: it would cut off the template's end, and all long documents would score alike.
        conflict: Why the model cannot be scored like this: "doubled" (a template here and on the server) or "no instruction"
            (the server's template takes no instruction, and ``auto`` would need it); "" where it can.
    """

    template: RerankTemplate | None
    on_server: bool = False
    default_instruction: str | None = None
    why: str = ""
    server_tokens: int = 0
    conflict: Literal["", "doubled", "no instruction"] = ""

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


def decide_side(
    wanted: str,
    *,
    family: str | None,
    server: Literal["none", "server"] | None,
    takes_instruction: bool | None = None,
    server_tokens: int | None = None,
    extra: Mapping[str, RerankTemplate] | None = None,
) -> TemplateSide:
    """Decides on which side the template is applied.

    Args:
        wanted: ``rerank_template``.
        family: Name of the template that the model was trained with, "" where it has none, None where nobody knows:
            nothing is guessed, ``auto`` then applies none.
        server: "server": it puts a template around every pair; "none": it does not; None: nobody knows.
        takes_instruction: Whether an instruction that is sent with a request reaches the server's template.
        server_tokens: Tokens that the server counts for the shortest pair.
        extra: Plugins' templates by name.

    Raises:
        ConfigError: The template's name is not known.
        PluginError: A plugin's template is none.
    """
    on_server = server == "server"
    tokens = (server_tokens or 0) if on_server else 0
    name = wanted if wanted != "auto" else family or NO_TEMPLATE
    template = get_template(name, extra=extra)
    if not on_server:
        if template is None:
            known = "there is no rule for the model's template" if family is None else "the model has no template"
            return TemplateSide(None, why=known if wanted == "auto" else "no template on either side")
        known = "the server has none" if server else "it is unknown whether the server has one"
        return TemplateSide(template, why=f"template {name} here; {known}")
    if template is None:
        why = "no template here; the server has one of its own"
        return TemplateSide(None, bool(takes_instruction), why=why, server_tokens=tokens)
    if wanted != "auto":
        return TemplateSide(template, why=f"template {name} here", server_tokens=tokens, conflict="doubled")
    if template.default_instruction is None:
        return TemplateSide(
            None, why="the server's own template, which has no place for an instruction", server_tokens=tokens
        )
    why = "the server's own template, instruction in each request"
    return TemplateSide(
        None, True, template.default_instruction, why, tokens, conflict="" if takes_instruction else "no instruction"
    )
