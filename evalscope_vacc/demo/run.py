"""Runs an unmodified EvalScope against the demo server, one-stage and two-stage, and gathers what it scored."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.request
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalscope_vacc.demo.model import weights_folder
from evalscope_vacc.demo.process import DEFAULT_NAME, DemoServer
from evalscope_vacc.errors import HostError, ResultError
from evalscope_vacc.files import printed_into
from evalscope_vacc.hosts.versions import check, installed
from evalscope_vacc.names import served_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

RERANKER_NAME = f"{DEFAULT_NAME}-cosine"
"""Served name under which the same weights act as the cross-encoder."""

TOP_K = 20
"""Candidates of each query that the second stage reranks."""

TOLERANCE = 1e-4
"""How far a served score may differ from that of the same weights in process."""

_STAGES = {"": "one-stage", "stage1": "first", "stage2": "second"}


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
        passed: Whether every score is what it has to be.
        largest_difference: Largest distance of a score from that of the same weights in process.
        two_stage_difference: Largest distance between the stages; 0, because both score by the same cosine.
        results: The main scores.
        work_dir: Folder with EvalScope's files.
        log: File with what EvalScope wrote.
        seconds: How long it took.
        requests: Requests that the server answered.
        texts_encoded: Texts that the model was run on.
        texts_remembered: Texts whose vector the server still knew.
    """

    passed: bool
    largest_difference: float
    two_stage_difference: float
    results: tuple[DemoRow, ...]
    work_dir: str
    log: str
    seconds: float
    requests: int
    texts_encoded: int
    texts_remembered: int

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values, for JSON."""
        return asdict(self)


def run_demo(
    work_dir: Path | None = None,
    *,
    tell: Callable[[str], None] = lambda _: None,
    verbose: bool = False,
    before_stop: Callable[[DemoReport, str], None] = lambda *_: None,
) -> DemoReport:
    """Starts the server, runs EvalScope twice, and stops the server.

    Args:
        work_dir: Where EvalScope's files go; None means a new folder under ``outputs``, where it writes by default.
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
    folder = (work_dir or Path("outputs", "vacc-demo", time.strftime("%Y%m%d_%H%M%S"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "evalscope.log"
    tell("Starting a server with the weights of all-MiniLM-L6-v2, and loading EvalScope and MTEB.")
    # started first: it loads while this process imports the hosts
    with DemoServer(names=(DEFAULT_NAME, RERANKER_NAME)).start(wait=False) as server:
        with contextlib.nullcontext() if verbose else _output_to(log, tell):
            import evalscope_vacc
            from evalscope_vacc.demo.tasks import TASKS, register

            names = register()
            server.wait()
            tell(f"{server.url} is ready. EvalScope evaluates the encoder on {', '.join(names)}.")
            one = evalscope_vacc.run(_config(server.url, folder / "one-stage", names, two_stage=False))
            tell(f"Now two-stage: the encoder finds {TOP_K} candidates, the cross-encoder reranks them.")
            two = evalscope_vacc.run(_config(server.url, folder / "two-stage", names[:1], two_stage=True))
        metrics = {task.metadata.name: str(task.metadata.main_score) for task in TASKS}
        results = _rows([*one.rows(), *two.rows()], metrics)
        served, staged = _differences(results)
        report = DemoReport(
            passed=served <= TOLERANCE and staged <= 1e-6,
            largest_difference=served,
            two_stage_difference=staged,
            results=results,
            work_dir=str(folder),
            log=str(log),
            seconds=round(time.monotonic() - began, 1),
            **_counts(server.url),
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
            f"The demo's tasks are made for MTEB 2 and EvalScope 1.8.1 or later; mteb {version} is installed. It can "
            "still evaluate served models: see `evalscope-vacc eval --help`."
        )


def _config(url: str, work_dir: Path, tasks: tuple[str, ...], *, two_stage: bool) -> dict[str, Any]:
    """Returns what a user would write into a file, with the demo's address and tasks."""
    common = {"model_type": "vacc_api", "api_base": url, "revision": "demo", "store": "off"}
    models: list[dict[str, Any]] = [{**common, "model_name": DEFAULT_NAME}]
    if two_stage:
        reranker = {"model_name": RERANKER_NAME, "is_cross_encoder": True, "rerank_template": "none"}
        models.append({**common, **reranker, "instruction_profile": "none"})
    evaluation = {
        "task_names": list(tasks),
        # the tasks bring their data; EvalScope's other hub would look for it on the network first
        "hub": "huggingface",
        "top_k": TOP_K,
        "encode_kwargs": {"batch_size": 32},
    }
    settings = {"tool": "mteb", "models": models, "eval": evaluation}
    return {"eval_backend": "RAGEval", "work_dir": str(work_dir), "eval_config": settings}


def _rows(rows: list[dict[str, Any]], metrics: Mapping[str, str]) -> tuple[DemoRow, ...]:
    file = resources.files("evalscope_vacc.demo") / "data" / "reference.json"
    reference = json.loads(file.read_text("utf-8"))["scores"]
    made = []
    for row in rows:
        stage, task, subset, score = _STAGES[row["stage"]], row["task"], row["subset"], row["main_score"]
        if not isinstance(score, (int, float)):
            raise ResultError(f"EvalScope's result of {task} ({subset}) has no main score: {score!r}")
        in_process = None if stage == "second" else reference[task][subset]
        model = served_name(str(row["model"]))
        made.append(DemoRow(stage, model, task, subset, metrics[task], float(score), in_process))
    if {row.stage for row in made} != set(_STAGES.values()):
        raise ResultError("EvalScope finished without results for each stage. See its log.")
    return tuple(made)


def _differences(rows: tuple[DemoRow, ...]) -> tuple[float, float]:
    """Returns how far a score lies from that in process at most, and how far a second stage's from the first's."""
    first = {(row.task, row.subset): row.score for row in rows if row.stage == "first"}
    return (
        max(abs(row.score - row.in_process) for row in rows if row.in_process is not None),
        max(abs(row.score - first[row.task, row.subset]) for row in rows if row.stage == "second"),
    )


def _counts(url: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:  # noqa: S310 - our own server
        lines = answer.read().decode().splitlines()
    pairs = (line.split() for line in lines)
    return {name.removeprefix("vacc_demo_").removesuffix("_total"): int(value) for name, value in pairs}


@contextlib.contextmanager
def _output_to(log: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Sends everything that any library writes to the terminal to a file; on an error says where it is."""
    try:
        with log.open("ab") as file, printed_into(file.fileno()):
            yield
    except BaseException:
        tell(f"What EvalScope printed until then: {log}")
        raise
