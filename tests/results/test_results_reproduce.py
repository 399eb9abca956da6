"""The reproduction configurations are up to date, complete, and accepted as they stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from evalscope_vacc.config import configure
from evalscope_vacc.results.benchmarks import benchmark

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "reproduce"
CONFIGURATIONS = sorted(FOLDER.rglob("*.yaml"))
BENCHMARKS = {
    "eng-v2": "MTEB(eng, v2)", "cmn-v1": "MTEB(cmn, v1)", "multilingual-v2": "MTEB(Multilingual, v2)",
    "code-v1": "MTEB(Code, v1)", "mteb-r": "MTEB-R", "cmteb-r": "CMTEB-R", "mmteb-r": "MMTEB-R", "mldr": "MLDR",
    "mteb-code": "MTEB-Code", "followir": "FollowIR",
}  # fmt: skip


def test_the_files_are_what_the_script_writes() -> None:
    done = subprocess.run([sys.executable, FOLDER / "make.py", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_table_has_its_configurations() -> None:
    assert len(CONFIGURATIONS) == 4 * 3 + 6 * 4
    assert {path.parent.name for path in CONFIGURATIONS} == set(BENCHMARKS)


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda p: p.relative_to(FOLDER).as_posix())
def test_a_configuration_names_the_benchmarks_tasks_and_its_models_are_accepted(path: Path) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    bench = benchmark(BENCHMARKS[path.parent.name])
    assert bench is not None
    assert content["tool"] == "mteb"
    assert content["eval"]["task_names"] == [task.name for task in bench.tasks]
    models = [configure(model) for model in content["models"]]
    assert models[-1].model_name == path.stem
    if "rerank" in path.parts:
        assert models[-1].is_cross_encoder
        assert content["eval"].get("top_k", 100) == 100
        assert [m.model_name for m in models[:-1]] in ([], ["Qwen3-Embedding-0.6B"])
    else:
        assert models[0].instruction_profile == "qwen-official"
        assert models[0].max_tokens == 8192
