"""What would be sent for a task, without a server: MTEB runs the task with a model that only looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from evalscope_vacc.catalog import find
from evalscope_vacc.config import ModelConfig, configure
from evalscope_vacc.errors import ConfigError
from evalscope_vacc.hosts.data import RETRIEVAL, load_data, named
from evalscope_vacc.hosts.hub import load_offline_where_needed
from evalscope_vacc.models.rows import read_rows
from evalscope_vacc.models.served import Served
from evalscope_vacc.models.tasks import side_of, task_info
from evalscope_vacc.plugins import plugins
from evalscope_vacc.text.side import decide_side

SAMPLES = 3


@dataclass(frozen=True)
class Shown:
    """Some exact strings of one task, split and side.

    Attributes:
        side: "query", "document", "pair", or "" for tasks without sides.
        source: Which rule made the prefix or chose the template.
        texts: What would be sent; a pair has two strings.
    """

    task: str
    split: str
    subset: str
    side: str
    source: str
    texts: tuple[tuple[str, ...], ...]


class _Enough(Exception):  # noqa: N818 -- not an error
    """Every side has been seen."""


class _Looker:
    """Collects the first texts of each side and stops the evaluation."""

    def __init__(self, config: ModelConfig) -> None:
        self.served = Served(config)
        self.mteb_model_meta = self.served.mteb_model_meta
        self.shown: list[Shown] = []

    def _add(self, task: str, split: str, subset: str, side: str, source: str, texts: list[tuple[str, ...]]) -> None:
        self.shown.append(Shown(task, split, subset, side, source, tuple(texts[:SAMPLES])))


class _LookingEncoder(_Looker):
    def encode(
        self, inputs: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, prompt_type: Any = None, **_: Any
    ) -> Any:
        task, side = task_info(task_metadata), side_of(prompt_type)
        prefix = self.served.rules.prefix(task, side)
        rows = [text for window in read_rows(inputs) for text in window.text]
        texts: list[tuple[str, ...]] = [(prefix.text + text,) for text in rows[:SAMPLES]]
        self._add(task.name, hf_split, hf_subset, side or "", prefix.source, texts)
        if side != "query":
            raise _Enough
        return np.ones((len(rows), 4), np.float32)

    def similarity(self, *_: Any) -> Any:
        raise _Enough

    def similarity_pairwise(self, *_: Any) -> Any:
        raise _Enough


class _LookingCrossEncoder(_Looker):
    def predict(
        self, inputs1: Any, inputs2: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, **_: Any
    ) -> Any:
        task, config = task_info(task_metadata), self.served.config
        queries, documents = next(read_rows(inputs1)), next(read_rows(inputs2))
        entry = find(config.model_name)
        side = decide_side(
            config.rerank_template,
            family=None if entry is None else entry.template_family or "",
            server="none",
            extra=plugins().rerank_templates(),
        )
        of_task = self.served.rules.rerank_instruction(task)
        texts: list[tuple[str, ...]] = []
        for at in range(min(SAMPLES, len(queries))):
            own = queries.instruction[at] if queries.instruction is not None and side.places_instructions else None
            query = queries.query[at] if own is not None and queries.query is not None else queries.text[at]
            query = self.served.rules.pair_prefix(task, "query") + query
            document = self.served.rules.pair_prefix(task, "document") + documents.text[at]
            texts.append((side.query(query, own or side.instruction(of_task)), side.document(document)))
        name = side.template.name if side.template is not None else "none"
        source = f"template {name}" + (
            " here; a server's own takes its place" if config.rerank_template == "auto" else ""
        )
        self._add(task.name, hf_split, hf_subset, "pair", source, texts)
        raise _Enough


def show_text(entry: Mapping[str, Any], task_name: str, split: str | None = None) -> list[Shown]:
    """Returns what would be sent for a task, the first strings per side. Loads the task's data; asks no server.

    Args:
        entry: One entry of ``models:``.
        task_name: MTEB's name of the task.
        split: One of the task's splits; default its first.

    Raises:
        ConfigError: No such task or split, or a task that this kind of model cannot do.
    """
    import mteb

    config = configure({"api_base": "http://localhost", **entry})
    task = named(task_name, where="TASK")
    load_offline_where_needed(task)
    splits = list(task.metadata.eval_splits)
    if split is not None and split not in splits:
        raise ConfigError(f"{task_name} has the splits {', '.join(splits)}, not {split!r}")
    task.filter_eval_splits([split or splits[0]])
    looker = _LookingCrossEncoder(config) if config.is_cross_encoder else _LookingEncoder(config)
    if config.is_cross_encoder and task.metadata.type in RETRIEVAL:
        _any_candidates(task)
    try:
        mteb.evaluate(looker, [task], cache=None, show_progress_bar=False)
    except _Enough:
        return looker.shown
    raise ConfigError(f"{task_name} is a {task.metadata.type} task, which this model cannot do")


def _any_candidates(task: Any) -> None:
    """Gives a retrieval task some candidates, so that a cross-encoder is asked."""
    load_data(task)
    for splits in task.dataset.values():
        for data in splits.values():
            ids = list(data["corpus"]["id"][:SAMPLES])
            data["top_ranked"] = dict.fromkeys(data["queries"]["id"], ids)
