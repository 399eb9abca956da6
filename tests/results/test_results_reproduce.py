"""The reproduction configurations are up to date, complete, and accepted as they stand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from evalscope_vacc.cli import compare, estimate
from evalscope_vacc.config import configure
from evalscope_vacc.results.benchmarks import benchmark

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "reproduce"
FIRST_STAGES = sorted(FOLDER.rglob("first-stage.yaml"))
CONFIGURATIONS = sorted(set(FOLDER.rglob("*.yaml")) - set(FIRST_STAGES))
app = typer.Typer()
app.command("estimate")(estimate.estimate)
app.command("compare")(compare.compare)
TABLES = ("MTEB(eng, v2)", "MTEB(cmn, v1)", "MTEB(Multilingual, v2)", "MTEB(Code, v1)")
BENCHMARKS = {
    "mteb-r": "MTEB-R", "cmteb-r": "CMTEB-R", "mmteb-r": "MMTEB-R", "mldr": "MLDR",
    "mteb-code": "MTEB-Code", "followir": "FollowIR",
}  # fmt: skip


@pytest.mark.slow
def test_the_files_are_what_the_script_writes() -> None:
    done = subprocess.run([sys.executable, FOLDER / "make.py", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_table_has_its_configurations() -> None:
    assert len(CONFIGURATIONS) == 6 * 4
    assert {path.parent.name for path in CONFIGURATIONS} == set(BENCHMARKS)
    assert FIRST_STAGES == [FOLDER / "rerank" / "followir" / "first-stage.yaml"]


def content_of(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content.get("eval_config", content)


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda p: p.relative_to(FOLDER).as_posix())
def test_a_configuration_names_the_benchmarks_tasks_and_its_models_are_accepted(path: Path) -> None:
    content = content_of(path)
    bench = benchmark(BENCHMARKS[path.parent.name])
    assert bench is not None
    assert content["tool"] == "mteb"
    assert content["eval"]["task_names"] == [task.name for task in bench.tasks]
    models = [configure(model) for model in content["models"]]
    assert models[-1].model_name == path.stem
    assert models[-1].is_cross_encoder
    assert content["eval"]["top_k"] == 100
    if path.parent.name == "followir":
        (encoder,) = content_of(FIRST_STAGES[0])["models"]
        assert set(models[-1].embed_results) == {task.name for task in bench.tasks}
    else:
        encoder = content["models"][0]
    assert encoder["model_name"] == "Qwen3-Embedding-0.6B"
    assert encoder["instruction_profile"] == "qwen-official"


@pytest.mark.parametrize("size", ["0.6B", "4B", "8B"])
@pytest.mark.parametrize("name", TABLES)
def test_the_published_table_of_an_encoder_is_one_command(name: str, size: str) -> None:
    model = f"Qwen3-Embedding-{size}"
    # what the address alone comes to: how the published scores were made
    config = configure({"model_name": model, "api_base": "http://127.0.0.1:8000"})
    assert (config.instruction_profile, config.max_tokens) == ("qwen-official", 8192)
    done = CliRunner().invoke(
        app, ["estimate", "--benchmark", name, "--model", model, "--texts-per-second", "500", "--json"]
    )
    assert done.exit_code == 0, done.output
    document = json.loads(done.output)
    bench = benchmark(name)
    assert bench is not None
    assert {task["task"] for task in document["tasks"]} == {task.name for task in bench.tasks}
    assert name in {mean["benchmark"] for mean in document["means"]}


def test_the_first_stage_leaves_its_predictions_where_the_rerankers_look_for_them() -> None:
    content = yaml.safe_load(FIRST_STAGES[0].read_text(encoding="utf-8"))
    assert content["no_timestamp"] is True
    tasks = content["eval_config"]["eval"]["task_names"]
    wanted = {task: f"{content['work_dir']}/predictions/{task}_predictions.json" for task in tasks}
    for path in CONFIGURATIONS:
        if path.parent.name == "followir":
            (model,) = content_of(path)["models"]
            assert model["model_kwargs"]["embed_results"] == wanted


@pytest.mark.parametrize("path", [*CONFIGURATIONS, *FIRST_STAGES], ids=lambda p: p.relative_to(FOLDER).as_posix())
def test_a_configuration_has_an_estimate_of_every_task(path: Path) -> None:
    done = CliRunner().invoke(app, ["estimate", str(path), "--texts-per-second", "500", "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.output)
    assert document["unknown"] == []
    assert {task["task"] for task in document["tasks"]} == set(content_of(path)["eval"]["task_names"])
    assert all(task["count"] > 0 and task["seconds"] > 0 for task in document["tasks"])
    if path in CONFIGURATIONS:
        published = {mean["benchmark"] for mean in document["means"]}
        assert BENCHMARKS[path.parent.name] in published


@pytest.mark.host
def test_evalscope_accepts_every_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mteb", minversion="2.7")
    from evalscope.config import TaskConfig

    from evalscope_vacc import activate
    from evalscope_vacc.hosts.entry import read_config, task_config

    activate()
    monkeypatch.chdir(tmp_path)
    for path in (*CONFIGURATIONS, *FIRST_STAGES):
        config = TaskConfig(**task_config(read_config(path))).eval_config
        read = config if isinstance(config, dict) else config.model_dump()
        wanted = content_of(path)
        assert list(read["eval"]["task_names"]) == wanted["eval"]["task_names"]
        for model, entry in zip(read["models"], wanted["models"], strict=True):
            assert {key: model[key] for key in entry} == entry, path
    # a key that is misspelt is not one of them
    content = task_config(read_config(CONFIGURATIONS[0]))
    content["eval_config"]["models"][-1]["instruction_profle"] = "none"
    with pytest.raises(Exception, match="instruction_profile"):
        TaskConfig(**content)


@pytest.mark.host
def test_the_tasks_are_those_of_mtebs_benchmarks() -> None:
    mteb = pytest.importorskip("mteb", minversion="2.26")
    defined = {name: mteb.get_benchmark(name).tasks for name in TABLES}
    columns = {
        "MTEB-R": ("MTEB(eng, v2)", "Retrieval"), "CMTEB-R": ("MTEB(cmn, v1)", "Retrieval"),
        "MMTEB-R": ("MTEB(Multilingual, v2)", "Retrieval"), "MTEB-Code": ("MTEB(Code, v1)", "Retrieval"),
        "FollowIR": ("MTEB(Multilingual, v2)", "InstructionReranking"),
    }  # fmt: skip
    for path in CONFIGURATIONS:
        name = BENCHMARKS[path.parent.name]
        source, kind = columns.get(name, (name, ""))
        if name == "MLDR":
            wanted = {mteb.get_task("MultiLongDocRetrieval").metadata.name}
        else:
            wanted = {t.metadata.name for t in defined[source] if kind in {"", t.metadata.type}}
        evaluation = content_of(path)["eval"]
        assert set(evaluation["task_names"]) == wanted, path
        splits = {t.metadata.name: set(t.eval_splits) for t in defined.get(source, ())}
        for task, chosen in evaluation.get("splits", {}).items():
            assert set(chosen) == splits[task], (path, task)
