"""``evalscope-vacc models``: the catalog as a table, or one model of it whole."""

from __future__ import annotations

import json
from typing import Annotated, Any, Optional

import typer

from evalscope_vacc.cli.options import AsJson, Lang


def models(
    name: Annotated[
        Optional[str],  # noqa: UP045 - a Python 3.10 host may carry a typer that knows no `X | None`
        typer.Argument(help="Show everything about this model."),
    ] = None,
    *,
    as_json: AsJson = False,
    lang: Lang = "en",
) -> None:
    """Lists the models of the catalog, or shows everything about the one called NAME.

    A configuration takes its defaults from the entry that matches its served name; what it says itself always wins.
    """
    from evalscope_vacc import catalog
    from evalscope_vacc.view import listings
    from evalscope_vacc.view.document import show
    from evalscope_vacc.view.words import Words

    words = Words(lang)
    found = catalog.entries() if name is None else (catalog.get(name),)
    if as_json:
        plain: Any = [entry.to_dict() for entry in found]
        typer.echo(json.dumps(plain if name is None else plain[0], ensure_ascii=False, indent=1))
    else:
        show(listings.models(found, words) if name is None else listings.model(found[0], words))
