"""EvalScope's own page of a run and ours, linked to each other."""

from __future__ import annotations

import html
import os
from pathlib import Path

from evalscope_vacc.files import read_bounded, write_whole
from evalscope_vacc.view.words import Words

MAX_BYTES = 64 << 20
_MARK = "<!-- evalscope-vacc -->"


def own_page(run: Path) -> Path | None:
    """Returns the page that EvalScope writes beside a run's reports, or None."""
    page = run / "reports" / "report.html"
    return page if page.is_file() else None


def link_back(page: Path, ours: Path, words: Words) -> None:
    """Puts a link to our page at the end of EvalScope's, once; a page that is not as expected is left alone."""
    try:
        text = read_bounded(page, MAX_BYTES).decode()
    except (OSError, ValueError):
        return
    head, end, tail = text.rpartition("</body>")
    if not end:
        return
    head = head.partition(_MARK)[0]
    address = html.escape(Path(os.path.relpath(ours, page.parent)).as_posix(), quote=True)
    link = f'{_MARK}<p style="text-align:center"><a href="{address}">{html.escape(words("our_page"))}</a></p>\n'
    try:
        write_whole(page, head + link + end + tail)
    except OSError:
        return
