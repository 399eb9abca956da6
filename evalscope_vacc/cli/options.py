"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

# read at run time, by a typer that may know no `X | None`
Against = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--against",
        metavar="MODEL|RESULTS",
        help="A model with published scores, or another result folder. Default: the served model's own name.",
    ),
]
Dtype = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--dtype",
        help="Number format of the served weights; sets the tolerance: float32, float16, bfloat16, int8, fp8, int4.",
    ),
]
Tolerance = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option("--tolerance", help="One absolute tolerance for every score, as a fraction: 0.002 is 0.2 points."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
Lang = Annotated[str, typer.Option("--lang", help="Language: en or zh.")]
