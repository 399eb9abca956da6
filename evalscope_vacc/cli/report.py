"""``evalscope-vacc report``: a run as one page to look at and to send around."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import typer

from evalscope_vacc.errors import ConfigError, ResultError

if TYPE_CHECKING:
    from evalscope_vacc.results.verdict import Verdict


def report(
    run: Path = typer.Argument(
        ..., metavar="RUN", help="A run's folder (the one that `results` and `vacc` lie in), or any folder of results."
    ),
    output: Path = typer.Option(Path("report.html"), "--output", "-o", help="The page to write."),
    lang: str = typer.Option("en", "--lang", help="Language of the page: en or zh."),
    against: Optional[str] = typer.Option(  # noqa: UP045 - an older typer on Python 3.10 knows no `X | None`
        None,
        "--against",
        metavar="MODEL|RESULTS",
        help="A model with published scores, or another result folder. Default: the served model's own name.",
    ),
    dtype: Optional[str] = typer.Option(  # noqa: UP045
        None, "--dtype", help="Number format of the served weights; sets the tolerance, as in `compare`."
    ),
    tolerance: Optional[float] = typer.Option(  # noqa: UP045
        None, "--tolerance", help="One absolute tolerance for every score, as a fraction: 0.002 is 0.2 points."
    ),
    evidence: Optional[Path] = typer.Option(  # noqa: UP045
        None, "--evidence", help="The run's `vacc` folder, where it does not lie beside the results."
    ),
) -> None:
    """Write a run as one self-contained HTML page: verdict, scores, speed, server, what was sent, how to repeat it.

    The page needs no network, works on a phone, in light and dark, and holds no keys. The exit status is 0 when the page
    was written, whatever the verdict; `compare` is the command whose status is the verdict.
    """
    from evalscope_vacc.report.texts import LANGUAGES

    if lang not in LANGUAGES:
        msg = f"--lang {lang!r} is not known; give one of {', '.join(LANGUAGES)}"
        raise ConfigError(msg)
    if evidence is not None and not evidence.is_dir():
        msg = f"--evidence: {evidence} is not a folder; give the one with config.json and usage.json"
        raise ConfigError(msg)
    from evalscope_vacc.report.data import gather
    from evalscope_vacc.report.page import render

    answer, why = _verdict(run, against, dtype, tolerance)
    published = against is None or not Path(against).exists()
    data = gather(run, answer, published=published, no_reference=why, evidence=evidence)
    page = render(data, language=lang, against=against)
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(page, encoding="utf-8")
        part.replace(output)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        msg = f"{output} cannot be written: {error.strerror or error}"
        raise ResultError(msg) from error
    typer.echo(f"{output} ({len(page.encode()) / 1024:.0f} KiB)")


def _verdict(run: Path, against: str | None, dtype: str | None, tolerance: float | None) -> tuple[Verdict | None, str]:
    """Compares as `compare` does; a run whose model has no published scores gets a page without a verdict."""
    from evalscope_vacc.cli.compare import verdict_of
    from evalscope_vacc.results.noise import Noise

    noise = Noise(dtype=dtype, tolerance=tolerance)
    try:
        return verdict_of([run], against, noise), ""
    except ConfigError as error:
        if against is not None:
            raise
        return None, str(error)
