"""VaccEncoder against a real loopback server: order, exact texts, limits, sizes, names."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from embedding_answers import vector, vectors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loopback_server import Reply
from served_model import ServedModel

from evalscope_vacc import VaccEncoder
from evalscope_vacc.errors import AuthenticationError, ConfigError, ModelNotServedError, TextTooLongError, VaccError


@pytest.fixture
def server() -> Iterator[ServedModel]:
    with ServedModel() as served:
        yield served


def encoder(server: ServedModel, **options) -> VaccEncoder:
    name = options.pop("model_name", server.name)
    return VaccEncoder(name, api_base=server.base, **{"store": "off", "preflight": "off", **options})


def test_vectors_come_back_in_the_order_of_the_texts_as_float32(server: ServedModel) -> None:
    texts = [f"text number {i} " + "word " * (i % 7) for i in range(101)]
    out = encoder(server, batch_size=8).encode(texts)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, vectors(texts))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.text(max_size=30), max_size=40),
    batch=st.integers(1, 9),
    slots=st.integers(1, 5),
)
def test_any_texts_in_any_batches_give_each_its_own_vector(
    server: ServedModel, texts: list[str], batch: int, slots: int
) -> None:
    with_server = encoder(server, batch_size=batch, max_concurrency=slots)
    try:
        out = with_server.encode(texts, show_progress_bar=False)
    finally:
        with_server.close()
    assert len(out) == len(texts)
    for text, row in zip(texts, out, strict=True):
        np.testing.assert_array_equal(row, vector(text))


def test_equal_texts_are_sent_once(server: ServedModel) -> None:
    out = encoder(server, batch_size=4).encode(["a b", "c d", "a b"] * 20)
    assert sorted(server.texts()) == ["a b", "c d"]
    np.testing.assert_array_equal(out, vectors(["a b", "c d", "a b"] * 20))


def test_the_longest_texts_leave_first(server: ServedModel) -> None:
    texts = ["w " * n for n in (1, 9, 3, 7, 5)]
    encoder(server, batch_size=1, max_concurrency=1).encode(texts)
    assert [len(t) for t in server.texts()] == sorted((len(t) for t in texts), reverse=True)


@pytest.mark.parametrize("given", [{"batch_size": 5}, {"encode_kwargs": {"batch_size": 5}}])
def test_the_entrys_batch_size_wins_over_the_hosts(server: ServedModel, given: dict) -> None:
    encoder(server, **given).encode([f"t {i}" for i in range(20)], batch_size=2)
    sizes = [
        len(g.json()["input"]) for g in server.requests if g.path == "/v1/embeddings" and len(g.json()["input"]) > 1
    ]
    assert set(sizes) == {5}


def test_the_hosts_batch_size_holds_where_the_entry_has_none(server: ServedModel) -> None:
    encoder(server).encode([f"t {i}" for i in range(20)], batch_size=2)
    assert max(len(g.json()["input"]) for g in server.requests if g.path == "/v1/embeddings") == 2


def test_no_request_carries_more_texts_than_the_server_says_it_takes(server: ServedModel) -> None:
    inner = server.answer

    def like_text_embeddings_inference(got, sock):
        if got.path in ("/v1/models", "/version"):
            return Reply(404, b"")
        if got.path == "/info":
            return Reply.of({"model_id": "weights", "max_input_length": 512, "max_client_batch_size": 3})
        return inner(got, sock)

    server.answer = like_text_embeddings_inference
    texts = [f"t {i}" for i in range(20)]
    np.testing.assert_array_equal(encoder(server, batch_size=8).encode(texts), vectors(texts))
    assert max(len(g.json()["input"]) for g in server.requests if g.path == "/v1/embeddings") == 3


def test_requests_are_in_flight_together(server: ServedModel) -> None:
    gate = threading.Barrier(3, timeout=20)
    inner = server.answer

    def slow(got, sock):
        if got.path == "/v1/embeddings" and got.json()["input"][0].startswith("t "):
            gate.wait()
        return inner(got, sock)

    server.answer = slow
    encoder(server, batch_size=1, max_concurrency=3).encode([f"t {i}" for i in range(9)])
    assert server.most_in_flight == 3


def test_a_text_that_is_too_long_is_cut_by_the_server_and_counted() -> None:
    with ServedModel(max_model_len=20) as server:
        model = encoder(server)
        model.encode(["short", "word " * 50, "word " * 18])
        assert all(body["truncate_prompt_tokens"] == 20 for body in server.bodies())
        usage = json.loads((model.served.evidence.folder / "usage.json").read_text())["tasks"][0]
        assert (usage["texts"], usage["cut"]) == (3, 1)


def test_many_long_texts_are_not_counted_one_request_each_for_the_evidence_alone() -> None:
    texts = [f"{i} " + "word " * 30 for i in range(200)]
    with ServedModel(max_model_len=20) as server:
        model = encoder(server)
        model.encode(texts)
        usage = json.loads((model.served.evidence.folder / "usage.json").read_text())["tasks"][0]
        assert (usage["texts"], usage["cut"], usage["at_limit"]) == (200, None, 200)
        assert sum(got.path == "/tokenize" for got in server.requests) < 10
        assert all(body["truncate_prompt_tokens"] == 20 for body in server.bodies())


def test_what_nobody_counted_is_not_known() -> None:
    with ServedModel() as silent:
        inner = silent.answer

        def says_no_limit(got, sock):
            return Reply.of({"data": [{"id": silent.name}]}) if got.path == "/v1/models" else inner(got, sock)

        silent.answer = says_no_limit
        model = encoder(silent)
        model.encode(["short", "word " * 5000])
        usage = json.loads((model.served.evidence.folder / "usage.json").read_text())["tasks"][0]
        assert (usage["cut"], usage["at_limit"]) == (None, None), "the server may have cut them; nobody says"


def test_a_rate_counts_what_was_sent() -> None:
    from evalscope_vacc.evidence import TaskUsage

    counts = TaskUsage("m", "T", "test", "default", "", texts=1000, unique=900, stored=880, seconds=2.0, tokens=400)
    assert counts.sent == 20
    assert "10 sent/s" in counts.line()
    assert "400 tokens (200/s)" in counts.line()
    assert "none sent" in TaskUsage("m", "T", "test", "default", "", texts=9, unique=9, stored=9, seconds=0.1).line()


def test_the_smaller_of_our_limit_and_the_servers_holds() -> None:
    with ServedModel(max_model_len=20) as server:
        encoder(server, max_tokens=64).encode(["x"])
        encoder(server, max_tokens=7).encode(["y"])
        assert [body["truncate_prompt_tokens"] for body in server.bodies()] == [20, 7]


def test_truncate_error_names_the_text() -> None:
    with (
        ServedModel(max_model_len=20) as server,
        pytest.raises(TextTooLongError, match="too-long.*52 tokens.*limit is 20"),
    ):
        encoder(server, truncate="error").encode(["fine", "too-long " * 50])


def test_a_dialect_that_cannot_truncate_needs_a_tokenizer_and_says_so() -> None:
    with ServedModel(max_model_len=20) as server:
        inner = server.answer

        def bare(got, sock):
            from loopback_server import Reply

            return Reply.of({"detail": "Not Found"}, 404) if got.path == "/tokenize" else inner(got, sock)

        server.answer = bare
        with pytest.raises(ConfigError, match="set `tokenizer:`"):
            encoder(server, dialect="openai").encode(["word " * 50])


def test_dimensions_are_cut_here_and_renormalised(server: ServedModel) -> None:
    out = encoder(server, dimensions=8).encode(["some text"])
    expected = vector("some text")[:8]
    np.testing.assert_allclose(out[0], expected / np.linalg.norm(expected), rtol=1e-6)
    assert all("dimensions" not in g.json() for g in server.requests if g.path == "/v1/embeddings")


def test_dimensions_above_the_models_are_refused(server: ServedModel) -> None:
    with pytest.raises(ConfigError, match="dimensions is 32.*16 numbers"):
        encoder(server, dimensions=32).encode(["x"])


def test_a_wrong_name_offers_the_nearest(server: ServedModel) -> None:
    with pytest.raises(ModelNotServedError, match="serves 'some-model'"):
        encoder(server, model_name="some-modle").encode(["x"])


def test_a_wrong_key_is_an_error_without_the_key() -> None:
    with ServedModel(key="right") as server, pytest.raises(AuthenticationError) as raised:
        encoder(server, api_key="wr0ng-key", retries=0).encode(["x"])
    assert "wr0ng-key" not in str(raised.value)


def test_a_cross_encoders_configuration_is_refused(server: ServedModel) -> None:
    with pytest.raises(ConfigError, match="VaccCrossEncoder"):
        encoder(server, is_cross_encoder=True)


def test_what_is_no_text_is_refused_by_position(server: ServedModel) -> None:
    with pytest.raises(VaccError, match="item 1 is a int"):
        encoder(server).encode([{"text": ["fine", 3]}])


def test_no_texts_give_no_vectors(server: ServedModel) -> None:
    assert encoder(server).encode([]).shape[0] == 0


def test_langchains_interface_gives_lists_of_floats(server: ServedModel) -> None:
    model = encoder(server, prompts={"query": "Q: ", "document": "D: "})
    assert model.embed_query("x") == pytest.approx(vector("Q: x").tolist())
    assert model.embed_documents(["x", "y"])[1] == pytest.approx(vector("D: y").tolist())


def test_similarity_is_the_cosine(server: ServedModel) -> None:
    model = encoder(server)
    a, b = model.encode(["one", "two", "three"]), model.encode(["two", "one", "three"])
    expected = a @ b.T / (np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)[None])
    np.testing.assert_allclose(model.similarity(a, b).numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(model.similarity_pairwise(a, b).numpy(), np.diag(expected), atol=1e-6)


def test_the_evidence_holds_what_was_sent_and_no_secret(server: ServedModel) -> None:
    model = encoder(server, api_key="sekret", headers={"X-Extra": "hidden"}, prompt="P: ")
    model.encode(["one", "two", "three", "four", "five"])
    folder = model.served.evidence.folder
    samples = [json.loads(line) for line in (folder / "sent_samples.jsonl").read_text().splitlines()]
    assert [s["text"] for s in samples] == ["P: one", "P: two", "P: three"]
    assert samples[0]["tokens"] is not None
    everything = "".join(path.read_text() for path in folder.iterdir())
    assert "sekret" not in everything
    assert "hidden" not in everything
    assert json.loads((folder / "server.json").read_text())["models"][0]["servers"][0]["version"] == "0.32.0"


def test_a_used_model_leaves_no_thread_behind(server: ServedModel) -> None:
    before = {t for t in threading.enumerate() if not t.name.startswith("loopback")}
    model = encoder(server)
    model.encode([f"t {i}" for i in range(50)], batch_size=2)
    model.close()
    assert {t for t in threading.enumerate() if not t.name.startswith("loopback")} <= before


def test_the_preflight_looks_at_the_server_once_before_the_first_text(server: ServedModel) -> None:
    model = encoder(server, preflight="on")
    model.encode(["one"])
    first = server.paths().count("/v1/embeddings")
    model.encode(["two"])
    assert first > 1
    assert server.paths().count("/v1/embeddings") == first + 1
    assert server.texts() == ["one", "two"]


def test_a_plugins_dialect_is_spoken_and_reaches_evidence_and_store(
    server: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evalscope_vacc.models import served
    from evalscope_vacc.plugins import Plugins
    from evalscope_vacc.wire.dialects import VllmDialect

    class Shifted(VllmDialect):
        name = "shifted"
        embeddings_path = "/shifted/embeddings"

    class Found(Plugins):
        def dialects(self) -> dict:
            return {"shifted": Shifted}

    inner = server.answer
    server.answer = lambda got, sock: inner(replace(got, path=got.path.replace("/shifted/", "/v1/")), sock)
    found = Found([])
    monkeypatch.setattr(served, "plugins", lambda: found)
    model = encoder(server, dialect="shifted")
    np.testing.assert_array_equal(model.encode(["one"]), vectors(["one"]))
    assert "/shifted/embeddings" in server.paths()
    written = json.loads((model.served.evidence.folder / "config.json").read_text())["models"][0]
    assert written["dialect"] == "shifted"
    assert model.served.config.identity() != encoder(server).served.config.identity()


def test_tqdm_disable_hides_every_bar(server: ServedModel, capfd: pytest.CaptureFixture[str]) -> None:
    encoder(server).encode(["one"])
    assert "1/1" in capfd.readouterr().err
    # tqdm reads the variable when it is imported
    code = (
        "import sys; from evalscope_vacc import VaccEncoder; "
        "VaccEncoder(sys.argv[1], api_base=sys.argv[2], store='off', preflight='off').encode(['one'])"
    )
    environment = {**os.environ, "TQDM_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, server.name, server.base],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "1/1" not in done.stderr


def test_the_bar_ends_with_the_last_text_however_many_are_repeated(
    server: ServedModel, capfd: pytest.CaptureFixture[str]
) -> None:
    encoder(server).encode(["a", "b", "a", "a"])
    assert "4/4" in capfd.readouterr().err


def test_a_loader_with_an_order_of_its_own_is_read_in_that_order(server: ServedModel) -> None:
    from datasets import Dataset
    from torch.utils.data import DataLoader

    texts = Dataset.from_dict({"text": ["a", "b", "c"]})
    loader = DataLoader(texts, batch_sampler=[[2, 1], [0]])
    np.testing.assert_array_equal(encoder(server).encode(loader), vectors(["c", "b", "a"]))


@pytest.mark.parametrize("n", [1, 1023, 1024, 1025, 2500])
def test_more_texts_than_a_window_keep_their_order(server: ServedModel, n: int) -> None:
    texts = [f"text {i % 1700} " + "word " * (i % 5) for i in range(n)]
    out = encoder(server, show_progress_bar=False).encode(texts)
    np.testing.assert_array_equal(out, vectors(texts))
    assert len(server.texts()) == len(set(texts))


def test_an_encoder_that_no_rule_knows_says_once_that_its_texts_have_no_prefix(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with ServedModel("our-own-encoder") as server, caplog.at_level(logging.WARNING):
        model = VaccEncoder(server.name, api_base=server.base, store="off")
        model.embed_query("what?")
        model.embed_documents(["a text"])
        model.close()
    (said,) = [r.getMessage() for r in caplog.records if "without a prefix" in r.getMessage()]
    assert said.startswith(
        "our-own-encoder: there is no rule for this model: its texts are sent without a prefix; write prompts"
    )


def test_threads_that_ask_one_encoder_share_its_slots(server: ServedModel) -> None:
    slots, threads = 4, 16
    model = encoder(server, max_concurrency=slots)
    model.embed_query("opens the session")
    inner, together, lock = server.answer, threading.Barrier(slots), threading.Lock()
    in_flight: list[int] = [0, 0]

    def answer_four_at_a_time(got, sock):
        if got.path != "/v1/embeddings":
            return inner(got, sock)
        with lock:
            in_flight[0] += 1
            in_flight[1] = max(in_flight)
        # passes only when as many requests are in flight as there are slots
        together.wait(20)
        reply = inner(got, sock)
        with lock:
            in_flight[0] -= 1
        return reply

    server.answer = answer_four_at_a_time
    texts = [f"question {i}" for i in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        got = list(pool.map(model.embed_query, texts))
    np.testing.assert_array_equal(np.array(got, np.float32), vectors(texts))
    assert in_flight[1] == slots
