"""The plan of a run: which model does which task in which stage, and what is reranked. Pure values, made without a host.

An :class:`Item` is one task of one model with all that an engine needs to carry it out alone; it can be pickled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evalscope_vacc.errors import ConfigError

PREDICTIONS = "_predictions.json"
Kind = Literal["retrieval", "candidates", "own candidates only", "other"]


@dataclass(frozen=True)
class PlannedTask:
    """What decides who does a task.

    Attributes:
        name: As results are filed.
        type: MTEB's ``metadata.type``.
        kind: "retrieval" makes predictions that can be reranked, "candidates" brings candidates that stored predictions
            may replace, "own candidates only" has some that nothing replaces; "other" is for an encoder.
    """

    name: str
    type: str
    kind: Kind


@dataclass(frozen=True)
class Stored:
    """A prediction file that was read: 8 hex digits of its content say which one it was."""

    path: Path
    digest: str


@dataclass(frozen=True)
class PlannedModel:
    """What decides what a model does.

    Attributes:
        name: As results are filed.
        reranks: Whether it is a cross-encoder: by what it can do, not by what its entry says.
        stored: Task to the predictions that this cross-encoder is to rerank.
    """

    name: str
    reranks: bool
    stored: tuple[tuple[str, Stored], ...] = ()


@dataclass(frozen=True)
class Item:
    """One task of one model.

    Attributes:
        model: Position in the entries of the configuration.
        name: Name of the model.
        task: Name of the task.
        stage: "" for a run of one stage, else "stage1" or "stage2".
        out: Folder of the results.
        predictions: Folder of the predictions; None where none are kept.
        feeds: Its predictions are reranked later: a score without them is not enough.
        first: File of the predictions that are reranked.
        after: Position in the plan of the item that makes ``first``.
    """

    model: int
    name: str
    task: str
    stage: str
    out: Path
    predictions: Path | None = None
    feeds: bool = False
    first: Path | None = None
    after: int | None = None

    def again(self, *, overwrite: bool, other_server: bool, has_predictions: bool) -> bool:
        """Whether the task is evaluated although a score of it lies in the folder.

        Args:
            overwrite: ``eval.overwrite_results``.
            other_server: Another server earned the score that lies there.
            has_predictions: This model's predictions lie there too.
        """
        return overwrite or other_server or (self.feeds and not has_predictions)


@dataclass(frozen=True)
class Plan:
    """A whole run.

    Attributes:
        items: In the order in which they are carried out.
        stored: Task to the stored predictions that are reranked, in the order in which they are.
    """

    items: tuple[Item, ...]
    stored: tuple[tuple[str, Stored], ...] = ()


def make_plan(models: Sequence[PlannedModel], tasks: Sequence[PlannedTask], out: Path) -> Plan:
    """Plans a run in ``out``.

    Cross-encoders alone do the tasks that bring candidates. Where there is a retrieval task as well, encoders go first
    (``stage1``), and every cross-encoder reranks what every encoder found (``stage2``), or what was stored.

    Raises:
        ConfigError: The models, tasks and stored predictions do not go together.
    """
    stored = _stored(models, tasks)
    encoders = [position for position, model in enumerate(models) if not model.reranks]
    rerankers = [position for position, model in enumerate(models) if model.reranks]
    retrieval = [t.name for t in tasks if t.kind == "retrieval" or (t.kind == "candidates" and t.name in stored)]
    given = [t.name for t in tasks if "candidates" in t.kind and t.name not in stored]
    others = [t.name for t in tasks if t.kind == "other"]
    if not encoders:
        _check_rerankers_alone(tasks, stored)
    build = _Builder(models, out)
    if not rerankers:
        build.evaluate(encoders, [t.name for t in tasks])
    elif not retrieval:
        build.evaluate(encoders, others, keep=False)
        build.evaluate(rerankers, given)
    else:
        first, second = ("stage1", "stage2") if encoders else ("", "")
        open_retrieval = [name for name in retrieval if name not in stored]
        build.evaluate(encoders, [*open_retrieval, *others], first, feeding=open_retrieval)
        made = list(build.items)
        for reranker in rerankers:
            build.evaluate([reranker], given, second)
            for name, file in stored.items():
                build.rerank(reranker, name, second, file.path)
            for position, item in enumerate(made):
                if item.feeds and item.predictions is not None:
                    file_made = item.predictions / f"{item.task}{PREDICTIONS}"
                    build.rerank(reranker, item.task, second, file_made, after=position)
    return Plan(tuple(build.items), tuple(stored.items()))


class _Builder:
    """Collects the items of a plan."""

    def __init__(self, models: Sequence[PlannedModel], out: Path) -> None:
        self.models = models
        self.out = out
        self.items: list[Item] = []

    def evaluate(
        self,
        group: Sequence[int],
        tasks: Sequence[str],
        stage: str = "",
        *,
        feeding: Sequence[str] = (),
        keep: bool = True,
    ) -> None:
        """Adds every task for each model of a group."""
        for model in group:
            folder = self._predictions(model, stage) if keep else None
            for task in tasks:
                item = Item(model, self.models[model].name, task, stage, self.out / stage, folder, task in feeding)
                self.items.append(item)

    def rerank(self, model: int, task: str, stage: str, first: Path, after: int | None = None) -> None:
        """Adds a task whose candidates are in ``first``."""
        folder = self._predictions(model, stage)
        name = self.models[model].name
        self.items.append(Item(model, name, task, stage, self.out / stage, folder, first=first, after=after))

    def _predictions(self, model: int, stage: str) -> Path:
        """MTEB names the files by task alone, so several models of a kind need folders of their own."""
        folder = self.out / stage / "predictions"
        group = [n for n, other in enumerate(self.models) if other.reranks == self.models[model].reranks]
        name = self.models[model].name.replace("/", "__")
        return folder if len(group) == 1 else folder / f"{group.index(model) + 1}-{name}"


def _stored(models: Sequence[PlannedModel], tasks: Sequence[PlannedTask]) -> dict[str, Stored]:
    """Returns task to stored predictions, which all the cross-encoders share."""
    kinds = {task.name: task.kind for task in tasks}
    found: dict[str, Stored] = {}
    for model in models:
        for name, file in model.stored:
            if name not in kinds:
                raise ConfigError(f"model_kwargs.task_name has {name}, which eval.task_names does not: add it there")
            if kinds[name] == "own candidates only":
                raise ConfigError(
                    f"{name} brings its own candidates, and MTEB 1.x reranks no others: remove it from "
                    "model_kwargs.task_name, or use MTEB 2.x"
                )
            if found.setdefault(name, file).digest != file.digest:
                raise ConfigError(
                    f"{name}: the cross-encoders name different predictions, {found[name].path} and {file.path}: "
                    "rerank them in runs of their own"
                )
    return found


def _check_rerankers_alone(tasks: Sequence[PlannedTask], stored: Mapping[str, Stored]) -> None:
    for task in tasks:
        if task.kind == "other":
            raise ConfigError(
                f"{task.name} is a {task.type} task, which no cross-encoder can do: add an encoder to models, or remove "
                "the task"
            )
    for task in tasks:
        if task.kind == "retrieval" and task.name not in stored:
            raise ConfigError(
                f"{task.name} is a Retrieval task and there is no encoder: a cross-encoder needs candidates. Add an encoder "
                "to models, or name its stored predictions: model_kwargs.task_name and model_kwargs.embed_results"
            )
