"""Every finding has its words, and all words belong to a finding."""

from __future__ import annotations

import ast
from pathlib import Path

from evalscope_vacc.checks.reference import SIGNATURES
from evalscope_vacc.messages import messages, states

ROOT = Path(__file__).resolve().parents[2]


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
