"""What a comparison is made of: scores, and the conditions under which they came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from evalscope_vacc.results.settings import settings

Kind = Literal["encoder", "cross-encoder"]
MEAN_OF_SUBSETS = "mean of subsets"


@dataclass(frozen=True)
class Conditions:
    """What changes a score besides the weights. None means that it was not recorded.

    Attributes:
        profile: Instruction profile, such as "qwen-official".
        max_tokens: Tokens kept of one text, the instruction included.
        template: Rerank template.
        top_k: Candidates per query that a cross-encoder was given.
        first_stage: Who chose the candidates: a model's name, or the digest of a prediction file.
        dimensions: Size that the vectors were cut to.
        dtype: Number format of the served weights, such as "float16".
        limit: Queries or samples that a task was cut to; None means the whole task.
        prompts: Digest of prompts or instructions of the user's own.
        assumed: Names of the fields that were not recorded and are taken from the catalog's defaults.
        others: Name and value of further settings of the model.
    """

    profile: str | None = None
    max_tokens: int | None = None
    template: str | None = None
    top_k: int | None = None
    first_stage: str | None = None
    dimensions: int | None = None
    dtype: str | None = None
    limit: int | None = None
    prompts: str | None = None
    assumed: tuple[str, ...] = ()
    others: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Conditions:
        """Makes them of what was found, by name."""
        own = {name: value for name, value in found.items() if name in cls.__dataclass_fields__}
        return cls(**own, others=tuple(sorted((n, v) for n, v in found.items() if n not in own)))

    def get(self, name: str) -> Any:
        """Returns the value of a setting, or None where it was not recorded."""
        return getattr(self, name) if name in self.__dataclass_fields__ else dict(self.others).get(name)

    def conflicts(self, reference: Conditions) -> tuple[str, ...]:
        """Says what makes a score another measurement than the reference; empty when the two may be compared.

        Only what both record can conflict: what one of them does not record is a matter for a note.
        """
        found = []
        for name, words in blocking().items():
            ours, theirs = self.get(name), reference.get(name)
            if name == "first_stage" and not _same_kind_of_name(ours, theirs):
                continue
            if ours is not None and theirs is not None and _fold(ours) != _fold(theirs):
                found.append(f"the reference was run with {words} {theirs}, this one with {ours}")
        # a part of a task is another task, whatever else is recorded
        if self.limit != reference.limit:
            parts = [f"{n} samples a task" if n else "whole tasks" for n in (reference.limit, self.limit)]
            found.append(f"the reference was run on {parts[0]}, this one on {parts[1]}")
        return tuple(found)

    def unrecorded(self, reference: Conditions) -> tuple[str, ...]:
        """Names what the reference records and this run does not, and what was taken from the catalog."""
        words = blocking()
        defaults = {setting.name: setting.default for setting in settings()}
        missing = [
            f"{words[name]} not recorded here (the reference: {reference.get(name)})"
            for name in words
            if self.get(name) is None and reference.get(name) is not None
        ]
        missing += [
            f"{words[name]} {self.get(name)} here, not recorded in the reference"
            for name in words
            if self.get(name) not in (None, defaults[name]) and reference.get(name) is None and name not in self.assumed
        ]
        missing += [
            f"{words[name]} not recorded; {self.get(name)} is the catalog's default"
            for name in self.assumed
            if name in words and reference.get(name) is not None
        ]
        if (
            self.first_stage
            and reference.first_stage
            and not _same_kind_of_name(self.first_stage, reference.first_stage)
        ):
            missing.append(
                f"first stage recorded as {self.first_stage} here, as {reference.first_stage} in the reference"
            )
        if self.prompts != reference.prompts:
            mine, other = (f"digest {d}" if d else "none" for d in (self.prompts, reference.prompts))
            missing.append(f"prompts of one's own: {mine} here, {other} in the reference")
        return tuple(missing)

    @property
    def candidates_of(self) -> str:
        """Name of the model that chose the candidates; "" where it is not known, a digest being no name."""
        return "" if self.first_stage is None or _is_digest(self.first_stage) else self.first_stage

    def merged(self, other: Conditions) -> Conditions:
        """Fills what is not recorded here from ``other``."""
        changes = {
            f.name: getattr(other, f.name)
            for f in fields(self)
            if f.name not in ("assumed", "others")
            and getattr(self, f.name) is None
            and getattr(other, f.name) is not None
        }
        assumed = tuple(sorted({*self.assumed, *(name for name in other.assumed if name in changes)}))
        others = tuple(sorted({**dict(other.others), **dict(self.others)}.items()))
        return replace(self, **changes, assumed=assumed, others=others)

    def to_json(self) -> dict[str, Any]:
        """Returns what is recorded, by name."""
        pairs = [(f.name, getattr(self, f.name)) for f in fields(self) if f.name != "others"] + [*self.others]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in pairs if value}


def blocking() -> dict[str, str]:
    """Returns name and words of every setting in which two runs that may be compared do not differ."""
    return {setting.name: setting.words for setting in settings() if setting.words}


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
    """Where a score comes from: one model under one revision and one set of options.

    Attributes:
        model: As recorded, such as "vacc/Qwen3-Embedding-0.6B"; "" when unknown.
        revision: As recorded, or "".
        experiment: Name of MTEB's experiment folder, or "".
        kind: None when not recorded.
    """

    model: str = ""
    revision: str = ""
    experiment: str = ""
    kind: Kind | None = None

    @property
    def served_name(self) -> str:
        """The model's name without the organisation that this package or EvalScope puts before it."""
        head, _, tail = self.model.partition("/")
        return tail if tail and head.casefold() in {"vacc", "eval"} else self.model

    @property
    def label(self) -> str:
        """One line that tells runs apart."""
        return " · ".join(part for part in (self.model or "(unnamed)", self.revision, self.experiment) if part)


@dataclass(frozen=True)
class Row:
    """The score of one task on one split and subset.

    Attributes:
        metric: Name of the task's main metric.
        score: Its value as a fraction; None when the file holds none or one that is not finite.
        metrics: Every finite number that was recorded, by name; may be empty for published rows.
        rounding: Half a unit of the last published digit, where that is coarse enough to matter.
        suspect: Why the value is known to be wrong, or "".
    """

    run: Run
    task: str
    split: str
    subset: str
    metric: str
    score: float | None
    type: str = ""
    mteb_version: str | None = None
    dataset_revision: str | None = None
    conditions: Conditions = field(default_factory=Conditions)
    metrics: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    rounding: float = 0.0
    suspect: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What must agree before two rows are laid side by side; the metric must, too."""
        return (self.task, self.split, self.subset)

    def value(self, metric: str) -> float | None:
        """Returns the score under ``metric``, or None."""
        return self.score if metric == self.metric else self.metrics.get(metric)


@dataclass(frozen=True)
class Predictions:
    """A file of per-query results, not read yet.

    Attributes:
        subset: Set for mteb 1.x, whose files hold one subset each; None for 2.x.
    """

    path: Path
    task: str
    subset: str | None = None


@dataclass(frozen=True)
class Results:
    """Everything that was found under one or more paths.

    Attributes:
        problems: What could not be read, in words that may be printed.
    """

    rows: tuple[Row, ...]
    predictions: tuple[Predictions, ...] = ()
    problems: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs that the rows come from, in a fixed order."""
        return tuple(sorted({row.run for row in self.rows}, key=lambda run: (run.label, run.kind or "")))


@dataclass(frozen=True)
class Aggregate:
    """A published mean over several tasks.

    Attributes:
        benchmark: Such as "MTEB(eng, v2)" or "MTEB-R".
        measure: "Mean(Task)", "Mean(Type)" or a task type.
        value: Fraction.
        judged_by: False for figures of another protocol, which are listed and never compared.
    """

    benchmark: str
    measure: str
    value: float
    rounding: float = 5e-5
    protocol: str = ""
    source: str = ""
    judged_by: bool = True


@dataclass(frozen=True)
class Reference:
    """What a run is held against: published scores, or another run.

    Attributes:
        is_run: Another run, of which the run held against it may lack a part; of published scores it always does.
    """

    name: str
    rows: tuple[Row, ...]
    kind: Kind | None = None
    revision: str = ""
    source: str = ""
    conditions: Conditions = field(default_factory=Conditions)
    aggregates: tuple[Aggregate, ...] = ()
    predictions: tuple[Predictions, ...] = ()
    is_run: bool = False
