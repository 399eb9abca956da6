"""Reads a run's recorded configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

from evalscope_vacc.redact import clean
from evalscope_vacc.results.files import LEVELS, levels, listed, mapping
from evalscope_vacc.results.model import Conditions, Run, settings, tail_of

MAX_HEAD = 4096
MOST_EXPERIMENTS = 1000

_FIRST = re.compile(r"first_[0-9a-f]{8}")
# how a file of candidates begins; the rest may be gigabytes
_MADE_BY = re.compile(r'\{\s*"mteb_model_meta":\s*\{\s*"model_name":\s*"([^"\\]{1,200})"')


def read_conditions(mapping: Mapping[str, Any]) -> Conditions:
    """Picks the known keys out of ``experiment_kwargs`` or of one model's entry in the evidence."""
    return Conditions.of(experiment_conditions(mapping))


def experiment_conditions(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """As :func:`read_conditions`, as a dictionary with what was found."""
    found: dict[str, Any] = {}
    for setting in settings():
        values = (_read(mapping.get(key), integer=setting.integer) for key in setting.spellings)
        value = next((value for value in values if value is not None), None)
        if value is not None:
            found[setting.name] = value
    return found


def _read(value: Any, *, integer: bool) -> int | str | None:
    """Reads one value of a file that anybody may have written; None where it says nothing."""
    if integer:
        text = "" if isinstance(value, bool) or not isinstance(value, (int, str)) else str(value)[:20]
        return int(text) if text.isascii() and text.isdigit() else None
    if isinstance(value, (bool, float)):
        return str(value)
    return clean(value, limit=200) if isinstance(value, str) and value and value != "auto" else None


def revision_conditions(revision: str) -> dict[str, Any]:
    """Reads the settings that a run under mteb 1.x carries in its revision: ``served-1a2b3c4d__dim_64__maxlen_16``."""
    shorts = [setting.spellings[0] for setting in settings() if setting.in_name]
    return experiment_conditions(
        {
            short: part.removeprefix(f"{short}_")
            for part in revision.split("__")[1:]
            for short in shorts
            if part.startswith(f"{short}_")
        }
    )


def without_first_stage(name: str) -> str:
    """Drops the candidates' digest from an experiment's name, or from a revision of mteb 1.x."""
    return "__".join(part for part in name.split("__") if not _FIRST.fullmatch(part))


class Folders:
    """Reads the descriptions that lie beside results, each file once.

    Attributes:
        problems: Descriptions that could not be read; what they say counts as not recorded.
    """

    def __init__(self) -> None:
        self.problems: set[str] = set()
        self._mapping = cache(partial(mapping, problems=self.problems))
        self._models = cache(partial(listed, key="models", problems=self.problems))

    def meta(self, folder: Path) -> Mapping[str, Any]:
        """Returns ``model_meta.json`` of ``folder``, or nothing."""
        return self._mapping(folder / "model_meta.json")

    def evidence(self, folder: Path, run: Run, named: Mapping[str, Any]) -> Conditions:
        """Reads the entry for ``run`` in the nearest ``vacc/config.json`` at or above ``folder``.

        The evidence has one entry a model, the last one; where that is the entry of another run of the model in the same
        folder, by what the result's own name says (``named``), nothing is taken from it.
        """
        for level in levels(folder):
            if models := self._models(level / "vacc" / "config.json"):
                found = _entry(models, run)
                return Conditions() if self._of_another_run(found, folder, named) else found
        return Conditions()

    def root(self, folder: Path) -> Path | None:
        """Returns the folder of the run that ``folder`` lies in: the one with the evidence; None without evidence."""
        return next((level for level in (folder, *folder.parents)[:LEVELS] if (level / "vacc").is_dir()), None)

    def first_stage(self, folder: Path, task: str, digest: str) -> str | None:
        """Tells which model made the candidates, from the copy that a reranking run keeps of them."""
        for level in levels(folder):
            path = level / "candidates" / digest / f"{task}_predictions.json"
            # a task's name comes from a file that anybody may have written
            if path.parent.parent == level / "candidates" and path.is_file():
                return _made_by(path)
        return None

    def _of_another_run(self, found: Conditions, folder: Path, named: Mapping[str, Any]) -> bool:
        siblings = folder.parent if folder.parent.name == "experiments" else folder / "experiments"
        if not siblings.is_dir():
            return False
        # what the name of a result carries where it is not the default, and the evidence as well
        names = [s.name for s in settings() if s.of_model and s.name != "prompts" and s.name not in named]
        for other in sorted(siblings.iterdir())[:MOST_EXPERIMENTS]:
            kwargs = self.meta(other).get("experiment_kwargs")
            theirs = experiment_conditions(kwargs) if isinstance(kwargs, dict) else {}
            if any(theirs.get(name) is not None and theirs[name] == found.get(name) for name in names):
                return True
        return False


def conditions_of(kwargs: Mapping[str, Any], evidence: Conditions, run: Run) -> Conditions:
    """Joins what a run's name carries, what its evidence says, and the catalog's defaults, in this order.

    The name of a result carries only what differs from the defaults, so for our own model names a key that is absent
    means the default. That default is marked as assumed: another release may have had another.
    """
    recorded = Conditions.of(kwargs).merged(evidence)
    if not run.model.casefold().startswith("vacc/"):
        return recorded
    return recorded.merged(_defaults(run.served_name))


@lru_cache(maxsize=256)
def _defaults(served_name: str) -> Conditions:
    from evalscope_vacc.catalog import find

    entry = find(served_name)
    if entry is None:
        return Conditions()
    known = {setting.name: getattr(entry, setting.catalog) for setting in settings() if setting.catalog}
    if known["template"] == "auto":
        known["template"] = entry.template_family  # "auto" is a wish: this comes of it, here or on the server
    known = {name: value for name, value in known.items() if value}
    return Conditions.of({**known, "assumed": tuple(sorted(known))})


def _entry(models: Sequence[Mapping[str, Any]], run: Run) -> Conditions:
    """Matches by name, with or without the organisation; where the run has no name, a lone model is it."""
    for model in models:
        name = model.get("name") or model.get("model_name") or model.get("model_name_or_path")
        if isinstance(name, str) and ((not run.model and len(models) == 1) or tail_of(name) == tail_of(run.model)):
            return read_conditions(model)
    return Conditions()


def _made_by(path: Path) -> str | None:
    from evalscope_vacc.catalog import find

    try:
        with path.open("rb") as file:
            head = file.read(MAX_HEAD).decode("utf-8", errors="replace")
    except OSError:
        return None
    match = _MADE_BY.match(head)
    if not match:
        return None
    entry = find(match[1])
    return entry.huggingface if entry else clean(match[1], limit=200)
