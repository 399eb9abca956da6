"""The built-in instruction profiles: which instruction a model is given, by task and side.

Sources: Qwen's evaluation code for the published scores of Qwen3-Embedding (it ran on mteb 1.38.9), and mteb 2.26's
own class for the same models. The two send different texts on most tasks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.text.dictionary import PUBLISHED_CONTENT, Dictionary, content_digest
from evalscope_vacc.text.task import Side, TaskInfo

# What mteb 1.38.9, under which Qwen's scores were measured, called a type that has another name since. Of the 931
# tasks that it shares with mteb 2.26.24 (the 190 of eng v2, cmn v1, Multilingual v2 and Code v1 are among them) this
# is the only difference in type, prompt or default prompt that a text model can meet: three tasks,
# {Core17,News21,Robust04}InstructionRetrieval. Found by loading both releases and comparing every task's metadata.
TYPES_OF_MTEB_1_38_9: Mapping[str, str] = MappingProxyType({"InstructionReranking": "InstructionRetrieval"})

_SIMILAR = "Retrieve semantically similar text"
_SYMMETRIC_TYPES = frozenset({"STS", "PairClassification"})


@dataclass(frozen=True)
class InstructionTemplate:
    """The text around an instruction.

    Attributes:
        before: What precedes the instruction.
        after: What follows it; the text to embed comes directly after.
    """

    before: str
    after: str

    @classmethod
    def parse(cls, template: str) -> InstructionTemplate:
        r"""Reads ``"Instruct: {}\nQuery:"`` or the same with ``{instruction}``; every other brace stands for itself.

        Raises:
            ConfigError: There is not exactly one placeholder.
        """
        if not isinstance(template, str):
            raise ConfigError(f"instruction_template: expected a text, found {type(template).__name__}")
        count = template.count("{}") + template.count("{instruction}")
        if count != 1:
            raise ConfigError(
                f"instruction_template: {template[:200]!r} has {count} places for the instruction; "
                "write exactly one, {} or {instruction}"
            )
        before, _, after = template.partition("{}" if "{}" in template else "{instruction}")
        return cls(before, after)

    def fill(self, instruction: str) -> str:
        """Returns the prefix that carries ``instruction``."""
        return f"{self.before}{instruction}{self.after}"


QWEN3_TEMPLATE = InstructionTemplate("Instruct: ", "\nQuery:")


@dataclass(frozen=True)
class NoInstruction:
    """Texts go out as they are."""

    name: str = "none"
    notes: tuple[str, ...] = ()
    fingerprint: str = "none"

    def instruction(self, task: TaskInfo, side: Side | None) -> str | None:  # noqa: ARG002 -- the protocol's shape
        """Returns None: nothing is added."""
        return None

    def prefix(self, task: TaskInfo, side: Side | None) -> str:  # noqa: ARG002 -- the protocol's shape
        """Returns the empty text."""
        return ""

    def rerank_instruction(self, task: TaskInfo) -> str | None:  # noqa: ARG002 -- the protocol's shape
        """Returns None: the rerank template's own default holds."""
        return None


@dataclass(frozen=True)
class QwenOfficial:
    """The rules of Qwen's evaluation code.

    Attributes:
        dictionary: Instructions by task; None goes on with the tasks' own metadata.
        template: What surrounds an instruction.
    """

    dictionary: Dictionary | None
    template: InstructionTemplate = QWEN3_TEMPLATE
    name: str = "qwen-official"

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the results must know."""
        if self.dictionary is None:
            note = (
                "no dictionary (instruction_dict_path: metadata): the tasks' own metadata give the instructions, so "
                "the scores are not comparable with the published ones"
            )
            return (note, *_template_notes(self.template))
        notes = []
        if content_digest(self.dictionary) != PUBLISHED_CONTENT:
            notes.append(f"the dictionary of {len(self.dictionary)} tasks is not the published one")
        return (*notes, *_template_notes(self.template))

    @property
    def fingerprint(self) -> str:
        """Short text that changes with whatever changes what is sent; the bare name with the published dictionary."""
        if self.dictionary is None:
            source = "-metadata"
        else:
            digest = content_digest(self.dictionary)
            source = "" if digest == PUBLISHED_CONTENT else f"-{digest[:8]}"
        return f"{self.name}{source}{_template_mark(self.template)}"

    def instruction(self, task: TaskInfo, side: Side | None) -> str | None:
        """Returns the bare instruction of a text, None for none.

        Raises:
            ConfigError: The dictionary has one instruction per side for a task whose texts have no side.
        """
        entry = (self.dictionary or {}).get(task.name)
        by_side = isinstance(entry, Mapping)
        kind = TYPES_OF_MTEB_1_38_9.get(task.type, task.type)
        # documents of retrieval tasks are bare unless the dictionary has a text for that very side; those of reranking
        # tasks are not: the published scores were measured with the instruction on both sides there
        if not by_side and (("Retrieval" in kind and side != "query") or (not kind and side == "document")):
            return None
        if kind in _SYMMETRIC_TYPES:
            return _SIMILAR
        if entry is None:
            return _filled(own_instruction(task, side))
        if isinstance(entry, str):
            return _filled(entry)
        if side is None:
            raise ConfigError(
                f"the dictionary has one instruction per side for {task.name}, whose texts have no side "
                f"(type {task.type or 'unknown'}); give it one text"
            )
        return _filled(entry.get(side))

    def prefix(self, task: TaskInfo, side: Side | None) -> str:
        """Returns the exact text put before a text, "" for nothing."""
        instruction = self.instruction(task, side)
        return self.template.fill(instruction) if instruction is not None else ""

    def rerank_instruction(self, task: TaskInfo) -> str | None:
        """Returns a cross-encoder's instruction for a task: the dictionary's, else the task's own, else None.

        None leaves the rerank template's default: better than the sentence that MTEB has for a whole task type.
        """
        entry = (self.dictionary or {}).get(task.name)
        if isinstance(entry, Mapping):
            entry = entry.get("query")
        return _filled(entry) or _filled(_of_side(task.prompt, "query"))


@dataclass(frozen=True)
class MtebQwen3:
    """What mteb 2.26's own class for Qwen3-Embedding sends.

    Attributes:
        dictionary: Instructions by task that go before the metadata, as that class's ``prompts_dict``; None for none.
        template: What surrounds an instruction.
    """

    dictionary: Dictionary | None = None
    template: InstructionTemplate = QWEN3_TEMPLATE
    name: str = "mteb"

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the results must know."""
        notes = []
        if self.dictionary is not None:
            notes.append(f"a dictionary of {len(self.dictionary)} tasks goes before the tasks' own metadata")
        return (*notes, *_template_notes(self.template))

    @property
    def fingerprint(self) -> str:
        """Short text that changes with whatever changes what is sent."""
        source = "" if self.dictionary is None else f"-{content_digest(self.dictionary)[:8]}"
        return f"{self.name}{source}{_template_mark(self.template)}"

    def instruction(self, task: TaskInfo, side: Side | None) -> str | None:
        """Returns the bare instruction of a text, None for none: documents never have one."""
        if side == "document":
            return None
        prompt = (self.dictionary or {}).get(task.name, task.prompt)
        text = _of_side(prompt, side)
        if text is None and not prompt:
            text = task.default_prompt
        # unlike Qwen's code, mteb asks only whether there is any character at all
        return text or None

    def prefix(self, task: TaskInfo, side: Side | None) -> str:
        """Returns the exact text put before a text, "" for nothing."""
        instruction = self.instruction(task, side)
        return self.template.fill(instruction) if instruction is not None else ""

    def rerank_instruction(self, task: TaskInfo) -> str | None:
        """Returns a dictionary's instruction, else None: mteb's own Qwen3 cross-encoder has none per task."""
        return _filled(_of_side((self.dictionary or {}).get(task.name), "query"))


def own_instruction(task: TaskInfo, side: Side | None) -> str | None:
    """Returns the task's own instruction as mteb 1.38.9 gives it: its metadata's, else its abstract class's.

    A prompt that names sides but not this one gives None, not the abstract class's sentence.
    """
    if task.prompt:
        return _of_side(task.prompt, side)
    return task.default_prompt


def _of_side(prompt: str | Mapping[str, str] | None, side: Side | None) -> str | None:
    """Returns the text of one side; without a side, of the first that is given."""
    if prompt is None or isinstance(prompt, str):
        return prompt
    if side is None:
        return next(iter(prompt.values()), None)
    if side == "document":
        return prompt.get("document") or prompt.get("passage")
    return prompt.get(side)


def _filled(text: str | None) -> str | None:
    return text if text and text.strip() else None


def _template_mark(template: InstructionTemplate) -> str:
    if template == QWEN3_TEMPLATE:
        return ""
    return "-t" + hashlib.sha256(template.fill("{}").encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _template_notes(template: InstructionTemplate) -> tuple[str, ...]:
    if "\\n" in template.before + template.after:
        return ("instruction_template holds a backslash and an n, not a newline: in YAML that needs double quotes",)
    return ()
