"""The rerank templates, against what was recorded from real servers and computed by transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalscope_vacc.errors import ConfigError, PluginError
from evalscope_vacc.text.templates import TEMPLATES, RerankTemplate, get_template

VERSIONS = ["0.9.2", "0.11.0", "0.17.0", "0.32.0"]


@pytest.mark.parametrize("version", VERSIONS)
def test_qwen3_is_the_text_whose_scores_equal_transformers(shared: Path, version: str) -> None:
    template = get_template("qwen3")
    assert template is not None
    pairs = json.loads((shared / "data" / "vllm_recorded" / f"vllm-{version}.json").read_text())["reranker_pairs"]
    assert len(pairs) == 6
    for pair in pairs:
        sent = pair["client_template_request"]
        assert template.query(pair["query"], pair["instruction"]) == sent["text_1"]
        assert template.document(pair["document"]) == sent["text_2"]
        got, expected = pair["servers"]["reranker"]["client_template"], pair["expected"]["official_template"]
        assert got["score"] == pytest.approx(expected["score"], abs=1e-5)
        assert got["prompt_tokens"] == expected["prompt_tokens"]


def test_the_default_instruction_stands_in(shared: Path) -> None:
    recorded = json.loads((shared / "data" / "vllm_recorded" / "vllm-0.32.0.json").read_text())
    pair = recorded["reranker_pairs"][0]
    template = TEMPLATES["qwen3"]
    assert template.default_instruction == pair["instruction"]
    for nothing in (None, ""):
        assert template.query(pair["query"], nothing) == pair["client_template_request"]["text_1"]


def test_the_evaluation_form_has_two_newlines_and_its_own_default() -> None:
    card, evaluation = TEMPLATES["qwen3"], TEMPLATES["qwen3-evaluation"]
    whole = evaluation.query("Q", "I") + evaluation.document("D")
    assert "<Instruct>: I\n\n<Query>: Q\n\n<Document>: D<|im_end|>\n<|im_start|>assistant\n" in whole
    assert whole.replace("I\n\n<", "I\n<").replace("Q\n\n<", "Q\n<") == card.query("Q", "I") + card.document("D")
    assert "Given the user query, retrieval the relevant passages" in evaluation.query("Q", None)


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_texts_go_in_unchanged(name: str) -> None:
    template = TEMPLATES[name]
    odd = "{query} {} %s <|im_end|>\n<Document>: \U0001f600 e\u0301"
    assert odd in template.query(odd, "I")
    assert odd in template.document(odd)


@pytest.mark.parametrize("name", ["qwen3", "qwen3-evaluation", "mxbai-rerank-v2"])
def test_a_chat_template_closes_the_users_turn_once(name: str) -> None:
    assert TEMPLATES[name].document("").count("<|im_end|>") == 1


def test_the_templates_of_other_models_are_what_their_authors_packages_send() -> None:
    gemma, mxbai = TEMPLATES["bge-reranker-v2-gemma"], TEMPLATES["mxbai-rerank-v2"]
    assert gemma.query("Q") + gemma.document("D") == (
        "A: Q\nB: D\nGiven a query A and a passage B, determine whether the passage contains an answer to the query by "
        "providing a prediction of either 'Yes' or 'No'."
    )
    assert mxbai.query("Q", "an instruction has no place") + mxbai.document("D") == (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nquery: Q\ndocument: D\nYou are a search relevance expert who evaluates how well documents "
        "match search queries. For each query-document pair, carefully analyze the semantic relationship between them, "
        "then provide your binary relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_none_is_no_template() -> None:
    assert get_template("none") is None
    assert get_template(None) is None


def test_an_unknown_template_names_the_nearest_and_all() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'qwen3-evaluation'\?.*none, ours"):
        get_template("qwen3-evalution", extra={"ours": RerankTemplate("ours")})


def test_a_plugins_template_is_found_and_checked() -> None:
    ours = RerankTemplate("ours", before_query="Q: ", before_document="D: ")
    assert get_template("ours", extra={"ours": ours}) is ours
    assert ours.query("x", "an instruction that has no place") == "Q: x"
    for name in ("none", "auto", "qwen3"):
        with pytest.raises(PluginError, match="built in"):
            get_template("qwen3", extra={name: ours})
    with pytest.raises(PluginError, match="has no name, default_instruction, query, document"):
        get_template("ours", extra={"ours": object()})
