"""What a preset and a budget of time choose."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalscope_vacc.config import configure
from evalscope_vacc.errors import ConfigError
from evalscope_vacc.results.estimate import Estimate, TaskEstimate
from evalscope_vacc.runner.choose import END_S, MARGIN, TASK_S, in_order, with_preset, with_tasks, within
from evalscope_vacc.runner.config import with_templates
from evalscope_vacc.runner.options import Options, seconds_of, settings_of
from evalscope_vacc.runner.reference import expected


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


def test_what_a_task_computes_beside_its_texts_counts() -> None:
    estimated = estimate({"TNews": 10.0, "STSBenchmark": 10.0})
    assert within(estimated, ["TNews", "STSBenchmark"], 60).tasks == ("TNews", "STSBenchmark")
    assert within(estimated, ["TNews", "STSBenchmark"], 60, {"TNews": 40.0}).tasks == ("STSBenchmark",)


def test_a_budget_takes_the_shortest_tasks_of_a_benchmark_after_those_that_are_named() -> None:
    seconds = {"SciFact": 30.0, "STS17": 2.0, "BIOSSES": 1.0, "ArguAna": 9.0}
    config = {"eval": {"task_names": ["SciFact"], "benchmarks": ["MTEB(eng, v2)"]}}
    order = in_order(config, estimate(seconds), list(seconds))
    assert order == ["SciFact", "BIOSSES", "STS17", "ArguAna"]
    assert in_order({"eval": {"task_names": list(seconds)}}, estimate(seconds), list(seconds)) == list(seconds)


def test_a_task_of_a_benchmark_stays_the_part_that_the_benchmark_takes() -> None:
    evaluation = {
        "task_names": ["SciFact", "TNews"],
        "benchmarks": ["MTEB(eng, v2)", "MTEB(cmn, v1)"],
        "hub": "huggingface",
    }
    kept = with_tasks({"eval": evaluation}, ["SciFact", "STS17"])["eval"]
    assert kept == {"task_names": ["SciFact"], "benchmarks": {"MTEB(eng, v2)": ["STS17"]}, "hub": "huggingface"}


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


ENCODER, RERANKER, OTHER = "Qwen3-Embedding-0.6B", "Qwen3-Reranker-0.6B", "bge-m3"


def chosen(*models: str, **asked: Any) -> dict[str, Any]:
    configured = [configure({"model_name": name, "api_base": "http://127.0.0.1:9"}) for name in models]
    found: dict[str, Any] = with_preset({"eval": {}}, Options(("http://127.0.0.1:9",), **asked), configured)["eval"]
    return found


def test_a_preset_of_a_reranker_needs_the_encoder_of_its_published_scores() -> None:
    assert chosen(ENCODER, RERANKER, preset="quick")["task_names"] == ["CodeTransOceanDL", "CodeTransOceanContest"]
    assert chosen(RERANKER, preset="quick", first_stage=Path("outputs/RUN"))["task_names"]
    assert "MTEB-R" in chosen(ENCODER, "bge-reranker-v2-m3", preset="full")["benchmarks"]


@pytest.mark.parametrize(
    ("models", "preset", "said"),
    [
        ((RERANKER,), "quick", "candidates that Qwen/Qwen3-Embedding-0.6B found: give that model's address"),
        ((OTHER, RERANKER), "quick", "candidates that Qwen/Qwen3-Embedding-0.6B found"),
        ((ENCODER, RERANKER), "smoke", "scores of Qwen/Qwen3-Reranker-0.6B is so small; the smallest preset is quick"),
        ((ENCODER, "bge-reranker-v2-m3"), "standard", "the smallest preset is full"),
        ((ENCODER, "my-reranker"), "quick", "there are no presets for"),
    ],
)  # fmt: skip
def test_a_preset_that_a_reranker_has_not_is_refused(models: tuple[str, ...], preset: str, said: str) -> None:
    asked = {"against": RERANKER} if models == (ENCODER, "my-reranker") else {}
    with pytest.raises(ConfigError, match=re.escape(said)):
        chosen(*models, preset=preset, **asked)


def test_a_reranker_gets_the_template_of_its_published_scores_unless_another_is_set() -> None:
    entries = [{"model_name": name, "api_base": "http://127.0.0.1:9"} for name in (ENCODER, RERANKER)]
    config = {"models": entries, "eval": {}}
    references = expected(None, [ENCODER, RERANKER]).references
    address = Options(("http://127.0.0.1:9", "http://127.0.0.1:8"))
    changed, said = with_templates(config, address, references)
    assert [entry.get("rerank_template") for entry in changed["models"]] == [None, "qwen3-evaluation"]
    assert said == {RERANKER: "qwen3-evaluation"}
    for options in (replace(address, settings={"rerank_template": "qwen3"}), Options(("config.yaml",))):
        assert with_templates(config, options, references) == (config, {})
    assert with_templates(config, address, ()) == (config, {})
