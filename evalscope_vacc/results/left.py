"""Gathers what a run left behind beside its scores: counts, server, samples, configuration, versions.

Every file may be anybody's: sizes are bounded, a wrong shape becomes a line among the problems, nothing is believed to
be free of secrets.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from evalscope_vacc.errors import ResultError
from evalscope_vacc.evidence import TaskUsage
from evalscope_vacc.files import read_bounded
from evalscope_vacc.messages import Reason
from evalscope_vacc.results.ask import insane
from evalscope_vacc.results.asked import asked_of, servers_of, task_config
from evalscope_vacc.results.files import finite, read_json, shown
from evalscope_vacc.results.judge import judge
from evalscope_vacc.results.load import load_results
from evalscope_vacc.results.model import Comparison, Results, Row, Verdict
from evalscope_vacc.results.secrets import Cleaner

MAX_BYTES = 64 << 20
MAX_CONFIG_BYTES = 4 << 20
LEVELS = 8
SAMPLE_CHARACTERS = 1500
MAX_SECONDS = 1e9
_USAGE = TypeAdapter(TaskUsage)


@dataclass(frozen=True)
class Sample:
    """One exact string, or pair of strings, that went to a server.

    Attributes:
        texts: One string, or text_1 and text_2.
        lengths: Characters of each before it was shortened for the page.
        instruction: What stands before the text, where it is known to; else "".
    """

    model: str
    task: str
    where: str
    side: str
    texts: tuple[str, ...]
    lengths: tuple[int, ...]
    tokens: int | None
    instruction: str = ""


@dataclass(frozen=True)
class InstructionUse:
    """An instruction, and the tasks and sides before whose texts it stood."""

    model: str
    text: str
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class RunData:
    """Everything that the page shows, clean of secrets.

    Attributes:
        published: Whether the reference is published scores; otherwise it is another run.
        no_reference: Why there is no comparison, or None.
        verdict: The answer on the whole.
        servers: Model to what its servers said.
        configs: Model to every value in force.
        repeat: EvalScope's RAGEval file that would run this again, or None.
        versions: Package to version.
    """

    title: tuple[str, ...]
    rows: tuple[Row, ...]
    verdict: Verdict = field(default_factory=lambda: Verdict(()))
    published: bool = True
    no_reference: Reason | None = None
    speed: tuple[TaskUsage, ...] = ()
    samples: tuple[Sample, ...] = ()
    instructions: tuple[InstructionUse, ...] = ()
    servers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    repeat: Mapping[str, Any] | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    finished: float | None = None
    problems: tuple[Reason, ...] = ()
    folder: str = ""
    cleaner: Cleaner = field(default_factory=Cleaner, repr=False)

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Each run against its reference."""
        return self.verdict.comparisons


def gather(
    run: Path,
    answer: Verdict | None = None,
    *,
    published: bool = True,
    no_reference: Reason | None = None,
    evidence: Path | None = None,
) -> RunData:
    """Reads a run.

    Args:
        run: A folder of results, at any level, or one task's file.
        answer: The verdict on it.
        published: Whether those are against published scores.
        no_reference: Why there is none.
        evidence: The folder with ``config.json`` and its siblings; default the nearest ``vacc`` folder.

    Raises:
        ResultError: The path does not exist or holds no result.
    """
    results = load_results([run])
    if not results.rows:
        said = "; ".join(str(dict(problem.args)["text"]) for problem in results.problems[:3])
        hint = f": {said}" if said else ""
        msg = f"no result was found under {shown(run)}{hint}; give the folder that `results` lies in"
        raise ResultError(msg)
    reader = _Reader(evidence or evidence_folder(run))
    config, server = reader.models("config.json"), reader.models("server.json")
    given = _task_config(reader.folder.parent if reader.folder else run)
    cleaner = Cleaner([config, server, given])
    usage = reader.usage(cleaner)
    prefixes = {(u.model, u.task, u.side): u.instruction for u in usage}
    names = sorted({row.run.served_name or "(unnamed)" for row in results.rows}, key=str.casefold)
    return RunData(
        title=tuple(cleaner.text(name, 200) for name in names),
        rows=results.rows,
        verdict=answer or judge(results, (), asked_of([run]), insane=insane(servers_of([run]))),
        published=published,
        no_reference=no_reference,
        speed=_by_side(usage),
        samples=tuple(reader.samples(cleaner, prefixes)),
        instructions=_instructions(usage),
        servers={cleaner.text(name, 200): cleaner.value(facts) for name, facts in server.items()},
        configs={cleaner.text(name, 200): cleaner.value(values) for name, values in config.items()},
        repeat=_repeat(given, cleaner),
        versions=_versions(results, given, cleaner),
        finished=_finished(results.rows),
        problems=(*results.problems, *reader.problems),
        folder=cleaner.text(run.name or "run", 200),
        cleaner=cleaner,
    )


def evidence_folder(run: Path) -> Path | None:
    """Returns the ``vacc`` folder that lies nearest at or above ``run``, or None."""
    here = run.absolute()
    for level in (here, *here.parents)[:LEVELS]:
        for folder in (level, level / "vacc"):
            if folder.name == "vacc" and (folder / "config.json").is_file():
                return folder
    return None


class _Reader:
    """Reads the evidence; what is not as it should be becomes a problem."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.problems: list[Reason] = []
        if folder is None:
            self.problems.append(Reason.of("no_evidence"))

    def models(self, name: str) -> dict[str, dict[str, Any]]:
        entries = self._json(name).get("models")
        found: dict[str, dict[str, Any]] = {}
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and isinstance(entry.get("name"), str):
                found[entry["name"]] = {key: value for key, value in entry.items() if key != "name"}
        return found

    def usage(self, cleaner: Cleaner) -> list[TaskUsage]:
        entries = self._json("usage.json").get("tasks")
        found: list[TaskUsage] = []
        bad = 0
        for entry in entries if isinstance(entries, list) else ():
            try:
                counts = _USAGE.validate_python(entry)
            except ValidationError:
                bad += 1
                continue
            if not 0 <= counts.seconds < MAX_SECONDS or not 0 <= (counts.busy or 0) <= 1:
                bad += 1
                continue
            names: dict[str, Any] = {
                name: cleaner.text(getattr(counts, name), 200) for name in ("model", "task", "side")
            }
            found.append(replace(counts, **names, instruction=cleaner.text(counts.instruction)))
        if bad:
            self.problems.append(Reason.of("no_counts_in", count=bad))
        return found

    def samples(self, cleaner: Cleaner, prefixes: Mapping[tuple[str, str, str], str]) -> Iterable[Sample]:
        path = self.folder / "sent_samples.jsonl" if self.folder else None
        if path is None or not path.is_file():
            return
        bad = 0
        with path.open("rb") as file:
            for line in file.read(MAX_BYTES).splitlines():
                try:
                    entry = json.loads(line)
                except (ValueError, RecursionError):
                    bad += 1
                    continue
                sample = _sample(entry, cleaner, prefixes)
                if sample is None:
                    bad += 1
                else:
                    yield sample
        if bad:
            self.problems.append(Reason.of("no_samples_in", count=bad, file=path.name))

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder / name if self.folder else None
        if path is None or not path.is_file():
            return {}
        try:
            data = read_json(path, MAX_BYTES)
        except ResultError as error:
            self.problems.append(Reason.of("unreadable", text=str(error)))
            return {}
        return data if isinstance(data, dict) else {}


def _sample(entry: Any, cleaner: Cleaner, prefixes: Mapping[tuple[str, str, str], str]) -> Sample | None:
    if not isinstance(entry, dict):
        return None
    names = [entry.get(name) for name in ("model", "task", "split", "subset", "side")]
    if not all(isinstance(name, str) for name in names):
        return None
    texts = [entry["text"]] if "text" in entry else [entry.get("text_1"), entry.get("text_2")]
    if not all(isinstance(text, str) for text in texts):
        return None
    model, task, split, subset, side = (cleaner.text(name, 200) for name in names)
    prefix = prefixes.get((model, task, side), "")
    shown_texts = tuple(cleaner.text(text, SAMPLE_CHARACTERS) for text in texts)
    prefix = prefix[:SAMPLE_CHARACTERS]
    return Sample(
        model=model,
        task=task,
        where=f"{split} · {subset}" if subset != "default" else split,
        side=side,
        texts=shown_texts,
        lengths=tuple(len(str(text)) for text in texts),
        tokens=_count(entry.get("tokens")),
        instruction=prefix if prefix and shown_texts[0].startswith(prefix) else "",
    )


def _by_side(usage: Iterable[TaskUsage]) -> tuple[TaskUsage, ...]:
    """Adds the splits and subsets of each task and side up."""
    sums: dict[tuple[str, str, str], TaskUsage] = {}
    for counts in usage:
        key = (counts.model, counts.task, counts.side)
        sums[key] = sums[key].plus(counts) if key in sums else counts
    return tuple(sums.values())


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 60 else None


def _instructions(usage: Iterable[TaskUsage]) -> tuple[InstructionUse, ...]:
    tasks: dict[tuple[str, str], set[str]] = defaultdict(set)
    for counts in usage:
        name = f"{counts.task} · {counts.side}" if counts.side else counts.task
        tasks[counts.model, counts.instruction].add(name)
    # what was put before texts first, the tasks without anything last
    ordered = sorted(tasks.items(), key=lambda item: not item[0][1])
    return tuple(InstructionUse(model, text, tuple(sorted(names))) for (model, text), names in ordered)


def _task_config(run: Path) -> dict[str, Any]:
    folder = run if run.is_dir() else run.parent
    levels = (folder, *folder.absolute().parents)[:LEVELS]
    return next((content for level in levels if (content := task_config(level))), {})


def _repeat(task_config: Mapping[str, Any], cleaner: Cleaner) -> Mapping[str, Any] | None:
    """Makes the RAGEval file that would run this again: no key, nothing that was left unset, no output folder."""
    given = task_config.get("eval_config")
    if not isinstance(given, dict) or "eval" not in given:
        return None
    plain = _without_none(cleaner.value(given))
    for key in ("models", "model"):
        for model in plain.get(key) or () if isinstance(plain.get(key), list) else ():
            if isinstance(model, dict):
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
    from evalscope_vacc._version import __version__

    found: dict[str, str] = {}
    evalscope = task_config.get("evalscope_version")
    if isinstance(evalscope, str):
        found["evalscope"] = cleaner.text(evalscope, 60)
    scored = sorted({row.mteb_version for row in results.rows if row.mteb_version})
    if scored:
        found["mteb"] = ", ".join(cleaner.text(version, 60) for version in scored[:4])
    found["evalscope-vacc"] = __version__
    for folder in dict.fromkeys(Path(row.source).parent for row in results.rows if row.source):
        for name, version in _noted_versions(folder).items():
            found.setdefault(cleaner.text(name, 60), cleaner.text(version, 60))
    return found


def _noted_versions(folder: Path) -> dict[str, str]:
    """Reads the versions of other packages that mteb notes beside its results."""
    path = folder / "run_settings.jsonl"
    try:
        with path.open("rb") as file:
            first = json.loads(file.readline(1 << 20))
        versions = first.get("version") if isinstance(first, dict) else None
    except (OSError, ValueError, RecursionError):
        return {}
    items = versions.items() if isinstance(versions, dict) else ()
    return {str(name): version for name, version in items if isinstance(version, str) and name != "mteb"}


def _finished(rows: Iterable[Row]) -> float | None:
    """Returns when the last task was finished, in seconds of the epoch."""
    dates: list[float] = []
    for source in {row.source for row in rows if row.source}:
        path = Path(source)
        try:
            dates.append(path.stat().st_mtime)
            noted = finite(json.loads(read_bounded(path, MAX_CONFIG_BYTES)).get("date"))
            if noted:
                dates[-1] = noted
        except (OSError, ValueError, RecursionError, AttributeError):
            continue
    return max(dates, default=None)
