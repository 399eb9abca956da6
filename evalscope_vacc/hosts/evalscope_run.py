"""Runs RAGEval's MTEB tool where one of the models is ours: every mixture of encoders, cross-encoders and tasks."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

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
from evalscope_vacc.hosts.data import pairs_to_rerank, resolve_tasks
from evalscope_vacc.hosts.evalscope import entry_of, is_ours
from evalscope_vacc.hosts.first_stage import (
    FirstStage,
    PredictionFile,
    check_against,
    load_data,
    make_reranking,
    maker_of,
    read_first_stage,
)
from evalscope_vacc.hosts.logs import show_logs
from evalscope_vacc.hosts.run_result import RunResult, StageResult, last_result
from evalscope_vacc.interrupts import second_kills
from evalscope_vacc.models import is_cross_encoder
from evalscope_vacc.results.asked import record_asked, record_failed

logger = logging.getLogger(__name__)

# a run cannot go on after these: every further task would meet them too
_FATAL = (
    AuthenticationError,
    ModelNotServedError,
    ServerUnreachableError,
    RunInterrupted,
    KeyboardInterrupt,
    ConfigError,
)


def run_tool(config: Any, template: ModuleType) -> RunResult:
    """Runs the tool's configuration and returns the results.

    Args:
        config: The checked configuration.
        template: EvalScope's ``task_template`` module.

    Raises:
        ConfigError: The models and tasks do not go together, before anything is sent.
        RunFailed: One or more tasks failed; the finished ones are kept and named.
    """
    show_logs("evalscope")
    set_verbosity(getattr(config.eval, "verbosity", None))
    with second_kills():
        return Run(config.eval, template, config.models).run()


class Run:
    """One run: which model does which task in which stage, and what becomes of a task that fails.

    Args:
        evaluation: ``eval:``, every key an attribute.
        template: EvalScope's ``task_template`` module.
        entries: The models' entries. What a model can do decides what it is used for, not what its entry says: the
            catalog knows rerankers whose entries do not call themselves so.
    """

    def __init__(self, evaluation: Any, template: ModuleType, entries: Iterable[Any]) -> None:
        self.evaluation = evaluation
        self.template = template
        self.out = Path(os.path.abspath(evaluation.output_folder))  # noqa: PTH100 -- resolve() would follow links
        self.before = server_facts(self.out / "vacc" / "server.json")
        models = [self._load(entry) for entry in entries]
        self.rerankers = [model for model in models if is_cross_encoder(model)]
        self.encoders = [model for model in models if not is_cross_encoder(model)]
        self.result = RunResult(self.out)
        self.stop: BaseException | None = None
        self.tasks: list[Any] = []
        self._loaded: dict[str, Any] = {}
        self._changed: dict[str, bool] = {}
        last_result.set(self.result)

    def _load(self, entry: Any) -> Any:
        if not is_ours(entry):
            return self.template.load_model(entry)
        from evalscope_vacc.config import MODEL_TYPE, configure
        from evalscope_vacc.models import from_config, load_model

        keys = entry_of(entry)
        if keys.get("model_type") != MODEL_TYPE:
            return load_model(keys)
        return from_config(configure(keys), folder=self.out / "vacc")

    # -- the plan ------------------------------------------------------------------------------------------------

    def run(self) -> RunResult:
        """Runs every stage.

        Raises:
            ConfigError: The models, tasks and stored predictions do not go together, before anything is sent.
            RunFailed: One or more tasks failed; the finished ones are kept and named.
        """
        self.tasks = self._all_tasks()
        stored = self._stored(self.tasks)
        retrieval, reranking, others = self._groups(stored)
        if not self.encoders:
            self._check_rerankers_alone(retrieval, others, stored)
        self._check_stored(stored)
        record_asked(self.out / "vacc", self._planned(retrieval, reranking, others, stored))
        try:
            if not self.rerankers:
                for encoder in self.encoders:
                    self._evaluate(encoder, self.tasks, self.out, "", self._predictions(self.out, encoder))
            elif not retrieval:
                for encoder in self.encoders:
                    self._evaluate(encoder, others, self.out, "", None)
                for reranker in self.rerankers:
                    self._evaluate(reranker, reranking, self.out, "", self._predictions(self.out, reranker))
            else:
                self._stages(retrieval, reranking, others, stored)
        finally:
            self._close()
        self._report()
        self._finish(self.tasks)
        return self.result

    def _planned(
        self, retrieval: list[Any], reranking: list[Any], others: list[Any], stored: dict[str, FirstStage]
    ) -> Iterator[tuple[str, str, Any]]:
        """Which model does which task in which stage."""
        first, second = ("stage1", "stage2") if self.encoders and self.rerankers and retrieval else ("", "")
        own = self.tasks if not self.rerankers else [*(t for t in retrieval if t.metadata.name not in stored), *others]
        for encoder in self.encoders:
            yield from ((name_of(encoder), first, task) for task in own)
        for reranker in self.rerankers:
            yield from ((name_of(reranker), second, task) for task in (*reranking, *retrieval))

    def _all_tasks(self) -> list[Any]:
        return resolve_tasks(self.evaluation, self.template)

    def _groups(self, stored: dict[str, FirstStage]) -> tuple[list[Any], list[Any], list[Any]]:
        """The tasks by what they need: a first stage, a cross-encoder alone, an encoder alone."""
        return pairs_to_rerank(self.tasks, stored)

    def _close(self) -> None:
        """Closes the connections and the stores."""
        for model in (*self.encoders, *self.rerankers):
            with suppress(Exception):
                getattr(model, "close", lambda: None)()

    def _finish(self, tasks: Sequence[Any]) -> None:
        """Everything is scored and written: what was stored for resuming the run is dropped."""
        for model in (*self.encoders, *self.rerankers):
            if getattr(model, "served", None) is None:
                continue
            if self._changed.get(model.served.name):
                model.served.record_server(rescoring=False)
            try:
                model.finish([task.metadata.name for task in tasks])
            except StoreError as error:
                logger.warning("what was stored of the run is kept: %s", error)

    def _check_rerankers_alone(self, retrieval: list[Any], others: list[Any], stored: dict[str, FirstStage]) -> None:
        if others:
            raise ConfigError(
                f"{others[0].metadata.name} is a {others[0].metadata.type} task, which no cross-encoder can do: add an "
                "encoder to models, or remove the task"
            )
        missing = [t.metadata.name for t in retrieval if t.metadata.name not in stored]
        if missing:
            raise ConfigError(
                f"{missing[0]} is a Retrieval task and there is no encoder: a cross-encoder needs candidates. Add an encoder "
                "to models, or name its stored predictions: model_kwargs.task_name and model_kwargs.embed_results"
            )

    def _stored(self, tasks: list[Any]) -> dict[str, FirstStage]:
        """First-stage predictions that the rerankers name, each read and checked now."""
        stored: dict[str, FirstStage] = {}
        names = {task.metadata.name for task in tasks}
        for reranker in self.rerankers:
            served = getattr(reranker, "served", None)
            for name, path in (served.config.embed_results if served else {}).items():
                if name not in names:
                    raise ConfigError(
                        f"model_kwargs.task_name has {name}, which eval.task_names does not: add it there"
                    )
                first = read_first_stage(Path(path))
                if stored.setdefault(name, first).digest != first.digest:
                    raise ConfigError(
                        f"{name}: the cross-encoders name different predictions, {stored[name].path} and {first.path}: "
                        "rerank them in runs of their own"
                    )
        return stored

    def _check_stored(self, stored: dict[str, FirstStage]) -> None:
        """Checks every stored prediction against its task, before anything is sent for any task.

        One task's data are in memory at a time. The task that is reranked first is checked last, and its data are kept
        for its turn where nothing runs before it.
        """
        for name, first in reversed(stored.items()):
            self._forget()
            try:
                task = self._with_data(name)
            except VaccError:
                raise
            except Exception as error:  # noqa: BLE001 -- a data set that cannot be had stops its own task, at its turn
                logger.warning("%s: its data cannot be loaded: %s", name, error)
                continue
            check_against(first, task)
        if self.encoders:
            self._forget()

    def _fresh(self, name: str) -> Any:
        """A task whose data nobody has changed."""
        return next(t for t in self._all_tasks() if t.metadata.name == name)

    def _with_data(self, name: str) -> Any:
        """A task with its data, in the shape that predictions are checked against."""
        task = self._fresh(name)
        load_data(task)
        self._loaded[name] = task
        return task

    def _forget(self) -> None:
        """Frees the data that were kept."""
        self._loaded.clear()

    def _stages(
        self, retrieval: list[Any], reranking: list[Any], others: list[Any], stored: dict[str, FirstStage]
    ) -> None:
        first_out, second_out = (self.out / "stage1", self.out / "stage2") if self.encoders else (self.out, self.out)
        stages = ("stage1", "stage2") if self.encoders else ("", "")
        open_retrieval = [t for t in retrieval if t.metadata.name not in stored]
        for encoder in self.encoders:
            logger.info("=== Stage 1: %s, first stage and everything that only an encoder can do ===", name_of(encoder))
            self._evaluate(
                encoder,
                [*open_retrieval, *others],
                first_out,
                stages[0],
                self._predictions(first_out, encoder),
                needs_predictions={t.metadata.name for t in open_retrieval},
            )
        for reranker in self.rerankers:
            logger.info("=== %s: %s reranks ===", "Stage 2" if self.encoders else "Reranking", name_of(reranker))
            if reranking:
                self._evaluate(reranker, reranking, second_out, stages[1], self._predictions(second_out, reranker))
            for name, first in stored.items():
                self._rerank(reranker, name, first, second_out, stages[1])
            for encoder in self.encoders:
                folder = self._predictions(first_out, encoder)
                for task in open_retrieval:
                    name = task.metadata.name
                    if self.stop is not None or self._failed(name_of(encoder), stages[0], name):
                        self._stage(name_of(reranker), stages[1], second_out).failed.setdefault(
                            name, "its first stage failed"
                        )
                        continue
                    self._rerank(
                        reranker, name, read_first_stage(folder / f"{name}_predictions.json"), second_out, stages[1]
                    )

    def _rerank(self, reranker: Any, name: str, first: FirstStage, out: Path, stage: str) -> None:
        record = self._stage(name_of(reranker), stage, out)
        if self.stop is not None:
            record.failed.setdefault(name, "not run")
            return
        top_k = self.evaluation.top_k
        logger.info("%s: reranking the first %d candidates of %s", name, top_k, first.model or first.path.name)
        task = None
        with self._kept_apart(record, name):
            task = self._to_rerank(name, first, out / "candidates" / first.digest)
        if task is None:
            return
        served = getattr(reranker, "served", None)
        if served is not None:
            served.settle(first=first.digest, top_k=top_k, limit=self.evaluation.limits)
        self._evaluate(reranker, [task], out, stage, self._predictions(out, reranker), settled=True)

    def _to_rerank(self, name: str, first: FirstStage, folder: Path) -> Any:
        """The task, with its candidates."""
        task = self._loaded.pop(name, None) or self._fresh(name)
        make_reranking(task, first, self.evaluation.top_k, folder)
        return task

    # -- one model on some tasks ---------------------------------------------------------------------------------

    def _predictions(self, out: Path, model: Any) -> Path:
        """Where a model's predictions go: MTEB names the files by task alone, so several models need folders."""
        group = self.rerankers if model in self.rerankers else self.encoders
        folder = out / "predictions"
        return folder if len(group) == 1 else folder / f"{group.index(model) + 1}-{name_of(model).replace('/', '__')}"

    def _stage(self, model: str, stage: str, out: Path) -> StageResult:
        for known in self.result.stages:
            if (known.model, known.stage) == (model, stage):
                return known
        self.result.stages.append(StageResult(model, stage, out))
        return self.result.stages[-1]

    def _failed(self, model: str, stage: str, task: str) -> bool:
        return any(s.model == model and s.stage == stage and task in s.failed for s in self.result.stages)

    def _evaluate(
        self,
        model: Any,
        tasks: Sequence[Any],
        out: Path,
        stage: str,
        predictions: Path | None,
        *,
        needs_predictions: Collection[str] = (),
        settled: bool = False,
    ) -> None:
        """Evaluates task by task, so that a failed one does not take the finished ones with it."""
        served = getattr(model, "served", None)
        if served is not None and not settled:
            served.settle(limit=self.evaluation.limits)
        record = self._stage(name_of(model), stage, out)
        for task in tasks:
            name = task.metadata.name
            if self.stop is not None:
                record.failed[name] = "not run"
                continue
            with self._kept_apart(record, name):
                file, maker = PredictionFile(predictions or out, name), maker_of(model)
                lacking = name in needs_predictions and not file.is_by(maker)
                if lacking:
                    file.discard()
                always = self.evaluation.overwrite_results or self._server_changed(model) or lacking
                record.task_results += self._score(model, task, out, predictions, always)
                file.note(maker)
        if record.task_results:
            self._show(out, model, record.task_results)

    @contextmanager
    def _kept_apart(self, record: StageResult, name: str) -> Iterator[None]:
        """Notes why a task failed, so that it does not take the finished ones with it."""
        try:
            yield
        except BaseException as error:
            reason = str(error) or type(error).__name__
            record.failed[name] = reason
            logger.error("%s failed: %s", name, reason)  # noqa: TRY400 -- the traceback follows where it is a defect
            if not isinstance(error, (VaccError, KeyboardInterrupt)):
                logger.debug("%s", name, exc_info=error)
            if isinstance(error, _FATAL):
                self.stop = error
            elif not isinstance(error, Exception):
                raise

    def _show(self, out: Path, model: Any, results: list[Any]) -> None:
        """EvalScope's table."""
        self.template.show_results(str(out), model, results)

    def _score(self, model: Any, task: Any, out: Path, predictions: Path | None, always: bool) -> list[Any]:
        """Evaluates one model on one task; the part of a run that differs between the generations of MTEB."""
        import mteb
        from mteb.cache import ResultCache

        from evalscope_vacc.hosts.mteb import part_of_a_run

        with part_of_a_run():
            results: list[Any] = mteb.evaluate(
                model,
                [task],
                cache=ResultCache(cache_path=out),
                overwrite_strategy="always" if always else "only-missing",
                encode_kwargs=dict(self.evaluation.encode_kwargs or {}) or None,
                prediction_folder=predictions,
                raise_error=True,
            ).task_results
        return results

    def _server_changed(self, model: Any) -> bool:
        """Whether the server is another one than the one that earned the scores that lie in this folder."""
        served = getattr(model, "served", None)
        before = self.before.get(served.name) if served is not None else None
        if served is None or before is None:
            return False
        if served.name in self._changed:
            return self._changed[served.name]
        model.open()
        self._changed[served.name] = before != _told(served.record)
        if not self._changed[served.name]:
            return False
        # until a run gets to its end, some of the scores there are still those of the earlier server
        served.record_server(rescoring=True)
        logger.warning(
            "%s: the server's version, model, length or template has changed since the scores in %s: they are not used again",
            served.name,
            self.out,
        )
        return True

    def _report(self) -> None:
        from evalscope_vacc.hosts.evalscope_report import write_reports

        done = [r.task_name for r in self.result.task_results]
        stopped = (
            {"not run", str(self.stop)} if isinstance(self.stop, (RunInterrupted, KeyboardInterrupt)) else {"not run"}
        )
        record_failed(
            self.out / "vacc",
            [
                (stage.model, stage.stage, task, why)
                for stage in self.result.stages
                for task, why in stage.failed.items()
                if why not in stopped
            ],
        )
        if isinstance(self.stop, (RunInterrupted, KeyboardInterrupt)):
            # without the pages, which take seconds: somebody waits for the end
            raise RunInterrupted(self._how_to_go_on(done)) from None
        write_reports(self.result, self.evaluation)
        failed = self.result.failed
        if not failed:
            return
        lines = [f"{task}: {why}" for task, why in failed.items()]
        message = (
            f"{len(failed)} of {len(failed) + len(done)} tasks failed:\n  "
            + "\n  ".join(lines)
            + (f"\nfinished and kept under {self.out}: {', '.join(done)}" if done else "")
        )
        raise RunFailed(message) from self.stop

    def _how_to_go_on(self, done: Sequence[str]) -> str:
        models = [getattr(model, "served", None) for model in (*self.encoders, *self.rerankers)]
        kept = all(served is not None and served.config.store != "off" for served in models)
        return (
            "stopped by the user. Run the same command again to go on: "
            + ("what had come in is not sent again." if kept else "without a store every text is sent again.")
            + (f" Finished, under {self.out}: {', '.join(done)}" if done else "")
        )


def _told(record: Any) -> list[tuple[Any, ...]]:
    """What decides about a server's answers, of what it said of itself."""
    told = [(s.get("version"), s.get("root"), s.get("max_model_len")) for s in record.get("servers", [])]
    wrapped = [
        (s.get("template"), s.get("takes_instruction"), s.get("prompt_tokens_short")) for s in record.get("rerank", [])
    ]
    return [*told, *wrapped, *([("rescoring",)] if record.get("rescoring") else [])]


def server_facts(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Returns what an earlier run in the same folder wrote down of its servers, by model."""
    try:
        return {entry["name"]: _told(entry) for entry in json.loads(path.read_text(encoding="utf-8"))["models"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def name_of(model: Any) -> str:
    """Returns a model's name as its results are filed."""
    meta = getattr(model, "mteb_model_meta", None)
    return str(getattr(meta, "name", None) or type(model).__name__)


def set_verbosity(verbosity: int | None) -> None:
    """Sets ``eval.verbosity`` as EvalScope documents it: 0 silent, 1 warnings, 2 information, 3 debug."""
    if verbosity is None:
        return
    level = (logging.CRITICAL, logging.WARNING, logging.INFO, logging.DEBUG)[verbosity]
    for name in ("mteb", "evalscope_vacc"):
        logging.getLogger(name).setLevel(level)
