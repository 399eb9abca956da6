"""What the commands print, word for word.

``UPDATE_GOLDEN=1 pytest tests/results/test_results_golden.py`` writes the files anew; look at the difference.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from evalscope_vacc.cli import compare, estimate, models, published
from evalscope_vacc.demo.run import DemoReport, DemoRow
from evalscope_vacc.store import Listing
from evalscope_vacc.view import listings
from evalscope_vacc.view.document import to_terminal
from evalscope_vacc.view.words import Words

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
QWEN = "vacc/Qwen3-Embedding-0.6B"
app = typer.Typer()
app.command("compare")(compare.compare)
app.command("published")(published.published)
app.command("estimate")(estimate.estimate)
app.command("models")(models.models)


def printed(*arguments: str | Path) -> tuple[str, int]:
    plain = {"COLUMNS": "120", "FORCE_COLOR": None, "TTY_COMPATIBLE": None}
    done = CliRunner().invoke(app, [str(a) for a in arguments], env=plain)
    return "".join(f"{line.rstrip()}\n" for line in done.output.splitlines()), done.exit_code


def named(name: str, lang: str) -> str:
    stem, _, suffix = name.rpartition(".")
    return f"{stem}.{lang}.{suffix}"


def check(golden: Path, name: str, text: str) -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        (golden / name).write_text(text, encoding="utf-8")
    assert text == (golden / name).read_text(encoding="utf-8")


LANGUAGES = pytest.mark.parametrize("lang", ["en", "zh"])


@LANGUAGES
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("published.txt", ["published"]),
        ("published.minilm.txt", ["published", "all-MiniLM-L6-v2"]),
        ("published.minilm.json", ["published", "all-MiniLM-L6-v2", "--json"]),
        ("published.reranker.txt", ["published", "Qwen3-Reranker-0.6B"]),
        ("published.bge-m3-reranker.json", ["published", "bge-reranker-v2-m3", "--json"]),
        ("models.txt", ["models"]),
        ("models.qwen.txt", ["models", "Qwen3-Embedding-0.6B"]),
        ("models.qwen.json", ["models", "Qwen3-Embedding-0.6B", "--json"]),
    ],
)
def test_listings_print_what_they_did(golden: Path, name: str, arguments: list[str], lang: str) -> None:
    text, status = printed(*arguments, "--lang", lang)
    assert status == 0
    check(golden, named(name, lang), text)


@LANGUAGES
@pytest.mark.parametrize(("name", "arguments"), [("estimate.txt", []), ("estimate.json", ["--json"])])
def test_estimate_prints_what_it_did(golden: Path, tmp_path: Path, name: str, arguments: list[str], lang: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "tool: mteb\n"
        "models: [{model_name: Qwen3-Embedding-0.6B}, {model_name: Qwen3-Reranker-0.6B}]\n"
        "eval: {task_names: [SciFact, CosQA, MyOwnTask], top_k: 50, limits: 10}\n"
    )
    rates = ["--texts-per-second", "100", "--pairs-per-second", "20", "--tokens-per-second", "20000", "--skip-unknown"]
    text, status = printed("estimate", config, *rates, *arguments, "--lang", lang)
    assert status == 0
    check(golden, named(name, lang), text)


@LANGUAGES
def test_the_smaller_documents_are_what_they_were(golden: Path, lang: str) -> None:
    words = Words(lang)
    row = {"model": "vacc/minilm", "stage": "stage1", "task": "SciFact", "split": "test", "subset": "default"}
    rows = [{**row, "main_score": 0.64508}, {**row, "stage": "stage2", "main_score": None}]
    kept = [
        Listing(
            "resume-0123456789abcdef", Path("x"), "resume", "minilm", "vectors", "SciFact", 5183, 8_000_000, 90.0, True
        ),
        Listing("keep-0123456789abcdef", Path("y"), "keep", "", "", "", 0, 12, 400_000.0, problem="damaged"),
    ]
    demo = DemoReport(
        passed=True, largest_difference=2e-6, two_stage_difference=0.0, work_dir="outputs/vacc-demo", log="log", seconds=75.0,
        requests=120, texts_encoded=900, texts_remembered=30,
        results=(
            DemoRow("one-stage", "minilm", "VaccDemoSTS", "en", "cosine_spearman", 0.82031, 0.82031),
            DemoRow("second", "minilm-cosine", "VaccDemoRetrieval", "zh", "ndcg_at_10", 0.5, None),
        ),
    )  # fmt: skip
    parts = [
        listings.scores(rows, Path("outputs/RUN"), words), listings.store(Path("home/store"), kept, words),
        listings.store(Path("home/store"), [], words), listings.demo(demo, words),
        listings.demo(replace(demo, passed=False, largest_difference=0.02), words),
    ]  # fmt: skip
    check(golden, named("documents.txt", lang), "\n".join(to_terminal(part, 100) for part in parts))


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


@LANGUAGES
@pytest.mark.parametrize(
    ("name", "arguments", "status"),
    [
        ("compare.several.txt", [], 1),
        ("compare.several.md", ["--markdown"], 1),
        ("compare.several.csv", ["--csv"], 1),
        ("compare.several.json", ["--json"], 1),
        ("compare.nothing.txt", ["--against", "Qwen/Qwen3-Reranker-0.6B"], 2),
        ("compare.int8.txt", ["--against", MINILM, "--dtype", "int8", "--allow-above"], 0),
    ],
)
def test_compare_prints_what_it_did(
    golden: Path, write_run: Any, name: str, arguments: list[str], status: int, lang: str
) -> None:
    folder = several(write_run)
    junit = folder / "junit.xml"
    text, found = printed("compare", folder, *arguments, "--lang", lang, "--junit", junit)
    root = str(folder)
    check(golden, named(name, lang), text.replace(root, "RUN"))
    if name == "compare.several.txt":
        check(golden, named("compare.several.xml", lang), junit.read_text(encoding="utf-8").replace(root, "RUN"))
    assert found == status
