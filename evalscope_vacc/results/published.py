"""Published scores: what the package brings, what the user collected, and how either is found by a model's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.names import did_you_mean
from evalscope_vacc.redact import clean
from evalscope_vacc.results.evidence import read_conditions
from evalscope_vacc.results.files import SUFFIX, own_folder, packaged_folder, read_compressed
from evalscope_vacc.results.model import Aggregate, Reference, Row, Run, tail_of

FORMAT = 1


@dataclass(frozen=True)
class Published:
    """One model's published scores as they are stored."""

    name: str  # ``org/name`` on Hugging Face
    data: Mapping[str, Any]  # the stored facts; :meth:`reference` makes rows of them

    @property
    def source(self) -> str:
        """Repository, commit and folder of most of the facts."""
        return str(self.data.get("source", ""))

    def reference(self) -> Reference:
        """Returns the facts as rows of a reference."""
        data, common = self.data, read_conditions(self.data.get("conditions") or {})
        run = Run(self.name, str(data.get("revision") or ""), "", data.get("kind"))
        rows = [
            Row(
                run, task, split, subset, metric, score,
                type=type_, mteb_version=version, dataset_revision=revision, conditions=common,
                source=self.source, suspect=score < _OUTLIERS.get((self.name, task, subset), float("-inf")),
            )
            for task, (type_, metric, version, revision, splits) in data.get("tasks", {}).items()
            for split, subsets in splits.items()
            for subset, score in subsets.items()
        ]  # fmt: skip
        rows += [
            Row(**{"run": run, **row, "conditions": read_conditions(row["conditions"])}) for row in data.get("rows", ())
        ]
        aggregates = tuple(
            Aggregate(**{"judged_by" if name == "judged" else name: value for name, value in entry.items()})
            for entry in data.get("aggregates", ())
        )
        return Reference(
            name=self.name,
            rows=tuple(rows),
            kind=run.kind,
            revision=run.revision,
            source=self.source,
            conditions=common,
            aggregates=aggregates,
        )


# what cannot be right in the source, and below which value: mteb 2.10.0, whose neighbours are above 0.8; a corrected one
# is taken again
_OUTLIERS = {("Qwen/Qwen3-Embedding-8B", "XQuADRetrieval", "th"): 0.1}


def model_names() -> tuple[str, ...]:
    """Returns every model with published scores, ``org/name``, in alphabetical order."""
    return tuple(sorted(_stored(), key=str.casefold))


def find(name: str) -> Published | None:
    """Finds a model by ``org/name`` or by its name alone, whatever the case.

    A name that the catalog knows under another spelling (a folder of weights, a hub's cache) is found, too.
    """
    from evalscope_vacc import catalog

    wanted, stored = name.strip().strip("/").casefold(), _stored()
    same = [known for known in stored if known.casefold() == wanted]
    same = same or [known for known in stored if tail_of(known) == tail_of(wanted)]
    if len(same) != 1:
        entry = catalog.find(name) if name else None
        same = [entry.huggingface] if entry is not None and entry.huggingface in stored else []
    if not same:
        return None
    path = stored[same[0]]
    return _read(same[0], path, path.stat().st_mtime_ns, path.stat().st_size)


def get(name: str) -> Published:
    """As :func:`find`; raises ConfigError where no scores of this model are known; the message names the nearest."""
    found = find(name)
    if found is not None:
        return found
    hint = did_you_mean(name, model_names(), "`evalscope-vacc published` lists them.", most=3)
    raise ConfigError(
        f"no published scores are known for {clean(name, limit=200)!r}: {hint} Others can be collected from a checkout of "
        "embeddings-benchmark/results with benchmarks/published/collect.py of the source repository."
    )


def _stored() -> dict[str, Path]:
    """Maps names to files; what the user collected hides what the package brings."""
    found: dict[str, Path] = {}
    for folder in (packaged_folder(), own_folder()):
        if folder.is_dir():
            for path in sorted(folder.glob(f"*{SUFFIX}")):
                if not path.name.startswith(("_", ".")):
                    found[path.name.removesuffix(SUFFIX).replace("__", "/", 1)] = path
    return found


@lru_cache(maxsize=8)
def _read(name: str, path: Path, _changed: int, _size: int) -> Published:
    data = read_compressed(path)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ConfigError(f"{path} has a format that this release does not read; collect it again")
    return Published(name, data)
