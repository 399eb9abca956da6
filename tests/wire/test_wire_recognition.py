"""Which server it is: told from what it says of itself. Recorded: vLLM, infinity, llama.cpp, LiteLLM; else documented."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from loopback_server import Got, LoopbackServer, Reply

from evalscope_vacc.wire.dialects import DIALECTS, Dialect, Introduction, get_dialect
from evalscope_vacc.wire.engine import Engine
from evalscope_vacc.wire.probe import ServerFacts, probe, spoken, tokenize_counter

Serve = Callable[..., LoopbackServer]
Connect = Callable[..., Engine]

# recorded
INFINITY = {
    "data": [
        {
            "id": "m",
            "stats": {"queue_fraction": 0.0, "queue_absolute": 0, "results_pending": 0, "batch_size": 32},
            "object": "model",
            "owned_by": "infinity",
            "created": 1795846813,
            "backend": "torch",
            "capabilities": ["embed"],
        }
    ],
    "object": "list",
}
LLAMACPP = {
    "models": [{"name": "m.gguf", "model": "m.gguf", "capabilities": ["completion"]}],
    "object": "list",
    "data": [
        {
            "id": "m.gguf",
            "aliases": ["m.gguf"],
            "object": "model",
            "created": 1795845999,
            "owned_by": "llamacpp",
            "meta": {"vocab_type": 3, "n_vocab": 30522, "n_ctx": 512, "n_ctx_train": 8192, "n_embd": 384},
        }
    ],
}
LITELLM = {"data": [{"id": "m", "object": "model", "created": 1677610602, "owned_by": "openai"}], "object": "list"}
VLLM = {"data": [{"id": "m", "object": "model", "owned_by": "vllm", "root": "org/m", "max_model_len": 2048}]}
# documented
TEI = {
    "model_id": "BAAI/bge-m3", "max_input_length": 8192, "version": "1.9.3", "max_client_batch_size": 32,
    "auto_truncate": True,
}  # fmt: skip
SGLANG = {"data": [{"id": "m", "object": "model", "owned_by": "sglang", "root": "org/m", "max_model_len": 2048}]}
XINFERENCE = {
    "data": [{"id": "m", "object": "model", "owned_by": "xinference", "model_type": "embedding", "max_tokens": 512}]
}
OLLAMA = {"data": [{"id": "m:latest", "object": "model", "owned_by": "library"}]}

PAGES: dict[str, dict[str, Any]] = {
    "vllm": {"/v1/models": VLLM, "/version": {"version": "0.32.0"}, "/tokenize": {"count": 3}},
    "sglang": {"/v1/models": SGLANG},
    "infinity": {"/models": INFINITY},
    "infinity with a prefix": {"/v1/models": INFINITY},
    "tei": {"/info": TEI, "/tokenize": [[{"id": 0}, {"id": 7}, {"id": 2}]]},
    "llamacpp": {"/v1/models": LLAMACPP, "/tokenize": {"tokens": [101, 1037, 102]}},
    "litellm": {"/v1/models": LITELLM, "/health/liveliness": "I'm alive!"},
    "xinference": {"/v1/models": XINFERENCE},
    "ollama": {"/v1/models": OLLAMA},
    "": {"/v1/models": LITELLM},
}
LENGTHS = {"vllm": 2048, "sglang": 2048, "tei": 8192, "llamacpp": 512, "xinference": 512}


def serving(pages: dict[str, Any]) -> Callable[[Got, Any], Reply]:
    def answer(got: Got, sock: Any) -> Reply:
        return Reply.of(pages[got.path]) if got.path in pages else Reply.of({"detail": "Not Found"}, 404)

    return answer


@pytest.mark.parametrize("kind", PAGES)
def test_each_kind_is_recognised(kind: str, serve: Serve, connect: Connect) -> None:
    server = serve(serving(PAGES[kind]))
    facts = probe(connect(server), "m")
    family = kind.split(" ")[0]
    assert facts.family == family
    assert bool(facts.recognised_by) is bool(family)
    assert facts.max_model_len == LENGTHS.get(family)
    assert "/health" not in [got.path for got in server.requests]


@pytest.mark.parametrize("kind", ["vllm", "tei", "llamacpp"])
def test_each_kind_counts_in_its_own_form(kind: str, serve: Serve, connect: Connect) -> None:
    server = serve(serving(PAGES[kind]))
    engine = connect(server)
    assert probe(engine, "m").tokenize
    assert tokenize_counter(engine, get_dialect(kind), "m")("some text") == 3


def test_a_list_without_tokens_is_no_count(serve: Serve, connect: Connect) -> None:
    """What llama.cpp answers to vLLM's form."""
    assert not probe(connect(serve(serving({"/v1/models": VLLM, "/tokenize": {"tokens": []}}))), "m").tokenize


@pytest.mark.parametrize(("kind", "prefix"), [("infinity", ""), ("infinity with a prefix", "/v1")])
@pytest.mark.parametrize("auto", [True, False])
def test_infinity_is_asked_under_its_prefix(kind: str, prefix: str, auto: bool, serve: Serve, connect: Connect) -> None:
    families = {name: make() for name, make in DIALECTS.items()}
    facts = probe(connect(serve(serving(PAGES[kind]))), "m")
    dialect = spoken(get_dialect("auto" if auto else "infinity"), facts, families, auto=auto)
    assert dialect.embeddings_path == f"{prefix}/embeddings"
    assert dialect.scores_path == f"{prefix}/rerank"


def test_what_is_configured_is_spoken_whatever_is_recognised(serve: Serve, connect: Connect) -> None:
    families = {name: make() for name, make in DIALECTS.items()}
    facts = probe(connect(serve(serving(PAGES["llamacpp"]))), "m")
    assert spoken(get_dialect("jina"), facts, families, auto=False).name == "jina"
    assert spoken(get_dialect("auto"), facts, families, auto=True).name == "llamacpp"


@pytest.mark.parametrize(
    ("address", "family"),
    [
        ("https://dashscope.aliyuncs.com/compatible-mode", "dashscope"),
        ("https://api.siliconflow.cn", "siliconflow"),
        ("https://api.jina.ai", "jina"),
        ("https://api.openai.com", "openai"),
        ("https://name.openai.azure.com:443/openai", "openai"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "openai"),
        ("https://notapi.jina.ai.example.com", ""),
        ("http://[2001:db8::1]:8000", ""),
    ],
)
def test_hosted_services_are_known_by_their_hosts(address: str, family: str) -> None:
    said = Introduction(address)
    assert next((name for name, make in DIALECTS.items() if make().recognises(said)), "") == family


class Mine(Dialect):
    name = "mine"

    def recognises(self, said: Introduction) -> str:
        return said.owned_by("me")


def test_a_family_of_somebody_else_is_recognised_too(serve: Serve, connect: Connect) -> None:
    server = serve(serving({"/v1/models": {"data": [{"id": "m", "owned_by": "me"}]}}))
    facts = probe(connect(server), "m", families=[get_dialect("vllm"), Mine()])
    assert (facts.family, facts.recognised_by) == ("mine", "/v1/models says owned_by: me")


@pytest.mark.parametrize(
    ("served", "name", "listed"),
    [
        (("m",), "m", True),
        (("other",), "m", False),
        ((), "m", None),
        (("*",), "m", True),
        (("hosted_vllm/*",), "hosted_vllm/m", True),
        (("hosted_vllm/*",), "m", False),
    ],
)
def test_a_pattern_in_a_list_of_models_stands_for_names(
    served: tuple[str, ...], name: str, listed: bool | None
) -> None:
    assert ServerFacts("http://h", served=served).serves(name) is listed
