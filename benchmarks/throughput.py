"""How fast are we, and how much of a server's time is left unused? Ours beside the peers, in one run on one machine.

A simulated server (``simulated_server.py``, a process of its own) takes a known time for every request; its limit is
measured with wrk where that is installed, else with a client of bare sockets that decodes nothing. Then the same work
is done by our engine, our models, EvalScope's API classes, mteb's API wrappers, and one pair per request, which is
how the vendor's patch asks a reranker. Each is run several times in turn; medians are compared.

    python benchmarks/throughput.py                       # everything; about 15 minutes
    python benchmarks/throughput.py --only embed-at-once --repeats 3
    python benchmarks/throughput.py --json out.json --plot out.svg

EvalScope's encoder needs langchain-openai; a peer that is not installed is left out and named.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import os
import platform
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from typing_extensions import Self

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
os.environ.setdefault("EVALSCOPE_VACC_DISABLE", "1")  # the peers are measured as they come
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

from evalscope_vacc.wire.dialects import get_dialect  # noqa: E402
from evalscope_vacc.wire.engine import Answer, Connection, Engine, Request  # noqa: E402

MODEL = "m"
DIALECT = get_dialect("vllm")
WORDS = [
    *("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school", "state"),
    *("family", "student", "group", "country", "problem", "hand", "part", "place", "case", "week", "company"),
    *("system", "program", "question", "work", "government", "number", "night", "point", "home", "water"),
]

Client = Callable[[], int]  # does the work, returns the number of items done


# -- the server -------------------------------------------------------------------------------------------------------


class Server:
    """A simulated server in a process of its own."""

    def __init__(self, **options: float) -> None:
        flags = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "simulated_server.py"), "--follow-stdin", "--model", MODEL, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.base = self._process.stdout.readline().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)

    def requests(self) -> int:
        """How many requests it has worked on."""
        return int(stats(self.base)["requests"])


def stats(base: str, *, reset: bool = False) -> dict[str, float]:
    """What a simulated server has counted; ``reset`` lets it begin anew."""
    with urllib.request.urlopen(f"{base}/stats{'/reset' if reset else ''}") as page:
        return dict(json.load(page) or {})


# -- the limit --------------------------------------------------------------------------------------------------------


def bare_sockets(base: str, asked: Sequence[tuple[str, bytes]], connections: int) -> None:
    """Sends every request over so many connections and reads the answers without looking at them."""
    host, port = base.removeprefix("http://").split(":")
    waiting = iter(asked)
    lock = threading.Lock()

    def work() -> None:
        with socket.create_connection((host, int(port))) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            space = memoryview(bytearray(1 << 20))
            while True:
                with lock:
                    path, body = next(waiting, ("", b""))
                if not path:
                    return
                head = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n"
                sock.sendall(head.encode() + body)
                got = sock.recv_into(space)
                start = bytes(space[:got])
                end = start.index(b"\r\n\r\n")
                length = int(start[: end + 2].lower().split(b"content-length:")[1].split(b"\r\n")[0])
                left = length - (got - end - 4)
                while left > 0:
                    left -= sock.recv_into(space)

    threads = [threading.Thread(target=work) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def wrk(base: str, path: str, body: bytes, connections: int, seconds: int = 4) -> float:
    """Requests per second that wrk gets."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "post.lua"
        (Path(folder) / "body").write_bytes(body)
        script.write_text(
            f'local f = io.open("{folder}/body", "rb")\nwrk.method = "POST"\nwrk.body = f:read("*a")\nf:close()\n'
            'wrk.headers["Content-Type"] = "application/json"\n'
        )
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), base + path]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(said.split("Requests/sec:")[1].split()[0])


# -- the work ---------------------------------------------------------------------------------------------------------


def sentences(n: int, words: int, seed: int = 0) -> list[str]:
    """That many different texts of so many words."""
    rng = random.Random(seed)
    return [" ".join([*rng.choices(WORDS, k=words - 1), str(i)]) for i in range(n)]


def loader(texts: list[str], batch: int) -> Any:
    """Texts as MTEB hands them to a model."""
    from datasets import Dataset
    from torch.utils.data import DataLoader

    return DataLoader(Dataset.from_dict({"text": texts}), batch_size=batch)


def fill(
    work: Embedding | Reranking, requests: Iterator[Request], read: Callable[[bytes, int], Any], out: np.ndarray
) -> int:
    """Sends requests with our engine, and puts what ``read`` finds in the answers where their tags say."""

    def parse(request: Request, answer: Answer) -> Any:
        return read(answer.body, request.items).values

    with Engine(Connection(tuple(work.bases), max_concurrency=work.slots)) as engine:
        for request, values in engine.stream(requests, parse):
            out[request.tag : request.tag + request.items] = values
    work.results["engine"] = out
    return len(out)


@dataclass
class Embedding:
    """Encode all texts."""

    texts: list[str]
    batch: int
    slots: int
    bases: list[str]
    dimensions: int
    results: dict[str, Any] = field(default_factory=dict)

    def asked(self) -> list[tuple[str, bytes]]:
        """Path and body of every request."""
        step = self.batch
        return [DIALECT.embeddings(MODEL, self.texts[i : i + step]) for i in range(0, len(self.texts), step)]

    def engine(self) -> int:
        """Our engine and dialect alone."""
        out = np.empty((len(self.texts), self.dimensions), np.float32)

        def requests() -> Iterator[Request]:
            for i in range(0, len(self.texts), self.batch):
                texts = self.texts[i : i + self.batch]
                path, body = DIALECT.embeddings(MODEL, texts)
                yield Request(path, body, len(texts), tag=i)

        return fill(self, requests(), DIALECT.read_embeddings, out)

    def ours(self) -> Client:
        """Our model, as MTEB calls it."""
        from evalscope_vacc import VaccEncoder

        model = VaccEncoder(
            MODEL,
            api_base=self.bases,
            store="off",
            preflight="off",
            max_concurrency=self.slots,
            instruction_profile="none",
            encode_kwargs={"batch_size": self.batch, "show_progress_bar": False},
        )
        model.encode(self.texts[:1])  # connections and the server's facts, as in a run of many tasks

        texts = loader(self.texts, self.batch)

        def run() -> int:
            self.results["ours"] = model.encode(texts)
            return len(self.texts)

        return run

    def evalscope(self) -> Client:
        """EvalScope's API class."""
        from evalscope.backend.rag_eval.models.encoder import APIEncoder

        model = APIEncoder(MODEL, f"{self.bases[0]}/v1", api_key="EMPTY", batch_size=self.batch)

        def run() -> int:
            self.results["evalscope"] = np.asarray(model.encode(self.texts))
            return len(self.texts)

        return run

    def mteb(self) -> Client:
        """MTEB's API wrapper."""
        import mteb
        from mteb.models.openai_wrappers import OpenAIAPIEncodeWrapper
        from torch.utils.data import DataLoader

        model = OpenAIAPIEncodeWrapper(self.bases[0], MODEL, use_chat_template=False)
        metadata = mteb.get_task("STSBenchmark").metadata
        rows = [{"text": text} for text in self.texts]

        def run() -> int:
            batches = DataLoader(rows, batch_size=self.batch)  # type: ignore[arg-type]
            self.results["mteb"] = model.encode(
                batches,
                task_metadata=metadata,
                hf_split="test",
                hf_subset="default",
                batch_size=self.batch,
                show_progress_bar=False,
            )
            return len(self.texts)

        return run


@dataclass
class Reranking:
    """Score every document of every query."""

    queries: list[str]
    documents: list[list[str]]
    batch: int
    slots: int
    bases: list[str]
    sample: int = 300
    results: dict[str, Any] = field(default_factory=dict)

    def pairs(self, limit: int | None = None) -> list[tuple[str, str]]:
        """Pairs of a query and a document, the first ``limit`` of them."""
        every = ((query, text) for query, texts in zip(self.queries, self.documents, strict=True) for text in texts)
        return list(itertools.islice(every, limit))

    def asked(self) -> list[tuple[str, bytes]]:
        """Path and body of every request."""
        return [
            DIALECT.scores(MODEL, query, texts[i : i + self.batch])
            for query, texts in zip(self.queries, self.documents, strict=True)
            for i in range(0, len(texts), self.batch)
        ]

    def engine(self) -> int:
        """Our engine and dialect alone."""
        out = np.empty(sum(map(len, self.documents)))

        def requests() -> Iterator[Request]:
            first = 0
            for query, texts in zip(self.queries, self.documents, strict=True):
                for i in range(0, len(texts), self.batch):
                    some = texts[i : i + self.batch]
                    path, body = DIALECT.scores(MODEL, query, some)
                    yield Request(path, body, len(some), tag=first)
                    first += len(some)

        return fill(self, requests(), DIALECT.read_scores, out)

    def ours(self) -> Client:
        """Our model, as MTEB calls it."""
        from evalscope_vacc import VaccCrossEncoder

        model = VaccCrossEncoder(
            MODEL,
            api_base=self.bases,
            store="off",
            preflight="off",
            max_concurrency=self.slots,
            rerank_template="none",
            encode_kwargs={"batch_size": self.batch, "show_progress_bar": False},
        )
        model.predict(["q"], ["d"])
        queries, documents = (list(side) for side in zip(*self.pairs(), strict=True))
        sides = [loader(side, 32) for side in (queries, documents)]

        def run() -> int:
            self.results["ours"] = np.asarray(model.predict(*sides))
            return len(queries)

        return run

    def evalscope(self) -> Client:
        """EvalScope's API class."""
        from evalscope.backend.rag_eval.models.reranker import APIReranker

        model = APIReranker(MODEL, f"{self.bases[0]}/v1", api_key="EMPTY")
        pairs = [list(pair) for pair in self.pairs(2000)]

        def run() -> int:
            # MTEB's batch size reaches it, not the model's own
            self.results["evalscope"] = np.asarray(model.predict(pairs, batch_size=32))
            return len(pairs)

        return run

    def mteb(self) -> Client:
        """MTEB's API wrapper."""
        import mteb
        from mteb.models.openai_wrappers import OpenAIAPIRerankWrapper
        from torch.utils.data import DataLoader

        model = OpenAIAPIRerankWrapper(self.bases[0], MODEL)
        metadata = mteb.get_task("SciDocsRR").metadata
        pairs = self.pairs(self.sample)

        def run() -> int:
            sides = [DataLoader([{"text": pair[i]} for pair in pairs], batch_size=32) for i in (0, 1)]  # type: ignore[arg-type]
            self.results["mteb"] = np.asarray(
                model.predict(
                    *sides, task_metadata=metadata, hf_split="test", hf_subset="default", show_progress_bar=False
                )
            )
            return len(pairs)

        return run

    def one_by_one(self) -> int:
        """One pair per request, one request at a time, a connection each."""
        import requests

        pairs = self.pairs(self.sample)
        scores = []
        for query, text in pairs:
            body = {"model": MODEL, "query": query, "documents": [text]}
            answer = requests.post(f"{self.bases[0]}/v1/rerank", json=body, timeout=60)
            scores.append(answer.json()["results"][0]["relevance_score"])
        self.results["one by one"] = np.array(scores)
        return len(pairs)


# -- measuring --------------------------------------------------------------------------------------------------------


def limit_of(work: Embedding | Reranking, items: int) -> Client:
    """The client that does nothing but send and receive."""
    asked = work.asked()

    def run() -> int:
        per_server = [asked[i :: len(work.bases)] for i in range(len(work.bases))]
        threads = [
            threading.Thread(target=bare_sockets, args=(base, part, work.slots))
            for base, part in zip(work.bases, per_server, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return items

    return run


def compare(
    name: str, work: Embedding | Reranking, clients: dict[str, Callable[[], Client]], items: int, repeats: int
) -> dict[str, Any]:
    """Runs all clients in turn, ``repeats`` times; returns the items per second of each."""
    ready: dict[str, Client] = {"limit": limit_of(work, items)}
    missing: dict[str, str] = {}
    for client, make in clients.items():
        try:
            ready[client] = make()
        except ImportError as error:
            missing[client] = str(error)
    rates: dict[str, list[float]] = {client: [] for client in ready}
    shares: dict[str, list[float]] = {client: [] for client in ready}
    for repeat in range(repeats):
        for client, run in ready.items():
            for base in work.bases:
                stats(base, reset=True)
            start = time.perf_counter()
            done = run()
            seconds = time.perf_counter() - start
            rates[client].append(done / seconds)
            at_work = sum(stats(base)["busy_seconds"] for base in work.bases)
            shares[client].append(at_work / (seconds * work.slots * len(work.bases)))
        if shutil.which("wrk") is not None and len(work.bases) == 1:
            asked = work.asked()
            rate = wrk(work.bases[0], *asked[0], work.slots)
            rates.setdefault("limit (wrk)", []).append(rate * items / len(asked))
        print(f"  {name}: {repeat + 1} of {repeats}", file=sys.stderr)
    agree = check(work)
    medians = {client: statistics.median(values) for client, values in rates.items()}
    slots = {client: statistics.median(values) for client, values in shares.items() if any(values)}
    return {
        "name": name,
        "items_per_second": medians,
        "slots_at_work": slots,
        "all": rates,
        "missing": missing,
        "agree": agree,
    }


def check(work: Embedding | Reranking) -> bool:
    """Whether all clients got the same numbers."""
    expected = np.asarray(work.results["engine"])
    return all(
        bool(np.allclose(np.asarray(got), expected[: len(got)], rtol=0, atol=1e-6)) for got in work.results.values()
    )


def peers_of(work: Embedding | Reranking) -> dict[str, Callable[[], Client]]:
    """The clients of a comparison, by name."""
    found: dict[str, Callable[[], Client]] = {
        "engine": lambda: work.engine,
        "ours": work.ours,
        "evalscope": work.evalscope,
        "mteb": work.mteb,
    }
    if isinstance(work, Reranking):
        one_by_one = work.one_by_one
        found["one by one"] = lambda: one_by_one
    return found


def scenario(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Runs one scenario."""
    slow = {"slots": options.slots, "base_ms": options.base_ms, "per_item_ms": options.per_item_ms}
    at_once = {"slots": options.slots, "base_ms": 0, "per_item_ms": 0}
    jitter = {"jitter": options.jitter}
    with contextlib.ExitStack() as stack:

        def server(**settings: float) -> Server:
            return stack.enter_context(Server(**settings, **jitter))

        if name.startswith("rerank"):
            base = server(**slow).base
            n = 40 if name == "rerank-4000" else 100
            queries = sentences(n, 12, seed=1)
            documents = [sentences(100, 60, seed=2 + i) for i in range(n)]
            pairs = Reranking(queries, documents, 100, options.slots, [base])
            return compare(name, pairs, peers_of(pairs), 100 * n, options.repeats)
        dimensions = 4096 if name == "embed-at-once-4096" else options.dimensions
        timing = at_once if name.startswith("embed-at-once") else slow
        count = 2 if name == "two-servers" else 1
        servers = [server(**timing, dimensions=dimensions) for _ in range(count)]
        texts = sentences(options.texts, options.words)
        if name == "duplicates":
            texts = texts[: len(texts) // 2] * 2
            random.Random(0).shuffle(texts)
        work = Embedding(texts, options.batch, options.slots, [s.base for s in servers], dimensions)
        if name == "duplicates":
            before = servers[0].requests()
            work.ours()()
            asked = servers[0].requests() - before - 1
            return {"name": name, "requests": asked, "requests_without": len(work.asked())}
        if name == "two-servers":
            alone = Embedding(texts, options.batch, options.slots, [servers[0].base], dimensions)
            clients = {
                "engine": lambda: work.engine,
                "ours": work.ours,
                "engine, one server": lambda: alone.engine,
                "ours, one server": alone.ours,
            }
            return compare(name, work, clients, len(texts), options.repeats)
        return compare(name, work, peers_of(work), len(texts), options.repeats)


def ratios(result: dict[str, Any]) -> dict[str, float]:
    """What the issue asks for, out of the medians."""
    medians = result.get("items_per_second", {})
    if result["name"] == "duplicates":
        return {"requests / requests without": result["requests"] / result["requests_without"]}
    return {
        f"{mine} / {other}": medians[mine] / medians[other]
        for mine in ("ours", "engine")
        for other in medians
        if mine in medians
        and other not in {"ours", "engine"}
        and not other.startswith(mine + "_")
        and ("one server" not in other or other.startswith(mine))
    }


def show(results: Sequence[dict[str, Any]]) -> None:
    """Prints the tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for result in results:
        table = Table(title=result["name"])
        table.add_column("client")
        table.add_column("items/s", justify="right")
        table.add_column("spread", justify="right")
        table.add_column("slots at work", justify="right")
        at_work = result.get("slots_at_work", {})
        for client, rate in result.get("items_per_second", {}).items():
            every = result["all"][client]
            share = f"{at_work[client]:.1%}" if client in at_work else "-"
            table.add_row(client, f"{rate:,.0f}", f"{min(every):,.0f} to {max(every):,.0f}", share)
        for client, why in result.get("missing", {}).items():
            table.add_row(client, "not installed", why)
        if table.row_count:
            console.print(table)
        else:
            console.print(result["name"])
        for words, ratio in ratios(result).items():
            console.print(f"  {words}: {ratio:.3f}")
        if result.get("agree") is False:
            console.print("  the clients did not get the same numbers", style="red")


def draw(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes a picture with a bar for every client; beside it ``NAME.zh.SUFFIX``, with Chinese titles."""
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    rcParams.update({"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "throughput"})
    rcParams["font.sans-serif"] = ["DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "sans-serif"]
    drawn = [result for result in results if "items_per_second" in result]
    for language, target in enumerate((path, path.with_suffix(f".zh{path.suffix}"))):
        figure = Figure(figsize=(8, 1.7 * len(drawn)), layout="constrained")
        for axes, result in zip(figure.subplots(len(drawn), squeeze=False)[:, 0], drawn, strict=True):
            rates = result["items_per_second"]
            colours = ["#0b6e4f" if name.startswith("ours") else "#b8c4c2" for name in rates]
            bars = axes.barh(list(rates), list(rates.values()), color=colours)
            axes.bar_label(bars, fmt="{:,.0f}", padding=4)
            axes.set_title(TITLES[result["name"]][language], loc="left")
            axes.invert_yaxis()
            axes.spines[["top", "right", "bottom"]].set_visible(False)
            axes.set_xticks([])
            axes.margins(x=0.12)
        figure.savefig(target, metadata={"Date": None} if path.suffix == ".svg" else None)


SCENARIOS = ("embed", "embed-at-once", "embed-at-once-4096", "rerank", "rerank-4000", "two-servers", "duplicates")
TITLES = {
    "embed": ("Embedding, 20 ms + 2 ms a text: texts per second", "Embedding，20 ms + 每条 2 ms：每秒文本数"),
    "embed-at-once": (
        "Embedding, a server that answers at once, 1024 dimensions: texts per second",
        "Embedding，服务立即响应，1024 维：每秒文本数",
    ),
    "embed-at-once-4096": ("The same with 4096 dimensions: texts per second", "同上，4096 维：每秒文本数"),
    "rerank": (
        "Reranking, 100 queries × 100 documents: documents per second",
        "Reranker，100 个查询 × 100 篇文档：每秒文档数",
    ),
    "rerank-4000": (
        "Reranking, 40 queries × 100 documents: documents per second",
        "Reranker，40 个查询 × 100 篇文档：每秒文档数",
    ),
    "two-servers": (
        "Embedding, two servers instead of one: texts per second",
        "Embedding，两个服务与一个服务：每秒文本数",
    ),
}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), metavar="SCENARIO")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--texts", type=int, default=3200)
    parser.add_argument("--words", type=int, default=60)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--dimensions", type=int, default=1024)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--base-ms", type=float, default=20)
    parser.add_argument("--per-item-ms", type=float, default=2)
    parser.add_argument("--jitter", type=float, default=0)
    parser.add_argument("--json", type=Path, help="write every figure there")
    parser.add_argument("--plot", type=Path, help="write a picture with bars there, as SVG or PNG")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    results = [scenario(name, options) for name in options.only]
    show(results)
    if options.json is not None:
        machine = {"python": platform.python_version(), "system": platform.platform(), "cpus": os.cpu_count()}
        settings = {name: str(value) for name, value in vars(options).items()}
        document = {"machine": machine, "options": settings, "results": results}
        document["ratios"] = {result["name"]: ratios(result) for result in results}
        options.json.write_text(json.dumps(document, indent=1))
    if options.plot is not None:
        draw(results, options.plot)


if __name__ == "__main__":
    main()
