"""``evalscope-vacc parity``: does the server give the answers of its weights?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from evalscope_vacc.cli.check import address, model_entries
from evalscope_vacc.cli.options import AsJson, Key, Lang, Model, Served, SpokenDialect, Text
from evalscope_vacc.errors import ConfigError

_Folder = Optional[Path]  # noqa: UP045 - read at run time, by a typer that may know no `X | None`
_Reference = Annotated[
    Text,
    typer.Option(
        "--reference",
        metavar="PATH|HUB|URL|STORED",
        help="Folder with weights, org/name on the hub, another server's address, or a file that --save wrote.",
    ),
]
_Dtype = Annotated[
    str,
    typer.Option(
        "--dtype",
        help="Number format of the served weights: float32, float16, bfloat16, int8, fp8, int4; "
        "auto derives it from the answers.",
    ),
]
_Save = Annotated[
    _Folder,
    typer.Option("--save", metavar="FILE.npz", help="Store the served answers in this file, for a later comparison."),
]
_Plots = Annotated[_Folder, typer.Option("--plots", metavar="DIR", help="Draw the differences as PNG files.")]
_Task = Annotated[Text, typer.Option("--task", help="Use texts of this MTEB task instead of our own list.")]
_ReferenceModel = Annotated[
    Text,
    typer.Option("--reference-model", metavar="NAME", help="Served name at a reference server. Default: the same."),
]
_ReferenceKey = Annotated[
    Text,
    typer.Option(
        "--reference-key",
        metavar="KEY",
        help="API key of a reference server; --key is not sent there.",
    ),
]


def parity(
    config: Served,
    reference: _Reference = None,
    save: _Save = None,
    dtype: _Dtype = "float32",
    plots: _Plots = None,
    task: _Task = None,
    model: Model = None,
    key: Key = None,
    reference_model: _ReferenceModel = None,
    reference_key: _ReferenceKey = None,
    dialect: SpokenDialect = None,
    *,
    as_json: AsJson = False,
    lang: Lang = "en",
) -> None:
    """Send the same texts through a server and a reference, and say how far the answers differ.

    Exit status: 0 when they agree within the thresholds of --dtype, 1 when they do not, 2 for a configuration or
    usage that cannot be compared.
    """
    from evalscope_vacc.checks.parity import run_parity
    from evalscope_vacc.config import configure
    from evalscope_vacc.view import checks
    from evalscope_vacc.view.document import show, write_out
    from evalscope_vacc.view.machine import to_json
    from evalscope_vacc.view.words import Words

    words = Words(lang)
    entry = _entry(config, model, key, dialect)
    served = configure(entry, where=f"model {entry.get('model_name', '?')!r}")
    result = run_parity(
        served, reference, dtype=dtype, save=save, plots=plots, task=task, reference_model=reference_model,
        reference_key=reference_key,
    )  # fmt: skip
    if as_json:
        write_out(to_json(checks.parity_mapping(result, words)))
    else:
        show(checks.parity(result, words))
    raise typer.Exit(result.exit_status)


def _entry(config: str, model: str | None, key: str | None, dialect: str | None) -> dict[str, Any]:
    from evalscope_vacc.checks.run import find_entry

    url = address(config, dialect)
    if url:
        return find_entry(url, model=model, api_key=key, dialect=dialect)
    entries = model_entries(Path(config), model=model, key=key)
    if len(entries) > 1:
        names = ", ".join(str(entry.get("model_name")) for entry in entries)
        raise ConfigError(f"{config} has several models ({names}): say which with --model")
    return entries[0]
