"""``evalscope-vacc compare``: are the served weights as accurate as the reference says?"""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import typer

from evalscope_vacc.errors import ConfigError, ResultError


def compare(
    results: list[Path] = typer.Argument(
        ..., metavar="RESULTS...", help="Result folders of EvalScope or MTEB, at any level, or single task files."
    ),
    against: Optional[str] = typer.Option(  # noqa: UP045 - an older typer on Python 3.10 knows no `X | None`
        None,
        "--against",
        metavar="MODEL|RESULTS",
        help="A model with published scores, or another result folder. Default: the served model's own name.",
    ),
    dtype: Optional[str] = typer.Option(  # noqa: UP045
        None,
        "--dtype",
        help="Number format of the served weights; sets the tolerance: float32, float16, bfloat16, int8, fp8, int4.",
    ),
    tolerance: Optional[float] = typer.Option(  # noqa: UP045
        None, "--tolerance", help="One absolute tolerance for every score, as a fraction: 0.002 is 0.2 points."
    ),
    qrels: Optional[Path] = typer.Option(  # noqa: UP045
        None,
        "--qrels",
        help="Judgements (a folder with a file a task), for the test by query where both runs kept predictions.",
    ),
    paired: bool = typer.Option(
        False, "--paired", help="Test by query with judgements that MTEB loads (it may download the task's data)."
    ),
    allow_partial: bool = typer.Option(
        False, "--allow-partial", help="Pass although a task that was asked for failed or was not run."
    ),
    allow_above: bool = typer.Option(
        False, "--allow-above", help="Pass although a score lies above the reference: for an improved model."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON, for machines."),
    as_markdown: bool = typer.Option(False, "--markdown", help="Print Markdown, for an issue."),
    as_csv: bool = typer.Option(False, "--csv", help="Print CSV, for a spreadsheet."),
    junit: Optional[Path] = typer.Option(  # noqa: UP045
        None, "--junit", metavar="FILE", help="Write JUnit XML, too: a test case a task."
    ),
    lang: str = typer.Option("en", "--lang", help="Language: en or zh."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="List every score that matches, too."),
) -> None:
    """Compare scores with published ones, or with another run, and say whether they are the same.

    Several runs are laid side by side, against the reference or, where there is none, against the first of them.

    Exit status: 0 when every comparable score is the reference's within the tolerance, 1 when one is not (below, or
    above without --allow-above), 3 when a task that was asked for failed or was not run (without --allow-partial), 2
    when nothing can be compared.
    """
    from evalscope_vacc.results.ask import verdict_of
    from evalscope_vacc.results.noise import Noise
    from evalscope_vacc.view import machine
    from evalscope_vacc.view.comparison import document
    from evalscope_vacc.view.document import show, to_markdown, write_out
    from evalscope_vacc.view.words import Words

    if as_json + as_markdown + as_csv > 1:
        msg = "--json, --markdown and --csv exclude one another"
        raise ConfigError(msg)
    words = Words(lang)
    try:
        found = verdict_of(
            results, against, Noise(dtype=dtype, tolerance=tolerance), qrels=qrels, load_qrels=paired,
            allow_partial=allow_partial, allow_above=allow_above,
        )  # fmt: skip
    except ResultError as error:
        # a folder that cannot be read is nothing to compare, not a task that fails
        raise ConfigError(str(error)) from error
    if junit is not None:
        from evalscope_vacc.results.files import write_file

        write_file(junit, machine.to_junit(found, words))
    if as_json:
        write_out(machine.to_json(machine.to_mapping(found, words)))
    elif as_csv:
        write_out(machine.to_csv(found, words))
    elif as_markdown:
        write_out(to_markdown(document(found, words, verbose=True)))
    else:
        show(document(found, words, verbose=verbose))
    raise typer.Exit(found.exit_status)
