"""EvalScope 1.3.0 to 1.8.0 as it is installed, with `model_type: vacc_api`: keys, kinds of runs, refusals."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from legacy_runs import main_scores, rageval
from served_model import ServedModel

import evalscope_vacc
from evalscope_vacc.errors import ConfigError, RunFailed

pytestmark = [
    pytest.mark.usefixtures("legacy_host", "hub"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.timeout(900),
]


def entry(server: ServedModel, **keys: Any) -> dict[str, Any]:
    return {"model_type": "vacc_api", "model_name": server.name, "api_base": server.base, "store": "off", **keys}


def crossed(server: ServedModel, **keys: Any) -> dict[str, Any]:
    return entry(server, is_cross_encoder=True, **keys)


@pytest.fixture
def custom(tmp_path: Path) -> Path:
    """Forty documents and four queries of our own, as EvalScope documents custom data."""
    folder = tmp_path / "data"
    (folder / "qrels").mkdir(parents=True)
    lines = [json.dumps({"_id": f"d{i}", "text": f"document {i}"}) for i in range(40)]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    lines = [json.dumps({"_id": f"q{i}", "text": f"query {i}"}) for i in range(4)]
    (folder / "queries.jsonl").write_text("\n".join(lines) + "\n")
    rows = "".join(f"q{i}\td{i}\t1\n" for i in range(4))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows)
    return folder


def test_no_key_is_written_printed_or_logged(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from evalscope.run import run_task

    secret = "sk-legacy-0123456789"
    with ServedModel("some-encoder", key=secret) as server, caplog.at_level(logging.DEBUG):
        config = rageval(
            [entry(server, api_key=secret, headers={"X-Token": secret, "authorization": f"Bearer {secret}"})],
            tmp_path,
            tasks=["STSBenchmark"],
            limits=5,
        )
        run_task(config)
    assert config["eval_config"]["model"][0]["api_key"] == secret  # the user's own dictionary is as it was
    (dumped,) = tmp_path.glob("*/configs/*.yaml")
    assert "api_key: '***'" in dumped.read_text()
    seen = "".join(capfd.readouterr()) + caplog.text
    assert "STSBenchmark" in seen
    assert secret not in seen
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path


@pytest.mark.shows("encoder")
def test_results_and_evidence_lie_where_the_newer_line_puts_them(encoder: ServedModel, tmp_path: Path) -> None:
    result = evalscope_vacc.run(rageval([entry(encoder, revision="r1")], tmp_path, tasks=["STSBenchmark"], limits=5))
    out = result.output_folder
    assert [p.name for p in out.glob("vacc__some-encoder/*/STSBenchmark.json")] == ["STSBenchmark.json"]
    assert {p.name for p in (out / "vacc").iterdir()} == {
        "asked.json",
        "config.json",
        "server.json",
        "sent_samples.jsonl",
        "usage.json",
    }
    usage = json.loads((out / "vacc" / "usage.json").read_text())["tasks"]
    assert [(u["task"], u["split"], u["subset"]) for u in usage] == [("STSBenchmark", "test", "default")]
    (asked,) = json.loads((out / "vacc" / "asked.json").read_text())["tasks"]
    assert (asked["model"], asked["task"], asked["error"]) == ("vacc/some-encoder", "STSBenchmark", "")
    assert (asked["splits"], asked["subsets"]) == (["test"], ["default"])


def test_the_newer_spelling_is_understood_too(encoder: ServedModel, tmp_path: Path) -> None:
    config = rageval([entry(encoder)], tmp_path, task_names=["STSBenchmark"], splits={"*": "test"}, limits=5)
    config["eval_config"]["models"] = config["eval_config"].pop("model")
    assert list(main_scores(evalscope_vacc.run(config))) == [("STSBenchmark", "test")]
    # and once more with the same dictionary, from which EvalScope takes a key
    assert list(main_scores(evalscope_vacc.run(config))) == [("STSBenchmark", "test")]


def test_the_guide_s_instructions_reach_the_server(shared: Path, encoder: ServedModel, tmp_path: Path) -> None:
    keys = {
        "instruction_template": "Instruct: {}\nQuery:",
        "instruction_dict_path": str(shared / "facts" / "task_prompts.json"),
    }
    evalscope_vacc.run(rageval([entry(encoder, model_kwargs=keys)], tmp_path, tasks=["STSBenchmark"], limits=5))
    texts = encoder.texts()
    assert len(texts) == 10
    assert all(text.startswith("Instruct: Retrieve semantically similar text\nQuery:") for text in texts)


@pytest.mark.shows("two-stages")
def test_two_stages_with_one_encoder_and_one_cross_encoder(
    encoder: ServedModel, reranker: ServedModel, custom: Path, tmp_path: Path
) -> None:
    config = rageval(
        [entry(encoder), crossed(reranker)],
        tmp_path,
        tasks=["CustomRetrieval", "STSBenchmark"],
        dataset_path=str(custom),
        top_k=7,
        limits=3,
    )
    result = evalscope_vacc.run(config)
    assert [(s.stage, [r.task_name for r in s.task_results]) for s in result.stages] == [
        ("stage1", ["CustomRetrieval", "STSBenchmark"]),
        ("stage2", ["CustomRetrieval"]),
    ]
    assert len([t for t in encoder.texts() if t.startswith("document")]) == 40  # the whole corpus, whatever the limit
    pairs = reranker.pairs()
    assert {query for query, _ in pairs} == {"query 0", "query 1", "query 2"}
    assert len(pairs) == len(set(pairs)) == 21


def test_the_encoder_is_scored_on_every_document_whatever_top_k_is(
    encoder: ServedModel, custom: Path, tmp_path: Path
) -> None:
    config = rageval([entry(encoder)], tmp_path, tasks=["CustomRetrieval"], dataset_path=str(custom), top_k=5)
    result = evalscope_vacc.run(config)
    saved = json.loads((result.output_folder / "CustomRetrieval_default_predictions.json").read_text())
    assert {len(found) for found in saved.values()} == {40}
    newer = json.loads((result.output_folder / "predictions" / "CustomRetrieval_predictions.json").read_text())
    assert newer["mteb_model_meta"]["model_name"] == "vacc/some-encoder"
    assert newer["default"]["test"] == saved


@pytest.mark.parametrize(
    "form", ["CustomRetrieval_default_predictions.json", "predictions/CustomRetrieval_predictions.json"]
)
@pytest.mark.shows("stored")
def test_stored_predictions_of_either_form_are_reranked(
    encoder: ServedModel, reranker: ServedModel, custom: Path, tmp_path: Path, form: str
) -> None:
    shape = {"tasks": ["CustomRetrieval"], "dataset_path": str(custom)}
    first = evalscope_vacc.run(rageval([entry(encoder)], tmp_path / "1", **shape))
    keys = {"task_name": ["CustomRetrieval"], "embed_results": [str(first.output_folder / form)]}
    evalscope_vacc.run(rageval([crossed(reranker, model_kwargs=keys)], tmp_path / "2", top_k=9, **shape))
    saved = json.loads((first.output_folder / "CustomRetrieval_default_predictions.json").read_text())
    expected = {
        (f"query {query[1:]}", f"document {document[1:]}")
        for query, found in saved.items()
        for document in sorted(found, key=found.__getitem__, reverse=True)[:9]
    }
    assert set(reranker.pairs()) == expected


def test_a_query_s_documents_travel_together_and_many_requests_at_once(
    encoder: ServedModel, reranker: ServedModel, custom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = reranker.answer

    def slowly(got: Any, sock: Any) -> Any:
        time.sleep(0.05)
        return answer(got, sock)

    monkeypatch.setattr(reranker, "answer", slowly)
    second = crossed(reranker, encode_kwargs={"batch_size": 15}, max_concurrency=3)
    shape = {"tasks": ["CustomRetrieval"], "dataset_path": str(custom), "top_k": 40}
    evalscope_vacc.run(rageval([entry(encoder), second], tmp_path, **shape))
    bodies = [got.json() for got in reranker.requests if got.path == "/v1/score"]
    sizes = sorted((b["text_1"], len(b["text_2"])) for b in bodies if b["text_1"].startswith("query "))
    assert sizes == [(f"query {q}", size) for q in range(4) for size in (10, 15, 15)]
    assert reranker.most_in_flight == 3


def refused(server: ServedModel, config: dict[str, Any], match: str) -> None:
    """The run ends with a clear error, before anything is sent."""
    with pytest.raises((ConfigError, RunFailed), match=match):
        evalscope_vacc.run(config)
    assert [got.path for got in server.requests] == []


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "there is no such prediction file"),
        ("{}", "not a prediction file"),
        ('{"q0": {"d0": 1.0}}', r"3 of 4 queries .* have no predictions, the first is 'q1'"),
        (json.dumps({f"q{i}": {"other": 1.0} for i in range(4)}), "'other' is not in the corpus"),
        ('{"q0": {"d0": 1.0, "d1": "high"}}', "is not a score"),
    ],
)
def test_a_wrong_prediction_file_is_refused_before_anything_is_sent(
    reranker: ServedModel, custom: Path, tmp_path: Path, content: str | None, match: str
) -> None:
    file = tmp_path / "predictions.json"
    if content is not None:
        file.write_text(content)
    keys = {"task_name": ["CustomRetrieval"], "embed_results": [str(file)]}
    model = crossed(reranker, model_kwargs=keys)
    refused(reranker, rageval([model], tmp_path, tasks=["CustomRetrieval"], dataset_path=str(custom)), match)


@pytest.fixture
def two_files(custom: Path, tmp_path: Path) -> dict[str, Path]:
    """Predictions of the custom task and of one from the mirror."""
    import mteb

    task = mteb.get_task("SciFact")
    task.load_data()
    documents = list(task.corpus["test"])[:3]
    contents = {
        "CustomRetrieval": {f"q{i}": {"d0": 1.0, "d1": 0.5} for i in range(4)},
        "SciFact": {query: dict.fromkeys(documents, 0.5) for query in task.queries["test"]},
    }
    files = {name: tmp_path / f"{name}_default_predictions.json" for name in contents}
    for name, file in files.items():
        file.write_text(json.dumps(contents[name]))
    return files


@pytest.mark.parametrize("order", [["CustomRetrieval", "SciFact"], ["SciFact", "CustomRetrieval"]])
def test_stored_predictions_of_several_tasks_are_reranked(
    reranker: ServedModel, custom: Path, two_files: dict[str, Path], tmp_path: Path, order: list[str]
) -> None:
    keys = {"task_name": order, "embed_results": [str(two_files[name]) for name in order]}
    model = crossed(reranker, model_kwargs=keys)
    config = rageval([model], tmp_path / "run", tasks=order, dataset_path=str(custom), limits=4)
    result = evalscope_vacc.run(config)
    assert {task for task, _ in main_scores(result)} == set(order)
    pairs = reranker.pairs()
    assert len([1 for query, _ in pairs if query.startswith("query ")]) == 4 * 2
    assert len(pairs) == 4 * 2 + 4 * 3


@pytest.mark.parametrize("order", [["CustomRetrieval", "SciFact"], ["SciFact", "CustomRetrieval"]])
def test_one_wrong_file_of_several_stops_the_run_before_anything_is_sent(
    encoder: ServedModel,
    reranker: ServedModel,
    custom: Path,
    two_files: dict[str, Path],
    tmp_path: Path,
    order: list[str],
) -> None:
    two_files["SciFact"].write_text('{"1": {"4983": 0.5}}')
    keys = {"task_name": order, "embed_results": [str(two_files[name]) for name in order]}
    models = [entry(encoder), crossed(reranker, model_kwargs=keys)]
    config = rageval(models, tmp_path / "run", tasks=[*order, "STSBenchmark"], dataset_path=str(custom))
    refused(reranker, config, r"299 of 300 queries of SciFact .* have no predictions")
    assert [got.path for got in encoder.requests] == []


def test_a_reranker_that_only_the_catalog_knows_as_one_reranks(
    encoder: ServedModel, custom: Path, tmp_path: Path
) -> None:
    with ServedModel("bge-reranker-v2-m3", kind="cross-encoder") as known:
        shape = {"tasks": ["CustomRetrieval"], "dataset_path": str(custom), "top_k": 3}
        result = evalscope_vacc.run(rageval([entry(known), entry(encoder)], tmp_path, **shape))
        assert {s.model: s.stage for s in result.stages} == {
            "vacc/some-encoder": "stage1",
            "vacc/bge-reranker-v2-m3": "stage2",
        }
        assert len(known.pairs()) == 12


def test_lists_that_do_not_belong_together_are_refused(reranker: ServedModel, tmp_path: Path) -> None:
    def given(**keys: Any) -> dict[str, Any]:
        return rageval([crossed(reranker, model_kwargs=keys)], tmp_path, tasks=["SciFact"])

    refused(reranker, given(task_name=["SciFact", "NFCorpus"], embed_results=["a.json"]), "2 tasks and embed_results 1")
    (tmp_path / "a.json").write_text('{"q": {"d": 1.0}}')
    refused(
        reranker,
        given(task_name=["NFCorpus"], embed_results=[str(tmp_path / "a.json")]),
        "NFCorpus, which eval.task_names does not",
    )
    refused(reranker, given(), "SciFact is a Retrieval task and there is no encoder")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"tasks": ["STSBenchmarc"]}, "did you mean 'STSBenchmark'"),
        ({"tasks": ["STSBenchmark"], "topk": 3}, "did you mean 'top_k'"),
        ({"tasks": ["STSBenchmark"], "hub": "github"}, "modelscope or huggingface"),
        ({"tasks": ["STSBenchmark"], "verbosity": 9}, "from 0"),
        ({"tasks": []}, "no task"),
    ],
)
def test_a_wrong_evaluation_is_refused_with_what_is_meant(
    encoder: ServedModel, tmp_path: Path, change: dict[str, Any], match: str
) -> None:
    refused(encoder, rageval([entry(encoder)], tmp_path, **change), match)


def test_a_misspelt_key_of_a_model_is_refused_with_the_nearest(encoder: ServedModel, tmp_path: Path) -> None:
    config = rageval([entry(encoder, dimension=16)], tmp_path, tasks=["STSBenchmark"])
    refused(encoder, config, "did you mean 'dimensions'")


@pytest.mark.parametrize("verbosity", [0, 1, 2, 3])
def test_every_verbosity_runs(encoder: ServedModel, tmp_path: Path, verbosity: int) -> None:
    config = rageval([entry(encoder)], tmp_path, tasks=["STSBenchmark"], verbosity=verbosity, limits=5)
    assert len(evalscope_vacc.run(config).task_results) == 1


def test_finished_results_are_kept_unless_they_are_to_be_overwritten(encoder: ServedModel, tmp_path: Path) -> None:
    for overwrite, sent in ((True, 10), (False, 10), (True, 20)):
        config = rageval([entry(encoder)], tmp_path, tasks=["STSBenchmark"], overwrite_results=overwrite, limits=5)
        config["use_cache"] = str(tmp_path / "run")
        assert len(evalscope_vacc.run(config).task_results) == 1
        assert len(encoder.texts()) == sent


def test_on_modelscope_evalscope_s_own_tasks_are_used(
    encoder: ServedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    from evalscope.backend.rag_eval.cmteb import base

    asked = []

    def load(path: str, **_: Any) -> Any:
        # ModelScope cannot be reached from here; the mirror has the same data
        asked.append(path)
        return datasets.load_dataset(re.sub("^MTEB/", "mteb/", path))

    monkeypatch.setattr(base.MsDataset, "load", load)
    shape = {"tasks": ["QBQTC", "STSBenchmark"], "limits": 20}
    there = main_scores(evalscope_vacc.run(rageval([entry(encoder)], tmp_path / "1", hub="modelscope", **shape)))
    assert asked == ["C-MTEB/QBQTC", "MTEB/stsbenchmark-sts"]
    here = main_scores(evalscope_vacc.run(rageval([entry(encoder)], tmp_path / "2", **shape)))
    assert there == here
    assert len(asked) == 2


@pytest.mark.shows("reranking")
def test_a_reranking_task_is_scored_by_a_cross_encoder_with_mteb_s_own_metrics(
    encoder: ServedModel, reranker: ServedModel
) -> None:
    import datasets
    import mteb

    from evalscope_vacc.hosts.evalscope_legacy_evaluate import by_subset
    from evalscope_vacc.hosts.evalscope_legacy_models import face_of
    from evalscope_vacc.models import load_model

    rows = [
        {"query": f"query {i}", "positive": [f"yes {i}"], "negative": [f"no {i} {j}" for j in range(1 + i % 4)]}
        for i in range(30)
    ]

    def scores(model: Any) -> dict[str, float]:
        task = mteb.get_task("AskUbuntuDupQuestions")
        task.dataset = {"test": datasets.Dataset.from_list(rows)}
        task.data_loaded = True
        with by_subset(task, model, Path(), None, None):
            (result,) = mteb.MTEB(tasks=[task]).run(model, output_folder=None, verbosity=0)
        return result.scores["test"][0]

    # the servers' scores are cosines of their vectors, so both must rank alike
    by_vectors = scores(face_of(load_model(entry(encoder))))
    by_pairs = scores(face_of(load_model(crossed(reranker))))
    assert by_pairs["map"] == pytest.approx(by_vectors["map"], abs=1e-6)
    assert by_pairs["mrr"] == pytest.approx(by_vectors["mrr"], abs=1e-6)
    assert 0.3 < by_pairs["map"] < 0.95


def test_a_model_of_evalscope_s_own_works_beside_ours_and_alone(
    reranker: ServedModel, custom: Path, tmp_path: Path
) -> None:
    from evalscope_vacc.demo.model import weights_folder

    own = {"model_name_or_path": str(weights_folder()), "max_seq_length": 64, "encode_kwargs": {"batch_size": 8}}
    result = evalscope_vacc.run(
        rageval(
            [own, crossed(reranker)], tmp_path / "both", tasks=["CustomRetrieval"], dataset_path=str(custom), top_k=3
        )
    )
    assert [s.stage for s in result.stages] == ["stage1", "stage2"]
    assert result.stages[0].model.startswith("eval/")
    assert len(reranker.pairs()) == 12
    # in a process of its own: EvalScope replaces the loader in MTEB's classes, for all that comes later
    config = rageval([own], tmp_path / "alone", tasks=["STSBenchmark"], limits=5)
    code = "import json, sys; from evalscope.run import run_task; run_task(json.loads(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(config)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert list((tmp_path / "alone").glob("*/eval__*/*/STSBenchmark.json"))
