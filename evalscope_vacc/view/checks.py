"""What `check` and `parity` show: what is wrong first, each with what to do, and a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from evalscope_vacc.checks.compare import Parity
from evalscope_vacc.checks.findings import Finding, Report, State
from evalscope_vacc.checks.parity import ParityResult
from evalscope_vacc.view.document import Block, Line, Style, table
from evalscope_vacc.view.machine import plain
from evalscope_vacc.view.words import Words

_STYLES: dict[State, Style] = {"ok": "good", "warning": "doubt", "wrong": "bad"}
_PARTS = ("seen", "meaning", "action")


def check(reports: Sequence[Report], words: Words, *, verbose: bool = False) -> list[Block]:
    """Shows the findings about each model: wrong and warnings first, then how much passed, last the verdict."""
    blocks: list[Block] = []
    for report in reports:
        kind = words(f"kind_{report.kind}") if report.kind else ""
        blocks.append(
            Line(words("checked", model=report.model, servers=", ".join(report.servers)) + kind, gap=bool(blocks))
        )
        for state in ("wrong", "warning"):
            for finding in report.having(state):
                blocks += _finding(finding, words)
        passed = report.having("ok")
        if passed:
            blocks.append(Line(words("all_listed" if verbose else "all_passed", count=len(passed)), gap=True))
        blocks += [Line(finding.line(words), "fact") for finding in passed if verbose]
        said = words(
            "check_failed" if report.exit_status else "check_passed",
            counts=_counts(report, words),
            seconds=report.seconds,
        )
        blocks.append(Line(said, "head", _STYLES[report.state]))
    return blocks


def _finding(finding: Finding, words: Words) -> Iterator[Line]:
    where = words("at_server", server=finding.server) if finding.server else ""
    seen = f"{words(f'state_{finding.state}')}  {finding.check}{where}{words('colon')}{finding.say('seen', words)}"
    yield Line(seen, "head", _STYLES[finding.state], gap=True)
    meaning, action = finding.say("meaning", words), finding.say("action", words)
    if meaning:
        yield Line(meaning, "more")
    if action:
        yield Line(words("to_do", action=action), "more")


def _counts(report: Report, words: Words) -> str:
    wrong, warnings = len(report.having("wrong")), len(report.having("warning"))
    said = [words("n_wrong", count=wrong)] if wrong else []
    if warnings:
        said.append(words("n_warning" if warnings == 1 else "n_warnings", count=warnings))
    return words("comma").join([*said, words("n_ok", count=len(report.having("ok")))])


def check_mapping(reports: Sequence[Report], words: Words) -> dict[str, Any]:
    """Returns the findings as plain values, in words and as code and figures."""
    return {
        "exit_status": max(report.exit_status for report in reports),
        "models": [
            {
                "model": report.model,
                "servers": list(report.servers),
                "kind": report.kind,
                "state": report.state,
                "seconds": round(report.seconds, 3),
                "findings": [_finding_mapping(finding, words) for finding in report.findings],
            }
            for report in reports
        ],
    }


def _finding_mapping(finding: Finding, words: Words) -> dict[str, Any]:
    said = {part: finding.say(part, words) for part in _PARTS}
    title = words(f"{finding.check}.title")
    found = {"check": finding.check, "state": finding.state, **said, "server": finding.server, "title": title}
    return {**found, "code": finding.code, "args": plain(finding.args, words)}


def parity(result: ParityResult, words: Words) -> list[Block]:
    """Shows how far the answers differ: the verdict, what exceeds a threshold and looks like what, then the figures."""
    found = result.found
    blocks: list[Block] = []
    if found is None:
        blocks.append(Line(words("parity_stored", served=result.served), "head", "good"))
    else:
        verdict = words(
            "parity_same" if found.passed else "parity_other", reference=result.reference, dtype=result.dtype
        )
        blocks.append(Line(verdict, "head", "good" if found.passed else "bad"))
        blocks += [Line(words.say(problem), "more") for problem in found.problems]
        blocks += [Line(words("looks_like", sign=words.say(sign)), "text", "doubt") for sign in found.looks_like]
        blocks += _figures(found, words)
        blocks.append(Line(words("served_by", text=result.served), "fact"))
        blocks.append(Line(words("against", text=result.reference), "fact"))
    blocks += [Line(words("written_to", path=path), "fact") for path in result.files]
    return [*blocks, Line(words("took", time=words.duration(result.seconds)), "fact")]


def _figures(found: Parity, words: Words) -> Iterator[Block]:
    figures = found.figures
    if found.kind == "scores":
        mean, largest = figures["mean_absolute_difference"], figures["max_absolute_difference"]
        yield Line(words("score_differences", mean=mean, largest=largest, pairs=figures["pairs"]), "fact")
        if figures["queries"]:
            mean, least = figures["kendall_tau_mean"], figures["kendall_tau_least"]
            yield Line(words("taus", mean=mean, least=least, queries=figures["queries"]), "fact")
    elif found.gaps is not None:
        whole = {
            "name": words("all_texts"),
            "texts": figures["texts"],
            "mean": figures["cosine_mean"],
            "least": figures["cosine_least"],
        }
        rows = [
            (b["name"], str(b["texts"]), _cosine(b["mean"]), _cosine(b["least"])) for b in (*figures["buckets"], whole)
        ]
        heads = ("bucket", "number", "mean_cosine", "least_cosine")
        yield table(words, heads, rows, right=heads[1:])
        yield Line(words("neighbours_kept", share=figures["overlap_at_10"]), "fact")
        yield Line(words("largest_number", value=figures["max_absolute_difference"]), "fact")


def _cosine(value: float) -> str:
    gap = 1 - value
    return f"1 - {max(gap, 0.0):.1e}" if gap < 1e-3 else f"{value:.5f}"


def parity_mapping(result: ParityResult, words: Words) -> dict[str, Any]:
    """Returns a comparison as plain values."""
    said = plain(replace(result, found=None, seconds=round(result.seconds, 3)), words)
    del said["found"]
    found = result.found
    if found is None:
        return dict(said)
    return {
        **said,
        "kind": found.kind,
        "passed": found.passed,
        **plain(found.figures, words),
        "problems": plain(found.problems, words),
        "looks_like": plain(found.looks_like, words),
        "codes": [reason.code for reason in (*found.problems, *found.looks_like)],
    }
