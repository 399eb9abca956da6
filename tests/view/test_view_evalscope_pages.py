"""EvalScope's own pages show a run: the unmodified service lists and opens it, its table and HTML page have the score."""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest

from evalscope_vacc.hosts.evalscope_report import canonical, segment, write_reports
from evalscope_vacc.hosts.run_result import RunResult, StageResult

RUN = "20260102_030405"


def _score(metric: str, value: float, subset: str = "default") -> dict[str, Any]:
    return {metric: value, "main_score": value, "hf_subset": subset, "languages": ["eng-Latn"]}


def _result(task: str, scores: dict[str, list[dict[str, Any]]]) -> Any:
    """MTEB's own result object, as it reads one from disk."""
    mteb = pytest.importorskip("mteb")
    return mteb.TaskResult.model_validate(
        {
            "task_name": task, "scores": scores, "mteb_version": mteb.__version__, "dataset_revision": "abc",
            "evaluation_time": 1.0, "kg_co2_emissions": None,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EvalScope's output folder with one run of two models in two stages."""
    pytest.importorskip("evalscope.report")
    root = tmp_path_factory.mktemp("outputs")
    run = root / RUN
    (run / "configs").mkdir(parents=True)
    (run / "configs" / "task_config.yaml").write_text("eval_backend: RAGEval\neval_config: {tool: mteb}\n")
    subsets = [_score("cosine_spearman", 0.5, "en"), _score("cosine_spearman", 0.7, "de-en")]
    first = StageResult("vacc/minilm", "stage1", run, [
        _result("STSBenchmark", {"test": [_score("cosine_spearman", 0.820325)]}),
        _result("STS22.v2", {"test": subsets}),
        _result("MyOwnTask", {"dev": [_score("accuracy", 0.25)], "test": [_score("accuracy", 0.75)]}),
    ])  # fmt: skip
    second = StageResult("vacc/reranker", "stage2", run, [
        _result("SciFact", {"test": [_score("ndcg_at_10", 0.71)]}),
        _result("SciFact", {"test": [_score("ndcg_at_10", 0.72)]}),
    ])  # fmt: skip
    written = write_reports(RunResult(run, [first, second]), SimpleNamespace(eval=SimpleNamespace(limits=None)))
    assert [path.relative_to(run / "reports").as_posix() for path in written] == [
        "vacc__minilm/STSBenchmark.json",
        "vacc__minilm/STS22.v2.json",
        "vacc__minilm/MyOwnTask.json",
        "vacc__reranker/SciFact.json",
        "vacc__reranker/SciFact_2_.json",
    ]
    return root


@pytest.mark.host
def test_the_table_shows_every_main_score(outputs: Path) -> None:
    from evalscope.report import gen_table

    table = gen_table(reports_path_list=[str(outputs / RUN / "reports")])
    for words in ("vacc/minilm", "STSBenchmark", "cosine_spearman", "82.03", "SciFact (2)", "72", "de-en", "MyOwnTask"):
        assert words in table


@pytest.mark.host
def test_a_task_scores_its_mean_and_counts_its_samples(outputs: Path) -> None:
    from evalscope.report import get_report_list

    reports = {r.dataset_name: r for r in get_report_list([str(outputs / RUN / "reports" / "vacc__minilm")])}
    assert reports["STSBenchmark"].score == pytest.approx(0.8203)
    assert reports["STSBenchmark"].num == 1379
    # MTEB's mean: the subsets count the same, however many samples they have
    assert reports["STS22.v2"].score == pytest.approx(0.6)
    assert reports["MyOwnTask"].score == pytest.approx(0.5)
    assert "MTEB task STSBenchmark (STS); main score: cosine_spearman" in reports["STSBenchmark"].dataset_description


@pytest.mark.host
def test_evalscopes_html_page_has_the_score(outputs: Path) -> None:
    page = (outputs / RUN / "reports" / "report.html").read_text(encoding="utf-8")
    assert "STSBenchmark" in page
    assert "82.03" in page


@pytest.fixture(scope="module")
def service(outputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """EvalScope's own service in its own process, with every hook of ours off; the address."""
    for module in ("flask", "uvicorn"):
        pytest.importorskip(module, reason="needs evalscope[service]")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("service") / "log.txt"
    code = "from evalscope.cli.cli import run_cmd; run_cmd()"
    command = [sys.executable, "-c", code, "service", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--outputs", str(outputs)]
    with (
        log.open("wb") as file,
        subprocess.Popen(
            command, stdout=file, stderr=file, cwd=log.parent, env={**os.environ, "EVALSCOPE_VACC_DISABLE": "1"}
        ) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(1200):
                if process.poll() is not None:
                    pytest.fail(f"the service ended: {log.read_text()[-2000:]}")
                try:
                    urllib.request.urlopen(f"{url}/health", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.2)
            else:
                pytest.fail(f"the service does not answer: {log.read_text()[-2000:]}")
            yield url
        finally:
            process.terminate()
            process.wait(20)


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.host
@pytest.mark.shows("pages")
def test_the_service_lists_the_run_with_its_main_scores(service: str) -> None:
    listed = {item["model_id"]: item for item in _get(f"{service}/api/v1/reports")["reports"]}
    assert set(listed) == {"vacc__minilm", "vacc__reranker"}
    assert listed["vacc__minilm"]["run_id"] == RUN
    assert listed["vacc__minilm"]["model_name"] == "vacc/minilm"
    primary = {metric["dataset_name"]: metric for metric in listed["vacc__minilm"]["primary_metrics"]}
    assert primary["STSBenchmark"]["score"] == pytest.approx(0.8203)
    assert primary["STSBenchmark"]["identity"]["name"] == "cosine_spearman"


@pytest.mark.host
@pytest.mark.shows("pages")
def test_the_service_opens_the_run(service: str) -> None:
    opened = _get(f"{service}/api/v1/reports/runs/{RUN}/models/vacc__minilm")
    by_task = {report["dataset_name"]: report for report in opened["report_list"]}
    assert by_task["STSBenchmark"]["metrics"][0]["score"] == pytest.approx(0.8203)
    table = _get(f"{service}/api/v1/reports/runs/{RUN}/models/vacc__minilm/table")
    assert {row["Dataset"]: row["Score"] for row in table["data"]}["STSBenchmark"] == pytest.approx(0.8203)


@pytest.mark.host
@pytest.mark.slow
def test_the_dashboard_shows_the_run_in_a_browser(service: str, outputs: Path, browser: Any) -> None:
    browser.open(f"{service}/dashboard")
    _wait_for(browser, "82.03")
    assert browser.errors() == []
    browser.picture("evalscope-dashboard", whole=False)
    # where the dashboard's own link leads
    browser.open(f"{service}/reports/{RUN}/vacc__minilm?root_path={quote(str(outputs))}")
    _wait_for(browser, "82.03")
    _wait_for(browser, "1,379")
    assert browser.errors() == []
    browser.picture("evalscope-run", whole=False)


def _wait_for(browser: Any, words: str) -> None:
    for _ in range(300):
        if words in (shown := browser.run("return document.body.innerText")):
            return
        time.sleep(0.1)
    pytest.fail(f"{words!r} is not on the page: {shown[:500]}")


def test_a_score_that_is_not_a_number_makes_no_report(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = SimpleNamespace(task_name="T", scores={"test": [_score("accuracy", math.nan)]})
    with caplog.at_level(logging.WARNING):
        assert write_reports(RunResult(tmp_path, [StageResult("vacc/m", "", tmp_path, [result])])) == []
    assert "T: no report for EvalScope's pages, a main score is missing or not finite" in caplog.text
    assert not (tmp_path / "reports").exists()


def test_whatever_goes_wrong_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stage = StageResult("vacc/m", "", tmp_path, [SimpleNamespace(task_name="T", scores=None)])
    with caplog.at_level(logging.WARNING):
        assert write_reports(RunResult(tmp_path, [stage])) == []
    assert "T: no report for EvalScope's pages" in caplog.text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vacc/minilm", "vacc__minilm"),
        ("../../etc/x", "..__..__etc__x"),
        ("..", "_.."),
        ("a*b[c]?", "a_b_c_"),
        ("模型 v1", "模型_v1"),
        ("x" * 400, "x" * 150),
        ("", "_"),
    ],
)
def test_a_name_becomes_one_harmless_path_segment(name: str, expected: str) -> None:
    assert segment(name) == expected


@pytest.mark.parametrize(
    ("metric", "expected"),
    [("ndcg_at_10", "ndcg_at_10"), ("p-MRR", "p_mrr"), ("score", "main_score"), ("", "main_score"), ("5th", "m_5th")],
)
def test_a_metric_is_spelled_as_evalscope_wants_it(metric: str, expected: str) -> None:
    assert canonical(metric) == expected
