"""What a preset and a budget of time choose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.results.estimate import Estimate, TaskEstimate
from evalscope_vacc.runner.choose import END_S, MARGIN, TASK_S, within
from evalscope_vacc.runner.options import Options, seconds_of, settings_of


def estimate(seconds: dict[str, float]) -> Estimate:
    tasks = (TaskEstimate("m", task, "STS", "texts", 10, 100, one) for task, one in seconds.items())
    return Estimate(tuple(tasks), (), ())


@given(st.dictionaries(st.text("abc", min_size=1), st.floats(0, 1e4), min_size=1), st.floats(0, 1e5))
def test_a_budget_is_kept_and_what_it_leaves_out_is_said(seconds: dict[str, float], budget: float) -> None:
    try:
        choice = within(estimate(seconds), list(seconds), budget)
    except ConfigError:
        assert min(seconds.values()) * MARGIN + TASK_S + END_S > budget - 1e-6
        return
    assert sum(seconds[task] * MARGIN + TASK_S for task in choice.tasks) + END_S <= budget + 1e-6
    assert sorted([*choice.tasks, *choice.left_out]) == sorted(seconds)
    assert [task for task in seconds if task in choice.tasks] == list(choice.tasks), "the order of the list stays"
    left = budget - END_S - sum(seconds[task] * MARGIN + TASK_S for task in choice.tasks)
    assert all(seconds[task] * MARGIN + TASK_S > left - 1e-6 for task in choice.left_out), "it would have fitted"


def test_without_a_rate_nobody_knows_what_fits() -> None:
    with pytest.raises(ConfigError, match="rate could not be measured"):
        within(None, ["SciFact"], 100)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("0.5h", 1800)])
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "ten minutes", "0m", "-5m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a duration"):
        seconds_of(text)


def test_settings_are_yaml_and_their_values_are_never_repeated() -> None:
    assert settings_of(["max_tokens=512", "headers={X: a}"]) == {"max_tokens": 512, "headers": {"X": "a"}}
    with pytest.raises(ConfigError) as told:
        settings_of(["headers={X: sekret"])
    assert "sekret" not in str(told.value)


def test_a_preset_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="give one of smoke, quick, standard, full"):
        Options(("http://127.0.0.1:9",), preset="fast")
