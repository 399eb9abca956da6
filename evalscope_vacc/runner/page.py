"""Writes the page of a run."""

from __future__ import annotations

import os
from pathlib import Path

from evalscope_vacc.messages import Reason
from evalscope_vacc.results.files import write_file
from evalscope_vacc.results.left import gather
from evalscope_vacc.results.model import Verdict
from evalscope_vacc.view.page import link_back, own_page, render
from evalscope_vacc.view.words import Words


def write_page(
    run: Path,
    output: Path,
    answer: Verdict | None,
    *,
    against: str | None = None,
    no_reference: Reason | None = None,
    evidence: Path | None = None,
    lang: str = "en",
) -> int:
    """Writes the page, and a link to it into EvalScope's own; returns its size in bytes.

    Args:
        run: A run's folder, or any folder of results.
        output: The file to write.
        answer: The verdict on it.
        against: The reference, as the user gave it.
        no_reference: Why there is no verdict.
        evidence: The run's ``vacc`` folder, where it does not lie beside the results.
        lang: "en" or "zh".

    Raises:
        VaccError: The results cannot be read, or the page cannot be written.
    """
    words = Words(lang)
    published = against is None or not Path(against).exists()
    data = gather(run, answer, published=published, no_reference=no_reference, evidence=evidence)
    theirs = own_page(run)
    link = Path(os.path.relpath(theirs, output.parent)).as_posix() if theirs else ""
    page = render(data, language=lang, against=against, evalscope_page=link)
    write_file(output, page)
    if theirs:
        link_back(theirs, output, words)
    return len(page.encode())
