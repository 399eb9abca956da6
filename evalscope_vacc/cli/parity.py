"""``evalscope-vacc parity``: does the server answer what its weights answer?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import typer

from evalscope_vacc.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from evalscope_vacc.checks.parity import ParityResult


def parity(
    config: str = typer.Argument(
        ..., metavar="CONFIG|URL", help="EvalScope's RAGEval file with a vacc_api model, or a server's address."
    ),
    reference: Optional[str] = typer.Option(  # noqa: UP045 - an older typer on Python 3.10 knows no `X | None`
        None,
        "--reference",
        metavar="PATH|HUB|URL|STORED",
        help="Folder with weights, org/name on the hub, another server's address, or a file that --save wrote.",
    ),
    save: Optional[Path] = typer.Option(  # noqa: UP045
        None, "--save", metavar="FILE.npz", help="Store the served answers, to compare with later."
    ),
    dtype: str = typer.Option(
        "float32",
        "--dtype",
        help="Number format of the served weights: float32, float16, bfloat16, int8, fp8, int4; auto takes what its "
        "answers look like.",
    ),
    plots: Optional[Path] = typer.Option(  # noqa: UP045
        None, "--plots", metavar="DIR", help="Draw the differences as PNG files."
    ),
    task: Optional[str] = typer.Option(  # noqa: UP045
        None, "--task", help="Use texts of this MTEB task instead of our own list."
    ),
    model: Optional[str] = typer.Option(None, "--model", metavar="NAME", help="Served name."),  # noqa: UP045
    key: Optional[str] = typer.Option(None, "--key", metavar="KEY", help="API key, or '${NAME}'."),  # noqa: UP045
    reference_model: Optional[str] = typer.Option(  # noqa: UP045
        None, "--reference-model", metavar="NAME", help="Served name at a reference server. Default: the same."
    ),
    reference_key: Optional[str] = typer.Option(  # noqa: UP045
        None, "--reference-key", metavar="KEY", help="API key of a reference server; the other one is not sent there."
    ),
    dialect: Optional[str] = typer.Option(  # noqa: UP045
        None, "--dialect", metavar="NAME", help="How the server is spoken to, as the key `dialect`; of an address only."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON, for machines."),
) -> None:
    """Send the same texts through a server and a reference, and say how far the answers lie apart.

    Exit status: 0 when they agree within the thresholds of --dtype, 1 when they do not, 2 for a configuration or
    usage that cannot be compared.
    """
    from evalscope_vacc.checks.parity import run_parity
    from evalscope_vacc.config import configure

    entry = _entry(config, model, key, dialect)
    result = run_parity(
        configure(entry, where=f"model {entry.get('model_name', '?')!r}"),
        reference,
        dtype=dtype,
        save=save,
        plots=plots,
        task=task,
        reference_model=reference_model,
        reference_key=reference_key,
    )
    if as_json:
        typer.echo(json.dumps(result.to_json(), ensure_ascii=False, indent=1))
    else:
        from rich.console import Console

        _show(result, Console(highlight=False))
    raise typer.Exit(result.exit_status)


def _entry(config: str, model: str | None, key: str | None, dialect: str | None) -> dict[str, Any]:
    from evalscope_vacc.checks.run import find_entry
    from evalscope_vacc.cli.check import model_entries
    from evalscope_vacc.wire.address import is_address

    if is_address(config):
        return find_entry(config if "://" in config else f"http://{config}", model=model, api_key=key, dialect=dialect)
    if dialect is not None:
        raise ConfigError("--dialect goes with an address; in a file, write the key `dialect`")
    entries = model_entries(Path(config), model=model, key=key)
    if len(entries) > 1:
        names = ", ".join(str(entry.get("model_name")) for entry in entries)
        raise ConfigError(f"{config} has several models ({names}): say which with --model")
    return entries[0]


def _show(result: ParityResult, console: Console) -> None:
    from rich.table import Table

    from evalscope_vacc.checks.compare import PairParity, VectorParity

    console.print(f"served     {result.served}", markup=False, soft_wrap=True)
    if result.reference:
        console.print(f"reference  {result.reference}", markup=False, soft_wrap=True)
    found = result.found
    if isinstance(found, VectorParity):
        table = Table("Texts", "Number", "Mean cosine", "Least cosine")
        for column in table.columns[1:]:
            column.justify = "right"
        for bucket in found.buckets:
            table.add_row(bucket.name, str(bucket.texts), _cosine(bucket.mean), _cosine(bucket.least))
        if found.buckets:
            table.add_section()
            table.add_row("all", str(len(found.cosines)), _cosine(found.cosines.mean()), _cosine(found.cosines.min()))
            console.print(table)
            console.print(f"nearest neighbours kept (overlap@10)  {found.overlap:.4f}")
            console.print(f"largest difference of a number        {found.absolute:.2e}")
    elif isinstance(found, PairParity):
        differences = abs(found.differences)
        console.print(f"pairs {len(differences)}, queries {len(found.taus)}")
        console.print(f"difference of a score: mean {differences.mean():.2e}, largest {differences.max():.2e}")
        if len(found.taus):
            console.print(f"Kendall's tau by query: mean {found.taus.mean():.4f}, least {found.taus.min():.4f}")
    for path in result.files:
        console.print(f"written: {path}", markup=False, soft_wrap=True)
    if found is None:
        return
    if found.passed:
        console.print(
            f"the same, within the thresholds of {result.dtype}; {result.seconds:.1f} s", style="green", markup=False
        )
        return
    console.print(f"not the same, by the thresholds of {result.dtype}:", style="bold red", markup=False)
    for problem in found.problems:
        console.print(f"  {problem!s}", markup=False, soft_wrap=True)
    for sign in found.looks_like:
        console.print(f"looks like: {sign!s}", style="yellow", markup=False, soft_wrap=True)


def _cosine(value: float) -> str:
    gap = 1 - float(value)
    return f"1 - {max(gap, 0.0):.1e}" if gap < 1e-3 else f"{value:.5f}"
