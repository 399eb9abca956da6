"""What a server is found out to be, and what is left open where it does not say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from loopback_server import Got, LoopbackServer, Reply

from evalscope_vacc.errors import (
    AuthenticationError,
    BadAnswerError,
    EngineDeadError,
    ModelNotServedError,
    RequestRefusedError,
    ServerFaultError,
    ServerUnreachableError,
)
from evalscope_vacc.wire.dialects import get_dialect
from evalscope_vacc.wire.engine import Engine
from evalscope_vacc.wire.probe import RerankFacts, ServerFacts, probe, probe_all, probe_reranker, tokenize_counter

Serve = Callable[..., LoopbackServer]
Connect = Callable[..., Engine]
NOT_FOUND = Reply.of({"detail": "Not Found"}, 404)


def vllm(**changes: Any) -> Callable[[Got, Any], Reply]:
    """A vLLM with some of its answers changed."""
    pages: dict[str, Any] = {
        "/v1/models": {"data": [{"id": "other"}, {"id": "m", "root": "org/m", "max_model_len": 2048}]},
        "/version": {"version": "0.17.0"},
        "/tokenize": {"count": 3, "max_model_len": 2048, "tokens": [1, 2, 3]},
        **changes,
    }

    def answer(got: Got, sock: Any) -> Reply:
        page = pages.get(got.path, NOT_FOUND)
        return page if isinstance(page, Reply) else Reply.of(page)

    return answer


def test_a_vllm_says_everything(serve: Serve, connect: Connect) -> None:
    server = serve(vllm())
    engine = connect(server, api_key="k-123456")
    expected = ServerFacts(server.base, "0.17.0", ("other", "m"), 2048, "org/m", True, models_path="/v1/models")
    assert probe(engine, "m") == expected
    assert probe_all(engine, "m") == (expected,)
    assert server.requests[0].headers["authorization"] == "Bearer k-123456"
    assert tokenize_counter(engine, get_dialect("vllm"), "m")("some text") == 3
    assert server.requests[-1].json() == {"model": "m", "prompt": "some text"}


@pytest.mark.parametrize(
    "answer",
    [
        lambda got, sock: NOT_FOUND,
        lambda got, sock: Reply(200, b"<html>welcome</html>", "text/html"),
        vllm(
            **{
                "/v1/models": {"data": "nonsense"},
                "/version": {"version": 7},
                "/tokenize": {"count": -1},
            }
        ),
        vllm(**{"/v1/models": {"data": [1, {"id": 2}]}, "/version": [], "/tokenize": {"error": "no"}}),
        vllm(**{"/v1/models": {"data": []}, "/version": Reply(401), "/tokenize": Reply(422, b'{"error":"x"}')}),
    ],
)
def test_what_a_server_does_not_say_stays_open(answer: Any, serve: Serve, connect: Connect) -> None:
    server = serve(answer)
    assert replace(probe(connect(server), "m"), models_path="") == ServerFacts(server.base)
    assert probe(connect(server), "m").serves("m") is None


def test_the_only_model_tells_its_limit_under_whatever_name(serve: Serve, connect: Connect) -> None:
    only = {"data": [{"id": "m-alias", "max_model_len": 512, "root": "\x1b[31mred"}]}
    facts = probe(connect(serve(vllm(**{"/v1/models": only}))), "m")
    assert facts.max_model_len == 512
    assert facts.serves("m") is False
    assert facts.root is not None
    assert "\x1b" not in facts.root


def test_text_embeddings_inference_describes_itself_elsewhere(serve: Serve, connect: Connect) -> None:
    info = {"model_id": "BAAI/bge-m3", "max_input_length": 8192, "version": "1.6", "max_client_batch_size": 32}
    facts = probe(connect(serve(vllm(**{"/v1/models": NOT_FOUND, "/version": NOT_FOUND, "/info": info}))), "m")
    assert (facts.max_model_len, facts.root, facts.max_batch) == (8192, "BAAI/bge-m3", 32)


def test_a_server_that_cannot_be_asked_is_an_error(serve: Serve, connect: Connect) -> None:
    with pytest.raises(AuthenticationError):
        probe(connect(serve(vllm(**{"/v1/models": Reply(401, b'{"error":"Unauthorized"}')}))), "m")
    with pytest.raises(ServerFaultError):
        probe(connect(serve(vllm(**{"/v1/models": Reply(500)})), retries=1), "m")
    dead = Reply.of({"error": {"message": "EngineCore encountered an issue."}}, 500)
    with pytest.raises(EngineDeadError):
        probe(connect(serve(vllm(**{"/tokenize": dead})), retries=1), "m")
    server = serve(vllm())
    server.stop()
    with pytest.raises(ServerUnreachableError):
        probe(connect(server), "m")


def test_each_of_several_servers_is_asked(serve: Serve, connect: Connect) -> None:
    one, two = serve(vllm()), serve(vllm(**{"/version": {"version": "0.32.0"}}))
    facts = probe_all(connect(one, two), "m")
    assert [(f.server, f.version) for f in facts] == [(one.base, "0.17.0"), (two.base, "0.32.0")]


def test_a_count_that_is_none_is_refused(serve: Serve, connect: Connect) -> None:
    counting = get_dialect("vllm")
    with pytest.raises(BadAnswerError, match="no count of tokens"):
        tokenize_counter(connect(serve(vllm(**{"/tokenize": {"count": "3"}}))), counting, "m")("x")
    with pytest.raises(RequestRefusedError):
        tokenize_counter(connect(serve(vllm(**{"/tokenize": NOT_FOUND}))), counting, "m")("x")


def reranker(
    *, template: bool, takes: bool, embeds: str = "404", route: str = "/v1/score", counts: bool = True
) -> Callable[[Got, Any], Reply]:
    """A reranker with the token counts that vLLM 0.17 and 0.32 report for the Qwen3 template."""

    def answer(got: Got, sock: Any) -> Reply:
        if got.path == "/v1/embeddings":
            if embeds == "vectors":
                return Reply.of({"data": [{"index": 0, "embedding": [1.0, 2.0]}]})
            if embeds == "200":
                return Reply.of({"object": "error", "message": "The model does not support Embeddings API"})
            return NOT_FOUND
        if got.path != route:
            return NOT_FOUND
        asked = got.json()
        tokens = 116 if template else 2
        if template and takes and "instruction" in asked:
            tokens += len(asked["instruction"].split()) - 15
        usage = {"prompt_tokens": tokens} if counts else {}
        if route == "/v1/score":
            return Reply.of({"data": [{"index": 0, "score": 0.5}], "usage": usage})
        return Reply.of({"results": [{"index": 0, "relevance_score": 0.5}], "usage": {"total_tokens": tokens}})

    return answer


@pytest.mark.parametrize("embeds", ["404", "200", "vectors"])
@pytest.mark.parametrize(("template", "takes"), [(False, False), (True, False), (True, True)])
def test_the_template_and_the_instruction_are_found(
    template: bool, takes: bool, embeds: str, serve: Serve, connect: Connect
) -> None:
    server = serve(reranker(template=template, takes=takes, embeds=embeds))
    facts = probe_reranker(connect(server), get_dialect("auto"), "m")
    assert facts == RerankFacts(
        server.base,
        "server" if template else "none",
        takes,
        116 if template else 2,
        embeds == "vectors",
        "/v1/score",
    )


def test_a_server_without_score_is_asked_for_rerank(serve: Serve, connect: Connect) -> None:
    facts = probe_reranker(
        connect(serve(reranker(template=True, takes=True, route="/v1/rerank"))), get_dialect("vllm"), "m"
    )
    assert facts.path == "/v1/rerank"
    assert facts.template == "server"


def test_without_token_counts_nothing_is_claimed(serve: Serve, connect: Connect) -> None:
    facts = probe_reranker(connect(serve(reranker(template=True, takes=True, counts=False))), get_dialect("vllm"), "m")
    assert facts.template is None
    assert facts.takes_instruction is None


def test_a_server_that_cannot_score_is_an_error(serve: Serve, connect: Connect) -> None:
    with pytest.raises(RequestRefusedError, match="no such endpoint"):
        probe_reranker(connect(serve(lambda got, sock: NOT_FOUND)), get_dialect("vllm"), "m")
    wrong = Reply.of({"error": {"message": "The model `m` does not exist."}}, 404)
    with pytest.raises(ModelNotServedError):
        probe_reranker(connect(serve(lambda got, sock: wrong)), get_dialect("vllm"), "m")
