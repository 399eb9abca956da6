"""Reading result folders: what real hosts wrote, and what nobody should have written."""

from __future__ import annotations

import json
import math
import os
import shutil
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalscope_vacc.errors import ResultError, VaccError
from evalscope_vacc.results.load import load_results
from evalscope_vacc.results.model import Results
from evalscope_vacc.view.words import Words


def test_mteb_2_rows_carry_metric_version_revision_and_type(data: Path) -> None:
    results = load_results([data / "mteb2"])
    assert results.problems == ()
    rows = {(r.task, r.split, r.subset): r for r in results.rows if not r.run.experiment}
    row = rows["MockPairClassificationTask", "test", "default"]
    # five metrics have the value 0.5: the one that MTEB's tasks of this type use is named
    assert (row.metric, row.score) == ("max_ap", 0.5)
    assert row.mteb_version == "2.26.24"
    assert row.run.model == "mteb/baseline-random-encoder"
    assert row.run.revision == "2"
    assert row.run.kind == "encoder"
    assert {k for k in rows if k[0] == "MockMultilingualSTSTask"} == {
        ("MockMultilingualSTSTask", "test", "eng"),
        ("MockMultilingualSTSTask", "test", "fra"),
    }
    assert rows["MockRetrievalTask", "val", "default"].metric == "ndcg_at_10"


def test_experiment_folders_are_runs_of_their_own_with_their_settings(data: Path) -> None:
    results = load_results([data / "mteb2"])
    (row,) = [r for r in results.rows if r.run.experiment and r.subset == "fra"]
    assert row.run.experiment == "maxlen_16__profile_none"
    assert (row.conditions.profile, row.conditions.max_tokens) == ("none", 16)
    plain = next(r for r in results.rows if not r.run.experiment)
    assert (plain.conditions.profile, plain.conditions.max_tokens) == (None, None)


def test_mteb_1_results_and_predictions_are_read(data: Path) -> None:
    results = load_results([data / "mteb1"])
    assert {(r.task, r.metric, r.mteb_version) for r in results.rows} == {
        ("MySTS", "cosine_spearman", "1.38.20"),
        ("MyRet", "ndcg_at_10", "1.38.20"),
    }
    assert results.rows[0].run.model == ""
    (predictions,) = results.predictions
    assert (predictions.task, predictions.subset) == ("MyRet", "default")


@pytest.mark.parametrize(
    "level", ["", "results", "results/mteb__baseline-random-encoder", "results/mteb__baseline-random-encoder/2"]
)
def test_any_level_of_a_layout_may_be_given(data: Path, level: str) -> None:
    whole = load_results([data / "mteb2"])
    part = load_results([data / "mteb2" / level])
    assert [(r.run, r.key, r.score) for r in part.rows] == [(r.run, r.key, r.score) for r in whole.rows]


def test_a_single_file_is_read(data: Path) -> None:
    file = data / "mteb2/results/mteb__baseline-random-encoder/2/MockSTSTask.json"
    results = load_results([file])
    assert [r.task for r in results.rows] == ["MockSTSTask"]
    assert results.rows[0].run.model == "mteb/baseline-random-encoder"


def test_overlapping_paths_count_once(data: Path) -> None:
    once = load_results([data / "mteb2"])
    twice = load_results([data / "mteb2" / "results", data / "mteb2"])
    assert len(twice.rows) == len(once.rows)


def test_two_stages_of_evalscope_are_told_apart_by_their_folders(data: Path, tmp_path: Path) -> None:
    source = data / "mteb2/results/mteb__baseline-random-encoder/2/MockRetrievalTask.json"
    for stage in ("stage1", "stage2"):
        place = tmp_path / "20250101_000000" / stage / "results" / f"eval__{stage}-model" / "master"
        place.mkdir(parents=True)
        shutil.copy(source, place)
    kinds = {r.run.model: r.run.kind for r in load_results([tmp_path]).rows}
    assert kinds == {"eval/stage1-model": "encoder", "eval/stage2-model": "cross-encoder"}


def test_a_folder_of_the_users_own_that_is_called_like_a_stage_says_nothing(write_run: Any) -> None:
    root = write_run({"STS12": {"test": {"default": 0.7}}}, folder="stage2/outputs")
    assert load_results([root]).rows[0].run.kind == "encoder"


def test_stages_of_the_older_line_lie_beside_one_another(write_run: Any, tmp_path: Path) -> None:
    place = tmp_path / "stage2" / "some-model" / "abc"
    place.mkdir(parents=True)
    scores = {"test": [{"hf_subset": "default", "main_score": 0.5}]}
    (place / "SciFact.json").write_text(json.dumps({"task_name": "SciFact", "scores": scores}))
    assert load_results([tmp_path]).rows[0].run.kind == "cross-encoder"


def test_a_rerankers_tasks_are_one_run_though_each_has_candidates_of_its_own(write_run: Any) -> None:
    for digest, task in (("1a2b3c4d", "SciFact"), ("5e6f7a8b", "NFCorpus")):
        kwargs = {"first": digest, "top_k": 100}
        root = write_run({task: {"test": {"default": 0.7}}}, kwargs=kwargs, cross_encoder=True, metric="ndcg_at_10")
    results = load_results([root])
    (run,) = results.runs
    assert run.experiment == "top_k_100"
    assert {row.conditions.first_stage for row in results.rows} == {"1a2b3c4d", "5e6f7a8b"}
    older = write_run(
        {"SciFact": {"test": {"default": 0.7}}}, revision="served-1__first_1a2b3c4d__top_k_100", folder="older"
    )
    (row,) = load_results([older]).rows
    assert (row.run.revision, row.conditions.first_stage) == ("served-1__top_k_100", "1a2b3c4d")


def candidates(root: Path, task: str, digest: str, model: str) -> None:
    """Writes what a reranking run keeps of the predictions that it was given."""
    folder = root / "candidates" / digest
    folder.mkdir(parents=True, exist_ok=True)
    content = {"mteb_model_meta": {"model_name": model, "revision": digest}, "default": {"test": {"q": {"d": 1.0}}}}
    (folder / f"{task}_predictions.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("model", "recorded"),
    [
        ("vacc/Qwen3-Embedding-0.6B", "Qwen/Qwen3-Embedding-0.6B"),
        ("vacc/bge-m3", "BAAI/bge-m3"),
        # whose weights these are is not known
        ("vacc/my-own", "vacc/my-own"),
        ("", "1a2b3c4d"),
    ],
)
def test_the_encoder_that_chose_the_candidates_is_known_by_name(write_run: Any, model: str, recorded: str) -> None:
    kwargs = {"first": "1a2b3c4d", "top_k": 100}
    root = write_run({"SciFact": {"test": {"default": 0.7}}}, kwargs=kwargs, cross_encoder=True, metric="ndcg_at_10")
    candidates(root, "SciFact", "1a2b3c4d", model)
    results = load_results([root])
    assert results.rows[0].conditions.first_stage == recorded
    assert results.predictions == ()  # what it was given is not what it predicted


def test_the_evidence_of_another_run_in_the_same_folder_is_not_taken(write_run: Any) -> None:
    scores = {"STS12": {"test": {"default": 0.7}}}
    root = write_run(scores)
    write_run(scores, kwargs={"maxlen": 16})
    (root / "vacc").mkdir()
    entry = {"name": "vacc/minilm", "max_tokens": 16, "instruction_profile": "none"}
    (root / "vacc" / "config.json").write_text(json.dumps({"models": [entry]}))
    found = {row.run.experiment: row.conditions.max_tokens for row in load_results([root]).rows}
    assert found == {"": None, "maxlen_16": 16}


def test_evidence_of_the_run_tells_profile_and_limit(write_run: Any) -> None:
    root = write_run({"STS12": {"test": {"default": 0.7}}}, model="vacc/Served")
    (root / "vacc").mkdir()
    models = [
        {"name": "other", "instruction_profile": "mteb", "max_tokens": 7},
        {"name": "served", "instruction_profile": "qwen-official", "max_tokens": 8192, "rerank_template": "auto"},
    ]
    (root / "vacc" / "config.json").write_text(json.dumps({"models": models}))
    (row,) = load_results([root]).rows
    assert (row.conditions.profile, row.conditions.max_tokens) == ("qwen-official", 8192)
    assert row.conditions.template is None  # "auto" is a wish, not a template


def test_the_name_of_a_result_wins_over_the_evidence(write_run: Any) -> None:
    root = write_run({"STS12": {"test": {"default": 0.7}}}, kwargs={"maxlen": 16})
    (root / "vacc").mkdir()
    (root / "vacc" / "config.json").write_text(
        json.dumps({"models": [{"name": "minilm", "max_tokens": 256, "dtype": "float32"}]})
    )
    (row,) = load_results([root]).rows
    assert (row.conditions.max_tokens, row.conditions.dtype) == (16, "float32")


def test_settings_in_the_revision_of_mteb_1_are_read(write_run: Any) -> None:
    root = write_run({"STS12": {"test": {"default": 0.7}}}, revision="served-1234abcd__dim_64__maxlen_16__profile_mteb")
    (row,) = load_results([root]).rows
    assert (row.conditions.dimensions, row.conditions.max_tokens, row.conditions.profile) == (64, 16, "mteb")


def test_defaults_of_the_catalog_stand_in_for_our_own_names_and_are_marked(write_run: Any) -> None:
    root = write_run({"STS12": {"test": {"default": 0.7}}}, model="vacc/Qwen3-Embedding-0.6B")
    (row,) = load_results([root]).rows
    assert (row.conditions.profile, row.conditions.max_tokens) == ("qwen-official", 8192)
    assert row.conditions.assumed == ("max_tokens", "profile")
    other = write_run({"STS12": {"test": {"default": 0.7}}}, model="somebody/Qwen3-Embedding-0.6B", folder="other")
    assert load_results([other]).rows[0].conditions.profile is None


def test_a_template_that_is_chosen_by_itself_is_the_familys(write_run: Any) -> None:
    root = write_run({"NFCorpus": {"test": {"default": 0.3}}}, model="vacc/Qwen3-Reranker-0.6B", cross_encoder=True)
    (row,) = load_results([root]).rows
    assert row.conditions.template == "qwen3"
    assert "template" in row.conditions.assumed


@pytest.mark.parametrize("bad", ["NaN", "Infinity", '"0.7"', "true", "null", "1" + "0" * 400])
def test_a_main_score_that_is_no_finite_number_is_none_and_never_a_number(tmp_path: Path, bad: str) -> None:
    file = tmp_path / "STS12.json"
    file.write_text('{"task_name": "STS12", "scores": {"test": [{"hf_subset": "default", "main_score": ' + bad + "}]}}")
    (row,) = load_results([file]).rows
    assert row.score is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ('{"task_name": "T", "scores": {"test": {}}}', "are not a list"),
        ('{"task_name": "T", "scores": {"test": [1]}}', "not a list of mappings"),
        ('{"task_name": "", "scores": {"test": [{}]}}', "task_name is not a name"),
        ('{"task_name": "' + "x" * 201 + '", "scores": {"test": [{}]}}', "task_name is not a name"),
        ('{"mteb_dataset_name": "T", "test": {}}', "before 1.11"),
        ("\xff\xfe", "cannot be read as JSON"),
    ],
)
def test_what_cannot_be_read_is_named_and_the_rest_is_kept(write_run: Any, content: str, words: str) -> None:
    root = write_run({"STS12": {"test": {"default": 0.7}}})
    (root / "results" / "Broken.json").write_bytes(content.encode("latin-1"))
    results = load_results([root])
    assert [r.task for r in results.rows] == ["STS12"]
    assert len(results.problems) == 1
    said = Words().say(results.problems[0])
    assert words in said
    assert "Broken.json" in said


def test_broken_descriptions_count_as_not_recorded(write_run: Any) -> None:
    root = write_run({"STS12": {"test": {"default": 0.7}}})
    (root / "vacc").mkdir()
    (root / "vacc" / "config.json").write_text("{")
    next(root.rglob("model_meta.json")).write_text("[1, 2")
    results = load_results([root])
    assert results.rows[0].run.model == "vacc/minilm"  # from the path
    assert len(results.problems) == 2


def test_a_missing_path_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="nowhere"):
        load_results([tmp_path / "nowhere"])


def test_links_inside_a_folder_are_not_followed_and_pipes_not_opened(write_run: Any, tmp_path: Path) -> None:
    root = write_run({"STS12": {"test": {"default": 0.7}}})
    (root / "loop").symlink_to(root, target_is_directory=True)
    os.mkfifo(root / "Pipe.json")
    assert [r.task for r in load_results([root]).rows] == ["STS12"]


def test_control_characters_in_names_do_not_reach_the_rows(tmp_path: Path) -> None:
    file = tmp_path / "T.json"
    file.write_text(json.dumps({"task_name": "T\x1b[2J", "scores": {"te\u202est": [{"main_score": 0.1}]}}))
    (row,) = load_results([file]).rows
    assert "\x1b" not in row.task
    assert "\u202e" not in row.split


_KEYS = st.sampled_from(
    [
        "task_name",
        "scores",
        "test",
        "hf_subset",
        "main_score",
        "mteb_version",
        "dataset_revision",
        "x",
        "mteb_dataset_name",
    ]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(string.printable, max_size=8) | st.just("STS12"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=5),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=_JSON, meta=_JSON, evidence=_JSON)
def test_anything_in_the_files_gives_rows_or_our_own_errors(
    tmp_path: Path, content: Any, meta: Any, evidence: Any
) -> None:
    (tmp_path / "T.json").write_text(json.dumps(content))
    (tmp_path / "model_meta.json").write_text(json.dumps(meta))
    (tmp_path / "vacc").mkdir(exist_ok=True)
    (tmp_path / "vacc" / "config.json").write_text(json.dumps({"models": evidence}))
    for path in (tmp_path, tmp_path / "T.json"):
        try:
            results = load_results([path])
        except VaccError:
            continue
        assert isinstance(results, Results)
        assert all(r.score is None or math.isfinite(r.score) for r in results.rows)
