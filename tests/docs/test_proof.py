"""What the page of proofs names is there: every finding and every key of the guide, with tests that exist."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from evalscope_vacc.checks import CHECKS

pytest.importorskip("tomllib", reason="the site is built with Python 3.11 or later")
ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "docs"))
import pages  # noqa: E402 -- a script of the repository, not of a package

FAULTS = "::test_each_fault_is_found_and_said"


@pytest.mark.parametrize("part", ["findings", "guide"])
def test_every_test_that_is_named_exists(part: str) -> None:
    named = [test for tests in pages.proofs(part).values() for test in tests]
    assert len(named) > 15
    for test in named:
        file, _, name = test.partition("::")
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), test


def test_every_finding_has_a_proof() -> None:
    proved = pages.proofs("findings")
    assert list(proved) == list(CHECKS)
    assert all(proved.values())


def test_tests_of_each_fault_name_the_findings_that_only_they_prove() -> None:
    proved = {name for name, tests in pages.proofs("findings").items() if all(test.endswith(FAULTS) for test in tests)}
    tests = ROOT / "tests" / "checks"
    written = "".join((tests / f"test_checks_{n}.py").read_text(encoding="utf-8") for n in ("encoder", "reranker"))
    parameters = set(re.findall(r'^        \("[\w ]+", "([\w-]+)", "\w+", ', written, re.MULTILINE))
    assert proved
    assert proved <= parameters


def test_every_key_of_the_guide_s_table_has_a_proof() -> None:
    text = (ROOT / "docs" / "hosts.md").read_text(encoding="utf-8")
    table = text[text.index("key by key") : text.index("## MTEB without")]
    keys = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    assert len(keys) > 15
    assert set(keys) <= set(pages.proofs("guide"))
