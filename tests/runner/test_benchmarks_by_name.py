"""A benchmark's name means MTEB's own definition of it, wherever tasks are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evalscope_vacc.cli.app import app
from evalscope_vacc.errors import ConfigError

pytestmark = pytest.mark.host
pytest.importorskip("mteb", minversion="2.7", reason="the newer line's tests")


def tasks_of(**evaluation: Any) -> list[Any]:
    from evalscope_vacc.hosts.entry import tasks_of

    return tasks_of({"hub": "huggingface", **evaluation})


@pytest.mark.parametrize(
    ("name", "of"), [("MTEB(eng, v2)", "MTEB(eng, v2)"), ("CMTEB", "MTEB(cmn, v1)"), ("NanoBEIR", "NanoBEIR")]
)
def test_a_benchmark_has_mtebs_tasks_with_its_splits_and_subsets(name: str, of: str) -> None:
    import mteb

    theirs = {t.metadata.name: (list(t.eval_splits), sorted(t.hf_subsets)) for t in mteb.get_benchmark(of).tasks}
    found = tasks_of(benchmarks=[name])
    assert {t.metadata.name: (list(t.eval_splits), sorted(t.hf_subsets)) for t in found} == theirs
    originals = {id(task) for task in mteb.get_benchmark(of).tasks}
    assert not originals & {id(task) for task in found}, "a run changes its tasks"


def test_a_task_that_is_named_too_is_there_once_and_whole() -> None:
    found = tasks_of(benchmarks="MTEB(eng, v2)", task_names=["STS17"])
    (sts17,) = [task for task in found if task.metadata.name == "STS17"]
    assert len(sts17.hf_subsets) > 1
    assert len(found) == 41


def test_a_part_of_a_benchmark_is_its_tasks_as_it_has_them() -> None:
    (sts17,) = tasks_of(benchmarks={"MTEB(eng, v2)": ["STS17"], "MTEB(cmn, v1)": []})
    assert sts17.hf_subsets == ["en-en"]


@pytest.mark.parametrize("name", ["MTEB-R", "CMTEB-R", "MMTEB-R", "MLDR", "MTEB-Code", "FollowIR"])
def test_a_column_of_a_published_table_is_a_benchmark_too(name: str) -> None:
    from evalscope_vacc.results.benchmarks import benchmark

    known = benchmark(name)
    assert known is not None
    found = {task.metadata.name: task for task in tasks_of(benchmarks=[name])}
    assert set(found) == {task.name for task in known.tasks}
    for task in known.tasks:
        assert set(found[task.name].eval_splits) == set(task.splits)
        assert len(found[task.name].hf_subsets) == task.subset_count


def test_languages_narrow_a_benchmark() -> None:
    found = tasks_of(benchmarks=["MTEB(Multilingual, v2)"], languages=["cmn"])
    assert 5 < len(found) < 40
    assert all("cmn" in str(t.metadata.hf_subsets_to_langscripts[subset]) for t in found for subset in t.hf_subsets)


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        ({"benchmarks": ["MTEB(eng, v3)"]}, "did you mean 'MTEB(eng, v2)'?"),
        ({"benchmarks": ["CMTB"]}, "did you mean 'CMTEB'?"),
        ({"task_names": ["MTEB(eng, v2)"]}, "write eval.benchmarks: ['MTEB(eng, v2)'] instead"),
        ({"task_names": ["CMTEB"]}, "write eval.benchmarks: ['CMTEB'] instead"),
        ({"benchmark": ["CMTEB"]}, "did you mean 'benchmarks'?"),
        ({"benchmarks": ["MTEB-RR"]}, "did you mean 'MTEB-R'?"),
        ({"benchmarks": {"MTEB(eng, v2)": ["STS71"]}}, "has no task 'STS71': did you mean 'STS17'?"),
        ({"benchmarks": {"MTEB(eng, v2)": "STS17"}}, "expected a list of names, or a mapping of name to a list"),
    ],
)
def test_a_wrong_name_is_told_with_the_right_one(evaluation: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as told:
        tasks_of(**evaluation)
    assert said in str(told.value)


def test_an_estimate_of_a_benchmark_needs_no_file() -> None:
    arguments = [
        "estimate",
        "--benchmark",
        "MTEB(eng, v2)",
        "--texts-per-second",
        "100",
        "--model",
        "Qwen3-Embedding-0.6B",
    ]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    tasks = {task["task"]: task for task in json.loads(done.stdout)["tasks"]}
    assert len(tasks) == 41
    # of STS17 the benchmark takes one of eleven subsets
    assert tasks["STS17"]["count"] == 500
    assert "published: MTEB(eng, v2) Mean(Task) 70.70" in CliRunner().invoke(app, arguments).stdout


def test_a_file_may_name_a_benchmark_for_every_command(tmp_path: Path) -> None:
    entry = {"model_type": "vacc_api", "model_name": "Qwen3-Embedding-0.6B", "api_base": "http://127.0.0.1:9"}
    content = {"tool": "MTEB", "models": [entry], "eval": {"benchmarks": ["MTEB(Code, v1)"]}}
    (tmp_path / "c.json").write_text(json.dumps(content))
    done = CliRunner().invoke(app, ["estimate", str(tmp_path / "c.json"), "--json"])
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)["tasks"]) == 12


def test_the_configuration_of_evalscope_takes_benchmarks_and_writes_them_down() -> None:
    import evalscope_vacc

    evalscope_vacc.activate()
    from evalscope.config import TaskConfig

    entry = {"model_type": "vacc_api", "model_name": "m", "api_base": "http://127.0.0.1:9"}
    inner = {"tool": "MTEB", "models": [entry], "eval": {"benchmarks": ["CMTEB"]}}
    config = TaskConfig(eval_backend="RAGEval", eval_config=inner)
    assert config.eval_config.eval.benchmarks == ["CMTEB"]
    assert config.eval_config.model_dump()["eval"]["benchmarks"] == ["CMTEB"]
    inner["eval"] = {"benchmarks": {"MTEB(cmn, v1)": ["STSB"]}}
    config = TaskConfig(eval_backend="RAGEval", eval_config=inner)
    assert config.eval_config.model_dump()["eval"]["benchmarks"] == {"MTEB(cmn, v1)": ["STSB"]}


def test_a_run_names_everything_of_a_benchmark_that_lacks(
    command: Callable[..., Any], model: Any, tmp_path: Path
) -> None:
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf")}
    done = command(model.base, "--benchmark", "MTEB(eng, v2)", "--against", "Qwen3-Embedding-0.6B", "--json", **nowhere)
    assert done.status == 3, done.output
    assert done.json()["asked"] == len(done.json()["lacking"]) == 41


def test_a_budget_takes_a_part_of_a_benchmark_and_names_the_rest(
    command: Callable[..., Any], model: Any, tmp_path: Path
) -> None:
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf")}
    asked = ["--benchmark", "MTEB(eng, v2)", "--budget", "5m", "--against", "Qwen3-Embedding-0.6B", "--json"]
    done = command(model.base, *asked, **nowhere)
    assert done.status == 3, done.output
    found = done.json()
    assert 0 < found["asked"] < 41
    assert found["asked"] + len(found["left_out"]) == 41
    assert "BIOSSES" not in found["left_out"]
    assert "Left out, because they do not fit into the budget:" in done.output
