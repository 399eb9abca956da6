"""`evalscope-vacc migrate`: an older configuration in the newer spelling, from a script that is never run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.hosts.migrate import migrate

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
MODEL = {"model_name": "m", "api_base": "http://h:8000/v1", "api_key": "EMPTY"}


def one(tmp_path: Path, text: str, name: str = "old.py") -> Any:
    path = tmp_path / name
    path.write_text(text)
    (found,) = migrate(path)
    return found


def rageval(model: dict[str, Any], **evaluation: Any) -> str:
    config = {"tool": "MTEB", "model": [model], "eval": {"tasks": ["STSB"], **evaluation}}
    return yaml.safe_dump({"work_dir": "out", "eval_backend": "RAGEval", "eval_config": config})


@pytest.mark.parametrize("script", ["embedding.py", "reranker.py"])
def test_the_older_examples_migrate_to_the_newer_ones(script: str) -> None:
    (old,) = migrate(EXAMPLES / "evalscope-1.3" / script)
    (new,) = migrate(EXAMPLES / "evalscope-1.14" / script)
    for found in (old, new):
        # what the newer host overwrites, or has no use for, and the two spellings of the stored results
        for key in ("verbosity", "output_folder", "top_k"):
            found.content["eval"].pop(key, None)
        keys = found.content["models"][0]["model_kwargs"]
        names, files = keys.pop("task_name", None), keys.pop("embed_results", None)
        if isinstance(files, dict):
            names, files = list(files), list(files.values())
        keys["stored"] = names, [Path(f).parts[:2] for f in files or []]
    assert old.content == new.content
    assert old.content["models"][0]["model_type"] == "vacc_api"


def test_a_configuration_without_model_type_gets_it_and_the_newer_keys(tmp_path: Path) -> None:
    model = {**MODEL, "api_base": "http://h:8000/v1/rerank", "is_cross_encoder": True, "max_seq_length": 512}
    config = rageval(model, verbosity=2, tasks=["STSB", "CustomRetrieval"], dataset_path="data", limits=None)
    found = one(tmp_path, config, "old.yaml")
    assert found.content == {
        "work_dir": "out",
        "tool": "mteb",
        "models": [
            {
                "model_type": "vacc_api",
                "model_name": "m",
                "api_base": "http://h:8000/v1",
                "api_key": "EMPTY",
                "is_cross_encoder": True,
                "max_tokens": 512,
            }
        ],
        "eval": {
            "task_names": ["STSB"],
            "verbosity": 2,
            "custom_tasks": [{"name": "CustomRetrieval", "data_path": "data"}],
            "top_k": 100,
        },
    }
    assert any("qrels.jsonl" in note for note in found.notes)
    assert any("template" in note for note in found.notes)


def test_keys_passwords_and_headers_are_not_repeated(tmp_path: Path) -> None:
    model = {
        **MODEL,
        "api_key": "sk-0123456789",
        "api_base": "http://user:hunter22@h:8000",
        "headers": {"X-Token": "token-0123456789"},
    }
    found = one(tmp_path, rageval(model), "old.yaml")
    text = yaml.safe_dump(found.content) + "".join(found.notes)
    assert not [secret for secret in ("sk-0123456789", "hunter22", "token-0123456789") if secret in text]
    assert found.content["models"][0]["api_key"] == "${VACC_API_KEY}"
    assert any("export VACC_API_KEY" in note for note in found.notes)


def test_weights_that_evalscope_loads_itself_stay_as_they_are(tmp_path: Path) -> None:
    model = {"model_name_or_path": "BAAI/bge-small-en-v1.5", "max_seq_length": 512, "pooling_mode": "cls"}
    assert one(tmp_path, rageval(model), "old.yaml").content["models"] == [model]


def test_a_script_is_read_and_not_run(tmp_path: Path) -> None:
    script = f"""
from evalscope import TaskConfig
from evalscope.run import run_task
open({str(tmp_path / "ran")!r}, "w")
def main():
    run_task(TaskConfig(eval_backend="RAGEval", eval_config={{"tool": "MTEB", "model": [{MODEL!r}], "eval": {{"tasks": ["STSB"],
        "limits": -1 if False else 5}}}}))
main()
"""
    with pytest.raises(ConfigError, match=r"line 7: '-1 if False else 5' is computed"):
        one(tmp_path, script)
    found = one(tmp_path, script.replace("-1 if False else 5", "5"))
    assert found.content["eval"]["task_names"] == ["STSB"]
    assert found.content["models"][0]["api_base"] == MODEL["api_base"]
    assert not (tmp_path / "ran").exists()


def test_the_change_of_the_prediction_files_is_said(tmp_path: Path) -> None:
    found = one(tmp_path, rageval(MODEL), "old.yaml")
    assert any("RUN/predictions/TASK_predictions.json" in note for note in found.notes)


def test_several_configurations_of_a_script_are_all_found(tmp_path: Path) -> None:
    body = f"{{'eval_backend': 'RAGEval', 'eval_config': {{'tool': 'MTEB', 'model': [{MODEL!r}], 'eval': {{'tasks': %r}}}}}}"
    path = tmp_path / "old.py"
    path.write_text(f"a = {body % ['STSB']}\nb = {body % ['LCQMC']}\n")
    assert [(m.where, m.content["eval"]["task_names"]) for m in migrate(path)] == [
        ("line 1", ["STSB"]),
        ("line 2", ["LCQMC"]),
    ]


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("old.py", "x = 1\n", "no RAGEval configuration found"),
        ("old.py", "task_cfg = {'eval_config': load('x')}\n", r"line 1: .*load\('x'\).* is computed"),
        ("old.py", "task_cfg = {\n", "cannot be read"),
        ("old.py", "task_cfg = {'eval_config': {'tool': 'RAGAS', 'eval': {}}}\n", "tool is 'RAGAS'"),
        ("old.yaml", "eval_backend: Native\neval_config: {}\n", "evaluated by RAGEval"),
        ("old.yaml", rageval({**MODEL, "dimension": 5}), "did you mean 'dimensions'"),
        ("old.yaml", rageval(MODEL, topk=5), "did you mean 'top_k'"),
    ],
)
def test_what_cannot_be_migrated_is_refused_with_the_place(tmp_path: Path, name: str, text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        one(tmp_path, text, name)


def test_the_command_prints_yaml_that_reads_back(tmp_path: Path) -> None:
    code = (
        "import sys, typer; from evalscope_vacc.cli.migrate import migrate; sys.argv[0] = 'migrate'; typer.run(migrate)"
    )
    script = EXAMPLES / "evalscope-1.3" / "embedding.py"
    done = subprocess.run([sys.executable, "-c", code, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("# from embedding.py, line ")
    (found,) = migrate(script)
    assert yaml.safe_load(done.stdout) == found.content
