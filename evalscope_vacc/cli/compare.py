"""``evalscope-vacc compare``: are the served weights as accurate as the reference says?"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import typer

from evalscope_vacc.errors import ConfigError, ResultError

if TYPE_CHECKING:
    from evalscope_vacc.results.compare import PairedTest
    from evalscope_vacc.results.noise import Noise
    from evalscope_vacc.results.rows import Reference, Results
    from evalscope_vacc.results.verdict import Verdict


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
) -> None:
    """Compare scores with published ones, or with another run, and say whether they are the same.

    Exit status: 0 when every comparable score is the reference's within the tolerance, 1 when one is not (below, or
    above without --allow-above), 3 when a task that was asked for failed or was not run (without --allow-partial), 2
    when nothing can be compared.
    """
    from evalscope_vacc.results import render
    from evalscope_vacc.results.noise import Noise

    if as_json + as_markdown + as_csv > 1:
        msg = "--json, --markdown and --csv exclude one another"
        raise ConfigError(msg)
    try:
        found = verdict_of(
            results, against, Noise(dtype=dtype, tolerance=tolerance), qrels=qrels, load_qrels=paired,
            allow_partial=allow_partial, allow_above=allow_above,
        )  # fmt: skip
    except ResultError as error:
        # a folder that cannot be read is nothing to compare, not a task that fails
        raise ConfigError(str(error)) from error
    if as_json:
        _print(render.to_json(found) + "\n")
    elif as_markdown:
        _print(render.to_markdown(found))
    elif as_csv:
        _print(render.to_csv(found))
    else:
        from rich.console import Console

        console = Console(highlight=False)
        with console.capture() as shown:
            for part in render.to_rich(found, console.width):
                console.print(part)
        _print(shown.get())
    raise typer.Exit(found.exit_status)


def _print(text: str) -> None:
    """Prints; a reader that has seen enough, such as `head`, must not turn the verdict into another."""
    try:
        typer.echo(text, nl=False)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def verdict_of(
    paths: Sequence[Path],
    against: str | None,
    noise: Noise,
    *,
    qrels: Path | None = None,
    load_qrels: bool = False,
    allow_partial: bool = False,
    allow_above: bool = False,
) -> Verdict:
    """Returns the verdict on everything that the runs were asked for, one comparison a run.

    Args:
        paths: Result folders or files.
        against: A path, or a model with published scores; without it each served model is looked up by its own name.
        noise: How far scores may lie apart.
        qrels: Judgements for the test by query.
        load_qrels: Let MTEB load the judgements.
        allow_partial: Whether a part of what was asked for may pass.
        allow_above: Whether scores above the reference may pass.

    Raises:
        ResultError: A path cannot be read, or holds no result.
        ConfigError: No scores are published under the name that is given or served.
    """
    from evalscope_vacc.results.asked import asked_of, insane_models
    from evalscope_vacc.results.compare import compare as hold_against
    from evalscope_vacc.results.load import load_results
    from evalscope_vacc.results.verdict import verdict

    ours = load_results(paths)
    if not ours.rows:
        detail = f": {'; '.join(ours.problems[:3])}" if ours.problems else "; give the folder that `results` lies in"
        msg = f"no result was found under {', '.join(ours.paths)}{detail}"
        raise ResultError(msg)
    found = []
    for part, reference in _references(ours, against):
        test = _test(part, reference, qrels, load=load_qrels)
        found.append(hold_against(part, reference, noise=noise, paired=test))
    # an answer before what is none, such as the second stage's of a run that is held against an encoder
    found.sort(key=lambda comparison: comparison.outcome == "nothing comparable")
    return verdict(
        ours, found, asked_of(paths), insane=insane_models(paths), allow_partial=allow_partial, allow_above=allow_above
    )


def _references(ours: Results, against: str | None) -> list[tuple[Results, Reference]]:
    """Gives each run its reference: two runs in one folder are two questions."""
    from evalscope_vacc.results import published
    from evalscope_vacc.results.compare import reference_from

    runs = _by_run(ours)
    if against is not None:
        other = _other_run(against)
        if other is not None:
            return [(part, reference_from(other, like=part.runs)) for part in runs]
        reference = published.get(against).reference()
        return [(part, reference) for part in runs]
    names = sorted({run.served_name for run in ours.runs})
    known = {name: published.find(name) for name in names if name}
    if not any(known.values()):
        served = ", ".join(name or "(unnamed)" for name in names)
        msg = (
            f"no scores are published under the name {served}: say with --against whose weights these are "
            "(`evalscope-vacc published` lists the models), or give another result folder"
        )
        raise ConfigError(msg)
    found = [(part, entry.reference()) for part in runs if (entry := known.get(part.runs[0].served_name))]
    unknown = (name or "(unnamed)" for name in names if known.get(name) is None)
    problems = tuple(f"{name}: no scores are published under this name" for name in unknown)
    first, reference = found[0]
    return [(replace(first, problems=ours.problems + problems), reference), *found[1:]]


def _by_run(results: Results) -> list[Results]:
    """Parts the rows by run; what could not be read is said once."""
    parts = [replace(results, rows=tuple(r for r in results.rows if r.run == run), problems=()) for run in results.runs]
    return [replace(parts[0], problems=results.problems), *parts[1:]]


def _other_run(against: str) -> Results | None:
    """Reads the folder that is meant, or returns None where a model is."""
    from evalscope_vacc.results import published
    from evalscope_vacc.results.load import load_results

    if not Path(against).exists():
        return None
    results = load_results([against])
    # `hf download Qwen/Qwen3-Embedding-0.6B --local-dir Qwen/Qwen3-Embedding-0.6B` leaves such a folder of weights
    return None if not results.rows and published.find(against) is not None else results


def _test(ours: Results, reference: Reference, qrels: Path | None, *, load: bool) -> PairedTest | None:
    if not ours.predictions or not reference.predictions:
        return None
    from evalscope_vacc.results.paired import QueryTest, qrels_from_files, qrels_from_mteb

    if qrels is not None:
        return QueryTest(ours.predictions, reference.predictions, qrels_from_files(qrels))
    if load:
        return QueryTest(ours.predictions, reference.predictions, qrels_from_mteb)
    return None
