"""The noise model: how far scores of the same weights may lie apart."""

from __future__ import annotations

import pytest

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.results.noise import Noise, mark, share, within


@pytest.mark.parametrize(
    ("dtype", "allowed"),
    [
        ("float32", 5e-4),
        ("fp32", 5e-4),
        ("float16", 2e-3),
        ("torch.bfloat16", 2e-3),
        ("bf16", 2e-3),
        ("int8", 0.008),
        ("W8A8", 0.008),
    ],
)
def test_tolerance_follows_the_dtype(dtype: str, allowed: float) -> None:
    assert Noise(dtype=dtype).of(0.8).value == pytest.approx(allowed)


def test_unrecorded_dtype_counts_as_half_precision_and_says_so() -> None:
    tolerance = Noise().of(0.8)
    assert tolerance.value == 2e-3
    assert tolerance.reason.code == "tolerance_assumed"


def test_the_recorded_dtype_is_used_and_the_given_one_wins() -> None:
    assert Noise().of(0.8, ours="float32").value == 5e-4
    assert Noise(dtype="float16").of(0.8, ours="float32").value == 2e-3


def test_the_coarser_side_counts() -> None:
    tolerance = Noise(dtype="float32").of(0.8, theirs="float16")
    assert tolerance.value == 2e-3
    assert tolerance.reason.code == "tolerance_of_reference"


def test_an_unknown_recorded_dtype_is_not_taken_for_a_fine_one() -> None:
    assert Noise().of(0.8, ours="mystery").value == 2e-3


def test_a_given_tolerance_wins_over_everything() -> None:
    assert Noise(tolerance=0.01).of(0.8, ours="float32", theirs="float16").value == 0.01


def test_rounding_of_the_reference_is_added() -> None:
    assert Noise(dtype="float32").of(0.8, rounding=5e-5).value == pytest.approx(5.5e-4)


@pytest.mark.parametrize("bad", [-0.1, 1.0, float("nan"), float("inf")])
def test_a_tolerance_that_is_no_fraction_is_refused(bad: float) -> None:
    with pytest.raises(ConfigError, match="fraction"):
        Noise(tolerance=bad)


def test_an_unknown_dtype_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="bfloat16"):
        Noise(dtype="float12")


def test_a_difference_of_exactly_the_tolerance_is_within_it() -> None:
    # 0.8 - 0.798 is 0.0020000000000000018 in binary
    assert within(0.8 - 0.798, 2e-3)
    assert not within(0.8 - 0.7979, 2e-3)


@pytest.mark.parametrize(
    ("part", "name"),
    [(1.2, "99.9 %"), (0.999, "99.9 %"), (0.99899, "99 %"), (0.99, "99 %"), (0.98999, "below 99 %"), (None, "")],
)
def test_marks_are_mlperfs(part: float | None, name: str) -> None:
    assert mark(part) == name


def test_a_share_of_a_reference_that_is_not_positive_means_nothing() -> None:
    assert share(0.1, -0.01) is None
    assert share(0.1, 0.0) is None
    assert share(0.4, 0.5) == pytest.approx(0.8)
