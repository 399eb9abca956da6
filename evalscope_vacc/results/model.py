"""The values of a judgement, all frozen: scores and their conditions, references, and the verdict on them.

No sentences: what is to be said of a value is a :class:`~evalscope_vacc.messages.Reason`, a code with its figures. Scores,
differences and tolerances are fractions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from evalscope_vacc import config
from evalscope_vacc.errors import ResultError
from evalscope_vacc.messages import Reason
from evalscope_vacc.names import served_name


@dataclass(frozen=True)
class Setting:
    """One setting."""

    name: str  # in :class:`evalscope_vacc.results.model.Conditions`
    # the keys that may hold it in a result's name and in the evidence, ours first; the others are what plain MTEB
    # runs call it
    spellings: tuple[str, ...]
    compared: bool = False  # whether runs that differ in it may not be compared
    integer: bool = False  # whether it is a whole number
    of_model: bool = False  # whether it is a key of the model and not of the run
    in_name: bool = True  # whether a result's name says it where it is not the default
    catalog: str = ""  # the attribute of a catalog entry that says the model's default
    default: Any = None  # the default of every other model


_OF_THE_RUN = (
    Setting("top_k", ("top_k",), compared=True, integer=True),
    Setting("first_stage", ("first", "first_stage"), compared=True),
    Setting("limit", ("limit", "limits"), integer=True),
    Setting("dtype", ("dtype", "torch_dtype"), in_name=False),
)
_CALLED = {"instruction_profile": "profile", "rerank_template": "template"}
_ELSEWHERE = {"max_tokens": ("max_length",), "dimensions": ("truncate_dim",)}


def settings() -> tuple[Setting, ...]:
    """Returns every setting: the model's in the order of its keys, then the run's."""
    return _settings(config.ModelConfig)


@lru_cache(maxsize=2)
def _settings(model: type[config.ModelConfig]) -> tuple[Setting, ...]:
    return (*_of_the_model(model), *_OF_THE_RUN)


def _of_the_model(model: type[config.ModelConfig]) -> Iterator[Setting]:
    marks = config.keys(model)
    for short, names in config.named_keys(model).items():
        key = names[0]
        mark, field = marks[key], model.model_fields[key]
        if len(names) > 1:  # a digest of all of them, which stands under the short name only
            yield Setting(short, (short,), mark.compared, of_model=True)
            continue
        name = _CALLED.get(key, key)
        spellings = (short, key, *_ELSEWHERE.get(key, ()), *mark.older)
        kinds = [getattr(kind, "__origin__", kind) for kind in (field.annotation, *get_args(field.annotation))]
        yield Setting(
            name,
            tuple(dict.fromkeys(spellings)),
            mark.compared,
            integer=int in kinds,
            of_model=True,
            catalog=mark.catalog,
            default=field.default,
        )


Kind = Literal["encoder", "cross-encoder"]
MEAN_OF_SUBSETS = "mean of subsets"
Judgement = Literal["pass", "above", "fail", "not judged", "no reference"]
JUDGED: tuple[Judgement, ...] = ("pass", "above", "fail")
JUDGEMENTS: tuple[Judgement, ...] = (*JUDGED, "not judged", "no reference")
Outcome = Literal["pass", "fail", "above", "incomplete", "nothing comparable"]
State = Literal["judged", "failed", "not run", "no reference"]
TASK_STATES: tuple[State, ...] = ("judged", "failed", "not run", "no reference")
EXIT_STATUS: Mapping[Outcome, int] = {"pass": 0, "fail": 1, "above": 1, "incomplete": 3, "nothing comparable": 2}


@dataclass(frozen=True)
class Conditions:
    """What changes a score besides the weights. None means that it was not recorded."""

    profile: str | None = None
    max_tokens: int | None = None
    template: str | None = None
    top_k: int | None = None
    first_stage: str | None = None  # who chose the candidates: a model's name, or the digest of a prediction file
    dimensions: int | None = None
    dtype: str | None = None  # number format of the served weights, such as "float16"
    limit: int | None = None  # queries or samples that a task was cut to; None means the whole task
    prompts: str | None = None  # digest of prompts or instructions of the user's own
    # names of the fields that were not recorded and are taken from the catalog's defaults
    assumed: tuple[str, ...] = ()
    others: tuple[tuple[str, Any], ...] = ()  # name and value of further settings of the model

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Conditions:
        """Makes them of what was found, by name."""
        own = {name: value for name, value in found.items() if name in cls.__dataclass_fields__}
        return cls(**own, others=tuple(sorted((n, v) for n, v in found.items() if n not in own)))

    def get(self, name: str) -> Any:
        """Returns the value of a setting, or None where it was not recorded."""
        return getattr(self, name) if name in self.__dataclass_fields__ else dict(self.others).get(name)

    def recorded(self) -> dict[str, Any]:
        """Returns every setting that is not None, by name."""
        own = [(f.name, getattr(self, f.name)) for f in fields(self) if f.name not in ("assumed", "others")]
        return {name: value for name, value in (*own, *self.others) if value is not None}

    def merged(self, other: Conditions) -> Conditions:
        """Fills what is not recorded here from ``other``."""
        mine = self.recorded()
        assumed = tuple(sorted({*self.assumed, *(name for name in other.assumed if name not in mine)}))
        return Conditions.of({**other.recorded(), **mine, "assumed": assumed})

    def to_json(self) -> dict[str, Any]:
        """Returns what is recorded, by name."""
        found = {**self.recorded(), "assumed": list(self.assumed)}
        return {name: value for name, value in found.items() if value}

    def conflicts(self, reference: Conditions) -> tuple[Reason, ...]:
        """Says what makes a score another measurement than the reference; empty when the two may be compared.

        Only what both record can conflict: what one of them does not record is a matter for a note.
        """
        found = []
        for name in blocking():
            ours, theirs = self.get(name), reference.get(name)
            if name == "first_stage" and not _same_kind_of_name(ours, theirs):
                continue
            if ours is not None and theirs is not None and _fold(ours) != _fold(theirs):
                found.append(Reason.of("setting_differs", setting=name, theirs=theirs, ours=ours))
        # a part of a task is another task, whatever else is recorded
        if self.limit != reference.limit:
            code = "part_of_whole" if not reference.limit else "whole_of_part" if not self.limit else "parts_differ"
            found.append(Reason.of(code, theirs=reference.limit, ours=self.limit))
        return tuple(found)

    def unrecorded(self, reference: Conditions) -> tuple[Reason, ...]:
        """Names what the reference records and this run does not, and what was taken from the catalog."""
        defaults = {setting.name: setting.default for setting in settings() if setting.compared}
        here, there = [], []
        for name, default in defaults.items():
            ours, theirs = self.get(name), reference.get(name)
            if ours is None and theirs is not None:
                here.append(Reason.of("unrecorded_here", setting=name, theirs=theirs))
            elif theirs is None and _fold(str(ours)) not in ("none", _fold(str(default))) and name not in self.assumed:
                there.append(Reason.of("unrecorded_there", setting=name, ours=ours))
        assumed = [name for name in self.assumed if name in defaults and reference.get(name) is not None]
        found = [*here, *there, *(Reason.of("assumed", setting=name, ours=self.get(name)) for name in assumed)]
        stages = self.first_stage, reference.first_stage
        if all(stages) and not _same_kind_of_name(*stages):
            found.append(Reason.of("first_stage_names", ours=stages[0], theirs=stages[1]))
        if self.prompts != reference.prompts:
            found.append(Reason.of("own_prompts", ours=self.prompts or "–", theirs=reference.prompts or "–"))
        return tuple(found)

    @property
    def candidates_of(self) -> str:
        """Name of the model that chose the candidates; "" where it is not known, a digest being no name."""
        return "" if self.first_stage is None or _is_digest(self.first_stage) else self.first_stage


def blocking() -> tuple[str, ...]:
    """Returns the name of every setting in which two runs that may be compared do not differ."""
    return tuple(setting.name for setting in settings() if setting.compared)


def _fold(value: object) -> object:
    return value.casefold() if isinstance(value, str) else value


def _same_kind_of_name(ours: str | None, theirs: str | None) -> bool:
    """A digest, or a name that somebody serves a model under, says nothing about a model's public name."""
    return ours is not None and theirs is not None and _kind_of_name(ours) == _kind_of_name(theirs)


def _kind_of_name(name: str) -> str:
    if _is_digest(name):
        return "digest"
    return "served" if name.casefold().startswith(("vacc/", "eval/")) else "public"


def _is_digest(name: str) -> bool:
    return len(name) in {8, 16, 64} and all(c in "0123456789abcdef" for c in name)


@dataclass(frozen=True)
class Run:
    """Where a score comes from: one model under one revision and one set of options; "" for what is not known."""

    model: str = ""  # as recorded, such as "vacc/Qwen3-Embedding-0.6B"
    revision: str = ""
    experiment: str = ""  # name of MTEB's experiment folder
    kind: Kind | None = None
    folder: str = ""  # where it lies, where several such runs are compared

    @property
    def served_name(self) -> str:
        """The model's name without the organisation that this package or EvalScope puts before it."""
        return served_name(self.model)

    @property
    def label(self) -> str:
        """One line that tells runs apart."""
        parts = (self.model or "(unnamed)", self.revision, self.experiment, self.folder)
        return " · ".join(part for part in parts if part)


@dataclass(frozen=True)
class Row:
    """The score of one task on one split and subset."""

    run: Run
    task: str
    split: str
    subset: str
    metric: str  # name of the task's main metric
    score: float | None  # its value; None when the file holds none or one that is not finite
    type: str = ""
    mteb_version: str | None = None
    dataset_revision: str | None = None
    conditions: Conditions = field(default_factory=Conditions)
    # every finite number that was recorded, by name; may be empty for published rows
    metrics: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    rounding: float = 0.0  # half a unit of the last published digit, where that is coarse enough to matter
    suspect: bool = False  # whether the value is known to be wrong
    root: str = ""  # the folder of the run that the file lies in

    @property
    def key(self) -> tuple[str, str, str]:
        """What must agree before two rows are compared; the metric must, too."""
        return (self.task, self.split, self.subset)

    def value(self, metric: str) -> float | None:
        """Returns the score under ``metric``, or None."""
        return self.score if metric == self.metric else self.metrics.get(metric)


@dataclass(frozen=True)
class Predictions:
    """A file of per-query results, not read yet; ``subset`` is set for mteb 1.x, whose files hold one subset each."""

    path: Path
    task: str
    subset: str | None = None


@dataclass(frozen=True)
class Results:
    """Everything that was found under one or more paths, and what could not be read."""

    rows: tuple[Row, ...]
    predictions: tuple[Predictions, ...] = ()
    problems: tuple[Reason, ...] = ()
    paths: tuple[str, ...] = ()

    def needed(self) -> Results:
        """Returns itself; raises ResultError where there is no row."""
        if self.rows:
            return self
        said = "; ".join(str(dict(problem.args)["text"]) for problem in self.problems[:3])
        hint = f": {said}" if said else "; give the folder that `results` lies in"
        raise ResultError(f"no result was found under {', '.join(self.paths)}{hint}")

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs that the rows come from, in a fixed order."""
        return tuple(sorted({row.run for row in self.rows}, key=lambda run: (run.label, run.kind or "")))


@dataclass(frozen=True)
class Aggregate:
    """A published mean over several tasks; figures of another protocol are listed, and not ``judged_by``."""

    benchmark: str
    measure: str
    value: float
    rounding: float = 5e-5
    protocol: str = ""
    source: str = ""
    judged_by: bool = True


@dataclass(frozen=True)
class Reference:
    """The reference of a run: published scores, or another run (``is_run``)."""

    name: str
    rows: tuple[Row, ...]
    kind: Kind | None = None
    revision: str = ""
    source: str = ""
    conditions: Conditions = field(default_factory=Conditions)
    aggregates: tuple[Aggregate, ...] = ()
    predictions: tuple[Predictions, ...] = ()
    is_run: bool = False


@dataclass(frozen=True)
class AskedTask:
    """One task that one model of a run was asked for."""

    model: str  # as its results are filed, such as "vacc/minilm"; "" where any model's result will do
    stage: str  # "" for a run of one stage, else "stage1" or "stage2"
    task: str
    splits: tuple[str, ...] = ()  # names, as of the subsets; empty where the run did not record them
    subsets: tuple[str, ...] = ()
    error: str = ""  # why the evaluation failed, or ""

    def is_for(self, model: str) -> bool:
        """Whether a result of ``model`` answers it."""
        return not self.model or not model or tail_of(self.model) == tail_of(model)


def tail_of(model: str) -> str:
    """Returns a model's name without organisation, in lower case."""
    return model.casefold().replace("__", "/").rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Interval:
    """This run minus the reference by query: the 95 % interval, and the p-value of the paired randomisation test."""

    low: float
    high: float
    p_value: float
    queries: int


@dataclass(frozen=True)
class ComparedRow:
    """One line of the verdict."""

    task: str
    split: str
    subset: str
    metric: str
    verdict: Judgement
    type: str = ""
    ours: float | None = None
    reference: float | None = None
    difference: float | None = None
    share: float | None = None  # ours divided by the reference; None where that means nothing
    mark: str = ""  # MLPerf's accuracy mark that the share reaches
    tolerance: float | None = None
    tolerance_reason: Reason | None = None
    reasons: tuple[Reason, ...] = ()  # why the row is not judged, or why it is judged as it is
    notes: tuple[Reason, ...] = ()  # what should be known about a judged row
    interval: Interval | None = None
    model: str = ""
    run: str = ""
    source: str = ""
    reference_source: str = ""

    @property
    def judged(self) -> bool:
        """Whether the row counts for the outcome."""
        return self.verdict in JUDGED


@dataclass(frozen=True)
class MeanRow:
    """A benchmark's mean over the tasks that are there."""

    benchmark: str
    measure: str
    tasks: int  # tasks whose every split and subset is there, ``of`` those of the benchmark
    of: int
    ours: float
    verdict: Judgement  # "not judged" unless every task is there
    # the reference's mean over the same tasks; for a benchmark known as a mean only, that mean
    reference: float | None = None
    difference: float | None = None
    tolerance: float | None = None
    published: float | None = None  # the published mean over all tasks, for information
    share: float | None = None
    mark: str = ""
    run: str = ""


@dataclass(frozen=True)
class Comparison:
    """One run against one reference."""

    reference: str
    reference_revision: str
    reference_source: str
    noise: Reason | None
    rows: tuple[ComparedRow, ...]
    means: tuple[MeanRow, ...] = ()
    runs: tuple[str, ...] = ()
    problems: tuple[Reason, ...] = ()
    missing: tuple[str, ...] = ()  # scores of the reference run that this run lacks, as "task (split) subset"
    causes: tuple[Reason, ...] = ()  # what may explain the scores that do not match, the likeliest first

    @property
    def counts(self) -> dict[str, int]:
        """Rows by verdict."""
        return {name: sum(row.verdict == name for row in self.rows) for name in JUDGEMENTS}

    @property
    def outcome(self) -> Outcome:
        """The answer: "fail" as soon as one row or complete mean lies below, else "above" as soon as one lies above."""
        verdicts = {row.verdict for row in self.rows} | {mean.verdict for mean in self.means}
        order: tuple[Outcome, ...] = ("fail", "above", "pass")
        return next((outcome for outcome in order if outcome in verdicts), "nothing comparable")


@dataclass(frozen=True)
class TaskState:
    """How one task of one model stands."""

    model: str
    task: str
    # "judged" when a score of it was compared with the reference; "failed" when the evaluation failed; "not run" when
    # it has no result, or lacks a split or subset that was asked for; else "no reference"
    state: State
    detail: Reason | None = None  # why it failed, or what of it is missing


@dataclass(frozen=True)
class Verdict:
    """The answer about everything that was asked for."""

    comparisons: tuple[Comparison, ...]  # one a run; an answer before what is none
    # how each task stands; those that were asked for, or, where that is not known, those that have a result
    tasks: tuple[TaskState, ...] = ()
    recorded: bool = False  # whether the run recorded what it was asked for
    warnings: tuple[Reason, ...] = ()  # scores that no weights would earn, whatever the reference says
    allow_partial: bool = False  # whether a part of what was asked for may pass
    allow_above: bool = False  # whether scores above the reference may pass

    @property
    def counts(self) -> dict[State, int]:
        """Tasks by state."""
        return {name: sum(task.state == name for task in self.tasks) for name in TASK_STATES}

    @property
    def asked(self) -> int | None:
        """Tasks that were asked for; None where that is not known."""
        return len(self.tasks) if self.recorded else None

    @property
    def finished(self) -> int:
        """Tasks that have a whole result."""
        return sum(task.state in ("judged", "no reference") for task in self.tasks)

    @property
    def partial(self) -> bool:
        """Whether a task failed or was not run."""
        return self.finished < len(self.tasks)

    @property
    def outcome(self) -> Outcome:
        """The answer; where several hold: nothing comparable, then a score that fails, then incomplete."""
        outcomes = {self.outcome_of(comparison) for comparison in self.comparisons}
        order: tuple[Outcome, ...] = ("fail", "above", "incomplete", "pass")
        return next((outcome for outcome in order if outcome in outcomes), "nothing comparable")

    def outcome_of(self, comparison: Comparison) -> Outcome:
        """The answer about one run; a part of what was asked for is no pass."""
        found = comparison.outcome
        if found == "above" and self.allow_above:
            found = "pass"
        return "incomplete" if found == "pass" and self.partial and not self.allow_partial else found

    @property
    def exit_status(self) -> int:
        """0 pass, 1 a score fails, 2 nothing comparable, 3 incomplete."""
        return EXIT_STATUS[self.outcome]
