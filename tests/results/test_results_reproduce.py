"""Every published table is a command: what the addresses alone come to is how its scores were made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from evalscope_vacc.cli import compare, estimate
from evalscope_vacc.config import configure
from evalscope_vacc.results import published
from evalscope_vacc.results.benchmarks import benchmark
from evalscope_vacc.results.estimate import estimate as estimate_of
from evalscope_vacc.results.model import Conditions
from evalscope_vacc.runner.config import with_templates
from evalscope_vacc.runner.options import Options
from evalscope_vacc.runner.reference import expected
from evalscope_vacc.task_file import TOP_K

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "reproduce"
app = typer.Typer()
app.command("estimate")(estimate.estimate)
app.command("compare")(compare.compare)
TABLES = ("MTEB(eng, v2)", "MTEB(cmn, v1)", "MTEB(Multilingual, v2)", "MTEB(Code, v1)")
COLUMNS = ("MTEB-R", "CMTEB-R", "MMTEB-R", "MLDR", "MTEB-Code", "FollowIR")
ENCODER = "Qwen3-Embedding-0.6B"
RERANKERS = ("Qwen3-Reranker-0.6B", "Qwen3-Reranker-4B", "Qwen3-Reranker-8B", "bge-reranker-v2-m3")


@pytest.mark.slow
def test_the_table_is_what_the_script_writes() -> None:
    done = subprocess.run([sys.executable, FOLDER / "make.py", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("size", ["0.6B", "4B", "8B"])
@pytest.mark.parametrize("name", TABLES)
def test_the_published_table_of_an_encoder_is_one_command(name: str, size: str) -> None:
    model = f"Qwen3-Embedding-{size}"
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


@pytest.mark.parametrize("model", RERANKERS)
def test_two_addresses_come_to_what_the_scores_of_a_reranker_were_made_with(model: str) -> None:
    addresses = ("http://127.0.0.1:8000", "http://127.0.0.1:8001")
    entries = [{"model_name": name, "api_base": at} for name, at in zip((ENCODER, model), addresses, strict=True)]
    config, _ = with_templates({"models": entries}, Options(addresses), expected(None, [ENCODER, model]).references)
    encoder, reranker = map(configure, config["models"])
    assert (encoder.instruction_profile, encoder.max_tokens) == ("qwen-official", 8192)
    wanted = published.get(model).reference().conditions
    assert published.get(ENCODER).name == wanted.first_stage
    made = {"template": reranker.rerank_template, "max_tokens": reranker.max_tokens, "top_k": TOP_K}
    assert Conditions.of({**made, "first_stage": published.get(ENCODER).name}).conflicts(wanted) == ()


@pytest.mark.parametrize("model", RERANKERS)
@pytest.mark.parametrize("name", COLUMNS)
def test_the_column_of_a_reranker_has_an_estimate_of_every_task_and_its_published_mean(name: str, model: str) -> None:
    bench = benchmark(name)
    assert bench is not None
    template = published.get(model).reference().conditions.template
    models = [{"model_name": ENCODER}, {"model_name": model, "rerank_template": template}]
    found = estimate_of({"models": models, "eval": {"benchmarks": [name]}}, texts_per_second=500)
    assert found.unknown == ()
    assert {task.task for task in found.tasks} == {task.name for task in bench.tasks}
    assert all(task.count > 0 and task.seconds for task in found.tasks)
    assert (model, name) in {(mean[0], mean[1]) for mean in found.means}


@pytest.mark.host
def test_the_tasks_are_those_of_mtebs_benchmarks() -> None:
    mteb = pytest.importorskip("mteb", minversion="2.26")
    defined = {name: mteb.get_benchmark(name).tasks for name in TABLES}
    columns = {
        "MTEB-R": ("MTEB(eng, v2)", "Retrieval"), "CMTEB-R": ("MTEB(cmn, v1)", "Retrieval"),
        "MMTEB-R": ("MTEB(Multilingual, v2)", "Retrieval"), "MTEB-Code": ("MTEB(Code, v1)", "Retrieval"),
        "FollowIR": ("MTEB(Multilingual, v2)", "InstructionReranking"),
    }  # fmt: skip
    for name in COLUMNS:
        source, kind = columns.get(name, (name, ""))
        bench = benchmark(name)
        assert bench is not None
        if name == "MLDR":
            assert [task.name for task in bench.tasks] == [mteb.get_task("MultiLongDocRetrieval").metadata.name]
            continue
        wanted = {t.metadata.name: set(t.eval_splits) for t in defined[source] if kind == t.metadata.type}
        assert {task.name: set(task.splits) for task in bench.tasks} == wanted, name
