"""Estimates: sizes from MTEB's statistics, time from the user's rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.results.estimate import Estimate, estimate


def config(tmp_path: Path, evaluation: dict[str, Any], *models: dict[str, Any], wrap: bool = False) -> Path:
    content: dict[str, Any] = {
        "tool": "mteb",
        "models": list(models) or [{"model_name": "Qwen3-Embedding-0.6B"}],
        "eval": evaluation,
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"eval_backend": "RAGEval", "eval_config": content} if wrap else content))
    return path


def run(path: Path, rate: float = 10.0, pairs: float | None = None) -> Estimate:
    return estimate(path, texts_per_second=rate, pairs_per_second=pairs)


def test_retrieval_counts_queries_and_documents(tmp_path: Path) -> None:
    (task,) = run(config(tmp_path, {"task_names": ["SciFact"]})).tasks
    assert (task.unit, task.count) == ("texts", 5183 + 300)
    assert task.seconds == pytest.approx(548.3)
    # 7.8 million characters of English
    assert 1.5e6 < task.tokens < 2.2e6


def test_a_repeated_text_counts_once(tmp_path: Path) -> None:
    (task,) = run(config(tmp_path, {"task_names": ["STSBenchmark"]})).tasks
    assert task.count == 1256 + 1337


def test_a_classifiers_training_texts_count(tmp_path: Path) -> None:
    (task,) = run(config(tmp_path, {"task_names": ["Banking77Classification"]})).tasks
    assert task.count == 3080 + 10 * 8 * 77


def test_languages_and_splits_are_followed(tmp_path: Path) -> None:
    names = ["MassiveIntentClassification"]
    whole = run(config(tmp_path, {"task_names": names})).tasks[0].count
    english = run(config(tmp_path, {"task_names": names, "languages": ["eng"]})).tasks[0].count
    test = run(config(tmp_path, {"task_names": names, "languages": ["eng"], "splits": {"*": "test"}})).tasks[0].count
    assert whole > 40 * english > 40 * test > 0


def test_two_stages_count_texts_and_pairs_at_their_own_rates(tmp_path: Path) -> None:
    models = [{"model_name": "Qwen3-Embedding-0.6B"}, {"model_name": "Qwen3-Reranker-0.6B"}]
    found = run(config(tmp_path, {"task_names": ["SciFact"], "top_k": 50}, *models), pairs=5.0)
    first, second = found.tasks
    assert (first.unit, first.model) == ("texts", "Qwen3-Embedding-0.6B")
    assert (second.unit, second.count, second.seconds) == ("pairs", 300 * 50, 3000.0)
    assert found.seconds == pytest.approx(548.3 + 3000)


def test_a_reranking_task_brings_its_own_candidates(tmp_path: Path) -> None:
    (task,) = run(
        config(tmp_path, {"task_names": ["AskUbuntuDupQuestions"]}, {"model_name": "bge-reranker-v2-m3"})
    ).tasks
    assert (task.unit, task.count) == ("pairs", 7220)


def test_stored_predictions_narrow_the_candidates_that_a_task_brings(tmp_path: Path) -> None:
    name = "Core17InstructionRetrieval"
    own = {"model_name": "Qwen3-Reranker-0.6B"}
    whole = run(config(tmp_path, {"task_names": [name]}, own)).tasks[0].count
    for kwargs in ({"embed_results": {name: "p.json"}}, {"task_name": [name], "embed_results": ["p.json"]}):
        first = (
            run(config(tmp_path, {"task_names": [name], "top_k": 100}, {**own, "model_kwargs": kwargs})).tasks[0].count
        )
        assert (first, whole) == (40 * 100, 40 * 1000)


def test_the_published_score_is_expected(tmp_path: Path) -> None:
    (task,) = run(config(tmp_path, {"task_names": ["STS12"]})).tasks
    assert (task.expected, task.metric) == (pytest.approx(0.823, abs=0.01), "cosine_spearman")


@pytest.mark.parametrize(
    ("model", "evaluation"),
    [
        ({"model_name": "Qwen3-Embedding-0.6B", "instruction_profile": "mteb"}, {}),
        ({"model_name": "Qwen3-Embedding-0.6B", "max_tokens": 512}, {}),
        ({"model_name": "Qwen3-Reranker-0.6B", "rerank_template": "qwen3"}, {}),
        ({"model_name": "Qwen3-Reranker-0.6B"}, {"top_k": 50}),
    ],
)
def test_a_score_that_was_published_under_other_settings_is_not_expected(
    tmp_path: Path, model: dict[str, Any], evaluation: dict[str, Any]
) -> None:
    found = run(config(tmp_path, {"task_names": ["CosQA"], **evaluation}, model))
    assert (found.tasks[0].expected, found.means) == (None, ())


def test_a_task_without_sizes_is_named_and_not_counted(tmp_path: Path) -> None:
    path = config(tmp_path, {"task_names": ["SciFact", "MyOwnTask"]})
    with pytest.raises(ConfigError, match="the sizes of MyOwnTask are unknown"):
        run(path)
    found = estimate(path, texts_per_second=10.0, skip_unknown=True)
    assert found.unknown == ("MyOwnTask",)
    assert len(found.tasks) == 1


@pytest.mark.parametrize(("name", "nearest"), [("SciFcat", "SciFact"), ("MTEB(eng, v22)", r"MTEB\(eng, v2\)")])
def test_a_misspelt_name_is_an_error_that_names_the_nearest(tmp_path: Path, name: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=rf"did you mean {nearest}\?"):
        run(config(tmp_path, {"task_names": [name]}))


def test_time_follows_the_tokens_or_the_slower_of_two_rates(tmp_path: Path) -> None:
    path = config(tmp_path, {"task_names": ["SciFact", "STSBenchmark"]})
    by_tokens = estimate(path, tokens_per_second=1000.0)
    assert [task.seconds for task in by_tokens.tasks] == [task.tokens / 1000 for task in by_tokens.tasks]
    both = estimate(path, tokens_per_second=1000.0, texts_per_second=20.0)
    assert [t.seconds for t in both.tasks] == [max(t.tokens / 1000, t.count / 20) for t in both.tasks]


def test_without_a_rate_the_time_is_not_known(tmp_path: Path) -> None:
    found = estimate(config(tmp_path, {"task_names": ["SciFact"]}))
    assert (found.seconds, found.tasks[0].seconds) == (None, None)
    assert found.tasks[0].tokens > 0


def test_a_whole_task_file_and_the_older_spelling_are_understood(tmp_path: Path) -> None:
    wrapped = run(config(tmp_path, {"task_names": ["SciFact"]}, wrap=True))
    path = tmp_path / "old.yaml"
    path.write_text("tool: mteb\nmodel: [{model_name: Qwen3-Embedding-0.6B}]\neval: {tasks: [SciFact], limits: 5}\n")
    old = run(path)
    assert old.tasks == wrapped.tasks
    assert "limits_ignored" in [note.code for note in old.notes]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read"),
        ("[1, 2]", "expected keys such as tool, models and eval, found list"),
        ("models: []", "models .* and eval"),
        ("models: [1]\neval: {task_names: [SciFact]}", "models .* and eval"),
        ("models: [{model_name: x}]\neval: {}", "lists no task"),
        ("models: [{model_name: x}]\neval: {task_names: [[1]]}", "lists no task"),
        ("models: [{model_name: x}]\neval: {task_names: [SciFact], top_k: many}", "top_k"),
        ("a: !!python/object/apply:os.system ['true']", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        run(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        run(tmp_path / "none.yaml")


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_a_rate_must_be_a_rate(tmp_path: Path, rate: float) -> None:
    with pytest.raises(ConfigError, match="texts-per-second"):
        run(config(tmp_path, {"task_names": ["SciFact"]}), rate=rate)
