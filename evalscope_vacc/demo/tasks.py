"""The demo data as MTEB 2.x tasks, which EvalScope finds by name once :func:`register` was called.

Importing this module imports mteb.
"""

from __future__ import annotations

import importlib
from abc import abstractmethod
from typing import Any

from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTaskClassification, AbsTaskRetrieval, AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata

from evalscope_vacc.demo.rows import LABELS, SPLIT, qrels, read
from evalscope_vacc.errors import HostError

_LANGUAGE_CODES = {"en": ["eng-Latn"], "zh": ["cmn-Hans"]}


def _metadata(name: str, kind: str, main_score: str, description: str) -> Any:
    return TaskMetadata(
        name=name,
        description=description,
        dataset={"path": "evalscope-vacc/demo", "revision": "1"},
        type=kind,
        category="t2t" if kind != "Classification" else "t2c",
        modalities=["text"],
        eval_splits=[SPLIT],
        eval_langs=_LANGUAGE_CODES,
        main_score=main_score,
        date=("2026-11-01", "2026-11-30"),
        domains=["Written"],
        task_subtypes=[],
        license="apache-2.0",
        annotations_creators="human-annotated",
        dialect=[],
        sample_creation="created",
        bibtex_citation="",
    )


class _FromThePackage:
    """Loads a task's subsets from the package's files; no network."""

    data_loaded: bool
    dataset: dict[str, Any]
    hf_subsets: list[str]

    def load_data(self, *_: object, **__: object) -> None:
        """Fill ``dataset``, whatever arguments this release of MTEB passes."""
        if not self.data_loaded:
            self.dataset = {language: self._subset(language) for language in self.hf_subsets}
            self.data_loaded = True

    @abstractmethod
    def _subset(self, language: str) -> Any:
        """One language's data, as the kind of task has them."""


class VaccDemoRetrieval(_FromThePackage, AbsTaskRetrieval):  # type: ignore[misc]
    """108 short texts on everyday subjects, each beside near misses, and 80 questions."""

    metadata = _metadata(
        "VaccDemoRetrieval",
        "Retrieval",
        "ndcg_at_10",
        "Everyday questions, each with one answer among texts on the same subject, in English and Chinese.",
    )

    def _subset(self, language: str) -> Any:
        return {
            SPLIT: {
                "corpus": Dataset.from_list([*read("retrieval_corpus", language)]),
                "queries": Dataset.from_list([*read("retrieval_queries", language)]),
                "relevant_docs": qrels(language),
                "top_ranked": None,
            }
        }


class VaccDemoSTS(_FromThePackage, AbsTaskSTS):  # type: ignore[misc]
    """56 pairs of sentences, from unrelated to the same."""

    metadata = _metadata(
        "VaccDemoSTS",
        "STS",
        "cosine_spearman",
        "Pairs of everyday sentences with their similarity from 0 to 5, in English and Chinese.",
    )
    min_score = 0
    max_score = 5

    def _subset(self, language: str) -> Any:
        return DatasetDict({SPLIT: Dataset.from_list([*read("sts", language)])})


class VaccDemoClassification(_FromThePackage, AbsTaskClassification):  # type: ignore[misc]
    """174 messages to a shop in six classes."""

    metadata = _metadata(
        "VaccDemoClassification",
        "Classification",
        "accuracy",
        "Messages to a shop, by what they are about, in English and Chinese.",
    )
    samples_per_label = 8

    def _subset(self, language: str) -> Any:
        return DatasetDict({split: _messages(language, split) for split in ("train", SPLIT)})


def _messages(language: str, split: str) -> Any:
    rows = [row for row in read("classification", language) if row["split"] == split]
    return Dataset.from_list([{"text": row["text"], "label": LABELS.index(row["label"])} for row in rows])


TASKS = (VaccDemoRetrieval, VaccDemoSTS, VaccDemoClassification)


def register() -> tuple[str, ...]:
    """Let ``mteb.get_task`` and ``mteb.get_tasks(tasks=[…])`` find the demo's tasks, and through them EvalScope.

    They are found by name only: a selection by language or type stays what it is without the demo.

    Returns:
        The tasks' names.

    Raises:
        HostError: This mteb keeps its tasks elsewhere; the demo's data needs mteb 2.x.
    """
    # the package's attribute of this name is the function
    module = importlib.import_module("mteb.get_tasks")
    registry = getattr(module, "_TASKS_REGISTRY", None)
    if not isinstance(registry, dict):
        version = getattr(importlib.import_module("mteb"), "__version__", "?")
        raise HostError(
            f"mteb {version} has no registry of tasks that the demo's tasks could be added to. "
            "Install mteb 2.7 or later, below 3."
        )
    for task in TASKS:
        registry.setdefault(task.metadata.name, task)
    return tuple(task.metadata.name for task in TASKS)
