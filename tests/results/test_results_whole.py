"""The verdict on the whole: what was asked for and is not there keeps a run from passing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from evalscope_vacc.cli import compare, published
from evalscope_vacc.results.asked import asked_of, record_asked, record_failed
from evalscope_vacc.results.judge import _states, _warnings
from evalscope_vacc.results.model import AskedTask, ComparedRow, Comparison, MeanRow, Results, Row, Run, Verdict

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MODEL = "vacc/minilm"
# with a reference, without one, and two that were never reached
FOUR = ("STSBenchmark", "MyOwnTask", "SciFact", "LCQMC")
app = typer.Typer()
app.command("compare")(compare.compare)
app.command("published")(published.published)


def call(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "120"})


def task(name: str, splits: tuple[str, ...] = ("test",), subsets: tuple[str, ...] = ("default",)) -> Any:
    return SimpleNamespace(metadata=SimpleNamespace(name=name), eval_splits=splits, hf_subsets=subsets)


@pytest.fixture
def interrupted(write_run: Any) -> Path:
    """Four tasks were asked for, two of them are done, and one of these has a published score."""
    write_run({"STSBenchmark": {"test": {"default": 0.8203}}})
    root = write_run({"MyOwnTask": {"test": {"default": 0.4}}})
    record_asked(root / "vacc", [(MODEL, "", task(name)) for name in FOUR])
    return Path(root)


def test_half_a_run_is_incomplete_in_every_format(interrupted: Path) -> None:
    shown = call("compare", interrupted, "--against", MINILM)
    assert shown.exit_code == 3
    for output in (shown.output, call("compare", interrupted, "--against", MINILM, "--markdown").output):
        assert "2 of 4 tasks" in output.splitlines()[0]
        assert "SciFact" in output.splitlines()[0]
    document = json.loads(call("compare", interrupted, "--against", MINILM, "--json").output)
    counts = {name: document[name] for name in ("asked", "judged", "failed", "not_run", "no_reference")}
    assert counts == {"asked": 4, "judged": 1, "failed": 0, "not_run": 2, "no_reference": 1}
    assert (document["verdict"], document["exit_status"]) == ("incomplete", 3)


def test_a_part_may_be_allowed_and_is_still_said(interrupted: Path) -> None:
    done = call("compare", interrupted, "--against", MINILM, "--allow-partial")
    assert done.exit_code == 0
    assert done.output.startswith("PASS")
    assert "2 of 4 tasks" in done.output.splitlines()[0]


def test_a_failed_task_makes_the_run_incomplete_and_says_why(interrupted: Path) -> None:
    record_failed(interrupted / "vacc", [(MODEL, "", "SciFact", "the data set is not there")])
    document = json.loads(call("compare", interrupted, "--against", MINILM, "--json").output)
    assert (document["failed"], document["not_run"], document["exit_status"]) == (1, 1, 3)
    assert "the data set is not there" in json.dumps(document["tasks"])


def test_a_score_that_fails_comes_before_what_is_incomplete(write_run: Any) -> None:
    root = write_run({"STSBenchmark": {"test": {"default": 0.5}}})
    record_asked(root / "vacc", [(MODEL, "", task(name)) for name in FOUR])
    done = call("compare", root, "--against", MINILM)
    assert done.exit_code == 1
    assert "1 of 4 tasks" in done.output.splitlines()[0]
    assert call("compare", root, "--against", "Qwen/Qwen3-Reranker-8B").exit_code == 2


def test_a_subset_that_was_asked_for_and_is_not_there_is_missing(write_run: Any) -> None:
    root = write_run({"XQuADRetrieval": {"validation": {"en": 0.9}}}, metric="ndcg_at_10")
    record_asked(root / "vacc", [(MODEL, "", task("XQuADRetrieval", ("validation",), ("en", "zh")))])
    document = json.loads(call("compare", root, "--against", root, "--json").output)
    assert (document["not_run"], document["exit_status"]) == (1, 3)
    assert document["tasks"][0]["detail"] == "its result is missing validation · zh"


def test_what_was_asked_for_before_in_the_same_folder_stays_asked(tmp_path: Path) -> None:
    (tmp_path / "vacc").mkdir()
    record_asked(tmp_path / "vacc", [(MODEL, "", task("A")), (MODEL, "", task("B"))])
    record_failed(tmp_path / "vacc", [(MODEL, "", "B", "no")])
    record_asked(tmp_path / "vacc", [(MODEL, "", task("B")), (MODEL, "", task("C"))])
    found = asked_of([tmp_path])
    assert found is not None
    # asked for again, it has not failed yet
    assert [(entry.task, entry.error) for entry in found] == [("A", ""), ("B", ""), ("C", "")]


def test_a_run_of_an_earlier_release_is_asked_by_its_configuration(write_run: Any) -> None:
    root = write_run({"STSBenchmark": {"test": {"default": 0.8203}}})
    assert asked_of([root]) is None
    assert json.loads(call("compare", root, "--against", MINILM, "--json").output)["asked"] is None
    (root / "configs").mkdir()
    content = {
        "eval_config": {"models": [{"model_name": "minilm"}], "eval": {"task_names": ["STSBenchmark", "SciFact"]}}
    }
    (root / "configs" / "task_config.yaml").write_text(yaml.safe_dump(content))
    document = json.loads(call("compare", root, "--against", MINILM, "--json").output)
    assert (document["asked"], document["not_run"], document["exit_status"]) == (2, 1, 3)


def test_a_mean_that_is_judged_judges_the_tasks_of_its_benchmark_and_no_others() -> None:
    names = ("STS12", "MyOwnTask")
    compared = tuple(ComparedRow(n, "test", "default", "m", "no reference", model=MODEL, run=RUN.label) for n in names)
    mean = MeanRow("MTEB(eng, v2)", "Mean(Task)", 41, 41, 0.5, "pass", run=RUN.label)
    results = Results(tuple(row(name, 0.5, "") for name in names))
    states = _states(results, [Comparison("r", "", "", None, compared, (mean,))], None)
    assert {state.task: state.state for state in states} == {"STS12": "judged", "MyOwnTask": "no reference"}


def test_two_stages_are_planned_as_they_run(write_run: Any) -> None:
    root = write_run({"STSBenchmark": {"test": {"default": 0.8203}}})
    (root / "configs").mkdir()
    models = [{"model_name": "minilm"}, {"model_name": "reranker", "is_cross_encoder": True}]
    names = ["STSBenchmark", "SciFact", "AskUbuntuDupQuestions"]
    content = {"eval_config": {"models": models, "eval": {"task_names": names}}}
    (root / "configs" / "task_config.yaml").write_text(yaml.safe_dump(content))
    found = asked_of([root])
    assert found is not None
    assert {(e.model, e.stage, e.task) for e in found} == {
        ("minilm", "stage1", "STSBenchmark"), ("minilm", "stage1", "SciFact"),
        ("reranker", "stage2", "SciFact"), ("reranker", "stage2", "AskUbuntuDupQuestions"),
    }  # fmt: skip


def test_texts_that_were_sent_for_a_task_without_result_count_as_asked_for(write_run: Any) -> None:
    root = write_run({"STSBenchmark": {"test": {"default": 0.8203}}})
    (root / "vacc").mkdir()
    used = [{"model": MODEL, "task": name} for name in ("SciFact", "STSBenchmark")]
    (root / "vacc" / "usage.json").write_text(json.dumps({"tasks": used}))
    (root / "configs").mkdir()
    content = {"eval_config": {"models": [{"model_name": "minilm"}], "eval": {"task_names": ["STSBenchmark"]}}}
    (root / "configs" / "task_config.yaml").write_text(yaml.safe_dump(content))
    assert [entry.task for entry in asked_of([root]) or ()] == ["STSBenchmark", "SciFact"]
    assert call("compare", root, "--against", MINILM).exit_code == 3


def test_of_a_folder_further_down_only_its_part_is_asked_for(write_run: Any, tmp_path: Path) -> None:
    root = write_run({"STSBenchmark": {"test": {"default": 0.8203}}})
    record_asked(root / "vacc", [(MODEL, "", task("STSBenchmark")), ("vacc/other", "", task("STSBenchmark"))])
    whole, part = asked_of([root]), asked_of([root / "results" / "vacc__minilm"])
    assert (len(whole or ()), len(part or ())) == (2, 1)
    assert len(asked_of([tmp_path]) or ()) == 2, "the folder above several runs holds them all"
    assert asked_of([next(root.rglob("STSBenchmark.json"))]) is None


RUN = Run(MODEL, "served-1", "", "encoder")
STATES = st.lists(
    st.sampled_from(["pass", "fail", "above", "not judged", "no reference", "missing", "error"]), max_size=8
)


@given(states=STATES, allow_partial=st.booleans(), allow_above=st.booleans())
def test_nothing_passes_of_which_a_part_is_missing_or_differs(
    states: list[str], allow_partial: bool, allow_above: bool
) -> None:
    names = [f"T{i}" for i in range(len(states))]
    there = [(name, s) for name, s in zip(names, states, strict=True) if s not in {"missing", "error"}]
    rows = tuple(Row(RUN, name, "test", "default", "m", 0.5) for name, _ in there)
    compared = tuple(ComparedRow(n, "test", "default", "m", s, model=MODEL, run=RUN.label) for n, s in there)  # type: ignore[arg-type]
    asked = [
        AskedTask(MODEL, "", name, ("test",), ("default",), "broken" if s == "error" else "")
        for name, s in zip(names, states, strict=True)
    ]
    comparison = Comparison("r", "", "", "", compared, runs=(RUN.label,))
    found = Verdict(
        (comparison,),
        _states(Results(rows), [comparison], asked),
        True,
        allow_partial=allow_partial,
        allow_above=allow_above,
    )
    assert found.asked == len(states) == sum(found.counts.values())
    judged = {"pass", "fail", "above"} & set(states)
    expected = 0
    if {"missing", "error"} & set(states) and not allow_partial:
        expected = 3
    if "fail" in states or ("above" in states and not allow_above):
        expected = 1
    if not judged:
        expected = 2
    assert found.exit_status == expected


def row(name: str, score: float | None, kind: str = "STS", **changes: Any) -> Row:
    return replace(Row(RUN, name, "test", "default", "m", score, kind), **changes)


def codes(*rows: Row, comparisons: Any = (), insane: Any = ()) -> dict[str, tuple[str, ...]]:
    return {s.code: dict(s.args)["tasks"] for s in _warnings(Results(rows), comparisons, insane)}


def test_scores_that_no_weights_would_earn_are_said_without_a_reference() -> None:
    assert codes(row("STS12", 0.01), row("STS13", 0.7)) == {"at_chance": ("STS12",)}
    assert codes(row("SciFact", 0.001, "Retrieval")) == {"at_chance": ("SciFact",)}
    assert codes(row("A", 0.5, ""), row("B", 0.5, ""), row("C", 0.5, "")) == {"all_equal": ("A", "B", "C")}
    assert codes(row("A", None)) == {"no_number": ("A",)}
    assert codes(row("A", 0.5), insane=["vacc/minilm"]) == {"sanity_failed": ("minilm",)}
    assert codes(row("STS12", 0.8), row("STS13", 0.7), row("Mine", 0.001, "")) == {}


def test_a_task_at_which_the_reference_is_as_poor_is_no_suspicion() -> None:
    compared = ComparedRow(
        "STS12", "test", "default", "m", "pass", ours=0.01, reference=0.01, model=MODEL, run=RUN.label
    )
    assert codes(row("STS12", 0.01), comparisons=[Comparison("r", "", "", "", (compared,))]) == {}


def test_suspicions_stand_at_the_top(write_run: Any) -> None:
    root = write_run({"STSBenchmark": {"test": {"default": 0.8203}}, "STS12": {"test": {"default": 0.001}}})
    done = call("compare", root, "--against", MINILM)
    assert any("chance: STS12" in line for line in done.output.splitlines()[:3]), done.output


def test_the_verdict_of_nothing_is_nothing() -> None:
    assert Verdict(()).exit_status == 2
