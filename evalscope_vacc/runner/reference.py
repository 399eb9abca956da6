"""The reference of a run: what must be known of it before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.results import published
from evalscope_vacc.results.benchmarks import benchmark
from evalscope_vacc.results.load import load_results
from evalscope_vacc.results.model import MEAN_OF_SUBSETS, Reference
from evalscope_vacc.runner.options import NO_REFERENCE


@dataclass(frozen=True)
class Expected:
    """The scores to expect, of every reference.

    Attributes:
        references: One or more; none where nothing is to be judged.
    """

    references: tuple[Reference, ...]

    @property
    def tasks(self) -> set[str]:
        """Every task that there is a score of, or of whose benchmark there is a mean."""
        found = {row.task for reference in self.references for row in reference.rows}
        for reference in self.references:
            for aggregate in reference.aggregates:
                known = benchmark(aggregate.benchmark)
                found |= {task.name for task in known.tasks} if known else set()
        return found

    def mean(self, task: str, keys: Iterable[tuple[str, str]]) -> float | None:
        """Returns the mean of a task's scores over splits and subsets; None where one is not known."""
        wanted = list(keys)
        for reference in self.references:
            rows = {(r.split, r.subset): r.score for r in reference.rows if r.task == task and r.score is not None}
            found = [rows.get(key, rows.get((key[0], MEAN_OF_SUBSETS))) for key in wanted]
            if found and all(score is not None for score in found):
                return math.fsum(score for score in found if score is not None) / len(found)
        return None


def expected(against: str | None, models: Sequence[str]) -> Expected:
    """Finds the references of a run.

    Args:
        against: A model with published scores, a folder of results, "none", or None: the models' own names.
        models: Names as they are served.

    Raises:
        ConfigError: Nothing is published under the name.
    """
    if against == NO_REFERENCE:
        return Expected(())
    if against is not None:
        if Path(against).exists() and (results := load_results([against])).rows:
            return Expected((Reference(against, results.rows, is_run=True),))
        return Expected((published.get(against).reference(),))
    known = [entry.reference() for name in models if (entry := published.find(name))]
    if not known:
        raise ConfigError(
            f"no scores are published under the name {', '.join(models)}: name the model with --against "
            "(`evalscope-vacc published` lists them), give another run's folder, or --against none to judge nothing"
        )
    return Expected(tuple(known))


def scores_of(results: Sequence[Any]) -> Mapping[tuple[str, str], float]:
    """Returns (split, subset) to main score of MTEB's ``TaskResult`` objects."""
    return {
        (split, str(score.get("hf_subset", "default"))): float(score["main_score"])
        for result in results
        for split, scores in result.scores.items()
        for score in scores
        if isinstance(score.get("main_score"), (int, float))
    }
