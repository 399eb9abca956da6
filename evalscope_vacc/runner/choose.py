"""Which tasks a run has: those of a preset, and those that a budget of time allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalscope_vacc.catalog.presets import FULL, Family, families, family_of, limits
from evalscope_vacc.config import ModelConfig
from evalscope_vacc.errors import ConfigError
from evalscope_vacc.results.estimate import Estimate, texts_of
from evalscope_vacc.runner.options import NO_REFERENCE, Options

# what a task costs beside its texts: loading its data, and scoring
TASK_S = 5.0
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
    """Returns the configuration with the tasks of its preset; a budget without tasks chooses from all of them.

    Raises:
        ConfigError: There is no list for the models.
    """
    evaluation = dict(config["eval"])
    named = any(evaluation.get(key) for key in ("task_names", "tasks", "benchmarks", "task_types", "custom_tasks"))
    if options.preset is None and (options.budget_s is None or named):
        return dict(config)
    family = _family(options.against, models)
    names, benchmarks = tasks_of(family, options.preset or FULL)
    evaluation["task_names"] = list(dict.fromkeys([*(evaluation.get("task_names") or ()), *names]))
    if benchmarks and options.budget_s is None:
        evaluation["benchmarks"] = list(dict.fromkeys([*(evaluation.get("benchmarks") or ()), *benchmarks]))
    return {**config, "eval": evaluation}


def _family(against: str | None, models: Sequence[ModelConfig]) -> Family:
    name = against if against not in (None, NO_REFERENCE) and not Path(str(against)).exists() else None
    family = family_of(name or models[0].model_name)
    if family is None or any(model.is_cross_encoder for model in models):
        known = ", ".join(model for family in families() for model in family.models)
        raise ConfigError(
            f"there are no presets for {name or ' and '.join(model.model_name for model in models)}: name tasks by --tasks "
            f"or --benchmark. Presets are tasks with published scores of {known}"
        )
    return family


def tasks_of(family: Family, preset: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the tasks and benchmarks of a preset: the longest beginning of the list that has not too many texts."""
    if preset == FULL:
        return family.tasks, family.full
    room, found = limits()[preset], []
    for task in family.tasks:
        room -= texts_of(task) or room + 1
        if room < 0:
            break
        found.append(task)
    return tuple(found), ()


def within(estimate: Estimate | None, tasks: Sequence[str], seconds: float) -> Choice:
    """Returns the tasks that can be done in some seconds, each that still fits, in their order.

    Raises:
        ConfigError: The rate of the server is not known, or not one task fits.
    """
    if estimate is None or estimate.seconds is None:
        raise ConfigError(
            "--budget: the server's rate could not be measured, so it is unknown what fits: leave out --budget"
        )
    cost: dict[str, float] = {}
    for one in estimate.tasks:
        cost[one.task] = cost.get(one.task, TASK_S) + MARGIN * (one.seconds or 0.0)
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
