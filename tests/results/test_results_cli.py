"""The commands, through the program that users call."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from evalscope_vacc.cli import compare, estimate, published
from evalscope_vacc.errors import ConfigError
from evalscope_vacc.results.published import find

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
app = typer.Typer()
app.command("compare")(compare.compare)
app.command("published")(published.published)
app.command("estimate")(estimate.estimate)


def call(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "120"})


@pytest.fixture
def minilm(shared: Path, write_run: Any) -> Any:
    """A run with the scores that the weights have in process, or with each of them changed."""
    tasks = json.loads((shared / "data" / "reference_minilm.json").read_text(encoding="utf-8"))["tasks"]

    def write(change: float = 0.0, **options: Any) -> Path:
        folder = Path()
        for task, entries in tasks.items():
            splits: dict[str, dict[str, float]] = {}
            for entry in entries:
                splits.setdefault(entry["split"], {})[entry["subset"]] = entry["in_process_score"] + change
            folder = write_run({task: splits}, metric=entries[0]["metric"], **options)
        return folder

    return write


def test_the_served_weights_pass_against_what_others_published(minilm: Any) -> None:
    done = call("compare", minilm(), "--against", MINILM)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("PASS: 7 of 7 scores")


def test_a_run_that_lost_its_texts_fails_and_says_where_and_by_how_much(minilm: Any) -> None:
    done = call("compare", minilm(-0.05, kwargs={"maxlen": 16}), "--against", MINILM)
    assert done.exit_code == 1
    assert "SciFact · test −5.000 points" in done.output
    assert "max_tokens 16 here, not recorded in the reference" in done.output


def test_a_reference_of_other_tasks_has_nothing_comparable(minilm: Any) -> None:
    done = call("compare", minilm(), "--against", "Qwen/Qwen3-Reranker-8B")
    assert done.exit_code == 2
    assert done.output.startswith("NOTHING COMPARABLE: no score can be compared with Qwen/Qwen3-Reranker-8B")


def test_the_served_models_own_name_is_looked_up(minilm: Any) -> None:
    done = call("compare", minilm(model="vacc/all-minilm-l6-v2"), "--json")
    assert done.exit_code == 0
    document = json.loads(done.output)
    assert document["verdict"] == "pass"
    assert document["comparisons"][0]["reference"] == MINILM


def test_scores_at_chance_are_said_also_where_there_is_no_reference(write_run: Any) -> None:
    folder = write_run({"STSBenchmark": {"test": {"default": 0.01}}}, model="vacc/mine")
    done = call("compare", folder)
    assert isinstance(done.exception, ConfigError)
    assert "no scores are published under the name mine" in str(done.exception)
    assert str(done.exception).endswith("WARNING: no better than chance: STSBenchmark")


def test_a_name_without_published_scores_asks_for_against(minilm: Any) -> None:
    done = call("compare", minilm())
    assert isinstance(done.exception, ConfigError)
    assert "--against" in str(done.exception)


@pytest.mark.parametrize("flag", ["--json", "--markdown", "--csv"])
def test_other_formats_keep_the_exit_status_and_print_nothing_else(minilm: Any, flag: str) -> None:
    done = call("compare", minilm(-0.05), "--against", MINILM, flag)
    assert done.exit_code == 1
    assert done.output[0] in {"--json": "{", "--markdown": "#", "--csv": "v"}[flag]


@pytest.mark.parametrize("flag", [[], ["--json"], ["--csv"], ["--markdown"]])
@pytest.mark.parametrize(("change", "status"), [(0.0, 0), (-0.05, 1)])
def test_a_reader_that_stops_reading_does_not_change_the_verdict(
    minilm: Any, change: float, status: int, flag: list[str]
) -> None:
    command = [sys.executable, "-m", "evalscope_vacc", "compare", str(minilm(change)), "--against", MINILM, *flag]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=300, check=False)
    finally:
        os.close(writer)
    assert done.returncode == status, done.stderr
    assert b"Broken" not in done.stderr


def test_a_score_in_percent_is_named_for_what_it_is(write_run: Any) -> None:
    done = call("compare", write_run({"STSBenchmark": {"test": {"default": 82.03}}}), "--against", MINILM)
    assert done.exit_code == 1
    assert "STSBenchmark · test: the score 82.03 is not a fraction from -1 to 1" in " ".join(done.output.split())


def test_a_tolerance_in_points_is_refused(minilm: Any) -> None:
    done = call("compare", minilm(), "--against", MINILM, "--tolerance", "0.2")
    assert isinstance(done.exception, ConfigError)
    assert "would be 20 points: give a fraction from 0 to 0.1; 0.002 means 0.2 points" in str(done.exception)


def test_formats_exclude_one_another(minilm: Any) -> None:
    assert isinstance(call("compare", minilm(), "--against", MINILM, "--json", "--csv").exception, ConfigError)


def test_another_run_is_a_reference(minilm: Any) -> None:
    ours, other = minilm(-0.001, folder="ours"), minilm(folder="other", model="vacc/other")
    assert call("compare", ours, "--against", other).exit_code == 0
    assert call("compare", ours, "--against", other, "--dtype", "float32").exit_code == 1
    assert call("compare", ours, "--against", other, "--tolerance", "0.01").exit_code == 0


@pytest.mark.parametrize("arguments", [["nowhere"], ["nowhere", "--against", MINILM]])
def test_a_folder_that_is_not_there_is_nothing_to_compare(tmp_path: Path, arguments: list[str]) -> None:
    done = call("compare", tmp_path / arguments[0], *arguments[1:])
    assert isinstance(done.exception, ConfigError)  # exit status 2


def test_each_stage_of_two_is_held_against_its_own_reference(write_run: Any) -> None:
    write_run({"STS12": {"test": {"default": 0.5}}}, model="vacc/Qwen3-Embedding-0.6B")
    folder = write_run(
        {"CosQA": {"test": {"default": 0.3683}}},
        model="vacc/Qwen3-Reranker-0.6B",
        cross_encoder=True,
        metric="ndcg_at_10",
    )
    document = json.loads(call("compare", folder, "--json").output)
    assert [c["reference"] for c in document["comparisons"]] == [
        "Qwen/Qwen3-Embedding-0.6B",
        "Qwen/Qwen3-Reranker-0.6B",
    ]
    assert document["exit_status"] == 1


def test_runs_of_several_models_in_one_folder_are_answers_of_their_own(minilm: Any) -> None:
    minilm(model="vacc/other", revision="served-2")
    minilm(-0.05, kwargs={"maxlen": 16})
    folder = minilm()
    done = call("compare", folder, "--against", MINILM, "--json")
    assert done.exit_code == 1
    found = {tuple(c["runs"]): c["verdict"] for c in json.loads(done.output)["comparisons"]}
    assert found == {
        ("vacc/minilm · served-1234abcd",): "pass",
        ("vacc/minilm · served-1234abcd · maxlen_16",): "fail",
        ("vacc/other · served-2",): "pass",
    }
    shown = call("compare", folder, "--against", MINILM).output
    words = [line.split(":")[0] for line in shown.splitlines() if line[:4] in {"PASS", "FAIL"}]
    assert words == ["FAIL", "PASS", "FAIL", "PASS"], "the joint answer, then each run's"


def two_stages(write_run: Any, folder: str, first: float, second: float, digest: str) -> Path:
    """A run in two stages of known models, each with the score that is given."""
    kwargs = {"first": digest, "top_k": 100}
    models = ("vacc/Qwen3-Embedding-0.6B", "vacc/bge-reranker-v2-m3")
    for model, score, options in (
        (models[0], first, {}),
        (models[1], second, {"kwargs": kwargs, "cross_encoder": True}),
    ):
        root = write_run(
            {"SciFact": {"test": {"default": score}}}, model=model, folder=folder, metric="ndcg_at_10", **options
        )
    place = root / "candidates" / digest
    place.mkdir(parents=True)
    (place / "SciFact_predictions.json").write_text(json.dumps({"mteb_model_meta": {"model_name": models[0]}}))
    return root


def test_two_runs_in_two_stages_are_compared_stage_by_stage(write_run: Any) -> None:
    # the digests differ with the last digit of a first-stage score; the encoder that chose is the same
    other = two_stages(write_run, "other", 0.6, 0.7, "0a0a0a0a")
    same = two_stages(write_run, "same", 0.6, 0.7, "0b0b0b0b")
    worse = two_stages(write_run, "worse", 0.6, 0.65, "0c0c0c0c")
    document = json.loads(call("compare", same, "--against", other, "--json").output)
    assert [(c["rows"][0]["reference"], c["verdict"]) for c in document["comparisons"]] == [
        (0.6, "pass"),
        (0.7, "pass"),
    ]
    document = json.loads(call("compare", worse, "--against", other, "--json").output)
    assert [c["verdict"] for c in document["comparisons"]] == ["pass", "fail"]


def test_the_order_of_the_folders_does_not_matter(minilm: Any) -> None:
    folders = [minilm(), minilm(-0.05, kwargs={"maxlen": 16}, folder="cut"), minilm(model="vacc/b", folder="other")]
    outputs = {call("compare", *order, "--against", MINILM, "--json").output for order in permutations(folders)}
    assert len(outputs) == 1
    assert len(json.loads(outputs.pop())["comparisons"]) == 3


def test_an_answer_comes_before_what_is_none(write_run: Any) -> None:
    scores = {"SciFact": {"test": {"default": 0.64508}}}
    write_run(scores, model="vacc/a-reranker", cross_encoder=True, metric="ndcg_at_10")
    folder = write_run(scores, model="vacc/encoder", metric="ndcg_at_10")
    done = call("compare", folder, "--against", MINILM)
    assert done.exit_code == 0
    assert [line[:4] for line in done.output.splitlines() if line[:4] in {"PASS", "NOTH"}] == ["PASS", "PASS", "NOTH"]


def test_scores_that_only_the_reference_run_has_are_named(minilm: Any, write_run: Any) -> None:
    other = minilm(folder="other")
    ours = write_run({"STSBenchmark": {"test": {"default": 0.8203}}}, folder="ours")
    done = call("compare", ours, "--against", other)
    assert done.exit_code == 0
    assert "in the reference only: 7 scores: LCQMC (test), QBQTC (test), STSB (test)" in done.output


def test_a_folder_of_weights_called_like_the_model_is_not_taken_for_results(
    minilm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = minilm()
    weights = tmp_path / MINILM
    weights.mkdir(parents=True)
    (weights / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    done = call("compare", folder, "--against", MINILM)
    assert done.exit_code == 0
    assert done.output.startswith("PASS: 7 of 7 scores")


def test_a_run_under_another_profile_is_named_instead_of_judged(write_run: Any) -> None:
    scores = {"STS12": {"test": {"default": 0.8}}, "SciFact": {"test": {"default": 0.6}}}
    ours = write_run(scores, kwargs={"profile": "qwen-official"}, folder="ours")
    other = write_run(scores, kwargs={"profile": "mteb"}, folder="other")
    done = call("compare", ours, "--against", other)
    assert done.exit_code == 2
    assert done.output.startswith("NOTHING COMPARABLE")
    assert "the reference used profile mteb, this run qwen-official" in " ".join(done.output.split())
    document = json.loads(call("compare", ours, "--against", other, "--json").output)
    assert document["exit_status"] == 2
    rows = document["comparisons"][0]["rows"]
    assert {(r["verdict"], r["difference"], r["share"]) for r in rows} == {("not judged", None, None)}
    assert document["comparisons"][0]["means"] == []


def test_published_scores_of_another_profile_are_named_instead_of_judged(write_run: Any) -> None:
    ours = write_run(
        {"STS13": {"test": {"default": 0.8}}}, model="vacc/Qwen3-Embedding-0.6B", kwargs={"profile": "mteb"}
    )
    done = call("compare", ours)
    assert done.exit_code == 2
    assert "the reference used profile qwen-official, this run mteb" in " ".join(done.output.split())


def test_a_reranking_task_of_mteb_1_meets_the_scores_that_were_published_with_it(write_run: Any) -> None:
    (known,) = [r for r in find("Qwen3-Embedding-0.6B").reference().rows if r.task == "AskUbuntuDupQuestions"]
    metrics = {"map": known.score, "mrr": 0.7}
    ours = write_run(
        {"AskUbuntuDupQuestions": {"test": {"default": metrics}}},
        model="vacc/Qwen3-Embedding-0.6B", mteb_version="1.38.20", dataset_revision=known.dataset_revision,
    )  # fmt: skip
    done = call("compare", ours)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("PASS: 1 of 1 scores")


def test_published_lists_models_and_scores_with_their_sources() -> None:
    assert "Qwen/Qwen3-Embedding-0.6B" in call("published").output
    shown = call("published", "all-minilm-l6-v2").output
    for word in (MINILM, "f4cc6c8b365a3c779dbc708d6affe0b0355b2ddf", "STSBenchmark", "82.03", "1.12.75", "b0fddb56"):
        assert word in shown
    document = json.loads(call("published", "Qwen3-Reranker-4B", "--json").output)
    assert {m["benchmark"]: m["value"] for m in document["means"]}["MTEB-R"] == 0.6976
    assert {"task", "split", "subset", "metric", "score", "mteb_version", "dataset_revision", "source"} <= set(
        document["rows"][0]
    )
    assert isinstance(call("published", "nothing-like-it").exception, ConfigError)


def test_estimate_prints_a_table_and_json(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "tool: mteb\nmodels: [{model_type: vacc_api, model_name: Qwen3-Embedding-0.6B}]\n"
        "eval: {benchmarks: ['MTEB(cmn, v1)']}\n"
    )
    shown = call("estimate", config, "--texts-per-second", "800").output
    assert shown.startswith("together about")
    assert "MTEB(cmn, v1) Mean(Task) 66.33" in shown
    document = json.loads(call("estimate", config, "--texts-per-second", "800", "--json").output)
    assert document["seconds"] == pytest.approx(document["texts"] / 800)


def test_comparing_loads_neither_torch_nor_mteb_nor_evalscope(minilm: Any) -> None:
    code = (
        "import sys\nfrom evalscope_vacc.results.ask import verdict_of\nfrom evalscope_vacc.results.noise import Noise\n"
        f"verdict_of([{str(minilm())!r}], {MINILM!r}, Noise())\n"
        "print([m for m in ('torch', 'mteb', 'evalscope', 'transformers', 'datasets', 'scipy', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"EVALSCOPE_VACC_DISABLE": "1"},
    )
    assert done.stdout.strip().splitlines()[-1] == "[]", done.stdout + done.stderr


def test_the_same_model_in_two_folders_is_two_runs_side_by_side(minilm: Any, tmp_path: Path) -> None:
    folders = [minilm(folder="float32"), minilm(-0.0004, folder="float16"), minilm(-0.05, folder="int8")]
    for folder in folders:
        (folder / "vacc").mkdir()
    document = json.loads(call("compare", *folders, "--against", MINILM, "--json").output)
    assert {c["runs"][0].rsplit(" · ", 1)[-1]: c["verdict"] for c in document["comparisons"]} == {
        "float32": "pass", "float16": "pass", "int8": "fail",
    }  # fmt: skip
    assert document["exit_status"] == 1
    shown = call("compare", *folders, "--against", MINILM).output
    line = next(line for line in shown.splitlines() if line.startswith("STSBenchmark") and "▲" in line)
    best, worst = line.index("▲"), line.index("▼")
    heads = next(line for line in shown.splitlines() if line.split()[:3] == ["Task", "Reference", "A"])
    assert len(heads.split()) == 5
    order = [
        line.rsplit(" · ", 1)[-1] for line in shown.splitlines() if line.strip().startswith(("A = ", "B = ", "C = "))
    ]
    assert sorted(order) == ["float16", "float32", "int8"]
    assert best != worst


def test_a_run_in_two_parts_is_one_run(minilm: Any, write_run: Any) -> None:
    first = write_run({"STSBenchmark": {"test": {"default": 0.8203}}}, folder="first")
    second = write_run({"SciFact": {"test": {"default": 0.64508}}}, folder="second", metric="ndcg_at_10")
    for folder in (first, second):
        (folder / "vacc").mkdir()
    done = call("compare", first, second, "--against", MINILM)
    assert done.output.startswith("PASS: 2 of 2 scores")


def test_runs_that_nobody_published_scores_for_are_held_against_the_first(minilm: Any) -> None:
    first, second = minilm(folder="image-a"), minilm(-0.05, folder="image-b")
    for folder in (first, second):
        (folder / "vacc").mkdir()
    done = call("compare", first, second, "--json")
    (comparison,) = json.loads(done.output)["comparisons"]
    assert comparison["reference"].endswith("image-a")
    assert comparison["runs"][0].endswith("image-b")
    assert done.exit_code == 1
    assert call("compare", second, first).exit_code == 1, "above the first is as different as below"


def test_junit_is_written_beside_what_is_printed(minilm: Any, tmp_path: Path) -> None:
    file = tmp_path / "new" / "junit.xml"
    done = call("compare", minilm(-0.05), "--against", MINILM, "--junit", file, "--lang", "zh")
    assert done.exit_code == 1
    assert done.output.startswith("不通过")
    assert '<property name="exit_status" value="1" />' in file.read_text(encoding="utf-8")
    done = call("compare", minilm(), "--against", MINILM, "--lang", "fr")
    assert isinstance(done.exception, ConfigError)
