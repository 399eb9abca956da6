"""The whole act, step by step: check, plan, evaluate, judge, show.

Nothing is loaded or paid for before the servers have passed the check and the data of every task are known to be
available.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from evalscope_vacc.checks.connection import introduce
from evalscope_vacc.checks.findings import Report
from evalscope_vacc.checks.rate import Rate, measure
from evalscope_vacc.checks.run import check_address, check_model
from evalscope_vacc.checks.target import Target, connect
from evalscope_vacc.config import ModelConfig
from evalscope_vacc.errors import ConfigError, ResultError, RunFailed, ServerError
from evalscope_vacc.files import write_whole
from evalscope_vacc.hosts.bundle import used
from evalscope_vacc.hosts.cluster import on_cluster
from evalscope_vacc.hosts.hub import fetching, lacking
from evalscope_vacc.hosts.workers import started_ahead
from evalscope_vacc.messages import Reason
from evalscope_vacc.plugins import plugins
from evalscope_vacc.progress import watched
from evalscope_vacc.results.ask import verdict_of
from evalscope_vacc.results.asked import asked_of
from evalscope_vacc.results.estimate import Estimate, estimate
from evalscope_vacc.results.files import write_file
from evalscope_vacc.results.judge import judge
from evalscope_vacc.results.load import load_results
from evalscope_vacc.results.model import Results, Verdict
from evalscope_vacc.results.noise import Noise
from evalscope_vacc.runner.answer import FAIL, INCOMPLETE, Answer, judged_status
from evalscope_vacc.runner.choose import in_order, scoring_s, with_preset, with_tasks, within
from evalscope_vacc.runner.config import configuration, served, to_keep, with_templates
from evalscope_vacc.runner.face import LOGS, Face
from evalscope_vacc.runner.folder import RunFolder, folder_for, identity_of
from evalscope_vacc.runner.options import NO_REFERENCE, Options
from evalscope_vacc.runner.page import write_page
from evalscope_vacc.runner.reference import Expected, expected
from evalscope_vacc.view.words import Words
from evalscope_vacc.wire.dialects import get_dialect

CONFIG = "config.yaml"
PAGE = "report.html"


@dataclass(frozen=True)
class Planned:
    """A run before its first text: plain values, which can be pickled.

    Attributes:
        config: ``{tool, models, eval}`` as EvalScope takes it.
        tasks: Names of the tasks.
        lacking: Task to the reason why its data cannot be loaded.
        estimate: How much there is to do; None where nothing can be said.
        left_out: Tasks that do not fit into the budget.
    """

    config: Mapping[str, Any]
    tasks: tuple[str, ...]
    lacking: Mapping[str, str]
    estimate: Estimate | None = None
    left_out: tuple[str, ...] = ()


def verify(*targets: str, **options: Any) -> Answer:
    """Evaluates served models and says whether they reproduce the scores of their weights.

    Args:
        targets: An address, the addresses of an encoder and of a reranker, or a configuration file.
        **options: As :class:`~evalscope_vacc.runner.options.Options` has them, and as ``evalscope-vacc run`` does.

    Returns:
        The verdict, with the exit status of the command.

    Raises:
        ConfigError: The options cannot be used, or there is nothing to judge by.
        HostError: EvalScope and MTEB are of versions that do not go together.
        RunInterrupted: The user stopped it; the same call continues it.
    """
    return act(Options(tuple(targets), **options), Face())


def act(options: Options, face: Face) -> Answer:
    """As :func:`verify`; ``face`` is told of every step."""
    began = time.monotonic()
    with used(options.data, face.unpacks), on_cluster(options.ray):
        answer = _act(options, face, began)
    answer = replace(answer, seconds=time.monotonic() - began)
    if options.junit is not None:
        answer = replace(answer, files={**answer.files, "junit": options.junit})
        write_file(options.junit, answer.junit(Words(options.lang)))
    return answer


def _act(options: Options, face: Face, began: float) -> Answer:
    try:
        config = configuration(options)
    except ServerError:
        report = check_address(options.targets[0], api_key=options.key)
        face.checked(report)
        return Answer("fail", FAIL, checks=(report,))
    # what fits into a budget is measured first, and imports would slow it down; on a cluster nobody here needs them
    with nullcontext() if options.budget_s is not None or options.ray else started_ahead(config):
        return _with_config(options, face, began, config)


def _with_config(options: Options, face: Face, began: float, config: Mapping[str, Any]) -> Answer:
    references = expected(options.against, [model.model_name for model in served(config)])
    config, templates = with_templates(config, options, references.references)
    models = served(config)
    config = with_preset(config, options, models)
    face.checking(models)
    face.templates(templates)
    checks = tuple(_check(model, face) for model in models)
    if any(report.exit_status for report in checks):
        return Answer("fail", FAIL, len(options.tasks) or None, checks)
    rates = [measure(model) for model in models]
    planned = plan(config, rates, references, until=None if options.budget_s is None else began + options.budget_s)
    face.chosen(planned.estimate, planned.left_out)
    if planned.lacking:
        face.lacks(planned.lacking, fetching(planned.lacking))
    if planned.lacking and (not options.allow_partial or len(planned.lacking) == len(planned.tasks)):
        return Answer(
            "incomplete", INCOMPLETE, len(planned.tasks), checks, None, None, planned.lacking, planned.left_out
        )
    planned, folder = _folder(options, config, planned, models)
    try:
        face.begins(folder.path, going_on=bool(folder.tasks), expected=references)
        return _evaluated(options, face, planned, folder, checks)
    finally:
        face.over()
        folder.release()


def _check(model: ModelConfig, face: Face) -> Report:
    report = check_model(model)
    face.checked(report)
    return report


# -- plan ----------------------------------------------------------------------------------------------------------------


def plan(
    config: Mapping[str, Any], rates: Sequence[Rate | None], references: Expected, *, until: float | None = None
) -> Planned:
    """Returns what will be done; the hosts are imported, and no data are loaded.

    Args:
        config: ``{tool, models, eval}``.
        rates: What each model's servers answer per second.
        references: The run's references.
        until: Monotonic time at which the run has to be over; None = no limit.

    Raises:
        ConfigError: No task, an unknown one, none that there is a reference of, or none that fits into the time.
    """
    from evalscope_vacc.hosts.entry import tasks_of

    tasks = tasks_of(config["eval"])
    names = tuple(dict.fromkeys(str(task.metadata.name) for task in tasks))
    if references.references and not references.tasks & set(names):
        against = ", ".join(reference.name for reference in references.references)
        raise ConfigError(
            f"{against} has no score of {', '.join(names[:5])}{' …' if len(names) > 5 else ''}: choose other tasks "
            "(`evalscope-vacc published MODEL` lists them), or --against none to judge nothing"
        )
    estimated = _estimate(config, names, rates)
    left_out: tuple[str, ...] = ()
    if until is not None:
        texts = {one.task: one.count for one in estimated.tasks} if estimated else {}
        scoring = {task.metadata.name: scoring_s(task, texts.get(task.metadata.name, 0)) for task in tasks}
        choice = within(estimated, in_order(config, estimated, names), until - time.monotonic(), scoring)
        names, left_out = choice.tasks, choice.left_out
        config = with_tasks(config, names)
        estimated = _estimate(config, names, rates)
    chosen = [task for task in tasks if task.metadata.name in names]
    lacks = lacking(chosen, config["eval"]["hub"], config["eval"].get("dataset_paths") or ())
    return Planned(config, names, lacks, estimated, left_out)


def _estimate(config: Mapping[str, Any], names: Sequence[str], rates: Sequence[Rate | None]) -> Estimate | None:
    whole = config
    if not {"task_names", "benchmarks"} & {key for key, value in config["eval"].items() if value}:
        whole = with_tasks(config, names)
    per_second: dict[str, float] = {}
    known = [rate for rate in rates if rate is not None]
    if len(known) < len(rates):
        known = []  # what the other models answer says nothing of this one
    for model, rate in zip(served(config), known, strict=False):
        unit = "pairs_per_second" if model.is_cross_encoder else "texts_per_second"
        # the slower one of two models: an estimate that is too long disappoints nobody
        for name, value in ((unit, rate.texts), ("tokens_per_second", rate.tokens)):
            per_second[name] = min(value, per_second.get(name, value))
    try:
        return estimate(whole, skip_unknown=True, **per_second)
    except ConfigError:
        return None  # nothing is known of it, such as of a custom task


# -- evaluate ------------------------------------------------------------------------------------------------------------


def _folder(
    options: Options, config: Mapping[str, Any], planned: Planned, models: Sequence[ModelConfig]
) -> tuple[Planned, RunFolder]:
    """Finds the folder, and writes into it what is to be done; ``config`` has the tasks from which a budget chose."""
    from evalscope_vacc.hosts.versions import installed

    # what fits into a budget is measured anew at each start, and may be another task more or less
    asked = sorted({*planned.tasks, *planned.left_out})
    what = {
        "config": to_keep(config),
        "tasks": asked,
        "budget": options.budget_s,
        "servers": _fingerprint(models),
        "versions": installed(),
    }
    name = "+".join(model.model_name for model in models)
    folder = folder_for(name, identity_of(what), options.work_dir)
    if folder.tasks and options.budget_s is not None:
        left_out = tuple(task for task in asked if task not in folder.tasks)
        planned = replace(planned, tasks=folder.tasks, left_out=left_out, config=with_tasks(config, folder.tasks))
    folder.note(planned.tasks, finished=False)
    written = yaml.safe_dump(to_keep(planned.config), sort_keys=False, allow_unicode=True)
    write_whole(folder.path / CONFIG, written)
    return planned, folder


def _fingerprint(models: Sequence[ModelConfig]) -> list[Any]:
    """What decides about the servers' answers, of what they say of themselves."""
    found: list[Any] = []
    for model in models:
        for base in model.bases:
            with connect(model, base) as engine:
                dialect = get_dialect(model.dialect, extra=plugins().dialects())
                facts = introduce(Target(model, engine, engine.servers[0], dialect))
            found.append((model.model_name, facts.version, facts.root, facts.max_model_len))
    return found


def _evaluated(options: Options, face: Face, planned: Planned, folder: RunFolder, checks: tuple[Report, ...]) -> Answer:
    from evalscope_vacc.hosts.entry import run

    task_config = {"eval_backend": "RAGEval", "eval_config": planned.config, "use_cache": str(folder.path)}
    try:
        with watched(face):
            run(task_config)
    except RunFailed:
        pass  # which tasks failed, and why, stands in the folder
    face.over()
    judging = options.against != NO_REFERENCE
    found, results = judged(folder.path, options)
    verdict, status = judged_status(found, judging=judging) if found else ("incomplete", INCOMPLETE)
    folder.note(planned.tasks, finished=found is not None and not found.partial)
    files = {"run": folder.path, "results": folder.path / "results", "config": folder.path / CONFIG}
    if results is not None:
        page = options.report or folder.path / PAGE
        against = options.against if judging else None
        why = None if judging else Reason.of("no_published")
        write_page(folder.path, page, found, against=against, no_reference=why, lang=options.lang)
        files = {"page": page, **files}
    files["logs"] = folder.path / LOGS
    tasks = len(planned.tasks)
    return Answer(verdict, status, tasks, checks, found, results, planned.lacking, planned.left_out, files)


def judged(run: Path, options: Options) -> tuple[Verdict | None, Results | None]:
    """Returns the judgement on a run, and its scores; nothing where nothing was evaluated."""
    noise = Noise(dtype=options.dtype, tolerance=options.tolerance)
    try:
        results = load_results([run])
        if not results.rows:
            return None, None
        if options.against == NO_REFERENCE:
            return judge(results, [], asked_of([run]), allow_partial=options.allow_partial), results
        return verdict_of([run], options.against, noise, allow_partial=options.allow_partial), results
    except ResultError:
        return None, None
