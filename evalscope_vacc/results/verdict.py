"""The verdict on a whole run: everything that was asked for, not only what there is a score of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from evalscope_vacc.results.asked import AskedTask
from evalscope_vacc.results.compare import JUDGED, ComparedRow, Comparison
from evalscope_vacc.results.rows import Results, Row

Outcome = Literal["pass", "fail", "above", "incomplete", "nothing comparable"]
State = Literal["judged", "failed", "not run", "no reference"]
EXIT_STATUS: Mapping[Outcome, int] = {"pass": 0, "fail": 1, "above": 1, "incomplete": 3, "nothing comparable": 2}

# tasks on which vectors or scores without meaning score next to nothing, and what that is at most
CHANCE = {
    "STS": 0.05, "Retrieval": 0.003, "BitextMining": 0.002, "Clustering": 0.01,
}  # fmt: skip
FEWEST_EQUAL = 3


@dataclass(frozen=True)
class TaskState:
    """How one task of one model stands.

    Attributes:
        state: "judged" when a score of it was held against the reference; "failed" when the evaluation failed; "not run"
            when it has no result, or lacks a split or subset that was asked for; else "no reference".
        detail: Why it failed, or what of it is missing.
    """

    model: str
    task: str
    state: State
    detail: str = ""


@dataclass(frozen=True)
class Suspicion:
    """Scores that no weights would earn, whatever the reference says.

    Attributes:
        code: "at chance", "all equal", "no number" or "sanity".
        tasks: Names of the tasks, or of the models.
        value: The score that they share.
    """

    code: str
    tasks: tuple[str, ...]
    value: float | None = None


@dataclass(frozen=True)
class Verdict:
    """The answer about everything that was asked for.

    Attributes:
        comparisons: One a run; an answer before what is none.
        tasks: How each task stands; those that were asked for, or, where that is not known, those that have a result.
        recorded: Whether the run left word of what it was asked for.
        suspicions: Scores that no weights would earn.
        allow_partial: Whether a part of what was asked for may pass.
        allow_above: Whether scores above the reference may pass.
    """

    comparisons: tuple[Comparison, ...]
    tasks: tuple[TaskState, ...] = ()
    recorded: bool = False
    suspicions: tuple[Suspicion, ...] = ()
    allow_partial: bool = False
    allow_above: bool = False
    counts: Mapping[State, int] = field(init=False)

    def __post_init__(self) -> None:
        counts: dict[State, int] = dict.fromkeys(("judged", "failed", "not run", "no reference"), 0)
        for task in self.tasks:
            counts[task.state] += 1
        object.__setattr__(self, "counts", counts)

    @property
    def asked(self) -> int | None:
        """Tasks that were asked for; None where that is not known."""
        return len(self.tasks) if self.recorded else None

    @property
    def finished(self) -> int:
        """Tasks that have a whole result."""
        return self.counts["judged"] + self.counts["no reference"]

    @property
    def partial(self) -> bool:
        """Whether a task failed or was not run."""
        return self.finished < len(self.tasks)

    @property
    def outcome(self) -> Outcome:
        """The answer; where several hold: nothing comparable, then a score that fails, then incomplete."""
        verdicts = {row.verdict for c in self.comparisons for row in c.rows}
        verdicts |= {mean.verdict for c in self.comparisons for mean in c.means}
        if not verdicts & set(JUDGED):
            return "nothing comparable"
        if "fail" in verdicts:
            return "fail"
        if "above" in verdicts and not self.allow_above:
            return "above"
        return "incomplete" if self.partial and not self.allow_partial else "pass"

    @property
    def exit_status(self) -> int:
        """0 pass, 1 a score fails, 2 nothing comparable, 3 incomplete."""
        return EXIT_STATUS[self.outcome]


def verdict(
    results: Results,
    comparisons: Sequence[Comparison],
    asked: Sequence[AskedTask] | None,
    *,
    insane: Iterable[str] = (),
    allow_partial: bool = False,
    allow_above: bool = False,
) -> Verdict:
    """Judges the whole.

    Args:
        results: Every row that was found, with or without a reference.
        comparisons: Each run against its reference.
        asked: What was asked for, or None where that is not known.
        insane: Models of which the short check before the run found that every text gets the same answer.
        allow_partial: Do not mind tasks that failed or were not run.
        allow_above: Do not mind scores above the reference.
    """
    judged = {(row.run.split(" · ")[0], row.task) for c in comparisons for row in c.rows if row.judged}
    # a reranker is known by the mean of a benchmark: then its tasks are judged by that
    for comparison in comparisons:
        if any(mean.verdict in JUDGED for mean in comparison.means):
            judged |= {(run.split(" · ")[0], row.task) for run in comparison.runs for row in comparison.rows}
    there: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in results.rows:
        there[row.run.model, row.task].append(row)
    states = []
    left = set(there)
    for entry in asked or ():
        keys = [key for key in there if key[1] == entry.task and entry.is_for(key[0])]
        left -= set(keys)
        states.append(_state(entry, [row for key in keys for row in there[key]], any(key in judged for key in keys)))
    states += [
        TaskState(model, task, "judged" if (model or "(unnamed)", task) in judged else "no reference")
        for model, task in sorted(left)
    ]
    ordered = tuple(sorted(states, key=lambda s: (s.model.casefold(), s.task)))
    return Verdict(
        tuple(comparisons),
        ordered,
        asked is not None,
        suspicions(results, comparisons, insane),
        allow_partial,
        allow_above,
    )


def _state(entry: AskedTask, rows: Sequence[Row], judged: bool) -> TaskState:
    model = entry.model or (rows[0].run.model if rows else "")
    if not rows:
        return TaskState(model, entry.task, "failed" if entry.error else "not run", entry.error)
    if entry.error:
        return TaskState(model, entry.task, "failed", entry.error)
    have = {(row.split, row.subset) for row in rows}
    wanted = [(split, subset) for split in entry.splits for subset in entry.subsets]
    missing = [f"{split} · {subset}" for split, subset in wanted if (split, subset) not in have]
    if missing:
        return TaskState(model, entry.task, "not run", ", ".join(missing[:5]) + (" …" if len(missing) > 5 else ""))
    return TaskState(model, entry.task, "judged" if judged else "no reference")


def suspicions(
    results: Results, comparisons: Sequence[Comparison], insane: Iterable[str] = ()
) -> tuple[Suspicion, ...]:
    """Finds scores that no weights would earn: at chance, all equal, no numbers; or answers that were all the same.

    A task that the reference too is bad at, such as one of a language that the model was not trained on, is none.
    """
    poor = {_key(row) for c in comparisons for row in c.rows if row.verdict == "pass"}
    found: list[Suspicion] = []
    by_task: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for row in results.rows:
        if row.score is not None:
            by_task[row.run.label, row.type, row.task].append(row.score)
    low = sorted({
        task for (run, kind, task), scores in by_task.items()
        if kind in CHANCE and max(map(abs, scores)) <= CHANCE[kind] and (run, task) not in poor
    })  # fmt: skip
    if low:
        found.append(Suspicion("at chance", tuple(low)))
    none = sorted({row.task for row in results.rows if row.score is None})
    if none:
        found.append(Suspicion("no number", tuple(none)))
    runs: dict[str, dict[str, float]] = defaultdict(dict)
    for (run, _, task), scores in by_task.items():
        if len(set(scores)) == 1:
            runs[run][task] = scores[0]
    for run in sorted(runs):
        tasks, values = runs[run], set(runs[run].values())
        if len(tasks) >= FEWEST_EQUAL and len(values) == 1 and len(tasks) == sum(key[0] == run for key in by_task):
            found.append(Suspicion("all equal", tuple(sorted(tasks)), values.pop()))
    if insane := tuple(sorted(insane)):
        found.append(Suspicion("sanity", insane))
    return tuple(found)


def _key(row: ComparedRow) -> tuple[str, str]:
    return row.run, row.task
