"""What the commands print, word for word.

``UPDATE_GOLDEN=1 pytest tests/results/test_results_golden.py`` writes the files anew; look at the difference.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from evalscope_vacc.cli import compare, estimate, published

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
QWEN = "vacc/Qwen3-Embedding-0.6B"
app = typer.Typer()
app.command("compare")(compare.compare)
app.command("published")(published.published)
app.command("estimate")(estimate.estimate)


def printed(*arguments: str | Path) -> tuple[str, int]:
    plain = {"COLUMNS": "120", "FORCE_COLOR": None, "TTY_COMPATIBLE": None}
    done = CliRunner().invoke(app, [str(a) for a in arguments], env=plain)
    return "".join(f"{line.rstrip()}\n" for line in done.output.splitlines()), done.exit_code


def check(golden: Path, name: str, text: str) -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        (golden / name).write_text(text, encoding="utf-8")
    assert text == (golden / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("published.txt", []),
        ("published.minilm.txt", ["all-MiniLM-L6-v2"]),
        ("published.minilm.json", ["all-MiniLM-L6-v2", "--json"]),
        ("published.reranker.txt", ["Qwen3-Reranker-0.6B"]),
        ("published.bge-m3-reranker.json", ["bge-reranker-v2-m3", "--json"]),
    ],
)
def test_published_prints_what_it_did(golden: Path, name: str, arguments: list[str]) -> None:
    text, status = printed("published", *arguments)
    assert status == 0
    check(golden, name, text)


@pytest.mark.parametrize(("name", "arguments"), [("estimate.txt", []), ("estimate.json", ["--json"])])
def test_estimate_prints_what_it_did(golden: Path, tmp_path: Path, name: str, arguments: list[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "tool: mteb\n"
        "models: [{model_name: Qwen3-Embedding-0.6B}, {model_name: Qwen3-Reranker-0.6B}]\n"
        "eval: {task_names: [SciFact, CosQA, MyOwnTask], top_k: 50, limits: 10}\n"
    )
    text, status = printed("estimate", config, "--texts-per-second", "100", "--pairs-per-second", "20", *arguments)
    assert status == 0
    check(golden, name, text)


def several(write_run: Any) -> Path:
    """Runs of two models, one of them twice: what passes, what fails, what is another measurement."""
    sts = {"STSBenchmark": {"test": {"default": 0.8767}}, "STS22.v2": {"test": {"en": 0.7, "de": 0.6, "zz": 0.5}}}
    write_run(sts, model=QWEN, mteb_version="1.38.9")
    write_run({"STSBenchmark": {"test": {"default": 0.86}}}, model=QWEN, kwargs={"dim": 64})
    write_run({"STSBenchmark": {"test": {"default": 0.84}}}, model=QWEN, kwargs={"profile": "mteb", "maxlen": 512})
    write_run({"MyOwnTask": {"test": {"default": 0.5}}}, model="vacc/bge-m3")
    return write_run(
        {"CosQA": {"test": {"default": 0.3683}}, "SciFact": {"test": {"default": 0.7}}},
        model="vacc/Qwen3-Reranker-0.6B",
        cross_encoder=True,
        kwargs={"first": "1a2b3c4d", "top_k": 100},
        metric="ndcg_at_10",
    )


@pytest.mark.parametrize(
    ("name", "arguments", "status"),
    [
        ("compare.several.txt", [], 1),
        ("compare.several.md", ["--markdown"], 1),
        ("compare.several.csv", ["--csv"], 1),
        ("compare.nothing.txt", ["--against", "Qwen/Qwen3-Reranker-0.6B"], 2),
        ("compare.int8.txt", ["--against", MINILM, "--dtype", "int8", "--allow-above"], 0),
    ],
)
def test_compare_prints_what_it_did(golden: Path, write_run: Any, name: str, arguments: list[str], status: int) -> None:
    text, found = printed("compare", several(write_run), *arguments)
    check(golden, name, text)
    assert found == status
