"""Templates of cross-encoders that are language models: the prompt around a query and a document.

A template has two halves, because servers take two texts: ``text_1`` (the query's) and ``text_2`` (the document's); the
server puts one after the other. Texts go in as they are: a special token inside a user's text, such as
``<|im_end|>``, is sent unchanged and the server reads it as that token, as in the runs behind the published scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from evalscope_vacc.errors import ConfigError, PluginError
from evalscope_vacc.text.instructions import unknown_name

_QWEN3_HEAD = (
    "<|im_start|>system\n"
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
    "<Instruct>: "
)
_QWEN3_TAIL = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"

NO_TEMPLATE = "none"


@dataclass(frozen=True)
class RerankTemplate:
    """A prompt around a query and a document, in two halves that are joined without anything between.

    Attributes:
        name: What users write as ``rerank_template``.
        default_instruction: Stands in where a task has no instruction; None where the template has no place for one.
        before_instruction: Opens ``text_1``.
        before_query: Between the instruction and the query.
        after_query: Closes ``text_1``.
        before_document: Opens ``text_2``.
        after_document: Closes ``text_2``.
    """

    name: str
    default_instruction: str | None = None
    before_instruction: str = ""
    before_query: str = ""
    after_query: str = ""
    before_document: str = ""
    after_document: str = ""

    def query(self, query: str, instruction: str | None = None) -> str:
        """Returns ``text_1``; without an instruction the default one stands in."""
        shown = "" if self.default_instruction is None else instruction or self.default_instruction
        return f"{self.before_instruction}{shown}{self.before_query}{query}{self.after_query}"

    def document(self, document: str) -> str:
        """Returns ``text_2``."""
        return f"{self.before_document}{document}{self.after_document}"


def _qwen3(name: str, gap: str, default_instruction: str) -> RerankTemplate:
    return RerankTemplate(
        name=name,
        default_instruction=default_instruction,
        before_instruction=_QWEN3_HEAD,
        before_query=f"{gap}<Query>: ",
        after_query=gap,
        before_document="<Document>: ",
        after_document=_QWEN3_TAIL,
    )


TEMPLATES: Mapping[str, RerankTemplate] = MappingProxyType(
    {
        # Qwen3-Reranker's model card, and vLLM's own qwen3_reranker.jinja but for that file's missing last newline
        "qwen3": _qwen3("qwen3", "\n", "Given a web search query, retrieve relevant passages that answer the query"),
        # Qwen's evaluation code
        "qwen3-evaluation": _qwen3("qwen3-evaluation", "\n\n", "Given the user query, retrieval the relevant passages"),
        # the model's card, FlagEmbedding 1.4's decoder_only reranker, and vLLM's bge-reranker-v2-gemma.jinja
        "bge-reranker-v2-gemma": RerankTemplate(
            name="bge-reranker-v2-gemma",
            before_query="A: ",
            after_query="\n",
            before_document="B: ",
            after_document="\nGiven a query A and a passage B, determine whether the passage contains an answer to the "
            "query by providing a prediction of either 'Yes' or 'No'.",
        ),
        # the authors' package mxbai-rerank 0.1.6, and vLLM's mxbai_rerank_v2.jinja
        "mxbai-rerank-v2": RerankTemplate(
            name="mxbai-rerank-v2",
            before_query="<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
            "<|im_start|>user\nquery: ",
            after_query="\n",
            before_document="document: ",
            after_document="\nYou are a search relevance expert who evaluates how well documents match search queries. For "
            "each query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
            "relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:<|im_end|>\n<|im_start|>assistant\n",
        ),
    }
)


def get_template(name: str | None, extra: Mapping[str, RerankTemplate] | None = None) -> RerankTemplate | None:
    """Returns the template of a name; None for ``none`` (and None): raw texts.

    Args:
        name: A key of `TEMPLATES`, ``none``, or a key of ``extra``.
        extra: Plugins' templates by name. One needs ``name``, ``default_instruction``, ``query(query, instruction)``
            and ``document(document)``, which must put the document into a fixed text: truncation shortens what it gets.

    Raises:
        ConfigError: The name is not known.
        PluginError: A plugin took a built-in name, or what it registered is no template.
    """
    extra = extra or {}
    built_in = (*TEMPLATES, NO_TEMPLATE)
    taken = sorted(set(extra) & {*built_in, "auto"})
    if taken:
        raise PluginError(f"a plugin registers the rerank template {taken[0]!r}, which is built in; rename it")
    if name is None or name == NO_TEMPLATE:
        return None
    if name in TEMPLATES:
        return TEMPLATES[name]
    if name in extra:
        return _checked(name, extra[name])
    raise ConfigError(unknown_name("rerank_template", name, ("auto", *built_in, *extra)))


def _checked(name: str, template: Any) -> RerankTemplate:
    missing = [part for part in ("name", "default_instruction", "query", "document") if not hasattr(template, part)]
    if missing or not (callable(template.query) and callable(template.document)):
        lacks = ", ".join(missing) or "callable query and document"
        raise PluginError(f"the rerank template {name!r} of a plugin has no {lacks}")
    found: RerankTemplate = template
    return found
