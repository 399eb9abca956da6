"""docs/checks.md lists every finding, with a test that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from evalscope_vacc.checks import CHECKS
from evalscope_vacc.checks.reference import SIGNATURES
from evalscope_vacc.messages import messages, states

ROOT = Path(__file__).resolve().parents[2]


def rows() -> dict[str, list[str]]:
    lines = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8").splitlines()
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    return {cells[0].strip("`"): cells for cells in found}


def test_every_finding_is_listed_once_and_no_other() -> None:
    assert list(rows()) == list(CHECKS)


def test_every_finding_has_a_test_beside_it_that_exists() -> None:
    written = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "checks").glob("test_*.py"))
    known = set(re.findall(r"^def (test_\w+)", written, re.MULTILINE))
    for name, cells in rows().items():
        named = re.findall(r"`(test_\w+)`", cells[-1])
        assert named, f"{name} has no test"
        assert set(named) <= known, name


def test_tests_of_each_fault_name_the_findings_that_only_they_prove() -> None:
    proved = {name for name, cells in rows().items() if cells[-1] == "`test_each_fault_is_found_and_said`"}
    tests = ROOT / "tests" / "checks"
    written = "".join((tests / f"test_checks_{n}.py").read_text(encoding="utf-8") for n in ("encoder", "reranker"))
    parameters = set(re.findall(r'^        \("[\w ]+", "([\w-]+)", "\w+", ', written, re.MULTILINE))
    assert proved <= parameters


def test_the_thresholds_are_those_of_the_code() -> None:
    from evalscope_vacc.checks.tolerance import THRESHOLDS

    text = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8")
    listed = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[1].startswith("1 − "):
            for name in cells[0].split(", "):
                listed[name] = (float(cells[1].removeprefix("1 − ")), *map(float, cells[2:]))
    assert listed == {name: (t.least, t.absolute, t.overlap, t.score, t.tau) for name, t in THRESHOLDS.items()}


def test_every_finding_that_is_made_has_words_and_no_others_do() -> None:
    findings = {code.removesuffix(".seen") for code in messages() if code.endswith(".seen")} - {"request"}
    signs = {code for code in messages() if code.startswith(("differs.", "looks.", "pooled.", "cut.", "read."))}
    signs -= {code for code in messages() if code.endswith((".seen", ".meaning", ".action"))}
    named = set()
    for path in (ROOT / "evalscope_vacc" / "checks").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named |= {node.value, f"differs.{node.value}"} & (findings | signs)
    # the lengths of the signature of a cut are made from numbers
    assert (findings | signs) - named == {f"cut.{tokens}" for tokens in (32, 64, 128, 256, 512)}
    assert set(SIGNATURES) <= signs


def test_whatever_is_wrong_or_a_warning_says_what_was_seen() -> None:
    assert set(states().values()) == {"warning", "wrong"}
    assert all(f"{code}.seen" in messages() for code in states())
