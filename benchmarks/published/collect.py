"""Collects a model's published scores from a checkout of embeddings-benchmark/results.

    python benchmarks/published/collect.py ORG/NAME CHECKOUT [--revision REVISION] [--to FOLDER]

`compare` and `published` find what lies in ``$VACC_HOME/published`` or the user's data folder, which is where it goes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from evalscope_vacc.errors import ConfigError, ResultError
from evalscope_vacc.files import write_whole
from evalscope_vacc.results.files import SUFFIX, finite, own_folder, read_json, shown
from evalscope_vacc.results.load import load_results
from evalscope_vacc.results.model import Row
from evalscope_vacc.results.published import FORMAT

REPOSITORY = "github:embeddings-benchmark/results"


def collect(
    checkout: Path, model: str, *, revision: str | None = None, tasks: Collection[str] | None = None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Reads the scores of one model at the commit that is checked out.

    Args:
        checkout: Work tree of embeddings-benchmark/results; a sparse one with the model's folder is enough.
        model: ``org/name``.
        revision: Folder below the model's; the one with most tasks when not given.
        tasks: Tasks to keep; all when not given.

    Returns:
        The facts in the stored format, and what could not be read.

    Raises:
        ConfigError: The folder is not a checkout, or does not hold the model.
    """
    commit = _commit(checkout)
    folder = checkout / "results" / model.replace("/", "__", 1)
    revisions = {f.name: f for f in sorted(folder.iterdir()) if f.is_dir()} if folder.is_dir() else {}
    if not revisions or (revision is not None and revision not in revisions):
        there = f"; it has the revisions {', '.join(revisions)}" if revisions else ""
        msg = f"{shown(folder / (revision or ''))} is not in this checkout{there}"
        raise ConfigError(msg)
    chosen = revisions[revision] if revision else max(revisions.values(), key=lambda f: len(list(f.glob("*.json"))))
    results = load_results([chosen])
    rows = [r for r in results.rows if r.run.experiment == "" and (tasks is None or r.task in tasks)]
    converted, problems = _old(chosen, tasks)
    rows += converted
    found: dict[str, Any] = {}
    for row in rows:
        if row.score is not None:
            entry = found.setdefault(row.task, [row.type, row.metric, row.mteb_version, row.dataset_revision, {}])
            entry[4].setdefault(row.split, {})[row.subset] = row.score
    data = {
        "format": FORMAT,
        "model": model,
        "kind": "encoder",
        "revision": chosen.name,
        "source": f"{REPOSITORY}@{commit} results/{folder.name}/{chosen.name}/ (CC0-1.0)",
        "conditions": {},
        "tasks": dict(sorted(found.items())),
    }
    # what reading the folder named and the conversion could not read either
    return data, tuple(
        sorted({str(dict(p.args)["text"]) for p in results.problems if p.code != "too_old"} | set(problems))
    )


def _old(folder: Path, tasks: Collection[str] | None) -> tuple[list[Row], list[str]]:
    """Reads what an mteb before 1.11 wrote, with MTEB's own conversion."""
    old: dict[Path, Mapping[str, Any]] = {}
    problems: list[str] = []
    for path in sorted(folder.glob("*.json")):
        try:
            data = read_json(path)
        except ResultError:
            continue  # reading the folder has named it already
        if not isinstance(data, dict) or "mteb_dataset_name" not in data:
            continue
        if tasks is None or data["mteb_dataset_name"] in tasks:
            old[path] = data
    if not old:
        return [], []
    from mteb.results import TaskResult

    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        for path, data in old.items():
            try:
                converted = TaskResult.from_disk(path, load_historic_data=True).to_dict()
                text = json.dumps({**converted, "scores": _named_map(converted["scores"])}, default=str)
            except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
                problems.append(f"{shown(path)}: MTEB cannot convert it ({type(error).__name__})")
                continue
            (Path(scratch) / path.name).write_text(text, encoding="utf-8")
            found = load_results([Path(scratch) / path.name]).rows
            # the conversion writes the version and the revision of today's MTEB where the file had none
            version, revision = data.get("mteb_version"), data.get("dataset_revision")
            rows += [replace(row, mteb_version=version, dataset_revision=revision, source="") for row in found]
    return rows, problems


def _named_map(scores: Any) -> Any:
    """Reranking's main score was called "map" then and is "map_at_1000" now; the conversion leaves it without."""
    for entries in scores.values():
        for entry in entries:
            if finite(entry.get("main_score")) is None and finite(entry.get("map")) is not None:
                entry["main_score"] = entry["map_at_1000"] = entry["map"]
            entry.pop("mteb_version", None)
    return scores


def _commit(checkout: Path) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(checkout), "rev-parse", "--show-toplevel", "HEAD"],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        msg = (
            f"the commit of {shown(checkout)} cannot be told, and a score without its source is not kept: "
            "give a git checkout of embeddings-benchmark/results"
        )
        raise ConfigError(msg) from error
    top, commit = done.stdout.split("\n")[:2]
    if Path(top).resolve() != checkout.resolve():
        msg = f"{shown(checkout)} is not the top of a checkout; {shown(Path(top))} is"
        raise ConfigError(msg)
    return commit.strip()


def write_compressed(path: Path, value: Any) -> None:
    """Writes ``value`` so that the same facts give the same bytes."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    write_whole(path, gzip.compress(text.encode(), 9, mtime=0))


def main(arguments: list[str] | None = None) -> None:
    """Collects one model and says what was found and what could not be read."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("model", help="org/name, as its folder in the checkout is called")
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--revision", help="folder below the model's; default the one with most tasks")
    parser.add_argument("--to", type=Path, default=own_folder(), help="where to keep the scores")
    given = parser.parse_args(arguments)
    data, problems = collect(given.checkout, given.model, revision=given.revision)
    if not data["tasks"]:
        sys.exit(f"{given.model} has no readable result in this checkout" + "".join(f"\n{p}" for p in problems[:3]))
    target = given.to / f"{given.model.replace('/', '__', 1)}{SUFFIX}"
    write_compressed(target, data)
    scores = sum(len(subsets) for task in data["tasks"].values() for subsets in task[4].values())
    print(f"{given.model}: {scores} scores of {len(data['tasks'])} tasks from {data['source']} are in {target}")
    for problem in problems:
        print(f"not read: {problem}", file=sys.stderr)


if __name__ == "__main__":
    main()
