"""Which tasks a run has: those of a preset, and those that a budget of time allows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalscope_vacc.catalog import find
from evalscope_vacc.catalog.presets import FULL, Family, families, family_of, limits
from evalscope_vacc.config import ModelConfig
from evalscope_vacc.errors import ConfigError
from evalscope_vacc.results.benchmarks import named, parts
from evalscope_vacc.results.estimate import Estimate, texts_of
from evalscope_vacc.runner.options import NO_REFERENCE, Options

# what a task costs beside its texts: loading its data, and scoring
TASK_S = 5.0
# what some tasks compute beside that, measured on one processor: a row that a classifier is trained on, and a text that is
# clustered ten times
TRAINING_ROW_S = 0.004
CLUSTERED_TEXT_S = 0.006
LABELS = 20
"""Of a classification whose labels MTEB does not count."""
# judging, the page, and the end of the process
END_S = 10.0
# an estimate is good to a third or so; what is left over does no harm
MARGIN = 1.25


@dataclass(frozen=True)
class Choice:
    """What a budget allows.

    Attributes:
        tasks: In the order of the list.
        left_out: Those that do not fit.
    """

    tasks: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def with_preset(config: Mapping[str, Any], options: Options, models: Sequence[ModelConfig]) -> dict[str, Any]:
    """Returns the configuration with the tasks of its preset; a budget without tasks chooses from the largest one's.

    Raises:
        ConfigError: There is no list for the models.
    """
    evaluation = dict(config["eval"])
    named = any(evaluation.get(key) for key in ("task_names", "tasks", "benchmarks", "task_types", "custom_tasks"))
    if options.preset is None and (options.budget_s is None or named):
        return dict(config)
    family = _family(options, models)
    names, benchmarks = tasks_of(family, options.preset or FULL)
    if not names and not benchmarks:
        least = next(preset for preset in (*limits(), FULL) if any(tasks_of(family, preset)))
        raise ConfigError(
            f"--preset {options.preset}: no task with published scores of {family.models[0]} is so small; the smallest "
            f"preset is {least}"
        )
    evaluation["task_names"] = list(dict.fromkeys([*(evaluation.get("task_names") or ()), *names]))
    if benchmarks:
        evaluation["benchmarks"] = list(dict.fromkeys([*(evaluation.get("benchmarks") or ()), *benchmarks]))
    return {**config, "eval": evaluation}


def _family(options: Options, models: Sequence[ModelConfig]) -> Family:
    rerankers = [model for model in models if model.is_cross_encoder]
    encoders = [model for model in models if not model.is_cross_encoder]
    against = options.against
    name = against if against not in (None, NO_REFERENCE) and not Path(str(against)).exists() else None
    judged = (rerankers or encoders)[0].model_name
    family = family_of(name or judged)
    if family is None or bool(family.first_stage) != bool(rerankers):
        known = ", ".join(model for family in families() for model in family.models)
        raise ConfigError(
            f"there are no presets for {name or ' and '.join(model.model_name for model in models)}: name tasks by --tasks "
            f"or --benchmark. Presets are tasks with published scores of {known}"
        )
    if family.first_stage and options.first_stage is None:
        first = find(encoders[0].model_name) if encoders else None
        if first is None or first.huggingface != family.first_stage:
            raise ConfigError(
                f"the published scores of {name or judged} are of candidates that {family.first_stage} found: give that "
                "model's address beside the reranker's, or its run by --first-stage"
            )
    return family


def tasks_of(family: Family, preset: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the tasks and benchmarks of a preset: the longest beginning of the list that has not too many texts.

    A pair of a reranker counts as a text.
    """
    if preset == FULL:
        return family.tasks, family.full
    room, found = limits()[preset], []
    for task in family.tasks:
        room -= texts_of(task, reranked=bool(family.first_stage)) or room + 1
        if room < 0:
            break
        found.append(task)
    return tuple(found), ()


def with_tasks(config: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Returns the configuration restricted to some of its tasks; those of a benchmark stay the part that it takes."""
    evaluation = config["eval"]
    whole = _listed(evaluation)
    benchmarks = {
        name: [task.name for task in named(name).tasks if task.name in names and task.name not in whole]
        for name in parts(evaluation.get("benchmarks") or ())
    }
    of_benchmarks = {task for tasks in benchmarks.values() for task in tasks}
    restricted = {**evaluation, "task_names": [name for name in names if name not in of_benchmarks]}
    for name in ("tasks", "task_types", "custom_tasks"):
        restricted.pop(name, None)
    if benchmarks:
        restricted["benchmarks"] = {name: tasks for name, tasks in benchmarks.items() if tasks}
    return {**config, "eval": restricted}


def in_order(config: Mapping[str, Any], estimate: Estimate | None, tasks: Sequence[str]) -> list[str]:
    """Returns the order in which a budget takes tasks: as they are listed, then those of benchmarks, the shortest first."""
    listed, seconds = _listed(config["eval"]), _seconds(estimate)
    of_benchmarks = [task for task in tasks if task not in listed] if config["eval"].get("benchmarks") else []
    return [
        *(task for task in tasks if task not in of_benchmarks),
        *sorted(of_benchmarks, key=lambda task: seconds.get(task, 0.0)),
    ]


def _listed(evaluation: Mapping[str, Any]) -> list[str]:
    names = evaluation.get("task_names") or evaluation.get("tasks") or []
    return [names] if isinstance(names, str) else list(names)


def scoring_s(task: Any, texts: int) -> float:
    """Returns about how long MTEB computes with the vectors of a task, beside what every task costs.

    Args:
        task: MTEB's.
        texts: How many it embeds.
    """
    kind = str(task.metadata.type)
    if kind == "Clustering":
        return CLUSTERED_TEXT_S * texts
    experiments, rows = (getattr(task, name, None) for name in ("n_experiments", "samples_per_label"))
    if not kind.endswith("Classification") or not (isinstance(experiments, int) and isinstance(rows, int)):
        return 0.0
    splits = (task.metadata.descriptive_stats or {}).values()
    counted = ((split.get("label_statistics") or split).get("unique_labels") for split in splits)
    return TRAINING_ROW_S * experiments * rows * max(filter(None, counted), default=LABELS)


def _seconds(estimate: Estimate | None) -> dict[str, float]:
    """Returns what each task's texts take, of all models."""
    found: dict[str, float] = {}
    for one in estimate.tasks if estimate else ():
        found[one.task] = found.get(one.task, 0.0) + (one.seconds or 0.0)
    return found


def within(
    estimate: Estimate | None, tasks: Sequence[str], seconds: float, scoring: Mapping[str, float] | None = None
) -> Choice:
    """Returns the tasks that can be done in some seconds, each that still fits, in their order.

    Args:
        estimate: What the texts of each task take.
        tasks: In the order in which they are taken.
        seconds: How long all of them may take.
        scoring: What a task takes beside its texts and what every task does.

    Raises:
        ConfigError: The rate of the server is not known, or not one task fits.
    """
    if estimate is None or estimate.seconds is None:
        raise ConfigError(
            "--budget: the server's rate could not be measured, so it is unknown what fits: leave out --budget"
        )
    further = scoring or {}
    cost = {task: TASK_S + further.get(task, 0.0) + MARGIN * of_texts for task, of_texts in _seconds(estimate).items()}
    left = seconds - END_S
    chosen = []
    for task in tasks:
        if task in cost and cost[task] <= left:
            left -= cost[task]
            chosen.append(task)
    if not chosen:
        least = min(cost.values(), default=0.0)
        raise ConfigError(
            f"--budget: {max(seconds, 0):.0f} s are left after the check, and the shortest task takes about {least:.0f} s: "
            "give more time, or name other tasks"
        )
    return Choice(tuple(chosen), tuple(task for task in tasks if task not in chosen))
