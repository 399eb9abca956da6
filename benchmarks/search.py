"""What does it bring to search a chunk of the corpus while the next one is encoded? MTEB's own search, and ours.

Both encode with our encoder, from the simulated server, which takes a known time for each request:

    python benchmarks/search.py                                   # 200,000 documents, 2,000 queries, 5,000 texts/s
    python benchmarks/search.py --documents 100000 --repeats 1
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

SLOTS, BATCH, BASE_MS = 8, 64, 10.0


def seconds(search: Any, task: Any, top_k: int) -> tuple[float, dict[str, dict[str, float]]]:
    """How long one search takes, and what it finds."""
    split = task.dataset["default"]["test"]
    where = {"task_metadata": task.metadata, "hf_split": "test", "hf_subset": "default", "num_proc": None}
    where["encode_kwargs"] = {"batch_size": BATCH, "show_progress_bar": False}
    start = time.monotonic()
    search.index(split["corpus"], **where)
    found = search.search(split["queries"], top_k=top_k, **where)
    return time.monotonic() - start, found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--dimensions", type=int, default=1024)
    parser.add_argument("--top-k", type=int, default=1_000)
    parser.add_argument("--texts-per-second", type=float, default=5_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    from memory import task_of
    from mteb.models import SearchEncoderWrapper
    from throughput import Server

    from evalscope_vacc import VaccEncoder

    logging.disable(logging.WARNING)
    per_item = (SLOTS * BATCH / options.texts_per_second * 1000 - BASE_MS) / BATCH
    taken: dict[str, list[float]] = {"in turn": [], "streamed": []}
    found: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        task = task_of(options.documents, options.queries, Path(folder))
        task.load_data()
        with Server(slots=SLOTS, base_ms=BASE_MS, per_item_ms=per_item, dimensions=options.dimensions) as server:
            keys = {"api_base": server.base, "store": "off", "preflight": "off", "max_concurrency": SLOTS}
            model = VaccEncoder("m", instruction_profile="none", **keys)
            for _ in range(options.repeats):
                for name, search in (("in turn", SearchEncoderWrapper(model)), ("streamed", model)):
                    took, what = seconds(search, task, options.top_k)
                    taken[name].append(took)
                    found.append(what)
                    print(f"{name}: {took:.1f} s", file=sys.stderr, flush=True)
            model.close()
    medians = {name: statistics.median(all_of_it) for name, all_of_it in taken.items()}
    print(f"in turn {medians['in turn']:.1f} s, streamed {medians['streamed']:.1f} s: ", end="")
    print(f"{medians['in turn'] / medians['streamed']:.2f} x; the same scores: {all(one == found[0] for one in found)}")


if __name__ == "__main__":
    main()
