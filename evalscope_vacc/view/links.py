"""EvalScope's own page of a run and ours, linked to each other."""

from __future__ import annotations

import html
import os
from pathlib import Path

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
        text = page.read_text(encoding="utf-8") if page.stat().st_size < MAX_BYTES else ""
    except (OSError, ValueError):
        return
    head, end, tail = text.rpartition("</body>")
    if not end:
        return
    head = head.partition(_MARK)[0]
    address = html.escape(Path(os.path.relpath(ours, page.parent)).as_posix(), quote=True)
    link = f'{_MARK}<p style="text-align:center"><a href="{address}">{html.escape(words("our_page"))}</a></p>\n'
    try:
        page.write_text(head + link + end + tail, encoding="utf-8")
    except OSError:
        return
