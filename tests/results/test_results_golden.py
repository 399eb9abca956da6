"""What the commands print, word for word.

``UPDATE_GOLDEN=1 pytest tests/results/test_results_golden.py`` writes the files anew; look at the difference.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from evalscope_vacc.checks.compare import Parity
from evalscope_vacc.checks.findings import Finding, Report
from evalscope_vacc.checks.parity import ParityResult
from evalscope_vacc.cli import compare, estimate, models, published
from evalscope_vacc.demo.run import DemoReport, DemoRow
from evalscope_vacc.messages import Reason
from evalscope_vacc.store import Listing
from evalscope_vacc.view import checks, listings
from evalscope_vacc.view.document import to_terminal
from evalscope_vacc.view.machine import to_json
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


def reports() -> list[Report]:
    """Two models: one with something of everything, and one with two servers that is in order."""
    figures = {"measure": Reason("measure_cosine"), "allowed": 1e-6, "gap": 0.3, "bad": 3, "batches": 24}
    answers = (Reason.of("found_en", right=17, questions=17), Reason.of("found_zh", right=9, questions=15))
    found = (
        Finding("reachable.ok", {"ms": 3.2}),
        Finding("model.other", {"name": "minilm", "near": "'minilm-l6'", "best": "minilm-l6"}),
        Finding("norm.other", {"length": Reason.of("to", first="0.99", last="1.2")}),
        Finding("repeat.ok", {**figures, "gap": 1e-5, "texts": 12, "like": Reason.of("rounds_as", dtype="bfloat16")}),
        Finding("batch.differs", figures),
        Finding("sanity.weak", {"seen": answers}),
        Finding("kind.request", {"error": "HTTP 418"}),
    )
    agree = Finding("servers-agree.ok", {"other": "http://a/v1", "gap": 1e-8}, "http://b/v1")
    second = Report("reranker", ("http://a/v1", "http://b/v1"), "cross-encoder", (agree,), 4.0)
    return [Report("minilm", ("http://h:8000/v1",), "encoder", found, 15.2), second]


def parities() -> list[ParityResult]:
    """Vectors that differ, vectors that cannot be compared, scores that are the same, and answers that are only stored."""
    buckets = [{"name": f"{n} short", "texts": 9, "mean": 0.9999999, "least": 0.99} for n in ("en", "zh")]
    figures = {"texts": 18, "cosine_mean": 0.9999999, "cosine_least": 0.99, "buckets": buckets, "overlap_at_10": 0.97,
               "max_absolute_difference": 0.02}  # fmt: skip
    problems = (Reason.of("differs.cosine", gap=0.01, allowed=1e-6),)
    looks = (Reason("read.lower"), Reason.of("looks.language", language=Reason("language_zh")))
    unknown = {**dict.fromkeys(figures), "texts": 18, "buckets": []}
    size = Parity("vectors", unknown, (Reason.of("differs.size", served=256, reference=384),), (Reason("looks.size"),))
    scores = {"pairs": 100, "queries": 10, "max_absolute_difference": 1e-7, "mean_absolute_difference": 1e-8,
              "kendall_tau_mean": 1.0, "kendall_tau_least": 0.999}  # fmt: skip
    result = ParityResult("minilm", "minilm at http://h:8000/v1", "weights in process", "float32", "our own list",
                          Parity("vectors", figures, problems, looks, np.full(18, 0.01)), (), 12.3)  # fmt: skip
    return [
        result, replace(result, found=size), replace(result, found=Parity("scores", scores)),
        replace(result, found=None, reference="", files=(Path("a.npz"),)),
    ]  # fmt: skip


@LANGUAGES
def test_check_and_parity_print_what_they_did(golden: Path, lang: str) -> None:
    words = Words(lang)
    for verbose in (False, True):
        name = f"check.{'verbose.' if verbose else ''}txt"
        check(golden, named(name, lang), to_terminal(checks.check(reports(), words, verbose=verbose)))
    check(golden, named("check.json", lang), to_json(checks.check_mapping(reports(), words)))
    shown = "\n".join(to_terminal(checks.parity(result, words)) for result in parities())
    check(golden, named("parity.txt", lang), shown)
    check(golden, named("parity.json", lang), to_json([checks.parity_mapping(one, words) for one in parities()]))


def test_without_a_terminal_nothing_is_wrapped_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = to_terminal(checks.check(reports(), Words()))
    monkeypatch.setenv("COLUMNS", "40")
    assert to_terminal(checks.check(reports(), Words())) == wide
    assert max(map(len, wide.splitlines())) > 120


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
