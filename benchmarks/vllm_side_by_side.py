"""Ours beside MTEB's own API class on a real vLLM: the same vectors, and in how much time?

SciFact's first documents, as MTEB joins title and text, are encoded by both in turn, several times; medians are compared.
A vLLM server is started on this machine, or one that runs already is asked:

    python benchmarks/vllm_side_by_side.py --venv .vllm-venv --model-folder .vllm-models/minilm --corpus corpus.parquet
    python benchmarks/vllm_side_by_side.py --base http://127.0.0.1:8000 --model minilm

``--corpus`` is SciFact's ``corpus/*.parquet`` from the hub; without it the ``datasets`` package fetches it. What a server
computes depends a little on which texts it works on at once, so MTEB's class is also compared with itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
os.environ.setdefault("EVALSCOPE_VACC_DISABLE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

READY_S = 900
OFFLINE = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


@contextlib.contextmanager
def vllm(venv: Path, model_folder: Path, name: str, options: list[str]) -> Iterator[str]:
    """A server on a free port, ended with all its processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    command = [str(venv / "bin" / "vllm"), "serve", str(model_folder), "--served-model-name", name, *options]
    command += ["--host", "127.0.0.1", "--port", str(port), "--runner", "pooling", "--dtype", "float32"]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as said:
            process = subprocess.Popen(
                command, stdout=said, stderr=subprocess.STDOUT, env={**os.environ, **OFFLINE}, start_new_session=True
            )
        try:
            until = time.monotonic() + READY_S
            while not healthy(base):
                if process.poll() is not None or time.monotonic() > until:
                    sys.exit(f"vLLM did not start:\n{log.read_text(errors='replace')[-3000:]}")
                time.sleep(1)
            yield base
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(60)


def healthy(base: str) -> bool:
    """Whether the server is ready."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{base}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def documents(corpus: Path | None, n: int) -> list[str]:
    """The first ``n`` documents as MTEB sends them."""
    if corpus is not None:
        from pyarrow import parquet

        rows = parquet.read_table(corpus, columns=["title", "text"]).slice(0, n).to_pylist()
    else:
        from datasets import load_dataset

        rows = list(load_dataset("mteb/scifact", "corpus", split="corpus").select(range(n)))
    return [f"{row['title']} {row['text']}".strip() if row["title"] else row["text"].strip() for row in rows]


def ours(base: str, name: str, texts: list[str], options: argparse.Namespace) -> Callable[[], Any]:
    """Our model, as MTEB calls it."""
    from evalscope_vacc import VaccEncoder

    model = VaccEncoder(
        name,
        api_base=base,
        store="off",
        preflight="off",
        instruction_profile="none",
        max_concurrency=options.concurrency,
        encode_kwargs={"batch_size": options.batch, "show_progress_bar": False},
    )
    return lambda: model.encode(texts)


def mtebs(base: str, name: str, texts: list[str], options: argparse.Namespace) -> Callable[[], Any]:
    """MTEB's API class."""
    import mteb
    from mteb.models.openai_wrappers import OpenAIAPIEncodeWrapper
    from torch.utils.data import DataLoader

    model = OpenAIAPIEncodeWrapper(base, name, use_chat_template=False)
    metadata = mteb.get_task("STSBenchmark").metadata
    rows = [{"text": text} for text in texts]
    asked = {"task_metadata": metadata, "hf_split": "test", "hf_subset": "default", "show_progress_bar": False}
    return lambda: model.encode(
        DataLoader(rows, batch_size=options.batch),  # type: ignore[arg-type]
        batch_size=options.batch,
        **asked,
    )


def compare(base: str, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Runs both in turn."""
    texts = documents(options.corpus, options.texts)
    clients = {"mteb": mtebs(base, name, texts, options), "ours": ours(base, name, texts, options)}
    clients["mteb"]()  # the server's first requests are slower
    seconds: dict[str, list[float]] = {client: [] for client in clients}
    vectors: dict[str, list[Any]] = {client: [] for client in clients}
    for repeat in range(options.repeats):
        for client in list(clients)[:: 1 if repeat % 2 else -1]:
            start = time.perf_counter()
            vectors[client].append(np.asarray(clients[client](), np.float32))
            seconds[client].append(time.perf_counter() - start)
        print(f"  {repeat + 1} of {options.repeats}", file=sys.stderr)
    reference = vectors["mteb"][0]
    return {
        "texts": len(texts),
        "seconds": seconds,
        "median": {client: statistics.median(every) for client, every in seconds.items()},
        "largest difference": {
            client: max(float(np.abs(one - reference).max()) for one in every) for client, every in vectors.items()
        },
        "smallest cosine": float(min((one * reference).sum(axis=1).min() for one in vectors["ours"])),
    }


def show(result: dict[str, Any]) -> None:
    """Prints the table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{result['texts']} documents")
    for title in ("client", "seconds, median", "spread", "largest difference of a number from MTEB's first run"):
        table.add_column(title, justify="left" if title == "client" else "right")
    for client, median in result["median"].items():
        every = result["seconds"][client]
        spread = f"{min(every):.2f} to {max(every):.2f}"
        table.add_row(client, f"{median:.2f}", spread, f"{result['largest difference'][client]:.1e}")
    console = Console()
    console.print(table)
    console.print(f"  mteb / ours: {result['median']['mteb'] / result['median']['ours']:.3f}")
    console.print(f"  smallest cosine of a vector of ours with MTEB's: {result['smallest cosine']:.7f}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--base", help="address of a server that runs already")
    parser.add_argument("--model", default="minilm", help="its served name")
    parser.add_argument("--venv", type=Path, help="virtual environment with vLLM, to start one")
    parser.add_argument("--model-folder", type=Path, help="the model that it serves")
    parser.add_argument("--vllm-option", action="append", default=[], help="one more word for `vllm serve`")
    parser.add_argument("--corpus", type=Path, help="SciFact's corpus as a parquet file")
    parser.add_argument("--texts", type=int, default=640)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write every figure there")
    options = parser.parse_args()
    if options.base is None and (options.venv is None or options.model_folder is None):
        parser.error("give --base, or --venv and --model-folder")
    logging.disable(logging.WARNING)
    with contextlib.ExitStack() as stack:
        base = options.base or stack.enter_context(
            vllm(options.venv, options.model_folder, options.model, options.vllm_option)
        )
        result = compare(base, options.model, options)
    show(result)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
