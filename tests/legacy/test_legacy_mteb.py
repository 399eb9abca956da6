"""MTEB 1.38 without EvalScope: `vacc/NAME` by its look-up, by `mteb.MTEB(tasks=…).run(model)` and by its own command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from embedding_answers import score, vectors
from served_model import ServedModel

pytestmark = [
    pytest.mark.usefixtures("legacy_host"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VACC_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


class InProcess:
    """The servers' answers in this process."""

    def encode(self, sentences: Any, **_: Any) -> Any:
        return vectors(list(sentences))

    def predict(self, sentences: Any, **_: Any) -> Any:
        return [score(pair[0], pair[1]) for pair in sentences]


def encoder_of(model: InProcess) -> Any:
    """The half of it that is an encoder: mteb takes everything with `predict` for a cross-encoder."""
    return type("Encoder", (), {"encode": staticmethod(model.encode)})()


def usage(home: Path) -> list[dict[str, Any]]:
    return [
        entry for file in sorted(home.glob("runs/*/vacc/usage.json")) for entry in json.loads(file.read_text())["tasks"]
    ]


def similarity_task(rows: int = 40) -> Any:
    import datasets
    import mteb

    task = mteb.get_task("STSBenchmark")
    given = [{"sentence1": f"one {i}", "sentence2": f"two {i}", "score": float(i % 6)} for i in range(rows)]
    task.dataset = {"test": datasets.Dataset.from_list(given)}
    task.data_loaded = True
    return task


def retrieval_task() -> Any:
    import mteb

    task = mteb.get_task("SciFact")
    task.corpus = {"test": {f"d{i}": f"document {i}" for i in range(30)}}
    task.queries = {"test": {f"q{i}": f"query {i}" for i in range(3)}}
    task.relevant_docs = {"test": {f"q{i}": {f"d{i}": 1} for i in range(3)}}
    task.data_loaded = True
    return task


def run(model: Any, task: Any, folder: Path | None = None, **kwargs: Any) -> dict[str, Any]:
    import mteb

    out = None if folder is None else str(folder)
    (result,) = mteb.MTEB(tasks=[task]).run(model, output_folder=out, verbosity=0, **kwargs)
    return result.scores["test"][0]


def test_names_known_only_here_are_found(encoder: ServedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    import mteb

    monkeypatch.setenv("VACC_API_BASE", encoder.base)
    meta = mteb.get_model_meta("vacc/org/with/slashes")
    assert meta.name == "vacc/org/with/slashes"
    assert meta.revision.startswith("served-")
    assert meta.to_dict()["loader"] == "load_served"
    assert [m.name for m in mteb.get_model_metas(["vacc/some-encoder"])] == ["vacc/some-encoder"]
    model = mteb.get_model("vacc/some-encoder", "r1")
    assert (model.mteb_model_meta.name, model.mteb_model_meta.revision) == ("vacc/some-encoder", "r1")
    assert model.encode(["a text"]).shape == (1, encoder.dimensions)
    assert (
        mteb.get_model_meta("sentence-transformers/all-MiniLM-L6-v2").name == "sentence-transformers/all-MiniLM-L6-v2"
    )


def test_an_address_and_a_key_may_come_with_the_call_and_are_not_in_the_meta(tmp_path: Path) -> None:
    import mteb

    secret = "sk-of-the-call-01234"
    with ServedModel("some-encoder", key=secret) as server:
        model = mteb.get_model("vacc/some-encoder", api_base=server.base, api_key=secret, max_tokens=64, store="off")
        run(model, similarity_task(), tmp_path / "out")
        meta = model.mteb_model_meta
        assert meta.revision.endswith("__maxlen_64")
        assert server.base not in repr(meta)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "STSBenchmark.json" for path in written)
    assert secret not in repr(meta)
    for path in written:
        assert secret.encode() not in path.read_bytes(), path


def test_a_served_encoder_scores_as_in_process_and_leaves_evidence_by_split_and_subset(
    encoder: ServedModel, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mteb

    monkeypatch.setenv("VACC_API_BASE", encoder.base)
    model = mteb.get_model("vacc/some-encoder")
    for task in (similarity_task, retrieval_task):
        expected = run(encoder_of(InProcess()), task())
        assert run(model, task(), tmp_path / "out")["main_score"] == pytest.approx(expected["main_score"], abs=1e-6)
    assert list((tmp_path / "out").glob("vacc__some-encoder/served-*/SciFact.json"))
    assert {(u["task"], u["split"], u["subset"]) for u in usage(home)} == {
        ("STSBenchmark", "test", "default"),
        ("SciFact", "test", "default"),
    }


def test_an_encoder_that_mteb_is_given_as_it_is_sends_each_task_s_text_too(encoder: ServedModel) -> None:
    from evalscope_vacc import VaccEncoder

    model = VaccEncoder(encoder.name, api_base=encoder.base, prompts={"SciFact-query": "Q: "}, store="off")
    run(model, retrieval_task())
    assert {text for text in encoder.texts() if "query" in text} == {f"Q: query {i}" for i in range(3)}


def test_a_served_reranker_knows_its_task_and_gets_it_whole(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mteb

    with ServedModel("Qwen3-Reranker-0.6B", kind="cross-encoder") as server:
        monkeypatch.setenv("VACC_API_BASE", server.base)
        # the catalog knows that it scores pairs, and its template
        model = mteb.get_model("vacc/Qwen3-Reranker-0.6B", instruction_dict_path="metadata", store="off")
        run(model, retrieval_task(), encode_kwargs={"batch_size": 7}, top_k=30)
        sent = server.pairs()
        asked = [got.json() for got in server.requests if got.path == "/v1/score"]
        sizes = [len(body["text_2"]) for body in asked if "<Query>: query " in body["text_1"]]
    instruction = mteb.get_task("SciFact").metadata.prompt["query"]
    assert len(set(sent)) == 90
    assert all(f"<Instruct>: {instruction}\n<Query>: query " in query for query, _ in sent)
    assert max(sizes) == 7
    assert {(u["task"], u["split"], u["subset"], u["texts"]) for u in usage(home)} == {
        ("SciFact", "test", "default", 90)
    }


def test_a_served_reranker_scores_as_in_process(reranker: ServedModel) -> None:
    import datasets
    import mteb

    rows = [
        {"query": f"query {i}", "positive": [f"yes {i}"], "negative": [f"no {i} {j}" for j in range(1 + i % 4)]}
        for i in range(30)
    ]

    def reranking_task() -> Any:
        task = mteb.get_task("AskUbuntuDupQuestions")
        task.dataset = {"test": datasets.Dataset.from_list(rows)}
        task.data_loaded = True
        return task

    keys = {"api_base": reranker.base, "is_cross_encoder": True, "store": "off"}
    model = mteb.get_model("vacc/some-reranker", **keys)
    expected = run(InProcess(), retrieval_task())
    assert run(model, retrieval_task())["main_score"] == pytest.approx(expected["main_score"], abs=1e-6)
    # mteb 1.x has no cross-encoders on reranking tasks: the encoder of the same vectors ranks alike
    expected = run(encoder_of(InProcess()), reranking_task())
    assert run(model, reranking_task())["map"] == pytest.approx(expected["map"], abs=1e-6)


def test_what_was_stored_for_resuming_is_dropped_when_a_run_is_done(
    encoder: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mteb

    monkeypatch.setenv("VACC_API_BASE", encoder.base)
    failing = similarity_task()
    model = mteb.get_model("vacc/some-encoder")

    def breaks(*_: Any, **__: Any) -> None:
        raise RuntimeError("after the vectors came")

    failing._add_main_score = breaks
    with pytest.raises(RuntimeError, match="after the vectors came"):
        run(model, failing)
    assert len(encoder.texts()) == 80
    run(model, similarity_task())
    assert len(encoder.texts()) == 80, "finished requests are kept and not repeated"
    run(model, similarity_task())
    assert len(encoder.texts()) == 160, "a finished run leaves nothing to go on with"


@pytest.mark.usefixtures("hub")
@pytest.mark.shows("mteb-run")
def test_mteb_s_own_command_runs_a_served_model(encoder: ServedModel, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("mteb")), "run", "-m", "vacc/some-encoder", "-t", "STSBenchmark"]
    command += ["--output_folder", str(tmp_path / "out"), "--batch_size", "200", "--model_revision", "r1"]
    environment = {**os.environ, "VACC_API_BASE": encoder.base}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "out" / "vacc__some-encoder" / "r1" / "STSBenchmark.json").read_text())
    assert -1 < result["scores"]["test"][0]["main_score"] < 1
    assert len(set(encoder.texts())) > 2000
    assert max(len(got.json()["input"]) for got in encoder.requests if got.path == "/v1/embeddings") == 200
