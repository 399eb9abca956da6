"""What do worker processes bring to a run of several tasks? The time of one run with 1, 2 and 4 of them.

Two kinds of runs on generated data, each of eight tasks, against the simulated server: one in which the server has most to do
(similarity of many texts), and one in which MTEB does (classifiers that are fitted to few texts of many classes):

    python benchmarks/workers.py
    python benchmarks/workers.py --only client --workers 1 2 --repeats 1

``busy`` is the share of the server's slots that were at work, of the whole run with its start, and from the first request
to the last one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

TASKS = 8
SLOTS, BASE_MS, PER_ITEM_MS, DIMENSIONS = 4, 20.0, 2.0, 1024
# a run of the command in a process of its own, as a user has it
RUN = """
import json, sys
import evalscope_vacc, workers
workers.register()
evalscope_vacc.run(json.loads(sys.argv[1]))
"""
SIZES = {"server": {"pairs": 4_000, "classes": 0}, "client": {"pairs": 0, "classes": 150}}
METADATA: dict[str, Any] = {
    "dataset": {"path": "evalscope-vacc/generated", "revision": "1"},
    "modalities": ["text"],
    "eval_splits": ["test"],
    "eval_langs": ["eng-Latn"],
    "date": ("2026-11-01", "2026-11-30"),
    "domains": ["Written"],
    "task_subtypes": [],
    "license": "apache-2.0",
    "annotations_creators": "derived",
    "dialect": [],
    "sample_creation": "created",
    "bibtex_citation": "",
    "description": "Generated.",
}


def text(number: int, task: int) -> str:
    """A text of some twenty words, unlike every other one."""
    return " ".join(f"w{(number * 7919 + task * 104729 + place * place) % 50_000}" for place in range(20))


def tasks(kind: str) -> list[type]:
    """Classes of MTEB tasks whose data are generated when they are loaded."""
    from datasets import Dataset, DatasetDict
    from mteb.abstasks import AbsTaskClassification, AbsTaskSTS
    from mteb.abstasks.task_metadata import TaskMetadata

    def similarity(number: int) -> Any:
        rows = [
            {"sentence1": text(2 * i, number), "sentence2": text(2 * i + 1, number), "score": i % 6}
            for i in range(SIZES[kind]["pairs"])
        ]
        return {"test": Dataset.from_list(rows)}

    def classes(number: int) -> Any:
        count = SIZES[kind]["classes"]
        rows = [{"text": text(i, number), "label": i % count} for i in range(10 * count)]
        return {"train": Dataset.from_list(rows), "test": Dataset.from_list(rows[: 2 * count])}

    base, data, score, of = (
        (AbsTaskSTS, similarity, "cosine_spearman", "STS")
        if kind == "server"
        else (AbsTaskClassification, classes, "accuracy", "Classification")
    )
    made = []
    for number in range(TASKS):

        def load_data(self: Any, *_: object, number: int = number, **__: object) -> None:
            if not self.data_loaded:
                self.dataset, self.data_loaded = DatasetDict(data(number)), True

        name = f"Generated{kind.capitalize()}{number}"
        category = "t2t" if of == "STS" else "t2c"
        metadata = TaskMetadata(name=name, type=of, main_score=score, category=category, **METADATA)
        body = {"metadata": metadata, "load_data": load_data, "min_score": 0, "max_score": 5, "__module__": __name__}
        made.append(type(name, (base,), body))
    return made


def register() -> None:
    """Lets MTEB find every task by name, and worker processes find its class in this module."""
    from evalscope_vacc.hosts.data import register as register_tasks

    made = {kind.__name__: kind for which in SIZES for kind in tasks(which)}
    globals().update(made)
    register_tasks(made)


def __getattr__(name: str) -> Any:
    # a worker asks for a class by its name when it reads what it is to do
    if not name.startswith("Generated"):
        raise AttributeError(name)
    register()
    return globals()[name]


def once(kind: str, count: int, base: str, folder: Path) -> tuple[float, float, float]:
    """Seconds of one run, and the share of the slots that were at work, of the run and from first to last request."""
    from throughput import stats

    stats(base, reset=True)
    model = {"model_type": "vacc_api", "model_name": "m", "api_base": base, "max_concurrency": SLOTS}
    names = [f"Generated{kind.capitalize()}{number}" for number in range(TASKS)]
    evaluation = {"task_names": names, "hub": "huggingface", "workers": count, "verbosity": 0}
    keys = {"instruction_profile": "none", "store": "off", "preflight": False}
    config = {"tool": "MTEB", "models": [{**model, **keys}], "eval": evaluation}
    # the other benchmarks switch the hooks off, to measure the hosts as they are
    environment = {name: value for name, value in os.environ.items() if name != "EVALSCOPE_VACC_DISABLE"}
    environment["VACC_HOME"] = str(folder)
    environment["PYTHONPATH"] = os.pathsep.join((str(HERE), str(HERE.parent)))
    start = time.monotonic()
    command = [sys.executable, "-c", RUN, json.dumps(config)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - start
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    seen = stats(base)
    work = seen["busy_seconds"] / SLOTS
    return seconds, work / seconds, work / seen["span_seconds"]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--only", choices=list(SIZES), nargs="*", default=list(SIZES))
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    from throughput import Server

    print("| most of the work is the | workers | seconds | busy, of the run | busy, first to last request |")
    print("|---|--:|--:|--:|--:|")
    with Server(slots=SLOTS, base_ms=BASE_MS, per_item_ms=PER_ITEM_MS, dimensions=DIMENSIONS) as server:
        for kind in options.only:
            taken: dict[int, list[tuple[float, float, float]]] = {count: [] for count in options.workers}
            for _ in range(options.repeats):
                for count in options.workers:
                    with tempfile.TemporaryDirectory() as folder:
                        taken[count].append(once(kind, count, server.base, Path(folder)))
            for count, runs in taken.items():
                seconds, busy, span = (statistics.median(values) for values in zip(*runs, strict=True))
                print(f"| {kind}'s | {count} | {seconds:.0f} | {busy:.2f} | {span:.2f} |", flush=True)


if __name__ == "__main__":
    main()
