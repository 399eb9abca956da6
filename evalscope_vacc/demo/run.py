"""Runs an unmodified EvalScope against the demo server, one-stage and two-stage, and gathers what it scored."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import urllib.request
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalscope_vacc.demo.engine import weights_folder
from evalscope_vacc.demo.process import DEFAULT_NAME, DemoServer
from evalscope_vacc.errors import HostError, ResultError
from evalscope_vacc.hosts.versions import check, installed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

RERANKER_NAME = f"{DEFAULT_NAME}-cosine"
"""Served name under which the same weights act as the cross-encoder."""

TOP_K = 20
"""Candidates of each query that the second stage reranks."""

TOLERANCE = 1e-4
"""How far a served score may lie from that of the same weights in process."""

_LOG = "evalscope.log"


@dataclass(frozen=True)
class DemoRow:
    """One main score.

    Attributes:
        stage: ``one-stage``, or the stages ``first`` and ``second`` of the two-stage run.
        model: Served model name.
        task: Name of the task.
        subset: ``en`` or ``zh``.
        metric: Name of the main score.
        score: What the served model got, from 0 to 1.
        in_process: What the same weights got in process when the demo was made; None for the second stage, where it
            is the first stage's.
    """

    stage: str
    model: str
    task: str
    subset: str
    metric: str
    score: float
    in_process: float | None


@dataclass(frozen=True)
class DemoReport:
    """What the demo did.

    Attributes:
        rows: The main scores.
        work_dir: Folder with EvalScope's files and its log.
        seconds: How long it took.
        requests: Requests that the server answered.
        texts_encoded: Texts that the model was run on.
        texts_remembered: Texts whose vector the server still knew.
    """

    rows: tuple[DemoRow, ...]
    work_dir: Path
    seconds: float
    requests: int
    texts_encoded: int
    texts_remembered: int

    @property
    def largest_difference(self) -> float:
        """Largest distance of a score from that of the same weights in process."""
        return max(abs(row.score - row.in_process) for row in self.rows if row.in_process is not None)

    @property
    def two_stage_difference(self) -> float:
        """Largest distance between the stages; 0, because the second stage scores by the first one's cosine."""
        first = {(row.task, row.subset): row.score for row in self.rows if row.stage == "first"}
        return max(abs(row.score - first[row.task, row.subset]) for row in self.rows if row.stage == "second")

    @property
    def passed(self) -> bool:
        """Whether every score is what it has to be."""
        return self.largest_difference <= TOLERANCE and self.two_stage_difference <= 1e-6

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "passed": self.passed,
            "largest_difference": self.largest_difference,
            "two_stage_difference": self.two_stage_difference,
            "results": [asdict(row) for row in self.rows],
            "work_dir": str(self.work_dir),
            "log": str(self.work_dir / _LOG),
            "seconds": round(self.seconds, 1),
            "requests": self.requests,
            "texts_encoded": self.texts_encoded,
            "texts_remembered": self.texts_remembered,
        }


def default_work_dir() -> Path:
    """A new folder under ``outputs``, where EvalScope writes its own by default."""
    return Path.cwd() / "outputs" / "vacc-demo" / time.strftime("%Y%m%d_%H%M%S")


def run_demo(
    work_dir: Path | None = None,
    *,
    tell: Callable[[str], None] = lambda _: None,
    verbose: bool = False,
    before_stop: Callable[[DemoReport, str], None] = lambda *_: None,
) -> DemoReport:
    """Start the server, run EvalScope twice, stop the server.

    Args:
        work_dir: Where EvalScope's files go; None means :func:`default_work_dir`.
        tell: Gets a line of text at each step.
        verbose: Let EvalScope write to the terminal instead of to a log in ``work_dir``.
        before_stop: Called with the report and the server's address while the server still runs.

    Returns:
        The scores, each beside what it has to be.

    Raises:
        ConfigError: The weights (extra ``demo``) are not installed.
        HostError: EvalScope or MTEB is too old for the demo's tasks.
        ServerUnreachableError: The server did not start.
        VaccError: What :func:`evalscope_vacc.run` raises.
    """
    began = time.monotonic()
    weights_folder()  # says at once what is missing
    _check_hosts()
    folder = (default_work_dir() if work_dir is None else work_dir).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    tell("Starting a server with the weights of all-MiniLM-L6-v2, and loading EvalScope and MTEB.")
    # started first: it loads while this process imports the hosts
    with DemoServer(names=(DEFAULT_NAME, RERANKER_NAME)).start(wait=False) as server:
        with _output_to(None if verbose else folder / _LOG, tell):
            import evalscope_vacc
            from evalscope_vacc.demo.tasks import TASKS, register

            names = register()
            metrics = {task.metadata.name: str(task.metadata.main_score) for task in TASKS}
            server.wait()
            tell(f"{server.url} is ready. EvalScope evaluates the encoder on {', '.join(names)}.")
            one = evalscope_vacc.run(_config(server.url, folder / "one-stage", names, two_stage=False))
            tell(f"Now two-stage: the encoder finds {TOP_K} candidates, the cross-encoder reranks them.")
            two = evalscope_vacc.run(_config(server.url, folder / "two-stage", names[:1], two_stage=True))
        rows = _rows([*one.rows(), *two.rows()], metrics)
        counts = _counts(server.url)
        report = DemoReport(
            rows=rows,
            work_dir=folder,
            seconds=time.monotonic() - began,
            requests=counts["vacc_demo_requests_total"],
            texts_encoded=counts["vacc_demo_texts_encoded_total"],
            texts_remembered=counts["vacc_demo_texts_remembered_total"],
        )
        before_stop(report, server.url)
    return report


def _check_hosts() -> None:
    problem = check()
    if problem:
        raise HostError(problem)
    version = installed()["mteb"] or ""
    if version.startswith("1."):
        raise HostError(
            f"The demo's tasks are made for MTEB 2 and EvalScope 1.8.1 or later; mteb {version} is installed. Served "
            "models can be evaluated with it all the same: see `evalscope-vacc eval --help`."
        )


def _config(url: str, work_dir: Path, tasks: tuple[str, ...], *, two_stage: bool) -> dict[str, Any]:
    """What a user would write into a file, with the demo's address and tasks."""
    common = {"model_type": "vacc_api", "api_base": url, "revision": "demo", "store": "off"}
    models: list[dict[str, Any]] = [{**common, "model_name": DEFAULT_NAME}]
    if two_stage:
        reranker = {"model_name": RERANKER_NAME, "is_cross_encoder": True, "rerank_template": "none"}
        models.append({**common, **reranker, "instruction_profile": "none"})
    return {
        "eval_backend": "RAGEval",
        "work_dir": str(work_dir),
        "eval_config": {
            "tool": "mteb",
            "models": models,
            "eval": {
                "task_names": list(tasks),
                # the tasks bring their data; EvalScope's other hub would look for it on the network first
                "hub": "huggingface",
                "top_k": TOP_K,
                "encode_kwargs": {"batch_size": 32},
            },
        },
    }


def _rows(rows: list[dict[str, Any]], metrics: Mapping[str, str]) -> tuple[DemoRow, ...]:
    reference = json.loads((resources.files("evalscope_vacc.demo") / "data" / "reference.json").read_text("utf-8"))
    stages = {"": "one-stage", "stage1": "first", "stage2": "second"}
    made = []
    for row in rows:
        score = row["main_score"]
        if not isinstance(score, (int, float)):
            raise ResultError(f"EvalScope's result of {row['task']} ({row['subset']}) has no main score: {score!r}")
        stage = stages[row["stage"]]
        made.append(
            DemoRow(
                stage=stage,
                model=str(row["model"]).removeprefix("vacc/"),
                task=row["task"],
                subset=row["subset"],
                metric=metrics[row["task"]],
                score=float(score),
                in_process=None if stage == "second" else reference["scores"][row["task"]][row["subset"]],
            )
        )
    if {row.stage for row in made} != set(stages.values()):
        raise ResultError("EvalScope finished without results for each stage. Its log tells more.")
    return tuple(made)


def _counts(url: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:  # noqa: S310 - our own server
        lines = answer.read().decode().splitlines()
    return {name: int(value) for name, value in (line.split() for line in lines)}


@contextlib.contextmanager
def _output_to(log: Path | None, tell: Callable[[str], None]) -> Iterator[None]:
    """Send everything that is written to the terminal, by whatever library, to a file; say where when it goes wrong."""
    if log is None:
        yield
        return
    # on the level of file descriptors: loggers and progress bars keep the streams that they found when they started
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {number: os.dup(number) for number in (1, 2)}
    try:
        with log.open("ab") as file:
            for number in kept:
                os.dup2(file.fileno(), number)
        yield
    except BaseException:
        tell(f"What EvalScope said until then: {log}")
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, original in kept.items():
            os.dup2(original, number)
            os.close(original)
