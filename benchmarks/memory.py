"""How much memory does a large corpus need? Retrieval in MTEB over corpora of growing size, on the simulated server.

Each size runs in a process of its own: a retrieval task with generated documents, ``mteb.evaluate`` and our encoder, the
store included, as a user has it. MTEB encodes a corpus in chunks of 50,000 documents, so the memory must not grow with
the corpus beyond the first ones.

    python benchmarks/memory.py                                   # 250,000, 500,000 and 1,000,000 documents
    python benchmarks/memory.py --documents 100000 --store off

Linux only: the peaks are the kernel's (``/proc/self/status``). Vectors on their way and in the store need disk space:
about 1.2 bytes for each byte of vector, 5 GB for a million of 1024 dimensions.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

if TYPE_CHECKING:
    from typing_extensions import Self

MIB = 2**20
LIMIT_MIB = 4096
STATUS = Path("/proc/self/status")


# -- one size, in the process that is measured ------------------------------------------------------------------------


def status() -> dict[str, float]:
    """What the kernel says of this process' memory, in MiB."""
    rows = (line.split(":", 1) for line in STATUS.read_text().splitlines())
    return {name: int(value.split()[0]) / 1024 for name, value in rows if value.strip().endswith("kB")}


class Watch:
    """Notes the highest memory outside of mapped files, and the store's largest size on disk, while it is open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.anonymous = 0.0
        self.store = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            self.anonymous = max(self.anonymous, status()["RssAnon"])
            size = sum(path.stat().st_size for path in self._folder.rglob("*.sqlite") if path.exists())
            self.store = max(self.store, size / MIB)


def task_of(documents: int, queries: int, folder: Path) -> Any:
    """A retrieval task; its corpus lies in files that are mapped into memory, as those from the hub do."""
    from datasets import Dataset
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    def corpus() -> Iterator[dict[str, str]]:
        for i in range(documents):
            yield {
                "id": f"d{i}",
                "title": "",
                "text": f"Report {i} says what was seen on day {i % 365} at place {i * 7919}.",
            }

    class Generated(AbsTaskRetrieval):  # type: ignore[misc]
        metadata = TaskMetadata(
            name="Generated",
            description="Generated documents, for the measurement of memory.",
            dataset={"path": "generated/generated", "revision": "1"},
            type="Retrieval",
            category="t2t",
            modalities=["text"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
            date=("2026-01-01", "2026-01-02"),
            domains=["Written"],
            task_subtypes=[],
            license="apache-2.0",
            annotations_creators="derived",
            dialect=[],
            sample_creation="created",
            bibtex_citation="",
        )

        def load_data(self, *_: object, **__: object) -> None:
            if self.data_loaded:
                return
            asked = [{"id": f"q{i}", "text": f"What was seen at place {i * 7919}?"} for i in range(queries)]
            split = {
                "corpus": Dataset.from_generator(corpus, cache_dir=str(folder)),
                "queries": Dataset.from_list(asked),
                "relevant_docs": {f"q{i}": {f"d{i}": 1} for i in range(queries)},
                "top_ranked": None,
            }
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    return Generated()


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Runs one size in this process."""
    import gc
    import logging

    import mteb

    from evalscope_vacc import VaccEncoder

    logging.disable(logging.WARNING)
    folder = Path(os.environ["VACC_HOME"])
    task = task_of(options.documents[0], options.queries, folder / "data")
    task.load_data()
    data = task.dataset["default"]["test"]["corpus"].data.nbytes / MIB
    model = VaccEncoder(
        "m",
        api_base=options.base,
        store=options.store,
        preflight="off",
        instruction_profile="none",
        encode_kwargs={"batch_size": 32, "show_progress_bar": False},
    )
    model.encode(["one text"])
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = status()["VmRSS"]
    start = time.monotonic()
    with Watch(folder) as watch:
        mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    seconds = time.monotonic() - start
    model.close()
    return {
        "documents": options.documents[0],
        "seconds": seconds,
        "data_set_mib": data,
        "before_mib": before,
        "peak_mib": status()["VmHWM"],
        "peak_anonymous_mib": watch.anonymous,
        "beyond_data_set_mib": status()["VmHWM"] - data,
        "store_mib": watch.store,
    }


# -- all sizes --------------------------------------------------------------------------------------------------------


def run(documents: int, base: str, options: argparse.Namespace) -> dict[str, float]:
    """Runs one size in a process of its own."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        need = documents * options.dimensions * 4 * 1.25 if options.store != "off" else 0
        if shutil.disk_usage(folder).free < need + 2**30:
            sys.exit(f"{folder}: not enough room for {need / 2**30:.1f} GiB of vectors; name another with --folder")
        command = [sys.executable, __file__, "--base", base, "--documents", str(documents), "--store", options.store]
        environment = {**os.environ, "VACC_HOME": folder, "HF_HOME": f"{folder}/hub", "MTEB_CACHE": f"{folder}/mteb"}
        said = subprocess.run(
            [*command, "--queries", str(options.queries)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        return dict(json.loads(said.stdout.splitlines()[-1]))


def show(results: list[dict[str, float]]) -> None:
    """Prints the table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="memory of the whole process and the store's files, MiB")
    columns = {
        "documents": "documents",
        "data": "data_set_mib",
        "before": "before_mib",
        "peak": "peak_mib",
        "anonymous": "peak_anonymous_mib",
        "beyond data": "beyond_data_set_mib",
        "store": "store_mib",
        "seconds": "seconds",
    }
    for title in columns:
        table.add_column(title, justify="right")
    for result in results:
        table.add_row(*(f"{result[name]:,.0f}" for name in columns.values()))
    console = Console()
    console.print(table)
    over = [r for r in results if r["beyond_data_set_mib"] >= LIMIT_MIB]
    console.print(f"{len(results) - len(over)} of {len(results)} below {LIMIT_MIB} MiB beyond the data set")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--documents", type=int, nargs="+", default=[250_000, 500_000, 1_000_000])
    parser.add_argument("--dimensions", type=int, default=1024)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--store", default="resume", help="resume (as users have it), reuse or off")
    parser.add_argument(
        "--folder", type=Path, help="where the store and the data set are; default the temporary folder"
    )
    parser.add_argument("--json", type=Path, help="write every figure there")
    parser.add_argument("--base", help=argparse.SUPPRESS)  # the server, in the process that is measured
    options = parser.parse_args()
    if options.base is not None:
        print(json.dumps(measure(options)))
        return
    from throughput import Server

    results = []
    with Server(slots=4, base_ms=0, per_item_ms=0, dimensions=options.dimensions) as server:
        for documents in options.documents:
            results.append(run(documents, server.base, options))
            print(results[-1], file=sys.stderr)
    show(results)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
