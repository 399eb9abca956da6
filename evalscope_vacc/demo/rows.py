"""Reads the demo data; knows nothing of MTEB."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

LANGUAGES = ("en", "zh")
LABELS = ("refund", "delivery", "account", "invoice", "fault", "praise")
"""Classes of the classification set; their position is the label that MTEB gets."""

SPLIT = "test"


@functools.cache
def read(name: str, language: str) -> tuple[dict[str, Any], ...]:
    """Rows of one file in one language, in the file's order.

    Args:
        name: ``retrieval_corpus``, ``retrieval_queries``, ``retrieval_qrels``, ``sts`` or ``classification``.
        language: ``en`` or ``zh``.

    Returns:
        The rows, without their ``lang``.
    """
    text = (resources.files("evalscope_vacc.demo") / "data" / f"{name}.jsonl").read_text(encoding="utf-8")
    rows = (json.loads(line) for line in text.splitlines())
    return tuple({key: value for key, value in row.items() if key != "lang"} for row in rows if row["lang"] == language)


def qrels(language: str) -> dict[str, dict[str, int]]:
    """Judgements: query → document → grade (2 answers the query, 1 helps)."""
    judged: dict[str, dict[str, int]] = {}
    for row in read("retrieval_qrels", language):
        judged.setdefault(row["query"], {})[row["document"]] = row["grade"]
    return judged
