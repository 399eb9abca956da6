"""Carries out a plan, item by item; a task that fails does not affect the others."""

from __future__ import annotations

import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from evalscope_vacc.config import EVERY_TASK
from evalscope_vacc.errors import (
    AuthenticationError,
    ConfigError,
    ModelNotServedError,
    RunFailed,
    RunInterrupted,
    ServerUnreachableError,
    StoreError,
    VaccError,
)
from evalscope_vacc.hosts import collector
from evalscope_vacc.hosts.earlier import EarlierServers
from evalscope_vacc.hosts.evalscope_report import write_reports
from evalscope_vacc.hosts.first_stage import (
    FirstStage,
    PredictionFile,
    check_against,
    forget_first_stages,
    maker_of,
    predictions_in,
    read_first_stage,
)
from evalscope_vacc.hosts.folder import check_folder, check_names
from evalscope_vacc.hosts.hub import fetching, lacking
from evalscope_vacc.hosts.plan import Item, Kind, Plan, PlannedModel, PlannedTask, Stored, make_plan
from evalscope_vacc.hosts.run_result import Outcome, RunResult, last_result
from evalscope_vacc.models import is_cross_encoder
from evalscope_vacc.names import served_name
from evalscope_vacc.progress import Work, watcher
from evalscope_vacc.results.asked import record_asked, record_failed

logger = logging.getLogger(__name__)

_NOT_RUN = "not run"
# a run cannot go on after these: every further task would meet them too
_FATAL = (
    AuthenticationError,
    ModelNotServedError,
    ServerUnreachableError,
    RunInterrupted,
    KeyboardInterrupt,
    ConfigError,
)


class Engine(ABC):
    """Models and tasks of one generation of the hosts, and how one item of a plan is carried out there.

    Args:
        evaluation: ``eval:``, every key an attribute.
        entries: The models' entries.

    Attributes:
        out: The run's folder.
        models: In the order of the entries.
        tasks: Every task of the run.
    """

    def __init__(self, evaluation: Any, entries: Sequence[Any]) -> None:
        self.evaluation = evaluation
        self.out = Path(os.path.abspath(evaluation.output_folder))  # noqa: PTH100 -- resolve() would follow links
        self.earlier = EarlierServers(self.out)
        self.models = [self.load(entry) for entry in entries]
        self.tasks = self.all_tasks()

    @abstractmethod
    def load(self, entry: Any) -> Any:
        """Builds the model of an entry."""

    @abstractmethod
    def all_tasks(self) -> list[Any]:
        """Returns the tasks of ``eval:``, none of whose data are loaded."""

    @abstractmethod
    def kind(self, task: Any) -> Kind:
        """Says who can do a task."""

    @abstractmethod
    def with_data(self, name: str) -> Any:
        """Returns a task with its data, in the shape that predictions are checked against."""

    @abstractmethod
    def with_candidates(self, item: Item, first: FirstStage, folder: Path) -> Any:
        """Returns the item's task, as a reranking of the first ``eval.top_k`` predictions of each query.

        Args:
            item: What is reranked.
            first: Its predictions.
            folder: Where they go in the form that MTEB reads.
        """

    @abstractmethod
    def score(self, item: Item, task: Any, *, again: bool, candidates: Path | None) -> list[Any]:
        """Evaluates a task and returns MTEB's ``TaskResult`` objects.

        Args:
            item: Says by which model, and where the files go.
            task: The task.
            again: Whether it is evaluated although a score of it lies in the folder.
            candidates: Where :meth:`with_candidates` put them; None for a task that is not reranked.
        """

    @abstractmethod
    def show(self, out: Path, model: Any, results: list[Any]) -> None:
        """Prints EvalScope's table."""

    def hands(self, plan: Plan) -> Hands:  # noqa: ARG002
        """Returns who carries out the items of a plan."""
        return OneByOne(self)

    def task(self, name: str) -> Any:
        """Returns a task of the run by its name."""
        return next(task for task in self.tasks if task.metadata.name == name)

    def carry_out(self, item: Item) -> list[Any]:
        """Does one task with one model and returns MTEB's ``TaskResult`` objects.

        Raises:
            ConfigError: The first stage's predictions are not of this task.
            VaccError: Whatever else went wrong.
        """
        model, limit, top_k = self.models[item.model], self.evaluation.limits, self.evaluation.top_k
        candidates, named = None, {}
        if item.first is None:
            task = self.task(item.task)
        else:
            first = read_first_stage(item.first)
            source = served_name(first.model) or first.path.name
            logger.info("%s: reranking the first %d candidates of %s", item.task, top_k, source)
            candidates = item.out / "candidates" / first.digest
            task, named = self.with_candidates(item, first, candidates), {"first": first.digest, "top_k": top_k}
        served = getattr(model, "served", None)
        if served is not None:
            served.settle(limit=limit, **named)
        file, maker = PredictionFile(item.predictions or item.out, item.task), maker_of(model)
        has_predictions = file.is_by(maker)
        if item.feeds and not has_predictions:
            file.discard()
        overwrite = bool(self.evaluation.overwrite_results)
        # the server is probed only if its earlier scores may be used
        other_server = not overwrite and self.earlier.changed(model)
        again = item.again(overwrite=overwrite, other_server=other_server, has_predictions=has_predictions)
        results = self.score(item, task, again=again, candidates=candidates)
        file.note(maker)
        return results

    def close(self) -> None:
        """Closes the connections and the stores."""
        for model in self.models:
            with suppress(Exception):
                getattr(model, "close", lambda: None)()


def run(engine: Engine) -> RunResult:
    """Plans a run and carries it out.

    Raises:
        ConfigError: The models, tasks, stored predictions and folder do not go together, before anything is sent.
        RunFailed: One or more tasks failed; the finished ones are kept and named.
        RunInterrupted: The user stopped it.
    """
    collector.resume()
    result = RunResult(engine.out)
    last_result.set(result)
    try:
        plan = plan_of(engine)
        check_folder(engine.out)
        check_names(engine.out, plan)
        _check_stored(engine, plan)
        record_asked(engine.out / "vacc", ((item.name, item.stage, engine.task(item.task)) for item in plan.items))
        watcher().planned(engine.out, [Work(item.name, item.task, item.stage) for item in plan.items])
    except BaseException:
        engine.close()
        raise
    hands = engine.hands(plan)
    try:
        try:
            stopped = _carry_out(engine, plan, result, hands)
        finally:
            engine.close()
            forget_first_stages()
        _report(engine, result, stopped)
        hands.finish()
    finally:
        hands.close()
    return result


def plan_of(engine: Engine) -> Plan:
    """Returns the plan of an engine's models and tasks.

    Raises:
        ConfigError: They do not go together, or a prediction file cannot be read.
    """
    tasks = [PlannedTask(t.metadata.name, t.metadata.type, engine.kind(t)) for t in engine.tasks]
    models = []
    for model in engine.models:
        served = getattr(model, "served", None)
        named = served.config.embed_results if served is not None and is_cross_encoder(model) else {}
        models.append(PlannedModel(name_of(model), is_cross_encoder(model), tuple(_stored(named, tasks))))
    return make_plan(models, tasks, engine.out)


def _stored(named: Mapping[str, str], tasks: Sequence[PlannedTask]) -> Iterator[tuple[str, Stored]]:
    """Yields each task whose stored predictions are reranked, and their file."""
    retrieval = [task.name for task in tasks if task.kind == "retrieval"]
    for name, place in named.items():
        for task in retrieval if name == EVERY_TASK else [name]:
            path = predictions_in(Path(place), task)
            yield task, Stored(path, read_first_stage(path).digest)


def name_of(model: Any) -> str:
    """Returns a model's name as its results are filed."""
    meta = getattr(model, "mteb_model_meta", None)
    return str(getattr(meta, "name", None) or type(model).__name__)


def _check_stored(engine: Engine, plan: Plan) -> None:
    """Checks every stored prediction against its task, before anything is sent for any task.

    The task that is reranked first is checked last: an engine may keep the data that it loaded last.
    """
    for name, stored in reversed(plan.stored):
        try:
            task = engine.with_data(name)
        except VaccError:
            raise
        except Exception as error:  # noqa: BLE001 -- a data set that cannot be had stops its own task, at its turn
            logger.warning("%s: its data cannot be loaded: %s", name, error)
            continue
        check_against(read_first_stage(stored.path), task)


def _carry_out(engine: Engine, plan: Plan, result: RunResult, hands: Hands) -> BaseException | None:
    """Carries out every item whose data can be loaded; returns what stopped the run before its end."""
    course = _Course(engine, plan, result, _lacking(engine))
    waiting = sorted(range(len(plan.items)), key=lambda position: -hands.weight(plan.items[position]))
    at_work = 0
    while waiting or at_work:
        position = next(filter(course.is_ready, waiting), None)
        if position is not None and at_work < hands.width:
            waiting.remove(position)
            why = course.obstacle(position)
            if why:
                course.ended(position, Outcome(why=why))
            else:
                course.began(position)
                hands.begin(position, plan.items[position])
                at_work += 1
        else:
            course.ended(*hands.next())
            at_work -= 1
    return course.stopped


def _lacking(engine: Engine) -> dict[str, str]:
    """Says which tasks cannot be done, because their data cannot be loaded; returns task to reason."""
    lacks = lacking(engine.tasks, engine.evaluation.hub, engine.evaluation.dataset_paths or ())
    if lacks:
        watcher().lacks(lacks, fetching(lacks))
        for task, why in lacks.items():
            logger.warning("%s is not evaluated: %s", task, why)
        logger.warning("where a hub can be reached, this fetches what lacks: %s", fetching(lacks))
    return lacks


class Hands(Protocol):
    """Who carries the items out.

    Attributes:
        width: Items that may be at work at once.
    """

    width: int

    def weight(self, item: Item, /) -> int:
        """How soon an item is begun: before those that weigh less, and of equal ones in the order of the plan."""

    def begin(self, position: int, item: Item) -> None:
        """Begins an item."""

    def next(self) -> tuple[int, Outcome]:
        """Waits for the end of an item, and returns its position and what came of it."""

    def finish(self) -> None:
        """Everything is scored and written: what was stored for resuming the run is dropped."""

    def close(self) -> None:
        """Ends what is at work."""


class OneByOne:
    """This process carries the items out, one after the other, in their order."""

    width = 1

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._begun: list[tuple[int, Item]] = []

    def weight(self, _: Item) -> int:
        """All are alike."""
        return 0

    def begin(self, position: int, item: Item) -> None:
        """Notes the item."""
        self._begun.append((position, item))

    def next(self) -> tuple[int, Outcome]:
        """Carries it out."""
        position, item = self._begun.pop()
        return position, do(self._engine, item)

    def finish(self) -> None:
        """Drops what was stored."""
        finish(self._engine)

    def close(self) -> None:
        """Nothing is at work."""


class _Course:
    """What came of the items of a plan so far; the log and the watcher are told.

    Attributes:
        stopped: What stopped the run before its end, or None.
    """

    def __init__(self, engine: Engine, plan: Plan, result: RunResult, lacks: Mapping[str, str]) -> None:
        self.stopped: BaseException | None = None
        self._engine = engine
        self._items = plan.items
        self._lacks = lacks
        self._began: dict[int, float] = {}
        self._open = set(range(len(plan.items)))
        self._results: dict[int, Sequence[Any]] = {}
        self._records = [result.stage(item.name, item.stage, item.out) for item in plan.items]
        self._announced: set[tuple[str, str]] = set()

    def is_ready(self, position: int) -> bool:
        """Whether what an item needs of another one is there, or will never be."""
        return self._items[position].after not in self._open

    def obstacle(self, position: int) -> str:
        """Returns why an item is not begun, or ""."""
        item = self._items[position]
        if self.stopped is not None:
            return _NOT_RUN
        if item.after is not None and item.task in self._records[item.after].failed:
            return "its first stage failed"
        return self._lacks.get(item.task, "")

    def began(self, position: int) -> None:
        """An item begins."""
        item = self._items[position]
        if item.stage and _row(item) not in self._announced:
            self._announced.add(_row(item))
            logger.info("=== %s: %s ===", item.stage.replace("stage", "Stage "), served_name(item.name))
        self._began[position] = time.monotonic()
        watcher().began(position)

    def ended(self, position: int, outcome: Outcome) -> None:
        """An item ended, or was not begun."""
        item, record = self._items[position], self._records[position]
        row = [n for n, other in enumerate(self._items) if _row(other) == _row(item)]
        self._results[position] = outcome.results
        # in the order of the plan, whichever ended first
        record.task_results[:] = [found for n in row for found in self._results.get(n, ())]
        if outcome.why:
            record.failed.setdefault(item.task, outcome.why)
        self.stopped = self.stopped or outcome.fatal
        now = time.monotonic()
        short = "failed" if outcome.why else _in_short(outcome.results, now - self._began[position])
        logger.info("[%d/%d] %s %s", position + 1, len(self._items), item.task, short)
        watcher().ended(position, outcome.results, outcome.why)
        self._open.discard(position)
        if record.task_results and not self._open.intersection(row):
            self._engine.show(item.out, self._engine.models[item.model], record.task_results)


def _in_short(results: Sequence[Any], seconds: float) -> str:
    """One line about a finished task: its main score, and how long it took."""
    scores = [
        score["main_score"]
        for result in results
        for entries in result.scores.values()
        for score in entries
        if isinstance(score.get("main_score"), (int, float))
    ]
    mean = f"{sum(scores) / len(scores):.5f}" if scores else "no score"
    return f"{mean}, in {seconds:.0f} s"


def _row(item: Item) -> tuple[str, str]:
    """What the items of one table have in common."""
    return item.name, item.stage


def do(engine: Engine, item: Item) -> Outcome:
    """Carries out one item."""
    try:
        return Outcome(tuple(engine.carry_out(item)))
    except BaseException as error:
        reason = str(error) or type(error).__name__
        logger.error("%s failed: %s", item.task, reason)  # noqa: TRY400 -- the traceback follows where it is a defect
        if not isinstance(error, (VaccError, KeyboardInterrupt)):
            logger.debug("%s", item.task, exc_info=error)
        if isinstance(error, _FATAL):
            return Outcome(why=reason, fatal=error)
        if not isinstance(error, Exception):
            raise
        return Outcome(why=reason)


def _report(engine: Engine, result: RunResult, stopped: BaseException | None) -> None:
    done = [r.task_name for r in result.task_results]
    not_run = {_NOT_RUN, *([str(stopped)] if isinstance(stopped, (RunInterrupted, KeyboardInterrupt)) else [])}
    failures = ((s.model, s.stage, task, why) for s in result.stages for task, why in s.failed.items())
    record_failed(engine.out / "vacc", [failure for failure in failures if failure[-1] not in not_run])
    if isinstance(stopped, (RunInterrupted, KeyboardInterrupt)):
        # without the pages, which take seconds
        raise RunInterrupted(_how_to_go_on(engine, done)) from None
    write_reports(result, engine.evaluation)
    failed = result.failed
    if not failed:
        return
    lines = [f"{task}: {why}" for task, why in failed.items()]
    message = (
        f"{len(failed)} of {len(failed) + len(done)} tasks failed:\n  "
        + "\n  ".join(lines)
        + (f"\nfinished and kept under {engine.out}: {', '.join(done)}" if done else "")
    )
    raise RunFailed(message, result) from stopped


def _how_to_go_on(engine: Engine, done: Sequence[str]) -> str:
    models = [getattr(model, "served", None) for model in engine.models]
    kept = all(served is not None and served.config.store != "off" for served in models)
    return (
        "stopped by the user. Run the same command again to continue: "
        + ("finished requests are kept and not repeated." if kept else "without a store every text is sent again.")
        + (f" Finished, under {engine.out}: {', '.join(done)}" if done else "")
    )


def finish(engine: Engine) -> None:
    """Drops what was stored for resuming a run that is done."""
    for model in engine.models:
        if getattr(model, "served", None) is None:
            continue
        engine.earlier.all_scored_again(model)
        try:
            model.finish([task.metadata.name for task in engine.tasks])
        except StoreError as error:
            logger.warning("what was stored of the run is kept: %s", error)
