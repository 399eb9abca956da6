"""MTEB, unmodified: its mock tasks, its look-up by name, its result folders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from served_model import ServedModel

pytestmark = pytest.mark.host
mteb = pytest.importorskip("mteb", minversion="2.7", reason="the newer line's tests; tests/legacy has the older one's")


def mock_tasks() -> list:
    try:
        from mteb.mocks import MOCK_TASK_TEST_GRID
    except ImportError:
        pytest.skip("this mteb does not ship its mock tasks")
    return list(MOCK_TASK_TEST_GRID)


RERANKING = ("Reranking", "InstructionReranking")


def text_tasks(*types: str) -> list:
    tasks = [t for t in mock_tasks() if list(t.metadata.modalities) == ["text"]]
    return [t for t in tasks if not types or t.metadata.type in types]


@pytest.fixture(scope="module")
def encoder_server() -> Iterator[ServedModel]:
    with ServedModel() as served:
        yield served


@pytest.fixture(scope="module")
def reranker_server() -> Iterator[ServedModel]:
    with ServedModel(kind="cross-encoder") as served:
        yield served


class Reference:
    """The same vectors in process: what MTEB's own loop hands to a model, batch by batch, in its order."""

    def __init__(self, meta) -> None:
        self.mteb_model_meta = meta
        self.texts: list[str] = []

    def encode(self, inputs, **kwargs):
        from embedding_answers import vectors

        texts = [text for batch in inputs for text in batch["text"]]
        self.texts += texts
        return vectors(texts)

    def similarity(self, a, b):
        import torch

        return torch.as_tensor(a) @ torch.as_tensor(b).T

    def similarity_pairwise(self, a, b):
        import torch

        return (torch.as_tensor(a) * torch.as_tensor(b)).sum(dim=-1)


class PairReference:
    """The same scores in process."""

    def __init__(self, meta) -> None:
        self.mteb_model_meta = meta
        self.pairs: list[tuple[str, str]] = []

    def predict(self, inputs1, inputs2, **kwargs):
        from embedding_answers import score

        # MTEB's own cross-encoders read this column, which holds a query and its instruction
        queries = [t for batch in inputs1 for t in batch["text"]]
        documents = [t for batch in inputs2 for t in batch["text"]]
        self.pairs += zip(queries, documents, strict=True)
        return [score(q, d) for q, d in zip(queries, documents, strict=True)]


def scores_of(model, task) -> dict:
    result = mteb.evaluate(model, [task], cache=None, show_progress_bar=False).task_results[0]
    return {split: [(s["hf_subset"], s["main_score"]) for s in rows] for split, rows in result.scores.items()}


def test_all_text_mock_tasks_are_there() -> None:
    assert len(text_tasks()) >= 28
    assert len(text_tasks(*RERANKING)) == 4


@pytest.mark.slow
def test_every_text_mock_task_scores_as_in_process_and_sends_the_exact_texts(encoder_server: ServedModel) -> None:
    from evalscope_vacc import VaccEncoder

    model = VaccEncoder(encoder_server.name, api_base=encoder_server.base, store="off", preflight="off")
    for task in text_tasks():
        reference = Reference(model.mteb_model_meta)
        expected = scores_of(reference, task)
        encoder_server.requests.clear()
        name = task.metadata.name
        got = scores_of(model, task)
        assert sorted(set(encoder_server.texts())) == sorted(set(reference.texts)), name
        assert got.keys() == expected.keys(), name
        for split, rows in expected.items():
            assert [s for s, _ in got[split]] == [s for s, _ in rows], name
            assert [v for _, v in got[split]] == pytest.approx([v for _, v in rows], abs=1e-6), name


def test_the_reranking_mock_tasks_score_as_in_process_and_send_the_exact_pairs(reranker_server: ServedModel) -> None:
    from evalscope_vacc import VaccCrossEncoder

    model = VaccCrossEncoder(reranker_server.name, api_base=reranker_server.base, store="off", preflight="off")
    for task in text_tasks(*RERANKING):
        reference = PairReference(model.mteb_model_meta)
        expected = scores_of(reference, task)
        reranker_server.requests.clear()
        got = scores_of(model, task)
        assert sorted(set(reranker_server.pairs())) == sorted(set(reference.pairs)), task.metadata.name
        for split, rows in expected.items():
            assert [v for _, v in got[split]] == pytest.approx([v for _, v in rows], abs=1e-6), task.metadata.name


def test_a_reranked_task_is_named_by_its_candidates_and_their_number(
    reranker_server: ServedModel, tmp_path: Path
) -> None:
    from mteb.cache import ResultCache

    from evalscope_vacc import VaccCrossEncoder

    name = next(t for t in text_tasks("Retrieval") if not t.metadata.is_multilingual)
    model = VaccCrossEncoder(reranker_server.name, api_base=reranker_server.base, store="off", preflight="off")

    def pairs(top_k: int, *, backwards: bool = False) -> set[tuple[str, str]]:
        task = type(name)()
        task.load_data()
        if getattr(task, "corpus", None) is not None:
            task.convert_v1_dataset_format_to_v2()
        content: dict = {"mteb_model_meta": {"model_name": "a/b", "revision": "1"}}
        for subset, splits in task.dataset.items():
            content[subset] = {
                split: {
                    query: {d: float(-i if backwards else i) for i, d in enumerate(data["corpus"]["id"])}
                    for query in data["queries"]["id"]
                }
                for split, data in splits.items()
            }
        path = tmp_path / "predictions.json"
        path.write_text(json.dumps(content))
        task.convert_to_reranking(path, top_k=top_k)
        reranker_server.requests.clear()
        result = mteb.evaluate(model, [task], cache=ResultCache(tmp_path / "cache"), show_progress_bar=False)
        assert len(result.task_results) == 1
        return set(reranker_server.pairs())

    assert pairs(1)
    assert not pairs(1), "the cached score is of the same candidates"
    assert pairs(2), "of more candidates"
    assert pairs(1, backwards=True), "of others"
    assert model.served.settings == {}


def test_names_known_only_here_are_found(encoder_server: ServedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VACC_API_BASE", encoder_server.base)
    meta = mteb.get_model_meta("vacc/org/with/slashes")
    assert meta.name == "vacc/org/with/slashes"
    assert meta.revision.startswith("served-")
    assert [m.name for m in mteb.get_model_metas(["vacc/some-model"])] == ["vacc/some-model"]
    model = mteb.get_model("vacc/some-model")
    assert type(model).__name__ == "VaccEncoder"


def test_other_names_are_looked_up_as_before() -> None:
    assert (
        mteb.get_model_meta("sentence-transformers/all-MiniLM-L6-v2").name == "sentence-transformers/all-MiniLM-L6-v2"
    )

    def outcome(look_up) -> object:
        # what an unknown name gives differs between releases, and with the hub there or not
        try:
            return look_up("no-such-org/no-such-model").name
        except Exception as error:
            return type(error)

    assert outcome(mteb.get_model_meta) == outcome(mteb.get_model_meta.__wrapped__)


def test_the_catalog_decides_the_kind(reranker_server: ServedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VACC_API_BASE", reranker_server.base)
    assert type(mteb.get_model("vacc/bge-reranker-v2-m3")).__name__ == "VaccCrossEncoder"


def test_keywords_of_get_model_do_not_reach_the_results_name(encoder_server: ServedModel) -> None:
    model = mteb.get_model(
        "vacc/some-model", api_base=encoder_server.base, api_key="sekret", headers={"X": "hidden"}, max_tokens=64
    )
    meta = model.mteb_model_meta
    assert "sekret" not in repr(meta) + json.dumps(meta.to_dict(), default=str)
    assert encoder_server.base not in repr(meta)
    if "experiment_kwargs" in type(meta).model_fields:
        assert meta.experiment_kwargs == {"maxlen": 64}
    else:
        assert meta.revision.endswith("__maxlen_64")


def test_a_reranker_by_keyword_is_recorded_as_a_cross_encoder(reranker_server: ServedModel) -> None:
    model = mteb.get_model("vacc/some-model", api_base=reranker_server.base, is_cross_encoder=True, max_tokens=77)
    assert model.mteb_model_meta.is_cross_encoder
    assert model.mteb_model_meta.max_tokens == 77


def test_prompts_and_truncate_given_to_get_model_hold(encoder_server: ServedModel) -> None:
    model = mteb.get_model("vacc/some-model", api_base=encoder_server.base, prompts={"query": "Q: "}, truncate="error")
    assert (model.served.config.prompts, model.served.config.truncate) == ({"query": "Q: "}, "error")
    if "experiment_kwargs" in type(model.mteb_model_meta).model_fields:
        assert set(model.mteb_model_meta.experiment_kwargs) == {"prompts", "truncate"}


def test_prompts_of_endpoints_toml_survive_being_named_in_the_result(
    encoder_server: ServedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VACC_HOME", str(tmp_path))
    (tmp_path / "endpoints.toml").write_text(
        f'[endpoints."vacc/some-model"]\napi_base = "{encoder_server.base}"\nprompts = {{ query = "Q: " }}\n'
    )
    model = mteb.get_model("vacc/some-model")
    assert model.served.config.prompts == {"query": "Q: "}
    assert model.mteb_model_meta.revision == mteb.get_model_meta("vacc/some-model").revision


def test_endpoints_toml_gives_every_key(
    encoder_server: ServedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VACC_HOME", str(tmp_path))
    (tmp_path / "endpoints.toml").write_text(
        f'[endpoints."vacc/some-model"]\napi_base = "{encoder_server.base}/v1"\nmax_tokens = 99\nrevision = "mine"\n'
        "encode_kwargs = { batch_size = 3 }\n"
    )
    config = mteb.get_model("vacc/some-model").served.config
    assert (config.max_tokens, config.batch_size, config.revision) == (99, 3, "mine")
    assert mteb.get_model_meta("vacc/some-model").revision.startswith("mine")


def test_a_served_model_is_evaluated_from_its_meta(
    encoder_server: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VACC_API_BASE", encoder_server.base)
    task = text_tasks("STS")[0]
    result = mteb.evaluate(mteb.get_model_meta("vacc/some-model"), [task], cache=None, show_progress_bar=False)
    assert result.task_results[0].get_score() == pytest.approx(
        mteb.evaluate(mteb.get_model("vacc/some-model"), [task], cache=None, show_progress_bar=False)
        .task_results[0]
        .get_score()
    )
