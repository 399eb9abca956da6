"""What the text rules need to know of a task, without MTEB."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Side = Literal["query", "document"]
"""Which side of a retrieval or reranking task a text is on; tasks without sides use ``None``."""

RERANKING = ("Reranking", "InstructionReranking")
"""Types of tasks that bring their own candidates."""


@dataclass(frozen=True)
class TaskInfo:
    """A task as the instruction rules see it.

    Attributes:
        name: MTEB's task name.
        type: MTEB's ``metadata.type``, such as ``"Retrieval"`` or ``"InstructionReranking"``; "" when unknown.
        prompt: ``metadata.prompt``: an instruction, or one per side (keys ``query``, ``document`` or ``passage``).
        default_prompt: The instruction of the task's abstract class, which holds where the task has none of its own.
    """

    name: str
    type: str = ""
    prompt: str | Mapping[str, str] | None = None
    default_prompt: str | None = None
