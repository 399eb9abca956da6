"""``evalscope-vacc compare``: are the served weights as accurate as the reference says?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from evalscope_vacc.cli.options import Against, AsJson, Dtype, Lang, Tolerance
from evalscope_vacc.errors import ConfigError, ResultError

_Results = Annotated[
    list[Path],
    typer.Argument(metavar="RESULTS...", help="Result folders of EvalScope or MTEB, at any level, or task files."),
]
_File = Optional[Path]  # noqa: UP045 - read at run time, by a typer that may know no `X | None`
_Benchmark = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(metavar="NAME", help="Judge only this benchmark of MTEB; repeatable."),
]
_Qrels = Annotated[
    _File,
    typer.Option(help="Relevance judgements (a folder with one file for each task), for the test by query."),
]
_Paired = Annotated[
    bool, typer.Option("--paired", help="Test by query with judgements that MTEB loads (it may download them).")
]
_AllowPartial = Annotated[bool, typer.Option("--allow-partial", help="Pass even if a task failed or was not run.")]
_AllowAbove = Annotated[
    bool, typer.Option("--allow-above", help="Pass even if a score is above the reference: for an improved model.")
]
_Junit = Annotated[_File, typer.Option(metavar="FILE", help="Also write JUnit XML: one test case for each task.")]


def compare(
    results: _Results,
    against: Against = None,
    dtype: Dtype = None,
    tolerance: Tolerance = None,
    benchmark: _Benchmark = None,
    qrels: _Qrels = None,
    paired: _Paired = False,
    allow_partial: _AllowPartial = False,
    allow_above: _AllowAbove = False,
    as_json: AsJson = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, for an issue.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, for a spreadsheet.")] = False,
    junit: _Junit = None,
    lang: Lang = "en",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also list every score that matches.")] = False,
) -> None:
    """Compare scores with published ones, or with another run, and say whether they are the same.

    Several runs are shown side by side, compared with the reference or, if there is none, with the first run.

    Exit status: 0 when every comparable score is the reference's within the tolerance, 1 when one is not (below, or
    above without --allow-above), 3 when a task that was asked for failed or was not run (without --allow-partial), 2
    when nothing can be compared.
    """
    from evalscope_vacc.results.ask import verdict_of
    from evalscope_vacc.results.files import write_file
    from evalscope_vacc.results.noise import Noise
    from evalscope_vacc.view.comparison import written
    from evalscope_vacc.view.document import write_out
    from evalscope_vacc.view.machine import to_junit
    from evalscope_vacc.view.words import Words

    formats = [name for name, asked in (("json", as_json), ("markdown", as_markdown), ("csv", as_csv)) if asked]
    if len(formats) > 1:
        msg = "--json, --markdown and --csv exclude one another"
        raise ConfigError(msg)
    words, noise = Words(lang), Noise(dtype=dtype, tolerance=tolerance)
    options = {"load_qrels": paired, "allow_partial": allow_partial, "allow_above": allow_above}
    try:
        found = verdict_of(results, against, noise, qrels=qrels, benchmarks=benchmark or (), **options)
    except ResultError as error:
        # a folder that cannot be read is nothing to compare, not a task that fails
        raise ConfigError(str(error)) from error
    if junit is not None:
        write_file(junit, to_junit(found, words))
    write_out(written(found, words, *formats, verbose=verbose))
    raise typer.Exit(found.exit_status)
