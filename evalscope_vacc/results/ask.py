"""Reads runs, what they were asked for and their references, and judges them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.messages import ENGLISH
from evalscope_vacc.results import published
from evalscope_vacc.results.asked import asked_of, servers_of
from evalscope_vacc.results.benchmarks import named
from evalscope_vacc.results.judge import PairedTest, judge, reference_from
from evalscope_vacc.results.load import load_results
from evalscope_vacc.results.model import MEAN_OF_SUBSETS, AskedTask, Reference, Results, Row, Verdict
from evalscope_vacc.results.noise import Noise


def verdict_of(
    paths: Sequence[Path],
    against: str | None,
    noise: Noise | None = None,
    *,
    qrels: Path | None = None,
    load_qrels: bool = False,
    benchmarks: Sequence[str] = (),
    allow_partial: bool = False,
    allow_above: bool = False,
) -> Verdict:
    """Returns the verdict on everything that the runs were asked for, one comparison for each run.

    They are compared with ``against``: a path, or a model with published scores. Without it each served model is
    looked up by its own name, and of several runs without published scores, the first is the reference of the others.
    The judgements of the test by query come from ``qrels``, or (``load_qrels``) from MTEB. Of
    ``benchmarks`` everything is asked for, whatever the runs were asked for, and nothing else.

    Raises:
        ResultError: A path cannot be read, or holds no result.
        ConfigError: No scores are published under the name that is given or served.
    """
    results, asked, servers = load_results(paths), asked_of(paths), servers_of(paths)
    if benchmarks:
        results, asked = _narrowed(results, benchmarks)
    results = results.needed()
    try:
        references, unpublished = _references(runs_of(results), against, paths)
    except ConfigError as error:
        # scores that no weights would earn are reported even without a reference
        warnings = judge(results, (), asked, servers=servers).warnings
        raise ConfigError("; ".join([str(error), *(ENGLISH("warning", text=reason) for reason in warnings)])) from error
    return judge(
        results,
        references,
        asked,
        noise=noise,
        paired=lambda part, theirs: _test(part, theirs, qrels, load=load_qrels),
        unpublished=unpublished,
        servers=servers,
        allow_partial=allow_partial,
        allow_above=allow_above,
    )


def _narrowed(results: Results, benchmarks: Sequence[str]) -> tuple[Results, tuple[AskedTask, ...]]:
    """Keeps the rows of some benchmarks, and returns what they ask for."""
    tasks = {task.name: task for name in benchmarks for task in named(name).tasks}
    rows = tuple(
        row
        for row in results.rows
        if (task := tasks.get(row.task))
        and row.split in task.splits
        and (not task.subsets or row.subset in (*task.subsets, MEAN_OF_SUBSETS))
    )
    asked = tuple(AskedTask("", "", task.name, task.splits, task.subsets) for task in tasks.values())
    return replace(results, rows=rows), asked


def runs_of(results: Results) -> list[Results]:
    """Parts the rows by run, each a question of its own.

    One run may lie in several folders, a part in each. Where two folders have a score of the same task, split and subset,
    they are two runs, which their folders tell apart.
    """
    parts: list[Results] = []
    for run in results.runs:
        rows = [row for row in results.rows if row.run == run]
        roots: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            roots[row.root].append(row)
        keys = [{row.key for row in members} for members in roots.values()]
        if sum(map(len, keys)) == len(set().union(*keys)):
            parts.append(replace(results, rows=tuple(rows), problems=()))
            continue
        for root, members in sorted(roots.items()):
            named = replace(run, folder=Path(root).name)
            parts.append(replace(results, rows=tuple(replace(row, run=named) for row in members), problems=()))
    return parts


def _references(
    parts: list[Results], against: str | None, paths: Sequence[Path]
) -> tuple[list[tuple[Results, Reference]], list[str]]:
    """Gives each run its reference, and names the models that have none."""
    if against is not None:
        other = _other_run(against)
        if other is not None:
            return [(part, reference_from(other, like=part.runs)) for part in parts], []
        reference = published.get(against).reference()
        return [(part, reference) for part in parts], []
    names = sorted({part.runs[0].served_name for part in parts})
    known = {name: published.find(name) for name in names if name}
    found = [(part, entry.reference()) for part in parts if (entry := known.get(part.runs[0].served_name))]
    if found:
        return found, [name for name in names if known.get(name) is None]
    if len(parts) > 1 and len({part.runs[0].kind for part in parts}) == 1:
        first = _first(parts, paths)
        reference = reference_from(first)
        return [(part, reference) for part in parts if part is not first], []
    served = ", ".join(name or "(unnamed)" for name in names)
    raise ConfigError(
        f"no scores are published under the name {served}: name the model with --against (`evalscope-vacc published` "
        "lists them), or give another result folder"
    )


def _first(parts: Sequence[Results], paths: Sequence[Path]) -> Results:
    """The run that the user named first."""

    def place(part: Results) -> int:
        source = Path(part.rows[0].source)
        return next((i for i, path in enumerate(paths) if path == source or path in source.parents), len(paths))

    return min(parts, key=place)


def _other_run(against: str) -> Results | None:
    """Reads the folder that is meant, or returns None where a model is."""
    if not Path(against).exists():
        return None
    results = load_results([against])
    # `hf download Qwen/Qwen3-Embedding-0.6B --local-dir Qwen/Qwen3-Embedding-0.6B` leaves such a folder of weights
    return None if not results.rows and published.find(against) is not None else results


def _test(ours: Results, reference: Reference, qrels: Path | None, *, load: bool) -> PairedTest | None:
    if not ours.predictions or not reference.predictions or not (qrels or load):
        return None
    from evalscope_vacc.results.paired import QueryTest, qrels_from_files, qrels_from_mteb

    source = qrels_from_files(qrels) if qrels is not None else qrels_from_mteb
    return QueryTest(ours.predictions, reference.predictions, source)
