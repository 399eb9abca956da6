"""``evalscope-vacc published``: the scores that others published, and where they come from."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import typer

from evalscope_vacc.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from evalscope_vacc.results.published import Published
    from evalscope_vacc.results.rows import Row


def published(
    model: Optional[str] = typer.Argument(  # noqa: UP045 - an older typer on Python 3.10 knows no `X | None`
        None,
        metavar="[MODEL]",
        help="`org/name` or the name alone, in any case. Without it: the models that are known.",
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON, for machines."),
    update: Optional[Path] = typer.Option(  # noqa: UP045
        None,
        "--update",
        metavar="CHECKOUT",
        help="Collect the model's scores from a checkout of embeddings-benchmark/results, at the commit checked out.",
    ),
    revision: Optional[str] = typer.Option(  # noqa: UP045
        None, "--revision", help="With --update: the model's revision; default the one with most tasks."
    ),
    folder: Optional[Path] = typer.Option(  # noqa: UP045
        None,
        "--to",
        metavar="FOLDER",
        help="With --update: where to keep them; default $VACC_HOME/published or the user's data folder.",
    ),
) -> None:
    """List published scores: task, split, subset, metric, mteb version, dataset revision, source."""
    from rich.console import Console

    from evalscope_vacc.results import published as stored

    console = Console(highlight=False)
    if update is not None:
        if model is None or "/" not in model:
            msg = "--update needs the model as `org/name`, as its folder in the checkout is called"
            raise ConfigError(msg)
        _update(model, update, revision, folder, as_json=as_json)
        return
    if revision is not None or folder is not None:
        msg = "--revision and --to go with --update"
        raise ConfigError(msg)
    if model is not None:
        entry = stored.get(model)
        if as_json:
            typer.echo(json.dumps(document(entry), ensure_ascii=False, indent=1))
        else:
            _show(entry, console)
        return
    entries = [stored.get(name) for name in stored.model_names()]
    if as_json:
        typer.echo(json.dumps([_summary(e) for e in entries], ensure_ascii=False, indent=1))
        return
    from rich.table import Table

    table = Table("Model", "Kind", "Scores", "Tasks", "Means", "mteb", box=None, header_style="bold", pad_edge=False)
    table.columns[0].no_wrap = True
    for entry in entries:
        s = _summary(entry)
        numbers = (str(s[key]) for key in ("scores", "tasks", "means"))
        table.add_row(s["model"], s["kind"], *numbers, _versions(s["mteb_versions"]))
    console.print(table)
    console.print("`evalscope-vacc published MODEL` lists a model's scores, with the source of each.", markup=False)


def document(entry: Published) -> dict[str, Any]:
    """Returns one model's published scores as plain values; scores are fractions."""
    reference = entry.reference()
    return {
        **_summary(entry),
        "revision": reference.revision,
        "conditions": reference.conditions.to_json(),
        "rows": [
            {
                "task": r.task, "type": r.type, "split": r.split, "subset": r.subset, "metric": r.metric,
                "score": r.score, "mteb_version": r.mteb_version, "dataset_revision": r.dataset_revision,
                "conditions": r.conditions.to_json(), "source": r.source,
                **({"suspect": r.suspect} if r.suspect else {}),
            }
            for r in reference.rows
        ],
        "means": [
            {
                "benchmark": a.benchmark, "measure": a.measure, "value": a.value, "protocol": a.protocol,
                "source": a.source, "compared": a.judged_by,
            }
            for a in reference.aggregates
        ],
        "listed": list(entry.data.get("listed", ())),
    }  # fmt: skip


def _summary(entry: Published) -> dict[str, Any]:
    reference = entry.reference()
    versions = sorted({r.mteb_version for r in reference.rows if r.mteb_version})
    return {
        "model": entry.name,
        "kind": reference.kind,
        "scores": len(reference.rows),
        "tasks": len({r.task for r in reference.rows}),
        "means": len(reference.aggregates),
        "mteb_versions": versions,
        "source": entry.source,
    }


def _show(entry: Published, console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    reference = entry.reference()
    console.print(
        f"{entry.name} · {reference.kind}" + (f" · {reference.revision}" if reference.revision else ""),
        style="bold",
        markup=False,
    )
    console.print(f"source: {entry.source}", markup=False, soft_wrap=True)
    conditions = ", ".join(f"{k} {v}" for k, v in reference.conditions.to_json().items())
    console.print(f"run with: {conditions or 'not recorded'}", markup=False, soft_wrap=True)
    notes: list[str] = []
    if reference.rows:
        heads = ("Task", "Split", "Subset", "Metric", "Score", "mteb", "Dataset")
        table = Table(*heads, box=None, header_style="bold", pad_edge=False)
        table.columns[4].justify = "right"
        for cells in _lines(entry, notes):
            table.add_row(*map(escape, cells))
        console.print(table)
    if reference.aggregates:
        table = Table("Benchmark", "Mean", "Value", "Source", box=None, header_style="bold", pad_edge=False)
        table.columns[2].justify = "right"
        for mean in reference.aggregates:
            remark = _short(mean.source) + ("" if mean.judged_by else " (listed, not compared)")
            table.add_row(*map(escape, (mean.benchmark, mean.measure, f"{100 * mean.value:.2f}", remark)))
        console.print(table)
    for number, note in enumerate(notes, 1):
        console.print(f"  [{number}] {note}", markup=False, soft_wrap=True)
    for fact in entry.data.get("listed", ()):
        values = ", ".join(f"{k} {v}" for k, v in fact["values"].items())
        console.print(f"listed: {fact['what']}: {values} ({_short(fact['source'])})", markup=False, soft_wrap=True)


def _lines(entry: Published, notes: list[str]) -> Iterator[tuple[str, ...]]:
    """Yields a line a task and split; the subsets of a task with many are joined to their mean."""
    reference = entry.reference()
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in reference.rows:
        remark = row.suspect
        if row.conditions != reference.conditions or row.source != entry.source:
            conditions = ", ".join(f"{k} {v}" for k, v in row.conditions.to_json().items())
            remark = "; ".join(part for part in (remark, conditions, row.source) if part)
        groups[
            (row.task, row.split, row.metric, row.mteb_version or "", (row.dataset_revision or "")[:8], remark)
        ].append(row)
    for (task, split, metric, version, revision, remark), rows in sorted(groups.items()):
        if remark and remark not in notes:
            notes.append(remark)
        values = [row.score for row in rows if row.score is not None]
        score = f"{100 * math.fsum(values) / len(values):.2f}" if values else ""
        subset = rows[0].subset if len(rows) == 1 else f"mean of {len(rows):,}"
        yield (
            task + (f" [{notes.index(remark) + 1}]" if remark else ""),
            split,
            subset,
            metric,
            score,
            version,
            revision,
        )


def _versions(names: list[str]) -> str:
    ordered = sorted(names, key=lambda name: [int(part) if part.isdigit() else 0 for part in name.split(".")])
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}" if ordered else ""


def _update(model: str, checkout: Path, revision: str | None, folder: Path | None, *, as_json: bool) -> None:
    from evalscope_vacc.results.data import SUFFIX, own_folder, write_compressed
    from evalscope_vacc.results.published_collect import collect

    data, problems = collect(checkout, model, revision=revision)
    if not data["tasks"]:
        msg = f"{model} has no readable result in this checkout" + (f": {problems[0]}" if problems else "")
        raise ConfigError(msg)
    target = (folder or own_folder()) / f"{model.replace('/', '__', 1)}{SUFFIX}"
    write_compressed(target, data)
    scores = sum(len(subsets) for task in data["tasks"].values() for subsets in task[4].values())
    if as_json:
        summary = {
            "model": model,
            "tasks": len(data["tasks"]),
            "scores": scores,
            "source": data["source"],
            "file": str(target),
            "problems": problems,
        }
        typer.echo(json.dumps(summary, ensure_ascii=False, indent=1))
        return
    typer.echo(f"{model}: {scores} scores of {len(data['tasks'])} tasks from {data['source']} are in {target}")
    for problem in problems:
        typer.echo(f"not read: {problem}", err=True)


def _short(source: str) -> str:
    """Cuts a source down to repository and commit."""
    head = source.split(" ", 1)[0]
    name, _, commit = head.partition("@")
    return f"{name}@{commit[:9]}" if commit else head
