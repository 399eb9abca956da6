"""Every kind of run in an unmodified EvalScope: which model does which task, where the files go, what stops a run."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback_server import Reply
from served_model import ServedModel

from evalscope_vacc.errors import ConfigError, RunFailed

pytestmark = pytest.mark.host
pytest.importorskip("mteb", minversion="2.7", reason="the newer line's tests; tests/legacy has the older one's")

RETRIEVAL, STS, CLASSES = "VaccDemoRetrieval", "VaccDemoSTS", "VaccDemoClassification"


@pytest.fixture
def encoder() -> Iterator[ServedModel]:
    with ServedModel("enc") as server:
        yield server


@pytest.fixture
def reranker() -> Iterator[ServedModel]:
    with ServedModel("rank", kind="cross-encoder") as server:
        yield server


def of(server: ServedModel, **keys: Any) -> dict[str, Any]:
    cross = {"is_cross_encoder": True} if server.kind == "cross-encoder" else {}
    return {"model_name": server.name, "api_base": server.base, **cross, **keys}


def main_scores(result: Any, stage: str | None = None) -> dict[tuple[str, str], float]:
    rows = [row for row in result.rows() if stage is None or row["stage"] == stage]
    return {(row["task"], row["subset"]): row["main_score"] for row in rows}


@pytest.mark.shows("encoder")
def test_one_encoder_runs_every_kind_of_task(evaluate: Callable, encoder: ServedModel) -> None:
    result = evaluate([of(encoder)], [RETRIEVAL, STS, CLASSES])
    assert {task for task, _ in main_scores(result)} == {RETRIEVAL, STS, CLASSES}
    assert (result.output_folder / "results" / "vacc__enc").is_dir()
    assert (result.output_folder / "predictions" / f"{RETRIEVAL}_predictions.json").is_file()
    assert (result.output_folder / "vacc" / "usage.json").is_file()
    assert (result.output_folder / "reports" / "vacc__enc" / f"{STS}.json").is_file(), "what EvalScope's pages list"


def test_the_older_spelling_is_understood(encoder: ServedModel, tmp_path: Path, evaluate: Callable) -> None:
    from evalscope_vacc import run

    config = {
        "tool": "MTEB",
        "model": [{"model_type": "vacc_api", "store": "off", "preflight": "off", **of(encoder)}],
        "eval": {
            "tasks": [STS],
            "verbosity": 2,
            "output_folder": "ignored",
            "overwrite_results": True,
            "hub": "huggingface",
        },
    }
    result = run({"eval_backend": "RAGEval", "eval_config": config, "work_dir": str(tmp_path)})
    assert {task for task, _ in main_scores(result)} == {STS}
    logging.getLogger("mteb").setLevel(logging.NOTSET)


def test_keys_about_weights_do_not_stop_a_run_and_evalscope_s_own_entries_are_its_own(
    evaluate: Callable, encoder: ServedModel, caplog: pytest.LogCaptureFixture
) -> None:
    keys = {"torch_dtype": "auto", "pooling_mode": "cls", "encode_kwargs": {"normalize_embeddings": True}}
    with caplog.at_level(logging.INFO, "evalscope_vacc"):
        result = evaluate([of(encoder, **keys)], [STS])
    assert {task for task, _ in main_scores(result)} == {STS}
    notes = json.loads((result.output_folder / "vacc" / "config.json").read_text())
    assert "normalize_embeddings, pooling_mode, torch_dtype: not used" in json.dumps(notes)
    from evalscope.backend.rag_eval.mteb.arguments import MTEBModelConfig

    own = {"model_name_or_path": "own", "torch_dtype": "auto"}
    if MTEBModelConfig.model_config.get("extra") == "forbid":
        with pytest.raises(ValueError, match="torch_dtype"):
            MTEBModelConfig(**own)
    else:  # EvalScope 1.8.1 passes over what it does not know
        assert not hasattr(MTEBModelConfig(**own), "torch_dtype")


@pytest.mark.shows("two-stages")
@pytest.mark.slow
def test_a_mixture_of_tasks_runs_in_two_stages(evaluate: Callable, encoder: ServedModel, reranker: ServedModel) -> None:
    result = evaluate([of(encoder), of(reranker)], [STS, RETRIEVAL, CLASSES], top_k=7)
    assert {task for task, _ in main_scores(result, "stage1")} == {RETRIEVAL, STS, CLASSES}
    assert {task for task, _ in main_scores(result, "stage2")} == {RETRIEVAL}
    # both score by the same cosine, and the measure looks at no more than ten of the candidates
    per_query = {}
    for query, _ in reranker.pairs():
        per_query[query] = per_query.get(query, 0) + 1
    assert set(per_query.values()) == {7}


@pytest.mark.shows("two-stages")
def test_reranking_what_the_first_stage_found_by_the_same_score_changes_nothing(
    evaluate: Callable, encoder: ServedModel, reranker: ServedModel
) -> None:
    result = evaluate([of(encoder), of(reranker)], [RETRIEVAL])
    first, second = main_scores(result, "stage1"), main_scores(result, "stage2")
    assert first.keys() == second.keys()
    for where, score in first.items():
        assert second[where] == pytest.approx(score, abs=1e-6), where


@pytest.mark.slow
def test_several_of_each_run_in_every_pairing(evaluate: Callable) -> None:
    with ServedModel("e1") as e1, ServedModel("e2", dimensions=12) as e2, ServedModel("r1", kind="cross-encoder") as r1:
        result = evaluate([of(e1), of(e2), of(r1)], [RETRIEVAL], top_k=5)
    folders = sorted(p.parent for p in (result.output_folder / "stage2" / "results").rglob(f"{RETRIEVAL}.json"))
    assert len(folders) == 2, "one result a first stage, none overwritten"
    assert {s.model for s in result.stages} == {"vacc/e1", "vacc/e2", "vacc/r1"}


@pytest.fixture(scope="module")
def first_stage(evaluating_in: Callable, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A two-stage run: its score, and its first stage's predictions in both formats."""
    with ServedModel("enc") as encoder, ServedModel("rank", kind="cross-encoder") as reranker:
        evaluate = evaluating_in(tmp_path_factory.mktemp("first"))
        result = evaluate([of(encoder), of(reranker)], [RETRIEVAL], top_k=6)
    path = result.output_folder / "stage1" / "predictions" / f"{RETRIEVAL}_predictions.json"
    return {"path": path, "scores": main_scores(result, "stage2")}


@pytest.fixture
def stored(first_stage: dict[str, Any]) -> dict[str, Any]:
    """The same, with the predictions for a test to change."""
    return {**first_stage, "content": json.loads(first_stage["path"].read_text())}


@pytest.mark.shows("stored")
def test_stored_predictions_rerank_to_the_score_of_the_two_stage_run(
    evaluate: Callable, reranker: ServedModel, stored: dict[str, Any]
) -> None:
    kwargs = {"task_name": [RETRIEVAL], "embed_results": [str(stored["path"])]}
    result = evaluate([of(reranker, model_kwargs=kwargs)], [RETRIEVAL], top_k=6)
    assert main_scores(result) == pytest.approx(stored["scores"])


@pytest.mark.slow
@pytest.mark.shows("stored")
def test_predictions_of_mteb_1_give_the_same_score(
    evaluate: Callable, reranker: ServedModel, stored: dict[str, Any], tmp_path: Path
) -> None:
    for subset in ("en", "zh"):
        path = tmp_path / f"{RETRIEVAL}_{subset}_predictions.json"
        path.write_text(json.dumps(stored["content"][subset]["test"]))
        entry = of(reranker, model_kwargs={"embed_results": {RETRIEVAL: str(path)}}, revision=subset)
        language = {"en": "eng", "zh": "cmn"}[subset]
        result = evaluate([entry], [RETRIEVAL], top_k=6, languages=[language], work_dir=str(tmp_path / subset))
        assert main_scores(result) == pytest.approx({(RETRIEVAL, subset): stored["scores"][RETRIEVAL, subset]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing file", "no such prediction file"),
        ("not json", "not a prediction file"),
        ("missing query", "have no predictions, the first is"),
        ("strange document", "is not in the corpus"),
        ("bad score", "is not a score"),
        ("no split", "no predictions for"),
        ("another task", "which eval.task_names does not"),
    ],
)
def test_a_wrong_prediction_file_stops_the_run_before_anything_is_sent(
    change: str, message: str, evaluate: Callable, reranker: ServedModel, stored: dict[str, Any], tmp_path: Path
) -> None:
    path, content, task = tmp_path / "p.json", stored["content"], RETRIEVAL
    queries = content["en"]["test"]
    first = next(iter(queries))
    if change == "missing query":
        del queries[first]
    elif change == "strange document":
        queries[first]["no-such-document"] = 1.0
    elif change == "bad score":
        queries[first][next(iter(queries[first]))] = "high"
    elif change == "no split":
        content["en"] = {"validation": queries}
    elif change == "another task":
        task = "SciFact"
    if change != "missing file":
        path.write_text("{" if change == "not json" else json.dumps(content))
    reranker.requests.clear()
    kwargs = {"task_name": [task], "embed_results": [str(path)]}
    with pytest.raises(ConfigError, match=message):
        evaluate([of(reranker, model_kwargs=kwargs)], [RETRIEVAL])
    assert reranker.requests == []


@pytest.fixture
def custom(tmp_path: Path) -> dict[str, Any]:
    """A retrieval task of our own beside the demo's, and its predictions."""
    folder = tmp_path / "data"
    folder.mkdir()
    documents, queries = [f"d{i}" for i in range(12)], [f"q{i}" for i in range(4)]
    for name, rows in {
        "corpus": [{"_id": d, "text": f"document {d}"} for d in documents],
        "queries": [{"_id": q, "text": f"query {q}"} for q in queries],
        "qrels": [{"query-id": q, "corpus-id": d, "score": 1} for q, d in zip(queries, documents, strict=False)],
    }.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "OwnRetrieval_predictions.json"
    path.write_text(json.dumps({q: dict.fromkeys(documents, 0.5) for q in queries}))
    return {"task": {"name": "OwnRetrieval", "data_path": str(folder)}, "path": path}


@pytest.mark.slow
@pytest.mark.parametrize("order", [[RETRIEVAL, "OwnRetrieval"], ["OwnRetrieval", RETRIEVAL]])
def test_stored_predictions_of_several_tasks_are_reranked(
    order: list[str], evaluate: Callable, reranker: ServedModel, stored: dict[str, Any], custom: dict[str, Any]
) -> None:
    files = {RETRIEVAL: str(stored["path"]), "OwnRetrieval": str(custom["path"])}
    kwargs = {"task_name": order, "embed_results": [files[name] for name in order]}
    result = evaluate([of(reranker, model_kwargs=kwargs)], [RETRIEVAL], custom_tasks=[custom["task"]], top_k=6)
    assert {task for task, _ in main_scores(result)} == set(order)
    assert {q for q, _ in reranker.pairs() if q.startswith("query q")} == {f"query q{i}" for i in range(4)}
    assert main_scores(result).items() >= stored["scores"].items()


@pytest.mark.parametrize("wrong", ["first", "second"])
def test_one_wrong_file_of_several_stops_the_run_before_anything_is_sent(
    wrong: str,
    evaluate: Callable,
    encoder: ServedModel,
    reranker: ServedModel,
    stored: dict[str, Any],
    custom: dict[str, Any],
) -> None:
    custom["path"].write_text(json.dumps({f"q{i}": {"d0": 0.5} for i in range(3)}))
    order = [RETRIEVAL, "OwnRetrieval"] if wrong == "second" else ["OwnRetrieval", RETRIEVAL]
    files = {RETRIEVAL: str(stored["path"]), "OwnRetrieval": str(custom["path"])}
    kwargs = {"task_name": order, "embed_results": [files[name] for name in order]}
    encoder.requests.clear()
    with pytest.raises(ConfigError, match="1 of 4 queries of OwnRetrieval .*'q3'"):
        evaluate(
            [of(encoder), of(reranker, model_kwargs=kwargs)], [STS, RETRIEVAL], custom_tasks=[custom["task"]], top_k=6
        )
    assert encoder.requests == []
    assert reranker.requests == []


@pytest.mark.usefixtures("hub")
def test_a_data_set_that_cannot_be_had_stops_its_own_task_only(
    evaluate: Callable, reranker: ServedModel, stored: dict[str, Any], custom: dict[str, Any]
) -> None:
    # the mirror has no NFCorpus
    kwargs = {"embed_results": {"NFCorpus": str(custom["path"]), RETRIEVAL: str(stored["path"])}}
    with pytest.raises(RunFailed, match=rf"1 of 2 tasks failed:\s+NFCorpus: [\s\S]*finished and kept.*{RETRIEVAL}"):
        evaluate([of(reranker, model_kwargs=kwargs)], ["NFCorpus", RETRIEVAL], top_k=6)
    assert reranker.pairs()


def test_a_reranker_that_only_the_catalog_knows_as_one_reranks(evaluate: Callable, encoder: ServedModel) -> None:
    with ServedModel("bge-reranker-v2-m3", kind="cross-encoder") as known:
        # the reranker first: the order of the entries decides nothing either
        models = [{"model_name": known.name, "api_base": known.base}, of(encoder)]
        result = evaluate(models, [RETRIEVAL], top_k=5)
        assert {s.model: s.stage for s in result.stages} == {"vacc/enc": "stage1", f"vacc/{known.name}": "stage2"}
        assert known.pairs()


def test_a_cross_encoder_alone_needs_candidates_and_says_so(evaluate: Callable, reranker: ServedModel) -> None:
    with pytest.raises(ConfigError, match="needs candidates.*embed_results"):
        evaluate([of(reranker)], [RETRIEVAL])
    with pytest.raises(ConfigError, match="no cross-encoder can do"):
        evaluate([of(reranker)], [STS])


def test_a_cross_encoder_does_a_reranking_task(reranker: ServedModel) -> None:
    from mteb.mocks import MOCK_TASK_TEST_GRID

    from evalscope_vacc.models import from_mapping

    task = next(t for t in MOCK_TASK_TEST_GRID if t.metadata.type == "Reranking" and not t.metadata.is_multilingual)
    import mteb

    model = from_mapping({"store": "off", "preflight": "off", **of(reranker)})
    result = mteb.evaluate(model, [task], cache=None, show_progress_bar=False)
    assert result.task_results[0].get_score() >= 0


@pytest.mark.shows("reranking")
def test_a_cross_encoder_scores_the_candidates_that_a_task_brings(reranker: ServedModel) -> None:
    import mteb
    from datasets import Dataset
    from embedding_answers import score

    from evalscope_vacc.models import from_mapping

    queries, documents = [f"q{i}" for i in range(6)], [f"d{i}" for i in range(20)]
    candidates = {query: documents[at : at + 5] for at, query in enumerate(queries)}
    task = mteb.get_task("AskUbuntuDupQuestions")
    data = {
        "queries": Dataset.from_list([{"id": query, "text": f"query {query}"} for query in queries]),
        "corpus": Dataset.from_list([{"id": d, "title": "", "text": f"document {d}"} for d in documents]),
        "relevant_docs": {query: {found[0]: 1} for query, found in candidates.items()},
        "top_ranked": candidates,
    }
    task.dataset = {subset: dict.fromkeys(task.eval_splits, data) for subset in task.hf_subsets}
    task.data_loaded = True
    model = from_mapping({"store": "off", "preflight": "off", **of(reranker)})
    result = mteb.evaluate(model, [task], cache=None, show_progress_bar=False)
    assert set(reranker.pairs()) == {
        (f"query {query}", f"document {document}") for query, found in candidates.items() for document in found
    }
    ranks = {
        query: 1
        + sum(score(f"query {query}", f"document {d}") > score(f"query {query}", f"document {found[0]}") for d in found)
        for query, found in candidates.items()
    }
    expected = sum(1 / rank for rank in ranks.values()) / len(ranks)
    assert result.task_results[0].get_score() == pytest.approx(expected, abs=1e-5)


def test_a_failed_task_does_not_take_the_finished_ones_with_it(
    evaluate: Callable, encoder: ServedModel, tmp_path: Path
) -> None:
    inner = encoder._answer

    def fails_on_sts(got, sock):
        if got.path == "/v1/embeddings" and any("[sts]" in t for t in got.json()["input"]):
            return Reply.of({"error": {"message": "the card fell out", "type": "X", "code": 400}}, 400)
        return inner(got, sock)

    encoder.answer = fails_on_sts
    with pytest.raises(
        RunFailed, match=rf"1 of 3 tasks failed:\s+{STS}: .*the card fell out[\s\S]*finished and kept"
    ) as raised:
        evaluate([of(encoder, prompts={STS: "[sts] "})], [CLASSES, STS, RETRIEVAL])
    assert CLASSES in str(raised.value)
    assert RETRIEVAL in str(raised.value)
    # what was asked for, and what failed of it, is there for whoever judges the run later
    (folder,) = tmp_path.rglob("asked.json")
    asked = {entry["task"]: entry for entry in json.loads(folder.read_text())["tasks"]}
    assert asked.keys() == {CLASSES, STS, RETRIEVAL}
    assert "the card fell out" in asked[STS]["error"]
    assert (asked[CLASSES]["model"], asked[CLASSES]["error"]) == ("vacc/enc", "")
    assert all(entry["splits"] and entry["subsets"] for entry in asked.values())


def test_results_of_another_address_are_not_returned(evaluate: Callable, encoder: ServedModel, tmp_path: Path) -> None:
    options = {"overwrite_results": False, "work_dir": str(tmp_path / "same")}
    from evalscope_vacc import run

    def once(server: ServedModel, **keys: Any) -> Any:
        entry = {"model_type": "vacc_api", "store": "off", "preflight": "off", **of(server, **keys)}
        config = {
            "tool": "MTEB",
            "models": [entry],
            "eval": {"task_names": [STS], "hub": "huggingface", "overwrite_results": False},
        }
        return run(
            {
                "eval_backend": "RAGEval",
                "eval_config": config,
                "work_dir": options["work_dir"],
                "no_timestamp": True,
            }
        )

    first = main_scores(once(encoder))
    encoder.requests.clear()
    assert main_scores(once(encoder)) == pytest.approx(first, abs=1e-6)
    assert encoder.texts() == [], "the cached score is used"
    with ServedModel("enc", dimensions=5) as other:
        assert main_scores(once(other)) != first
        assert other.texts()
    assert main_scores(once(encoder, dimensions=4)) != first, "other settings have other names"
    encoder.requests.clear()
    encoder.max_model_len -= 1
    once(encoder)
    assert encoder.texts(), "the server changed: what it scored before is refused"


def in_one_folder(folder: Path, models: list[dict[str, Any]], task: str, **evaluation: Any) -> Any:
    """A run that finds what the earlier ones in the same folder left, and uses it again."""
    from evalscope_vacc import run

    entries = [{"model_type": "vacc_api", "store": "off", "preflight": "off", **entry} for entry in models]
    asked = {"task_names": [task], "hub": "huggingface", "overwrite_results": False, **evaluation}
    config = {"tool": "MTEB", "models": entries, "eval": asked}
    return run(
        {"eval_backend": "RAGEval", "eval_config": config, "work_dir": str(folder), "no_timestamp": True},
    )


@pytest.mark.slow
def test_a_cached_first_stage_never_goes_with_the_candidates_of_other_settings(
    evaluate: Callable, encoder: ServedModel, reranker: ServedModel, tmp_path: Path
) -> None:
    def pairs(**keys: Any) -> set[tuple[str, str]]:
        reranker.requests.clear()
        in_one_folder(tmp_path / "same", [of(encoder, **keys), of(reranker)], RETRIEVAL, top_k=3)
        return set(reranker.pairs())

    full = pairs()
    assert pairs(dimensions=2) - full, "other candidates"
    encoder.requests.clear()
    assert pairs() == set(), "those of the first run, whose scores are there"
    assert encoder.texts(), "its predictions had to be made again"
    encoder.requests.clear()
    assert pairs() == set()
    assert encoder.texts() == [], "and then are used again"


@pytest.mark.slow
def test_scores_earned_with_another_template_of_the_server_are_refused(
    evaluate: Callable, encoder: ServedModel, tmp_path: Path
) -> None:
    with ServedModel("rank", kind="cross-encoder") as server:
        models = [of(encoder), of(server, rerank_template="auto")]
        in_one_folder(tmp_path / "same", models, RETRIEVAL, top_k=3)
        server.requests.clear()
        in_one_folder(tmp_path / "same", models, RETRIEVAL, top_k=3)
        assert server.pairs() == [], "nothing changed"
        server.template = "instruction"
        in_one_folder(tmp_path / "same", models, RETRIEVAL, top_k=3)
        assert server.pairs(), "the server was started with a template"


@pytest.mark.slow
def test_scores_of_an_earlier_server_are_refused_until_every_task_is_scored_anew(
    evaluate: Callable, encoder: ServedModel, tmp_path: Path
) -> None:
    def once() -> list[str]:
        encoder.requests.clear()
        in_one_folder(tmp_path / "same", [of(encoder)], CLASSES)
        return encoder.texts()

    inner = encoder.answer

    def refuses(got, sock):
        return Reply.of({"error": {"message": "no"}}, 400) if got.path == "/v1/embeddings" else inner(got, sock)

    assert once()
    assert once() == []
    encoder.max_model_len -= 1
    encoder.answer = refuses
    with pytest.raises(RunFailed):
        once()
    encoder.answer = inner
    assert once(), "what lies there is still the earlier server's"
    assert once() == []


def test_two_cross_encoders_that_name_different_candidates_are_told_so(
    evaluate: Callable, reranker: ServedModel, stored: dict[str, Any], tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    content = json.loads(stored["path"].read_text())
    content["en"]["test"] = {q: dict(list(d.items())[:2]) for q, d in content["en"]["test"].items()}
    other.write_text(json.dumps(content))
    entries = [
        of(reranker, revision=name, model_kwargs={"embed_results": {RETRIEVAL: str(path)}})
        for name, path in (("a", stored["path"]), ("b", other))
    ]
    with pytest.raises(ConfigError, match="name different predictions"):
        evaluate(entries, [RETRIEVAL])
    assert reranker.pairs() == []


def test_limits_keep_the_corpus(evaluate: Callable, encoder: ServedModel) -> None:
    full = evaluate([of(encoder)], [RETRIEVAL])
    corpus = {text for text in encoder.texts()}
    encoder.requests.clear()
    limited = evaluate([of(encoder)], [RETRIEVAL], limits=3)
    sent = set(encoder.texts())
    documents = {t for t in corpus if t in sent}
    assert len(corpus) - len(sent) > 20, "fewer queries"
    assert len(documents) >= 100, "every document"
    assert main_scores(full).keys() == main_scores(limited).keys()
    assert "limit_3" in str(next(limited.output_folder.rglob(f"{RETRIEVAL}.json")))


def test_top_k_is_100_when_unset_and_is_said(
    evaluate: Callable, encoder: ServedModel, reranker: ServedModel, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("evalscope_vacc").propagate = True
    with caplog.at_level(logging.INFO, "evalscope_vacc"):
        evaluate([of(encoder), of(reranker)], [RETRIEVAL])
    assert "reranking the first 100 candidates" in caplog.text


def test_splits_and_languages_do_what_their_names_say(evaluate: Callable, encoder: ServedModel) -> None:
    result = evaluate([of(encoder)], [RETRIEVAL], languages=["eng"])
    assert set(main_scores(result)) == {(RETRIEVAL, "en")}
    with pytest.raises(ConfigError, match="has the splits test, not 'validation'"):
        evaluate([of(encoder)], [STS], splits={STS: ["validation"]})


def test_an_unknown_task_is_named(evaluate: Callable, encoder: ServedModel) -> None:
    with pytest.raises(ConfigError, match="VaccDemoStS|STS"):
        evaluate([of(encoder)], ["VaccDemoStS"])


def test_the_models_batch_size_reaches_both_kinds(
    evaluate: Callable, encoder: ServedModel, reranker: ServedModel
) -> None:
    keys = {"encode_kwargs": {"batch_size": 5}}
    evaluate([of(encoder, **keys), of(reranker, **keys)], [RETRIEVAL], top_k=20)
    assert max(len(g.json()["input"]) for g in encoder.requests if g.path == "/v1/embeddings") == 5
    assert max(len(g.json()["text_2"]) for g in reranker.requests if g.path == "/v1/score") == 5


def test_grouped_keys_may_stand_beside_the_others_in_an_entry(evaluate: Callable, encoder: ServedModel) -> None:
    keys = {"instruction_profile": "mteb", "instruction_template": "Do: {} Text: "}
    evaluate([of(encoder, batch_size=5, show_progress_bar=False, **keys)], [RETRIEVAL])
    assert any(text.startswith("Do: ") for text in encoder.texts())
    assert max(len(g.json()["input"]) for g in encoder.requests if g.path == "/v1/embeddings") == 5


@pytest.mark.parametrize(("key", "value"), [("limits", 0), ("limits", -1), ("limits", "ten"), ("top_k", 0)])
def test_a_number_that_cannot_be_meant_is_refused_before_anything_is_sent(
    evaluate: Callable, encoder: ServedModel, key: str, value: object
) -> None:
    with pytest.raises(ConfigError, match=rf"^eval\.{key} is {value!r}: write a whole number above 0"):
        evaluate([of(encoder)], [STS], **{key: value})
    assert not encoder.requests


def test_evals_encode_kwargs_reach_the_model(evaluate: Callable, encoder: ServedModel) -> None:
    evaluate([of(encoder)], [STS], encode_kwargs={"batch_size": 6})
    assert max(len(g.json()["input"]) for g in encoder.requests if g.path == "/v1/embeddings") == 6


def test_load_model_builds_ours_and_leaves_the_others(encoder: ServedModel) -> None:
    from evalscope.backend.rag_eval.models import load_model
    from evalscope.backend.rag_eval.mteb.arguments import MTEBModelConfig

    from evalscope_vacc import VaccEncoder

    entry = {"model_type": "vacc_api", **of(encoder)}
    assert isinstance(load_model(entry), VaccEncoder)
    assert isinstance(load_model(MTEBModelConfig(**entry)), VaccEncoder)
    with pytest.raises(Exception, match="no/such/folder|Error"):
        load_model({"model_name_or_path": "no/such/folder", "hub": "huggingface"})


@pytest.mark.shows("ragas")
def test_the_ragas_tool_embeds_through_a_served_model(encoder: ServedModel) -> None:
    from evalscope.backend.rag_eval.models import load_model

    model = load_model({"model_type": "vacc_api", "store": "off", "preflight": "off", **of(encoder)})
    assert len(model.embed_query("a question")) == encoder.dimensions
    assert len(model.embed_documents(["one", "two"])) == 2


def test_the_configuration_of_ragas_accepts_a_served_model(encoder: ServedModel) -> None:
    from evalscope.backend.rag_eval.ragas.arguments import RAGASEmbeddingConfig

    config = RAGASEmbeddingConfig(
        model_type="vacc_api", model_name="enc", model_name_or_path="enc", api_base=encoder.base, api_key="sekret"
    )
    assert "sekret" not in repr(config) + str(config.model_dump())
