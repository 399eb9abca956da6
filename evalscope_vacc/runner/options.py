"""What a user asks of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from evalscope_vacc.errors import ConfigError

PRESETS = ("smoke", "quick", "standard", "full")
NO_REFERENCE = "none"
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


@dataclass(frozen=True)
class Options:
    """A run as it was asked for.

    Attributes:
        targets: Addresses of one server, or of an encoder's and a reranker's; or one configuration file.
        models: Served names, in the order of the addresses; of a file's models those that are evaluated.
        tasks: Names of MTEB's tasks.
        benchmarks: Names of MTEB's benchmarks.
        preset: One of :data:`PRESETS`, or None.
        budget_s: Seconds that the whole command may take, or None.
        against: A model with published scores, a folder of results, or "none"; None is the served model's own name.
        work_dir: Folder that the folders of runs go to.
        first_stage: A run, or its predictions, that a reranker reranks.
        settings: Further keys of every model.
        key: API key, or ``${NAME}`` of the environment.
        hub: ``huggingface`` or ``modelscope``.
        data: Folder or archive of ``prefetch`` that all data come from; no hub is asked.
        workers: Processes that evaluate tasks at the same time, or "auto"; None is ``eval.workers``, else none: one
            task after the other, here.
        ray: Address of a Ray cluster whose machines the workers run on, or "auto" for the one of this machine.
        dtype: Number format of the served weights; sets the tolerance.
        tolerance: One absolute tolerance for every score, as a fraction.
        lang: Language of the page and of what is printed: "en" or "zh".
        allow_partial: Do what can be done although data lack, and pass although a task failed or was not run.
        report: File of the page; None is ``report.html`` in the run's folder.
        junit: File of the verdict as JUnit XML, or None.
    """

    targets: tuple[str, ...]
    models: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    benchmarks: tuple[str, ...] = ()
    preset: str | None = None
    budget_s: float | None = None
    against: str | None = None
    work_dir: Path | None = None
    first_stage: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = field(default=None, repr=False)
    hub: str | None = None
    data: Path | None = None
    workers: int | Literal["auto"] | None = None
    ray: str | None = None
    dtype: str | None = None
    tolerance: float | None = None
    lang: str = "en"
    allow_partial: bool = False
    report: Path | None = None
    junit: Path | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.targets) <= 2:
            raise ConfigError("run takes one address or file, or the addresses of an encoder and of a reranker")
        check_preset(self.preset)
        if self.data is not None and self.hub is not None:
            raise ConfigError("--data and --hub: data that were fetched before need no hub; leave one out")


def check_preset(preset: str | None) -> None:
    """Raises ConfigError for a preset that there is not."""
    if preset is not None and preset not in PRESETS:
        raise ConfigError(f"--preset {preset!r} is not known; give one of {', '.join(PRESETS)}")


def seconds_of(text: str) -> float:
    """Reads a duration such as ``90s``, ``10m`` or ``1h30m``.

    Raises:
        ConfigError: It is none.
    """
    found = _DURATION.fullmatch(text.strip().lower())
    parts = [float(part or 0) for part in found.groups()] if found else [0.0]
    seconds = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    if not seconds:
        raise ConfigError(f"--budget {text!r} is not a duration: write it as 90s, 10m or 1h30m")
    return seconds


def settings_of(pairs: list[str]) -> dict[str, Any]:
    """Reads ``key=value`` pairs; the values are YAML, as in a file.

    Raises:
        ConfigError: One has no ``=``, or its value is no YAML. A value is never repeated: one may be a key.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--set {name!r}: write key=value, such as max_tokens=512")
        try:
            found[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"--set {name}: the value is not YAML: put it into quotes") from None
    return found
