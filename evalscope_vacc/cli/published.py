"""``evalscope-vacc published``: the scores that others published, and where they come from."""

from __future__ import annotations

from typing import Optional

import typer

from evalscope_vacc.cli.options import AsJson, Lang


def published(
    model: Optional[str] = typer.Argument(  # noqa: UP045 - an older typer on Python 3.10 knows no `X | None`
        None,
        metavar="[MODEL]",
        help="`org/name` or the name alone, in any case. Default: list the known models.",
    ),
    as_json: AsJson = False,
    lang: Lang = "en",
) -> None:
    """List published scores: task, split, subset, metric, mteb version, dataset revision, source."""
    from evalscope_vacc.results import published as stored
    from evalscope_vacc.view import listings
    from evalscope_vacc.view.document import show, write_out
    from evalscope_vacc.view.machine import to_json
    from evalscope_vacc.view.words import Words

    words = Words(lang)
    if model is not None:
        entry = stored.get(model)
        if as_json:
            write_out(to_json(listings.published_mapping(entry)))
        else:
            show(listings.published_model(entry, words))
        return
    entries = [stored.get(name) for name in stored.model_names()]
    if as_json:
        write_out(to_json([listings.published_summary(entry) for entry in entries]))
    else:
        show(listings.published(entries, words))
