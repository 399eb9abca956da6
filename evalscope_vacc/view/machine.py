"""A verdict for machines: JSON, CSV and JUnit XML."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from evalscope_vacc.messages import Reason
from evalscope_vacc.results.model import ComparedRow, TaskState, Verdict
from evalscope_vacc.view.words import Words, allowed, percent, points, where

FORMAT = "evalscope-vacc/compare"
_NOT_XML = re.compile("[^\t\n -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
VERSION = 1
_CSV_COLUMNS = (
    "verdict", "task", "split", "subset", "metric", "ours", "reference", "difference", "tolerance", "share", "mark",
    "interval_low", "interval_high", "p_value", "queries", "type", "run", "against", "reason", "notes",
)  # fmt: skip


def summary(verdict: Verdict, words: Words) -> dict[str, Any]:
    """Returns the answer on the whole; ``asked`` is None where the run did not record it."""
    return {
        "verdict": verdict.outcome,
        "exit_status": verdict.exit_status,
        "asked": verdict.asked,
        **{state.replace(" ", "_"): number for state, number in verdict.counts.items()},
        "tasks": plain(verdict.tasks, words),
        "warnings": [words.say(reason) for reason in verdict.warnings],
    }


def to_mapping(verdict: Verdict, words: Words) -> dict[str, Any]:
    """Returns everything as plain values; a number that is not finite is None."""
    found = []
    for comparison in verdict.comparisons:
        shown = {"verdict": verdict.outcome_of(comparison), **plain(comparison, words), "counts": comparison.counts}
        for row, plain_row in zip(comparison.rows, shown["rows"], strict=True):
            plain_row["reason"] = "; ".join(map(words.say, row.reasons))
            plain_row["reasons"] = [{"code": r.code, "args": dict(r.args)} for r in (*row.reasons, *row.notes)]
        found.append(shown)
    return {"format": FORMAT, "version": VERSION, **summary(verdict, words), "comparisons": found}


def to_json(value: Any) -> str:
    """Writes plain values."""
    return json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def plain(value: Any, words: Words) -> Any:
    """Returns frozen values as plain ones; reasons become sentences."""
    if isinstance(value, Reason):
        return words.say(value)
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name), words) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(item, words) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, words) for item in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_csv(verdict: Verdict, words: Words) -> str:
    """Returns one line for each row; scores are fractions at full precision."""
    out = io.StringIO()
    writer = csv.DictWriter(out, _CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for comparison in to_mapping(verdict, words)["comparisons"]:
        for row in comparison["rows"]:
            ends = row["interval"] or {}
            interval = {"interval_low": ends.get("low"), "interval_high": ends.get("high"), **ends}
            values = {**row, **interval, "against": comparison["reference"], "notes": "; ".join(row["notes"])}
            writer.writerow({name: _inert(value) for name, value in values.items()})
    return out.getvalue()


def _inert(value: Any) -> Any:
    """Keeps a spreadsheet from reading a name as a formula."""
    if isinstance(value, str):
        flat = value.replace("\n", " ").replace("\r", " ")
        return f"'{flat}" if flat[:1] in {"=", "+", "-", "@", "\t"} else flat
    return "" if value is None else value


def to_junit(verdict: Verdict, words: Words) -> str:
    """Returns JUnit XML: one test case for each task.

    A score that does not match is a failure, a task that failed an error, and so is one that was not run, unless a part may
    pass; a task without a reference is skipped.
    """
    rows: dict[tuple[str, str], list[ComparedRow]] = defaultdict(list)
    for comparison in verdict.comparisons:
        for row in comparison.rows:
            rows[row.model, row.task].append(row)
    suite = ET.Element("testsuite", name="evalscope-vacc compare")
    properties = ET.SubElement(suite, "properties")
    for name, value in summary(verdict, words).items():
        if not isinstance(value, list):
            ET.SubElement(properties, "property", name=name, value="unknown" if value is None else str(value))
    for task in verdict.tasks:
        case = ET.SubElement(suite, "testcase", classname=_xml(task.model), name=_xml(task.task))
        found = _outcome(task, rows[task.model, task.task], verdict, words)
        if found:
            name, message, detail = found
            ET.SubElement(case, name, message=_xml(message)).text = _xml(detail)
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(len(suite.findall(f"testcase/{tag}"))))
    suite.set("tests", str(len(verdict.tasks)))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _outcome(task: TaskState, rows: list[ComparedRow], verdict: Verdict, words: Words) -> tuple[str, str, str] | None:
    wrong = [row for row in rows if row.verdict == "fail" or (row.verdict == "above" and not verdict.allow_above)]
    if wrong:
        figures = [
            f"{where(row)}: {words('col_ours')} {percent(row.ours)}, {words('col_reference')} {percent(row.reference)}, "
            f"{words('col_points')} {points(row.difference)}, {words('col_allowed')} {allowed(row.tolerance)}"
            for row in wrong
        ]
        said = dict.fromkeys(words.say(reason) for row in wrong for reason in (*row.reasons, *row.notes))
        return "failure", figures[0], "\n".join([*figures, *said])
    why = words.say(task.detail)
    if task.state == "failed":
        return "error", words("v_failed"), why
    if task.state == "not run":
        return "skipped" if verdict.allow_partial else "error", words("v_not_run"), why
    if task.state == "no reference":
        reasons = sorted({words.say(reason) for row in rows for reason in row.reasons})
        return "skipped", words("v_no_reference"), "\n".join(reasons)
    return None


def _xml(text: str) -> str:
    """Drops what XML cannot hold."""
    return _NOT_XML.sub("", text)
