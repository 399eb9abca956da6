"""How one task is evaluated on mteb 1.x: subset by subset, with predictions kept, and with candidates to rerank."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.files import write_whole
from evalscope_vacc.hosts.evalscope_legacy_models import CrossEncoderFace, Face
from evalscope_vacc.hosts.first_stage import META

# mteb 1.x hands a cross-encoder one batch at a time and waits for its scores: all pairs of a task are one batch, and
# the model makes its own requests of them, many in flight
ALL_PAIRS = 1 << 40


def whole_task_at_once(model: Any, encode_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the ``encode_kwargs`` with which mteb hands a cross-encoder of ours all pairs of a task at once.

    The batch size that was asked for becomes that of the model's requests, where its entry has none.
    """
    given = dict(encode_kwargs or {})
    if not isinstance(model, CrossEncoderFace):
        return given
    model.batch_size = given.get("batch_size")
    return {**given, "batch_size": ALL_PAIRS, "show_progress_bar": False}


@dataclass
class Predictions:
    """The predictions of one task, gathered in the form of MTEB 2.x.

    mteb 1.x leaves a file per subset, and overwrites it with the next split; those files stay where EvalScope's users
    look for them.

    Attributes:
        path: The file to write.
        meta: ``model_name`` and ``revision``.
        content: subset -> split -> query -> document -> score.
    """

    path: Path
    meta: Mapping[str, Any]
    content: dict[str, dict[str, Any]] = field(default_factory=dict)

    def take(self, file: Path, split: str, subset: str) -> None:
        """Adds what mteb has just written."""
        self.content.setdefault(subset, {})[split] = json.loads(file.read_text(encoding="utf-8"))

    def write(self) -> None:
        """Writes the file, where the task was evaluated."""
        if self.content:
            write_whole(self.path, json.dumps({META: dict(self.meta), **self.content}))


def candidate_file(folder: Path, task: str, split: str, subset: str) -> Path:
    """Where the candidates of one subset and split are, in the form of mteb 1.x."""
    return folder / f"{task}_{subset}_{split}.json"


@contextmanager
def by_subset(
    task: Any, model: Any, out: Path, predictions: Predictions | None, candidates: Path | None
) -> Iterator[None]:
    """Has a task evaluated one subset at a time, so that the model and the prediction files know which it is.

    Args:
        task: The task; it is as before when the block ends.
        model: An encoder or cross-encoder; a :class:`Face` is told what is evaluated.
        out: Where mteb writes.
        predictions: What gathers them, or None.
        candidates: Folder of the candidates that a cross-encoder reranks, or None.
    """
    import mteb

    whole = task.evaluate
    plain = type(task).evaluate in (mteb.AbsTask.evaluate, mteb.AbsTaskRetrieval.evaluate)

    def at(split: str, subset: str) -> None:
        if isinstance(model, Face):
            model.at(task, split, subset)

    def evaluate(
        given: Any, split: str = "test", subsets_to_run: Sequence[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        subsets = list(task.hf_subsets) if task.is_multilingual else ["default"]
        subsets = [subset for subset in subsets if subsets_to_run is None or subset in subsets_to_run]
        if not plain:
            at(split, subsets[0] if len(subsets) == 1 else "")
            return whole(given, split, subsets_to_run=subsets_to_run, **kwargs)  # type: ignore[no-any-return]
        scores: dict[str, Any] = {}
        for subset in subsets:
            at(split, subset)
            if candidates is not None:
                kwargs["previous_results"] = str(candidate_file(candidates, task.metadata.name, split, subset))
            scores.update(whole(given, split, subsets_to_run=[subset], **kwargs))
            if predictions is not None:
                predictions.take(out / f"{task.metadata.name}_{subset}_predictions.json", split, subset)
        return scores

    task.evaluate = evaluate
    if isinstance(model, CrossEncoderFace) and task.metadata.type == "Reranking":
        task._evaluate_subset = _reranking(task, model)  # noqa: SLF001 -- mteb's name of it
    try:
        yield
    finally:
        for name in ("evaluate", "_evaluate_subset"):
            vars(task).pop(name, None)


def _reranking(task: Any, model: CrossEncoderFace) -> Any:
    """A reranking task with a cross-encoder: mteb 1.x knows encoders only there. The metrics are mteb's own.

    Raises:
        ConfigError: The task computes its scores in a way of its own.
    """
    import mteb
    import torch
    from mteb.evaluation.evaluators import RerankingEvaluator

    if type(task)._evaluate_subset is not mteb.AbsTaskReranking._evaluate_subset:  # noqa: SLF001
        raise ConfigError(
            f"{task.metadata.name}: mteb 1.x cannot score a cross-encoder on this task; EvalScope 1.8.1 and later can"
        )

    def evaluate_subset(_: Any, data_split: Any, *, encode_kwargs: Any = None, **kwargs: Any) -> Any:
        evaluator = RerankingEvaluator(
            data_split, task_name=task.metadata.name, encode_kwargs=dict(encode_kwargs or {}), **kwargs
        )
        pairs: list[tuple[str, str]] = []
        shapes: list[tuple[int, int, int]] = []
        for sample in evaluator.samples:
            queries = [sample["query"]] if isinstance(sample["query"], str) else list(sample["query"])
            documents = [*sample["positive"], *sample["negative"]]
            shapes.append((len(queries), len(sample["positive"]), len(sample["negative"])))
            pairs += [(query, document) for query in queries for document in documents]
        scores = torch.as_tensor(model.predict(pairs), dtype=torch.float32)
        found: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
        start = 0
        for asked, positive, negative in shapes:
            size = asked * (positive + negative)
            # a question asked in several ways: the best of its scores, as mteb does for encoders
            best = scores[start : start + size].reshape(asked, -1).amax(dim=0)
            start += size
            metrics = evaluator._compute_metrics_instance(best, [True] * positive + [False] * negative)  # noqa: SLF001
            for values, value in zip(
                found, (metrics["mrr"], metrics["ap"], evaluator.conf_scores(best.tolist())), strict=True
            ):
                values.append(value)
        result = evaluator._collect_results(*found)  # noqa: SLF001
        task._add_main_score(result)  # noqa: SLF001
        return result

    return evaluate_subset
