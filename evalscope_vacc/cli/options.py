"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

# read at run time, by a typer that may know no `X | None`
Text = Optional[str]  # noqa: UP045
Texts = Optional[list[str]]  # noqa: UP045
File = Optional[Path]  # noqa: UP045
Tasks = Annotated[Text, typer.Option("--tasks", metavar="A,B", help="Names of MTEB's tasks.")]
Benchmarks = Annotated[
    Texts, typer.Option("--benchmark", metavar="NAME", help="MTEB's benchmark, such as 'MTEB(eng, v2)'; repeatable.")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Also show what EvalScope, MTEB and the libraries print.")
]
Against = Annotated[
    Text,
    typer.Option(
        "--against",
        metavar="MODEL|RESULTS",
        help="A model with published scores, or another result folder. Default: the served model's own name.",
    ),
]
Dtype = Annotated[
    Text,
    typer.Option(
        "--dtype",
        help="Number format of the served weights; sets the tolerance: float32, float16, bfloat16, int8, fp8, int4.",
    ),
]
Tolerance = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option("--tolerance", help="One absolute tolerance for every score, as a fraction: 0.002 is 0.2 points."),
]
Data = Annotated[
    File,
    typer.Option(
        "--data",
        metavar="DIR|FILE",
        envvar="VACC_DATA",
        help="Data that `prefetch` fetched: nothing is asked of a hub.",
    ),
]
Workers = Annotated[
    Text,
    typer.Option(
        "--workers",
        metavar="N|auto",
        help="Processes that evaluate tasks at once and share the servers' slots. [default: auto: two, memory permitting]",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
Lang = Annotated[str, typer.Option("--lang", help="Language: en or zh.")]
Served = Annotated[
    str,
    typer.Argument(metavar="CONFIG|URL", help="EvalScope's RAGEval file with vacc_api models, or a server's address."),
]
Model = Annotated[Text, typer.Option("--model", metavar="NAME", help="Served name; selects one model of a file.")]
Key = Annotated[
    Text,
    typer.Option(
        "--key",
        metavar="KEY",
        help="API key, or '${NAME}' of the environment. Default: the file's, $VACC_API_KEY.",
    ),
]
SpokenDialect = Annotated[
    Text,
    typer.Option(
        "--dialect", metavar="NAME", help="Protocol of the server, like the key `dialect`; only with an address."
    ),
]


def task_names(tasks: str | None) -> tuple[str, ...]:
    """Returns the names that ``--tasks A,B`` gives."""
    return tuple(name.strip() for name in (tasks or "").split(",") if name.strip())
