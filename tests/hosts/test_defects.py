"""The 21 defects that users of EvalScope's own API models meet: absent from a `vacc_api` run, one test each."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
from loopback_server import Reply
from packaging.version import Version
from served_model import ServedModel

from evalscope_vacc.errors import RunFailed

pytestmark = pytest.mark.host
pytest.importorskip("mteb", minversion="2.7", reason="the newer line's tests; tests/legacy has the older one's")

RETRIEVAL, STS, CLASSES = "VaccDemoRetrieval", "VaccDemoSTS", "VaccDemoClassification"


@pytest.fixture
def enc() -> Iterator[ServedModel]:
    with ServedModel("enc") as server:
        yield server


@pytest.fixture
def rank() -> Iterator[ServedModel]:
    with ServedModel("rank", kind="cross-encoder") as server:
        yield server


def of(server: ServedModel, **keys: Any) -> dict[str, Any]:
    cross = {"is_cross_encoder": True} if server.kind == "cross-encoder" else {}
    return {"model_name": server.name, "api_base": server.base, **cross, **keys}


def bodies(server: ServedModel, path: str) -> list[dict[str, Any]]:
    return [got.json() for got in server.requests if got.path == path]


def main_scores(result: Any, stage: str) -> dict[tuple[str, str], float]:
    return {(r["task"], r["subset"]): r["main_score"] for r in result.rows() if r["stage"] == stage}


def test_01_texts_are_not_cut_by_characters(evaluate: Callable, enc: ServedModel) -> None:
    from evalscope_vacc import VaccEncoder

    long = "word " * 5000
    VaccEncoder("enc", api_base=enc.base, store="off", preflight="off").encode([long])
    assert enc.texts() == [long]


def test_02_more_than_one_request_is_in_flight(evaluate: Callable, enc: ServedModel) -> None:
    inner = enc._answer

    def together(got, sock):
        until = time.monotonic() + 2
        full = got.path == "/v1/embeddings" and len(got.json()["input"]) == 8
        while full and enc.most_in_flight < 2 and time.monotonic() < until:
            time.sleep(0.005)
        return inner(got, sock)

    enc.answer = together
    evaluate([of(enc, encode_kwargs={"batch_size": 8})], [RETRIEVAL])
    assert enc.most_in_flight > 1


def test_03_batch_sizes_of_model_and_eval_are_used(evaluate: Callable, enc: ServedModel, rank: ServedModel) -> None:
    evaluate(
        [of(enc), of(rank, encode_kwargs={"batch_size": 9})], [RETRIEVAL], encode_kwargs={"batch_size": 4}, top_k=20
    )
    assert max(len(b["input"]) for b in bodies(enc, "/v1/embeddings")) == 4
    assert max(len(b["text_2"]) for b in bodies(rank, "/v1/score")) == 9


def test_04_missing_scores_are_an_error_not_zero(evaluate: Callable, enc: ServedModel, rank: ServedModel) -> None:
    inner = rank._answer

    def forgets_one(got, sock):
        reply = inner(got, sock)
        if got.path == "/v1/score" and len(got.json()["text_2"]) > 1:
            answer = json.loads(reply.body)
            answer["data"].pop()
            return Reply.of(answer)
        return reply

    rank.answer = forgets_one
    with pytest.raises(RunFailed, match=r"\d+ .*score"):
        evaluate([of(enc), of(rank)], [RETRIEVAL])


def test_05_a_busy_server_is_asked_again_and_error_bodies_are_shown(evaluate: Callable, enc: ServedModel) -> None:
    inner, refused = enc._answer, []

    def busy_once(got, sock):
        if got.path == "/v1/embeddings" and not refused:
            refused.append(got)
            return Reply.of({"error": {"message": "too many", "code": 429}}, 429, **{"Retry-After": "0"})
        return inner(got, sock)

    enc.answer = busy_once
    assert evaluate([of(enc)], [STS]).rows()
    assert refused
    enc.answer = lambda got, sock: (
        Reply.of({"error": {"message": "the card is too hot", "code": 400}}, 400)
        if got.path == "/v1/embeddings"
        else inner(got, sock)
    )
    with pytest.raises(RunFailed, match="the card is too hot"):
        evaluate([of(enc)], [STS])


def test_06_the_reranker_gets_instruction_and_template(evaluate: Callable, enc: ServedModel, rank: ServedModel) -> None:
    evaluate([of(enc), of(rank, rerank_template="qwen3")], [RETRIEVAL], top_k=3)
    assert rank.pairs()
    assert all("<Instruct>: " in query and document.endswith("</think>\n\n") for query, document in rank.pairs())


def test_07_tasks_without_sides_get_their_instruction(evaluate: Callable, enc: ServedModel) -> None:
    evaluate([of(enc, instruction_profile="mteb")], [STS, CLASSES])
    assert enc.texts()
    assert all(text.startswith("Instruct: ") for text in enc.texts())


def test_08_prompts_match_by_type_and_side_too(evaluate: Callable, enc: ServedModel) -> None:
    evaluate([of(enc, prompts={"query": "Q: ", "STS": "S: ", f"{RETRIEVAL}-document": "D: "})], [RETRIEVAL, STS])
    starts = {text[:3] for text in enc.texts()}
    assert starts == {"Q: ", "S: ", "D: "}


def test_09_headers_timeouts_and_retries_are_passed_on(evaluate: Callable, enc: ServedModel) -> None:
    evaluate([of(enc, headers={"X-Team": "a"}, timeout_s=77, retries=1)], [STS])
    assert {got.headers.get("x-team") for got in enc.requests} == {"a"}


@pytest.mark.parametrize("kind", ["Reranking", "InstructionReranking"])
def test_10_reranking_tasks_are_loaded_by_mtebs_own_loader_on_modelscope(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    import mteb
    from evalscope.backend.rag_eval.mteb import task_template

    from evalscope_vacc.hosts.data import _choose_loader

    name = {"Reranking": "T2Reranking", "InstructionReranking": "News21InstructionRetrieval"}[kind]
    task = mteb.get_task(name)
    before = task.load_data
    # on the logger itself: a host may have switched its way up to the root off, or the root
    ours = logging.getLogger("evalscope_vacc.hosts.data")
    ours.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO, ours.name):
            _choose_loader(task, "modelscope", task_template)
    finally:
        ours.removeHandler(caplog.handler)
    assert task.load_data == before
    assert "MTEB's own loader" in caplog.text


@pytest.mark.parametrize(
    "name", ["SpanishWikinewsClusteringP2P", "KLUE-STS", "GermanQuAD-Retrieval", "CQADupstackRetrieval"]
)
def test_10_data_that_are_more_than_a_whole_set_are_not_taken_from_modelscope(name: str) -> None:
    import mteb
    from evalscope.backend.rag_eval.mteb import task_template

    from evalscope_vacc.hosts.data import _choose_loader

    if name == "SpanishWikinewsClusteringP2P" and Version(version("mteb")) < Version("2.26"):
        name = "KLUE-STS"  # the only one before that names a part of its data set

    task = mteb.get_task(name)
    before = task.load_data
    _choose_loader(task, "modelscope", task_template)
    assert task.load_data == before


def test_16_limits_reach_the_parts_of_an_aggregated_task_which_no_reranker_gets_whole() -> None:
    import mteb
    from evalscope.backend.rag_eval.mteb import task_template
    from evalscope.backend.rag_eval.mteb.arguments import MTEBEvalConfig

    from evalscope_vacc.hosts.data import kind_of, resolve_tasks

    whole = mteb.get_task("CQADupstackRetrieval")
    assert kind_of(whole) == "other"
    given = MTEBEvalConfig(task_names=["CQADupstackRetrieval"], hub="huggingface", limits=3)
    parts = resolve_tasks(given, task_template)
    assert "CQADupstackGamingRetrieval" in {task.metadata.name for task in parts}
    assert all("load_data" in vars(task) for task in parts), "each is cut when it is loaded"


def test_11_a_reranker_alone_reranks_stored_predictions(
    evaluate: Callable, enc: ServedModel, rank: ServedModel
) -> None:
    first = evaluate([of(enc)], [RETRIEVAL])
    path = first.output_folder / "predictions" / f"{RETRIEVAL}_predictions.json"
    kwargs = {"task_name": [RETRIEVAL], "embed_results": [str(path)]}
    assert evaluate([of(rank, model_kwargs=kwargs)], [RETRIEVAL], top_k=4).rows()


@pytest.mark.slow
def test_12_an_sts_task_in_a_two_stage_list_is_no_obstacle(
    evaluate: Callable, enc: ServedModel, rank: ServedModel
) -> None:
    result = evaluate([of(enc), of(rank)], [STS, RETRIEVAL], top_k=4)
    assert {t for t, _ in main_scores(result, "stage1")} == {STS, RETRIEVAL}
    assert {t for t, _ in main_scores(result, "stage2")} == {RETRIEVAL}


@pytest.mark.slow
def test_13_two_stages_take_several_models_and_a_hundred_candidates(evaluate: Callable, rank: ServedModel) -> None:
    with ServedModel("a") as a, ServedModel("b", dimensions=9) as b:
        result = evaluate([of(a), of(b), of(rank)], [RETRIEVAL])
    assert len({s.model for s in result.stages if s.stage == "stage1"}) == 2
    per_query: dict[str, int] = {}
    for query, _ in set(rank.pairs()):
        per_query[query] = per_query.get(query, 0) + 1
    assert max(per_query.values()) > 10


def test_14_every_subset_and_split_is_evaluated(evaluate: Callable, enc: ServedModel) -> None:
    assert {row["subset"] for row in evaluate([of(enc)], [STS]).rows()} == {"en", "zh"}


def test_15_a_revision_that_was_not_loaded_is_not_recorded() -> None:
    import mteb
    from evalscope.backend.rag_eval.mteb import task_template

    from evalscope_vacc.hosts.data import _choose_loader

    task = mteb.get_task("SciFact")
    named = task.metadata.dataset["revision"]
    patched = []
    fake = type("template", (), {"patch_tasks_for_modelscope": staticmethod(lambda tasks: patched.extend(tasks))})
    assert task_template.patch_tasks_for_modelscope
    task.load_data = lambda *a, **k: setattr(task, "corpus", {"test": {}})
    _choose_loader(task, "modelscope", fake)
    assert patched == [task]
    task.load_data()
    assert task.metadata.dataset["revision"] == "modelscope-master" != named


def test_16_limits_keep_the_whole_corpus(evaluate: Callable, enc: ServedModel) -> None:
    from evalscope_vacc.demo.rows import read

    evaluate([of(enc)], [RETRIEVAL], limits=2)
    documents = [text for text in enc.texts() if len(text) > 0]
    assert len(documents) >= 100 + 4, "the documents of both languages, and two queries of each"
    assert read  # the set has 108 documents


def test_17_eval_splits_is_read(evaluate: Callable, enc: ServedModel) -> None:
    from evalscope_vacc.errors import ConfigError

    assert evaluate([of(enc)], [STS], splits={STS: ["test"]}).rows()
    with pytest.raises(ConfigError, match="not 'train'"):
        evaluate([of(enc)], [STS], splits={STS: ["train"]})


def test_18_verbosity_is_accepted(evaluate: Callable, enc: ServedModel) -> None:
    assert evaluate([of(enc)], [STS], verbosity=2).rows()
    logging.getLogger("mteb").setLevel(logging.NOTSET)
    logging.getLogger("evalscope_vacc").setLevel(logging.INFO)


def test_19_two_endpoints_do_not_share_a_name(enc: ServedModel) -> None:
    from evalscope_vacc import load_model

    with ServedModel("enc") as other:
        names = {
            (m.mteb_model_meta.name, m.mteb_model_meta.revision) for m in (load_model(of(enc)), load_model(of(other)))
        }
    assert len(names) == 2


def test_20_a_reranker_is_recorded_as_a_cross_encoder(rank: ServedModel) -> None:
    from evalscope_vacc import load_model

    assert load_model(of(rank)).mteb_model_meta.is_cross_encoder


def test_21_vectors_are_arrays_of_float32(enc: ServedModel) -> None:
    from evalscope_vacc import load_model

    out = load_model({**of(enc), "store": "off"}).encode(["a", "b"])
    assert isinstance(out, np.ndarray)
    assert out.dtype == np.float32
