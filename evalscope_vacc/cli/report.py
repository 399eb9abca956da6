"""``evalscope-vacc report``: a run as one page to read and to share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from evalscope_vacc.cli.options import Against, Dtype, Lang, Tolerance
from evalscope_vacc.errors import ConfigError

if TYPE_CHECKING:
    from evalscope_vacc.messages import Reason
    from evalscope_vacc.results.model import Verdict
    from evalscope_vacc.results.noise import Noise


def report(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A run's folder (with `results` and `vacc`), or any folder of results."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path("report.html"),
    lang: Lang = "en",
    against: Against = None,
    dtype: Dtype = None,
    tolerance: Tolerance = None,
    evidence: Annotated[
        Optional[Path],  # noqa: UP045 - read at run time, by a typer that may know no `X | None`
        typer.Option(help="The run's `vacc` folder, if it is not next to the results."),
    ] = None,
) -> None:
    """Write a run as one self-contained HTML page: verdict, scores, speed, server, what was sent, how to reproduce it.

    The page needs no network, works on a phone, in light and dark, and holds no keys. The exit status is 0 when the page
    was written, whatever the verdict; `compare` is the command whose status is the verdict.
    """
    if evidence is not None and not evidence.is_dir():
        msg = f"--evidence: {evidence} is not a folder; give the one with config.json and usage.json"
        raise ConfigError(msg)
    from evalscope_vacc.results.noise import Noise
    from evalscope_vacc.runner.page import write_page

    answer, why = _verdict(run, against, Noise(dtype=dtype, tolerance=tolerance))
    size = write_page(run, output, answer, against=against, no_reference=why, evidence=evidence, lang=lang)
    typer.echo(f"{output} ({size / 1024:.0f} KiB)")


def _verdict(run: Path, against: str | None, noise: Noise) -> tuple[Verdict | None, Reason | None]:
    """Compares as `compare` does; a run whose model has no published scores gets a page without a verdict."""
    from evalscope_vacc.messages import Reason
    from evalscope_vacc.results.ask import verdict_of

    try:
        return verdict_of([run], against, noise), None
    except ConfigError:
        if against is not None:
            raise
        return None, Reason.of("no_published")
