"""``evalscope-vacc run``: from a served model to a verdict."""

from __future__ import annotations

from typing import Annotated

import typer

from evalscope_vacc.cli.options import (
    AsJson,
    Benchmarks,
    Data,
    Dtype,
    File,
    Lang,
    Tasks,
    Text,
    Texts,
    Tolerance,
    Verbose,
    Workers,
    task_names,
)

_Targets = Annotated[
    list[str],
    typer.Argument(
        metavar="TARGET...",
        help="A server's address, the addresses of an encoder and of a reranker, or a configuration file.",
    ),
]
_Models = Annotated[
    Texts,
    typer.Option("--model", metavar="NAME", help="Served name, if a server has several; once for each address."),
]
_Preset = Annotated[
    Text,
    typer.Option("--preset", metavar="NAME", help="Tasks with published scores: smoke, quick, standard or full."),
]
_Budget = Annotated[
    Text,
    typer.Option(
        "--budget",
        metavar="TIME",
        help="Take as many of the tasks as fit into 10m, 1h30m …; of a benchmark the shortest first. The others are named "
        "and not judged.",
    ),
]
_Against = Annotated[
    Text,
    typer.Option(
        "--against",
        metavar="MODEL|RUN|none",
        help="A model with published scores, or another run's folder. Default: the served model's own name.",
    ),
]
_WorkDir = Annotated[
    File, typer.Option("--work-dir", metavar="DIR", help="Parent folder of the runs. [default: outputs]")
]
_FirstStage = Annotated[
    File, typer.Option("--first-stage", metavar="RUN", help="An embedding run whose predictions are reranked.")
]
_Settings = Annotated[
    Texts,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a key of every model, such as max_tokens=512."),
]
_Key = Annotated[Text, typer.Option("--key", metavar="KEY", help="API key, or '${NAME}' of the environment.")]
_Hub = Annotated[
    Text, typer.Option("--hub", help="Where data sets come from: huggingface (the default) or modelscope.")
]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the verdict.")]
_JUnit = Annotated[
    File, typer.Option("--junit", metavar="FILE", help="Also write JUnit XML: one test case for each task.")
]
_Report = Annotated[
    File, typer.Option("--report", metavar="FILE", help="The page. [default: report.html in the run's folder]")
]
_Ray = Annotated[
    str | None,
    typer.Option("--ray", metavar="ADDRESS", help="Run the workers on a Ray cluster; auto is the one of this machine."),
]
_AllowPartial = Annotated[
    bool, typer.Option("--allow-partial", help="Evaluate what can be evaluated, and pass even if a task is missing.")
]


def run(
    targets: _Targets,
    model: _Models = None,
    tasks: Tasks = None,
    benchmark: Benchmarks = None,
    preset: _Preset = None,
    budget: _Budget = None,
    against: _Against = None,
    work_dir: _WorkDir = None,
    first_stage: _FirstStage = None,
    settings: _Settings = None,
    key: _Key = None,
    hub: _Hub = None,
    data: Data = None,
    workers: Workers = None,
    ray: _Ray = None,
    dtype: Dtype = None,
    tolerance: Tolerance = None,
    lang: Lang = "en",
    quiet: _Quiet = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
    junit: _JUnit = None,
    report: _Report = None,
    allow_partial: _AllowPartial = False,
) -> None:
    """Check a server, evaluate its model, and say whether it reproduces the scores of its weights.

    The same command continues an unfinished run. Exit status: 0 pass, 1 a score does not match or the check found
    something wrong, 2 usage, or nothing to judge by, 3 incomplete, 130 stopped.
    """
    from evalscope_vacc.hosts.spelling import read_count
    from evalscope_vacc.runner.command import show
    from evalscope_vacc.runner.options import Options, seconds_of, settings_of

    options = Options(
        targets=tuple(targets),
        models=tuple(model or ()),
        tasks=task_names(tasks),
        benchmarks=tuple(benchmark or ()),
        preset=preset,
        budget_s=None if budget is None else seconds_of(budget),
        against=against,
        work_dir=work_dir,
        first_stage=first_stage,
        settings=settings_of(settings or []),
        key=key,
        hub=hub,
        data=data,
        workers=read_count(workers, "--workers"),
        ray=ray,
        dtype=dtype,
        tolerance=tolerance,
        lang=lang,
        allow_partial=allow_partial,
        report=report,
        junit=junit,
    )
    raise typer.Exit(show(options, quiet=quiet, verbose=verbose, as_json=as_json))
