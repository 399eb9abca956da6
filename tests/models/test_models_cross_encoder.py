"""VaccCrossEncoder against a real loopback server: grouping, order, templates on exactly one side."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import numpy as np
import pytest
from embedding_answers import score
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served_model import ServedModel

from evalscope_vacc import VaccCrossEncoder
from evalscope_vacc.errors import ConfigError, TextError, TextTooLongError

PREFIX = "<|im_start|>system\n"
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


@pytest.fixture
def server() -> Iterator[ServedModel]:
    with ServedModel(kind="cross-encoder") as served:
        yield served


def reranker(server: ServedModel, **options) -> VaccCrossEncoder:
    return VaccCrossEncoder(server.name, api_base=server.base, **{"store": "off", "preflight": "off", **options})


def real(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Without the probes of the template."""
    return [pair for pair in pairs if pair[0] != "a"]


def test_scores_come_back_in_the_order_of_the_pairs_as_float32(server: ServedModel) -> None:
    queries = [f"query {i // 7}" for i in range(50)]
    documents = [f"document {i * 13 % 11}" for i in range(50)]
    out = reranker(server, batch_size=3).predict(queries, documents)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, [score(q, d) for q, d in zip(queries, documents, strict=True)], rtol=1e-6)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pairs=st.lists(st.tuples(st.sampled_from(["q1", "q2", "q 3"]), st.text(max_size=12)), max_size=40),
    batch=st.integers(1, 7),
    slots=st.integers(1, 4),
)
def test_any_pairs_in_any_batches_give_each_its_own_score(
    server: ServedModel, pairs: list[tuple[str, str]], batch: int, slots: int
) -> None:
    model = reranker(server, batch_size=batch, max_concurrency=slots)
    try:
        out = model.predict([q for q, _ in pairs], [d for _, d in pairs], show_progress_bar=False)
    finally:
        model.close()
    np.testing.assert_allclose(out, [score(q, d) for q, d in pairs], rtol=1e-6)


def test_a_request_carries_one_query_and_up_to_a_batch_of_its_documents(server: ServedModel) -> None:
    queries = ["q1"] * 10 + ["q2"] * 4
    reranker(server, batch_size=4).predict(queries, [f"d{i}" for i in range(14)])
    bodies = [g.json() for g in server.requests if g.path == "/v1/score" and g.json()["text_1"].startswith("q")]
    assert sorted((b["text_1"], len(b["text_2"])) for b in bodies) == [("q1", 2), ("q1", 4), ("q1", 4), ("q2", 4)]


def test_equal_pairs_are_sent_once(server: ServedModel) -> None:
    out = reranker(server).predict(["q"] * 6, ["d1", "d2"] * 3)
    assert sorted(real(server.pairs())) == [("q", "d1"), ("q", "d2")]
    np.testing.assert_allclose(out, [score("q", d) for d in ["d1", "d2"] * 3], rtol=1e-6)


def test_the_instruction_column_goes_into_the_template_and_the_query_stays_clean(server: ServedModel) -> None:
    batch = {"text": ["what? be brief"], "query": ["what?"], "instruction": ["be brief"]}
    reranker(server, rerank_template="qwen3").predict([batch], ["a document"])
    ((query, document),) = [p for p in server.pairs() if p[0] != "a"]
    assert query.startswith(PREFIX)
    assert query.endswith("<Instruct>: be brief\n<Query>: what?\n")
    assert query.count("be brief") == 1
    assert document == "<Document>: a document" + SUFFIX


@pytest.mark.parametrize("served", ["none", "fixed"])
def test_where_no_template_takes_the_instruction_column_the_query_carries_it_once(served: str) -> None:
    batch = {"text": ["what? be brief"], "query": ["what?"], "instruction": ["be brief"]}
    with ServedModel("bge-reranker-v2-m3", kind="cross-encoder", template=served) as server:
        reranker(server).predict([batch], ["a document"])
        assert real(server.pairs()) == [("what? be brief", "a document")]


def test_a_servers_template_gets_the_instruction_column_beside_the_clean_query() -> None:
    batch = {"text": ["what? be brief"], "query": ["what?"], "instruction": ["be brief"]}
    with ServedModel(kind="cross-encoder", template="instruction") as server:
        reranker(server, rerank_template="auto").predict([batch], ["a document"])
        body = next(g.json() for g in server.requests if g.path == "/v1/score" and g.json()["text_1"] == "what?")
    assert body["instruction"] == "be brief"


@pytest.mark.parametrize("template", ["none", "qwen3"])
def test_prompts_of_ones_own_go_before_query_and_document_inside_the_template(
    server: ServedModel, template: str
) -> None:
    keys = {"prompt": "Q: ", "prompts": {"document": "D: "}, "rerank_template": template}
    reranker(server, **keys).predict(["what?"], ["doc"])
    ((query, document),) = real(server.pairs())
    assert query.removesuffix("\n").endswith("<Query>: Q: what?" if template == "qwen3" else "Q: what?")
    assert document.removeprefix("<Document>: ").startswith("D: doc")
    assert query.count("Q: what?") == document.count("D: ") == 1


def test_the_catalogs_prompts_and_a_profile_add_no_prefix_to_pairs(server: ServedModel) -> None:
    reranker(server, instruction_profile="mteb").predict(["what?"], ["doc"])
    assert real(server.pairs()) == [("what?", "doc")]


QWEN = "Qwen3-Reranker-0.6B"


def test_auto_applies_the_template_here_when_the_server_has_none() -> None:
    with ServedModel(QWEN, kind="cross-encoder") as server:
        reranker(server, rerank_template="auto").predict(["what?"], ["doc"])
    assert all(query.startswith(PREFIX) and doc.endswith(SUFFIX) for query, doc in real(server.pairs()))


def test_auto_sends_the_instruction_when_the_server_has_a_template_that_takes_it() -> None:
    with ServedModel(QWEN, kind="cross-encoder", template="instruction") as server:
        reranker(server, rerank_template="auto").predict(["what?"], ["doc"])
        body = next(g.json() for g in server.requests if g.path == "/v1/score" and g.json()["text_1"] == "what?")
    assert body["text_2"] == ["doc"]
    assert body["instruction"] == "Given a web search query, retrieve relevant passages that answer the query"


def test_auto_stops_when_the_servers_template_takes_no_instruction() -> None:
    with ServedModel(QWEN, kind="cross-encoder", template="fixed") as server:
        with pytest.raises(ConfigError, match="ignores a request's instruction.*--chat-template"):
            reranker(server, rerank_template="auto").predict(["what?"], ["doc"])
        assert not real(server.pairs())


@pytest.mark.parametrize("template", ["fixed", "instruction"])
def test_a_template_on_both_sides_stops_before_anything_is_scored(template: str) -> None:
    with ServedModel(kind="cross-encoder", template=template) as server:
        with pytest.raises(ConfigError, match="applied twice"):
            reranker(server, rerank_template="qwen3").predict(["what?"], ["doc"])
        assert not real(server.pairs())


def test_none_sends_the_texts_as_they_are(server: ServedModel) -> None:
    reranker(server, rerank_template="none").predict(["what?"], ["doc"])
    assert real(server.pairs()) == [("what?", "doc")]


def test_a_known_qwen_reranker_without_its_template_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    with ServedModel("Qwen3-Reranker-0.6B", kind="cross-encoder") as server, caplog.at_level(logging.WARNING):
        reranker(server, rerank_template="none").predict(["what?"], ["doc"])
    assert "close to random" in caplog.text


@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        ("bge-reranker-v2-gemma", ("A: what?\n", "B: doc"), "by providing a prediction of either 'Yes' or 'No'."),
        ("mxbai-rerank-base-v2", ("<|im_start|>system\nYou are Qwen", "document: doc"), "<|im_start|>assistant\n"),
    ],
)
@pytest.mark.parametrize("on_server", ["none", "fixed"])
def test_auto_is_the_models_own_template_and_the_servers_where_it_has_one(
    name: str, start: tuple[str, str], end: str, on_server: str
) -> None:
    with ServedModel(name, kind="cross-encoder", template=on_server) as server:
        reranker(server, rerank_template="auto").predict(["what?"], ["doc"])
        ((query, document),) = real(server.pairs())
    if on_server == "fixed":
        assert (query, document) == ("what?", "doc")
    else:
        assert (query.startswith(start[0]), document.startswith(start[1]), document.endswith(end)) == (True,) * 3


@pytest.mark.parametrize("on_server", ["none", "fixed", "instruction"])
def test_auto_guesses_nothing_for_a_name_that_no_rule_knows(on_server: str, caplog: pytest.LogCaptureFixture) -> None:
    with ServedModel("our-reranker", kind="cross-encoder", template=on_server) as server:
        with caplog.at_level(logging.WARNING):
            reranker(server, rerank_template="auto").predict(["what?"], ["doc"])
        assert real(server.pairs()) == [("what?", "doc")]
    assert caplog.text.count("there is no rule for this model") == 1


def test_bge_rerankers_get_no_template_also_under_auto() -> None:
    with ServedModel("bge-reranker-v2-m3", kind="cross-encoder") as server:
        reranker(server, rerank_template="auto").predict(["what?"], ["doc"])
        assert real(server.pairs()) == [("what?", "doc")]


def test_an_embedding_server_behind_the_name_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    with ServedModel() as server, caplog.at_level(logging.WARNING):
        reranker(server).predict(["q"], ["d"])
    assert "embedding server" in caplog.text


def test_the_document_is_cut_inside_the_template_and_the_rest_survives() -> None:
    with ServedModel(kind="cross-encoder", max_model_len=90) as server:
        model = reranker(server, rerank_template="qwen3")
        model.predict(["what is it?"], ["word " * 300])
        ((query, document),) = real(server.pairs())
        counted = server._tokens(query + document)
        assert counted <= 90
        assert query.endswith("<Query>: what is it?\n")
        assert document.startswith("<Document>: word word")
        assert document.endswith(SUFFIX)
        assert counted > 80, "the longest document that fits is kept"
        assert "truncate_prompt_tokens" not in next(
            g.json() for g in server.requests if g.path == "/v1/score" and g.json()["text_1"] == query
        )
        usage = json.loads((model.served.evidence.folder / "usage.json").read_text())["tasks"][0]
        assert usage["cut"] == 1


def test_pairs_that_the_server_cuts_are_not_counted_for_the_evidence_alone() -> None:
    with ServedModel(kind="cross-encoder", max_model_len=90) as server:
        model = reranker(server, rerank_template="none")
        model.predict(["what is it?"] * 50, [f"{i} " + "word " * 100 for i in range(50)])
        usage = json.loads((model.served.evidence.folder / "usage.json").read_text())["tasks"][0]
        assert (usage["texts"], usage["cut"]) == (50, None)
        assert sum(got.path == "/tokenize" for got in server.requests) < 10


def test_truncate_error_names_query_and_document() -> None:
    with (
        ServedModel(kind="cross-encoder", max_model_len=90) as server,
        pytest.raises(TextTooLongError, match="what is it"),
    ):
        reranker(server, rerank_template="qwen3", truncate="error").predict(["what is it?"], ["word " * 300])


def test_queries_and_documents_of_different_number_are_refused(server: ServedModel) -> None:
    with pytest.raises(TextError, match="2 queries for 1 documents"):
        reranker(server).predict(["a", "b"], ["c"])


def test_a_server_without_score_is_asked_by_rerank(server: ServedModel) -> None:
    from loopback_server import Reply

    inner = server.answer

    def without_score(got, sock):
        return Reply.of({"detail": "Not Found"}, 404) if got.path == "/v1/score" else inner(got, sock)

    server.answer = without_score
    out = reranker(server).predict(["q", "q"], ["d1", "d2"])
    np.testing.assert_allclose(out, [score("q", "d1"), score("q", "d2")], rtol=1e-6)


def test_a_server_with_its_own_template_is_sent_a_document_that_fits_and_never_asked_to_truncate() -> None:
    with ServedModel(kind="cross-encoder", template="instruction", max_model_len=260) as server:
        reranker(server, rerank_template="auto").predict(["what is it?"], ["word " * 900])
        ((_, document),) = server.pairs()
        bodies = [g.json() for g in server.requests if g.path == "/v1/score"]
    assert all("truncate_prompt_tokens" not in body for body in bodies)
    assert 20 < len(document.split()) < 160


def test_a_long_instruction_leaves_its_room_in_the_servers_template() -> None:
    batch = {"text": ["what? x"], "query": ["what?"], "instruction": ["explain " * 60]}
    with ServedModel(kind="cross-encoder", template="instruction", max_model_len=260) as server:
        reranker(server, rerank_template="auto").predict([batch], ["word " * 900])
        body = next(g.json() for g in server.requests if g.path == "/v1/score" and g.json()["text_1"] == "what?")
        assert body["instruction"] == "explain " * 60
        assert server._pair_tokens(body) <= 260
        assert len(body["text_2"][0].split()) > 60


@pytest.mark.parametrize("dialect", ["infinity", "tei"])
def test_a_dialect_that_cannot_ask_for_truncation_gets_documents_cut_to_max_tokens(dialect: str) -> None:
    from loopback_server import Reply

    with ServedModel(kind="cross-encoder") as server:
        inner, sent = server.answer, []

        def rerank_only(got, sock):
            if got.path != "/rerank":
                return inner(got, sock)
            texts = got.json().get("documents") or got.json()["texts"]
            sent.extend(texts)
            rows = [{"index": i, "score": 0.5, "relevance_score": 0.5} for i in range(len(texts))]
            return Reply.of(rows if dialect == "tei" else {"results": rows})

        server.answer = rerank_only
        reranker(server, dialect=dialect, max_tokens=50).predict(["what is it?"], ["word " * 300])
        (document,) = [text for text in sent if text.startswith("word")]
        assert 30 < len(document.split()) <= 50


@pytest.mark.parametrize("difference", ["instruction", "another template"])
def test_servers_whose_templates_differ_are_not_used_together(difference: str) -> None:
    with (
        ServedModel(kind="cross-encoder", template="instruction") as one,
        ServedModel(kind="cross-encoder", template="fixed") as other,
    ):
        if difference == "another template":
            other.template = "instruction"
            plain = other._pair_tokens
            other._pair_tokens = lambda request: plain(request) + 7 * len(request["text_2"])  # type: ignore[method-assign]
        model = VaccCrossEncoder(
            one.name, api_base=[one.base, other.base], store="off", preflight="off", rerank_template="auto"
        )
        with pytest.raises(ConfigError, match="the servers differ"):
            model.predict(["what?"], ["doc"])
        assert not real(one.pairs() + other.pairs())


def test_a_template_on_a_server_that_reports_no_counts_is_warned_about(
    server: ServedModel, caplog: pytest.LogCaptureFixture
) -> None:
    from loopback_server import Reply

    inner = server.answer

    def without_usage(got, sock):
        reply = inner(got, sock)
        if got.path != "/v1/score":
            return reply
        answer = json.loads(reply.body)
        del answer["usage"]
        return Reply.of(answer)

    server.answer = without_usage
    with caplog.at_level(logging.WARNING):
        reranker(server, rerank_template="qwen3").predict(["what?"], ["doc"])
    assert "reports no token counts" in caplog.text


def test_more_pairs_than_a_window_keep_their_order_and_are_sent_once(server: ServedModel) -> None:
    queries = [f"q {i // 700}" if i % 50 else "q again" for i in range(2500)]
    documents = [f"document {i % 900} " + "word " * (i % 4) for i in range(2500)]
    out = reranker(server, batch_size=32, show_progress_bar=False).predict(queries, documents)
    np.testing.assert_allclose(out, [score(q, d) for q, d in zip(queries, documents, strict=True)], rtol=1e-6)
    sent = real(server.pairs())
    assert sorted(sent) == sorted(set(zip(queries, documents, strict=True)))


@pytest.mark.parametrize("template", ["qwen3", "bge-reranker-v2-gemma", "auto"])
def test_a_query_too_long_for_its_pair_is_cut_and_leaves_room_for_a_document(template: str) -> None:
    on_server = "instruction" if template == "auto" else "none"
    with ServedModel(kind="cross-encoder", max_model_len=260, template=on_server) as server:
        model = reranker(server, rerank_template=template)
        queries = ["why " * 700] * 2 + ["why not?"]
        model.predict(queries, ["word " * 300, "another", "a text"], show_progress_bar=False)
        pairs = real(server.pairs())
        bodies = [got.json() for got in server.requests if got.path == "/v1/score"]
        assert max(server._pair_tokens({**body, "text_2": [d]}) for body in bodies for d in body["text_2"]) <= 260
    query, document = max(pairs, key=lambda pair: pair[1].count("word"))
    assert 80 < query.count("why") < 195, "three quarters of the room"
    assert document.count("word") > 20, "the rest is the document's"
    assert len({query for query, _ in pairs}) == 2, "one cut for all documents of a query"
    assert any("why not?" in query for query, _ in pairs)
    usage = json.loads((model.served.evidence.folder / "usage.json").read_text())
    assert usage["tasks"][0]["cut"] == 2


def test_a_long_query_is_no_reason_to_cut_with_truncate_error() -> None:
    with ServedModel(kind="cross-encoder", max_model_len=260) as server:
        model = reranker(server, rerank_template="qwen3", truncate="error")
        with pytest.raises(TextTooLongError):
            model.predict(["why " * 700], ["a text"], show_progress_bar=False)
        assert not real(server.pairs())
