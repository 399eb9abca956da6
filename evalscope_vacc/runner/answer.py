"""The result of a run: its verdict, the findings of the check, and its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalscope_vacc.checks.findings import Report
from evalscope_vacc.names import served_name
from evalscope_vacc.redact import clean
from evalscope_vacc.results.model import Results, Verdict
from evalscope_vacc.view import comparison
from evalscope_vacc.view.checks import check_mapping
from evalscope_vacc.view.document import Block, Column, Line, Table
from evalscope_vacc.view.machine import to_junit, to_mapping
from evalscope_vacc.view.words import Words, percent

PASS, FAIL, INCOMPLETE = 0, 1, 3


@dataclass(frozen=True)
class Answer:
    """The result of a run.

    Attributes:
        verdict: "pass", "fail", "above", "incomplete" or "nothing comparable", as ``compare`` says them; "complete" where
            nothing was to be judged.
        exit_status: 0 pass or complete, 1 a score fails or the check found something wrong, 2 nothing to judge by, 3
            incomplete.
        tasks: How many were asked for.
        checks: What the check of each model found.
        found: The judgement; None where nothing was evaluated.
        results: The scores; None where nothing was evaluated.
        lacking: Task to the reason why its data cannot be loaded.
        left_out: Tasks that do not fit into the budget: they were not asked for.
        files: Name to place of what the run left.
        seconds: Of the whole command.
    """

    verdict: str
    exit_status: int
    tasks: int | None = None
    checks: tuple[Report, ...] = ()
    found: Verdict | None = None
    results: Results | None = None
    lacking: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def counts(self) -> dict[str, int | None]:
        """Tasks asked for, judged, failed, not run, and without a reference."""
        if self.found is None:
            return {"asked": self.tasks, "judged": 0, "failed": 0, "not_run": self.tasks, "no_reference": 0}
        states = {name.replace(" ", "_"): number for name, number in self.found.counts.items()}
        return {"asked": len(self.found.tasks), **states}

    def to_json(self, words: Words) -> dict[str, Any]:
        """Returns plain values."""
        found = to_mapping(self.found, words)["comparisons"] if self.found else []
        rows = [row for one in found for row in one["rows"]]
        if self.results and not found:
            rows = [
                {
                    "model": r.run.model,
                    "task": r.task,
                    "split": r.split,
                    "subset": r.subset,
                    "metric": r.metric,
                    "ours": r.score,
                }
                for r in self.results.rows
            ]
        return {
            "verdict": self.verdict,
            "exit_status": self.exit_status,
            **self.counts,
            "check": check_mapping(self.checks, words)["models"] if self.checks else [],
            "lacking": dict(self.lacking),
            "left_out": list(self.left_out),
            "rows": rows,
            "means": [mean for one in found for mean in one["means"]],
            "files": {name: str(path) for name, path in self.files.items()},
            "seconds": round(self.seconds, 1),
        }

    def junit(self, words: Words) -> str:
        """Returns JUnit XML; a run of which nothing was evaluated is one error."""
        if self.found is not None:
            return to_junit(self.found, words)
        from xml.etree import ElementTree as ET

        suite = ET.Element("testsuite", name="evalscope-vacc run", tests="1", failures="0", errors="1", skipped="0")
        case = ET.SubElement(suite, "testcase", classname="evalscope-vacc", name="run")
        said = [finding.line(words) for report in self.checks for finding in report.having("wrong")]
        said += [f"{task}: {why}" for task, why in self.lacking.items()]
        ET.SubElement(case, "error", message=clean(self.headline(words))).text = clean("\n".join(said), limit=10_000)
        root = ET.Element("testsuites")
        root.append(suite)
        return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"

    def headline(self, words: Words) -> str:
        """Says the answer in one line."""
        said = self._headline(words)
        if not self.left_out:
            return said
        left_out = words("run_without", count=len(self.left_out), all=len(self.left_out) + (self.tasks or 0))
        return words("semicolon").join([said, left_out])

    def _headline(self, words: Words) -> str:
        asked = self.counts["asked"]
        if self.found is None and self.exit_status == FAIL:
            return words("run_check_failed")
        if self.found is None and self.lacking:
            return words("run_data_missing", count=len(self.lacking), asked=asked, tasks=words.some(self.lacking))
        finished = self.found.finished if self.found else 0
        if self.found is None or not self.found.comparisons:
            name = "run_complete" if self.verdict == "complete" else "run_incomplete"
            partial = self.found is not None and self.found.partial
            unfinished = comparison.progress(self.found, words) if self.found and partial else []
            return words("semicolon").join([words(name, finished=finished, asked=asked), *unfinished])
        if len(self.found.comparisons) > 1:
            return comparison.overall(self.found, words)
        return comparison.headline(self.found.comparisons[0], self.found, words)

    def document(self, words: Words) -> list[Block]:
        """Returns what is shown at the end: the verdict with its table and means, where things are, what to do next."""
        if self.found is not None and self.found.comparisons:
            _, *blocks = comparison.document(self.found, words)
            blocks.insert(0, Line(self.headline(words), "head", comparison.STYLES[self.found.outcome]))
        else:
            blocks = [Line(self.headline(words), "head", "good" if not self.exit_status else "bad")]
            blocks += self._scores(words)
            if self.found is not None:
                blocks += [Line(text, "fact", "doubt") for text in comparison.unfinished(self.found, words)]
        places = [(words(f"run_file_{name}"), str(path)) for name, path in self.files.items() if name != "run"]
        if places:
            blocks += [Line(""), Table((Column(""), Column("")), tuple(places))]
        return [*blocks, *(Line(text, style="doubt") for text in self._next(words))]

    def _scores(self, words: Words) -> Sequence[Block]:
        if self.results is None:
            return []
        # two stages have a score of the same task
        first = 0 if len({row.run.model for row in self.results.rows}) > 1 else 1
        heads = ("model", "task", "split", "subset", "metric", "ours")[first:]
        columns = tuple(Column(words(f"col_{head}"), head == "ours") for head in heads)
        cells = [
            (served_name(r.run.model), r.task, r.split, "" if r.subset == "default" else r.subset, r.metric)
            for r in self.results.rows
        ]
        rows = [(*names[first:], percent(r.score)) for names, r in zip(cells, self.results.rows, strict=True)]
        return [Table(columns, tuple(rows))]

    def _next(self, words: Words) -> list[str]:
        if self.found is None and self.exit_status == FAIL:
            return [words("run_next_check")]
        if self.found is None and self.lacking:
            return [words("run_next_data")]
        return [words("run_next_incomplete")] if self.exit_status == INCOMPLETE else []


def judged_status(found: Verdict, *, judging: bool) -> tuple[str, int]:
    """Returns the verdict and exit status of what was judged.

    Args:
        found: The judgement.
        judging: Whether there was something to judge by.
    """
    partial = found.partial and not found.allow_partial
    if not judging:
        return ("incomplete", INCOMPLETE) if partial else ("complete", PASS)
    if found.outcome == "nothing comparable" and partial:
        return "incomplete", INCOMPLETE
    return found.outcome, found.exit_status
