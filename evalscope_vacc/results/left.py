"""Gathers what a run recorded beside its scores: counts, server, samples, configuration, versions.

Every file may come from anybody: sizes are bounded, a wrong shape is listed as a problem, and no file is assumed to be
free of secrets.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from evalscope_vacc._version import __version__
from evalscope_vacc.evidence import TaskUsage
from evalscope_vacc.messages import Reason
from evalscope_vacc.results.asked import asked_of, servers_of, task_config
from evalscope_vacc.results.files import MAX_EVIDENCE_BYTES, finite, levels, listed, mapping
from evalscope_vacc.results.judge import judge
from evalscope_vacc.results.load import load_results
from evalscope_vacc.results.model import Results, Row, Verdict
from evalscope_vacc.results.secrets import Cleaner

SAMPLE_CHARACTERS = 1500
MAX_SECONDS = 1e9
_USAGE = TypeAdapter(TaskUsage)


class Sample(NamedTuple):
    """One exact string, or pair of strings, that went to a server."""

    model: str
    task: str
    where: str
    side: str
    texts: tuple[str, ...]  # one string, or text_1 and text_2
    lengths: tuple[int, ...]  # characters of each before it was shortened for the page
    tokens: int | None
    instruction: str = ""  # what stands before the text, where it is known to; else ""


class InstructionUse(NamedTuple):
    """An instruction, and the tasks and sides before whose texts it stood."""

    model: str
    text: str
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class RunData:
    """Everything that the page shows, clean of secrets."""

    title: tuple[str, ...]
    rows: tuple[Row, ...]
    verdict: Verdict = field(default_factory=lambda: Verdict(()))
    published: bool = True  # whether the reference is published scores; otherwise it is another run
    no_reference: Reason | None = None  # why there is no comparison, or None
    speed: tuple[TaskUsage, ...] = ()
    samples: tuple[Sample, ...] = ()
    instructions: tuple[InstructionUse, ...] = ()
    servers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # model to what its servers said
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # model to every value in force
    repeat: Mapping[str, Any] | None = None  # EvalScope's RAGEval file that would run this again, or None
    versions: Mapping[str, str] = field(default_factory=dict)  # package to version
    finished: float | None = None
    problems: tuple[Reason, ...] = ()
    folder: str = ""
    cleaner: Cleaner = field(default_factory=Cleaner, repr=False)


def gather(
    run: Path,
    answer: Verdict | None = None,
    *,
    published: bool = True,
    no_reference: Reason | None = None,
    evidence: Path | None = None,
) -> RunData:
    """Reads a run: a folder of results, at any level, or one task's file.

    ``answer`` is the verdict on it, against ``published`` scores or another run, and ``no_reference`` says why there is
    none. The ``evidence`` is the nearest ``vacc`` folder when not given.

    Raises:
        ResultError: The path does not exist or holds no result.
    """
    results = load_results([run]).needed()
    folder = evidence or evidence_folder(run)
    unread: set[str] = set()
    config, server = (_models(folder, name, unread) for name in ("config.json", "server.json"))
    given = next((content for level in levels(folder or run) if (content := task_config(level))), {})
    cleaner = Cleaner([config, server, given])
    usage, bad_counts = _usage(folder, cleaner, unread)
    prefixes = {(u.model, u.task, u.side): u.instruction for u in usage}
    samples, bad_samples = _samples(folder, cleaner, prefixes)
    problems = [*results.problems, *(Reason.of("unreadable", text=text) for text in sorted(unread))]
    problems += [] if folder else [Reason("no_evidence")]
    problems += [Reason.of("no_counts_in", count=bad_counts)] if bad_counts else []
    problems += [Reason.of("no_samples_in", count=bad_samples, file="sent_samples.jsonl")] if bad_samples else []
    names = sorted({row.run.served_name or "(unnamed)" for row in results.rows}, key=str.casefold)
    return RunData(
        title=tuple(cleaner.text(name, 200) for name in names),
        rows=results.rows,
        verdict=answer or judge(results, (), asked_of([run]), servers=servers_of([run])),
        published=published,
        no_reference=no_reference,
        speed=_by_side(usage),
        samples=tuple(samples),
        instructions=_instructions(usage),
        servers={cleaner.text(name, 200): cleaner.value(facts) for name, facts in server.items()},
        configs={cleaner.text(name, 200): cleaner.value(values) for name, values in config.items()},
        repeat=_repeat(given, cleaner),
        versions=_versions(results, given, cleaner),
        finished=_finished(results.rows),
        problems=tuple(problems),
        folder=cleaner.text(run.name or "run", 200),
        cleaner=cleaner,
    )


def evidence_folder(run: Path) -> Path | None:
    """Returns the ``vacc`` folder that lies nearest at or above ``run``, or None."""
    folders = (folder for level in levels(run) for folder in (level, level / "vacc") if folder.name == "vacc")
    return next((folder for folder in folders if (folder / "config.json").is_file()), None)


def _models(folder: Path | None, name: str, unread: set[str]) -> dict[str, dict[str, Any]]:
    entries = listed(folder / name, "models", unread) if folder else []
    named = [entry for entry in entries if isinstance(entry.get("name"), str)]
    return {entry["name"]: {key: value for key, value in entry.items() if key != "name"} for entry in named}


def _usage(folder: Path | None, cleaner: Cleaner, unread: set[str]) -> tuple[list[TaskUsage], int]:
    """Returns the counts of each task, split, subset and side, and how many entries are none."""
    entries = listed(folder / "usage.json", "tasks", unread) if folder else []
    found: list[TaskUsage] = []
    for entry in entries:
        try:
            counts = _USAGE.validate_python(entry)
        except ValidationError:
            continue
        if 0 <= counts.seconds < MAX_SECONDS and 0 <= (counts.busy or 0) <= 1:
            names: dict[str, Any] = {
                name: cleaner.text(getattr(counts, name), 200) for name in ("model", "task", "side")
            }
            found.append(replace(counts, **names, instruction=cleaner.text(counts.instruction)))
    return found, len(entries) - len(found)


def _samples(
    folder: Path | None, cleaner: Cleaner, prefixes: Mapping[tuple[str, str, str], str]
) -> tuple[list[Sample], int]:
    """Returns the samples, and how many lines are none."""
    path = folder / "sent_samples.jsonl" if folder else None
    if path is None or not path.is_file():
        return [], 0
    with path.open("rb") as file:
        lines = file.read(MAX_EVIDENCE_BYTES).splitlines()
    found: list[Sample] = []
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        sample = _sample(entry, cleaner, prefixes)
        if sample is not None:
            found.append(sample)
    return found, len(lines) - len(found)


def _sample(entry: Any, cleaner: Cleaner, prefixes: Mapping[tuple[str, str, str], str]) -> Sample | None:
    if not isinstance(entry, dict):
        return None
    names = [entry.get(name) for name in ("model", "task", "split", "subset", "side")]
    texts = [entry["text"]] if "text" in entry else [entry.get("text_1"), entry.get("text_2")]
    if not all(isinstance(text, str) for text in (*names, *texts)):
        return None
    model, task, split, subset, side = (cleaner.text(name, 200) for name in names)
    shown = tuple(cleaner.text(text, SAMPLE_CHARACTERS) for text in texts)
    prefix = prefixes.get((model, task, side), "")[:SAMPLE_CHARACTERS]
    tokens = entry.get("tokens")
    return Sample(
        model=model,
        task=task,
        where=f"{split} · {subset}" if subset != "default" else split,
        side=side,
        texts=shown,
        lengths=tuple(len(str(text)) for text in texts),
        tokens=tokens if type(tokens) is int and 0 <= tokens < 1 << 60 else None,
        instruction=prefix if prefix and shown[0].startswith(prefix) else "",
    )


def _by_side(usage: Iterable[TaskUsage]) -> tuple[TaskUsage, ...]:
    """Adds the splits and subsets of each task and side up."""
    sums: dict[tuple[str, str, str], TaskUsage] = {}
    for counts in usage:
        key = (counts.model, counts.task, counts.side)
        sums[key] = sums[key].plus(counts) if key in sums else counts
    return tuple(sums.values())


def _instructions(usage: Iterable[TaskUsage]) -> tuple[InstructionUse, ...]:
    tasks: dict[tuple[str, str], set[str]] = defaultdict(set)
    for counts in usage:
        name = f"{counts.task} · {counts.side}" if counts.side else counts.task
        tasks[counts.model, counts.instruction].add(name)
    # what was put before texts first, the tasks without anything last
    ordered = sorted(tasks.items(), key=lambda item: not item[0][1])
    return tuple(InstructionUse(model, text, tuple(sorted(names))) for (model, text), names in ordered)


def _repeat(task_config: Mapping[str, Any], cleaner: Cleaner) -> Mapping[str, Any] | None:
    """Makes the RAGEval file that would run this again: no key, nothing that was left unset, no output folder."""
    given = task_config.get("eval_config")
    if not isinstance(given, dict) or "eval" not in given:
        return None
    plain = _without_none(cleaner.value(given))
    models = [plain.get(key) for key in ("models", "model")]
    for model in [one for listed_ in models if isinstance(listed_, list) for one in listed_ if isinstance(one, dict)]:
        if "api_key" in model:
            model["api_key"] = "${VACC_API_KEY}"
        if model.get("model_name_or_path") == model.get("model_name"):
            model.pop("model_name_or_path", None)
    if isinstance(plain.get("eval"), dict):
        plain["eval"].pop("output_folder", None)
    order = [key for key in ("tool", "models", "model", "eval") if key in plain]
    return {key: plain[key] for key in (*order, *(k for k in plain if k not in order))}


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value


def _versions(results: Results, task_config: Mapping[str, Any], cleaner: Cleaner) -> dict[str, str]:
    """Names the versions of the hosts, of this package, and of what mteb notes beside its results."""
    scored = sorted({row.mteb_version for row in results.rows if row.mteb_version})
    said = {"evalscope": task_config.get("evalscope_version"), "mteb": ", ".join(scored[:4])}
    found = {name: version for name, version in said.items() if isinstance(version, str) and version}
    found["evalscope-vacc"] = __version__
    for folder in dict.fromkeys(Path(row.source).parent for row in results.rows if row.source):
        for name, version in _noted_versions(folder):
            found.setdefault(name, version)
    return {cleaner.text(name, 60): cleaner.text(version, 60) for name, version in found.items()}


def _noted_versions(folder: Path) -> Iterator[tuple[str, str]]:
    try:
        with (folder / "run_settings.jsonl").open("rb") as file:
            versions = json.loads(file.readline(1 << 20))["version"].items()
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return
    yield from ((str(name), version) for name, version in versions if isinstance(version, str) and name != "mteb")


def _finished(rows: Iterable[Row]) -> float | None:
    """Returns when the last task was finished, in seconds of the epoch."""
    dates: list[float] = []
    for path in {Path(row.source) for row in rows if row.source}:
        with suppress(OSError):
            dates.append(finite(mapping(path).get("date")) or path.stat().st_mtime)
    return max(dates, default=None)
