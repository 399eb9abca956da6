"""The user's prompts, the profile and the catalog's prompts, in their order."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from evalscope_vacc.errors import ConfigError, PluginError
from evalscope_vacc.text.instructions import Prompts, TextRules, make_rules
from evalscope_vacc.text.profiles import QwenOfficial
from evalscope_vacc.text.task import TaskInfo

SCIFACT = TaskInfo("SciFact", "Retrieval")
RERANKING = TaskInfo("CMedQAv1-reranking", "Reranking")
STS = TaskInfo("STS12", "STS")


def test_prompt_is_for_queries_and_texts_without_a_side() -> None:
    prompts = Prompts("p: ")
    assert prompts.prefix(SCIFACT, "query") == "p: "
    assert prompts.prefix(STS, None) == "p: "
    assert prompts.prefix(SCIFACT, "document") == ""


def test_no_prompts_say_nothing() -> None:
    assert Prompts().prefix(SCIFACT, "query") is None
    assert Prompts(None, {}).prefix(SCIFACT, "query") is None
    assert Prompts(None, {"Other": "x", "nonsense": "y"}).prefix(SCIFACT, "query") is None


def test_the_most_specific_of_the_prompts_wins() -> None:
    prompts = {"query": "5", "Retrieval": "4", "Retrieval-query": "3", "SciFact": "2", "SciFact-query": "1"}
    for number in "12345":
        assert Prompts("6", prompts).prefix(SCIFACT, "query") == number
        del prompts[next(key for key, value in prompts.items() if value == number)]
    assert Prompts("6", prompts).prefix(SCIFACT, "query") == "6"


def test_a_task_or_type_key_is_for_both_sides_and_for_none() -> None:
    assert Prompts(None, {"SciFact": "x"}).prefix(SCIFACT, "document") == "x"
    assert Prompts(None, {"STS": "x"}).prefix(STS, None) == "x"
    assert Prompts(None, {"query": "x", "STS-query": "y"}).prefix(STS, None) is None


@pytest.mark.parametrize("side", ["document", "passage"])
def test_passage_is_documents_old_name(side: str) -> None:
    assert Prompts(None, {side: "x"}).prefix(SCIFACT, "document") == "x"
    assert Prompts(None, {f"SciFact-{side}": "x"}).prefix(SCIFACT, "document") == "x"
    assert Prompts("p", {side: "x"}).prefix(SCIFACT, "document") == "x"


def test_a_task_name_with_a_hyphen_is_a_task_name() -> None:
    prompts = Prompts(None, {"CMedQAv1-reranking": "x", "CMedQAv1-reranking-query": "y"})
    assert prompts.prefix(RERANKING, "document") == "x"
    assert prompts.prefix(RERANKING, "query") == "y"


def test_an_empty_prompt_is_a_rule_too() -> None:
    rules = TextRules(QwenOfficial({"SciFact": "find"}), Prompts(None, {"query": ""}))
    assert rules.prefix(SCIFACT, "query").text == ""
    assert rules.prefix(SCIFACT, "query").source == "prompts[query]"


@pytest.mark.parametrize(
    ("prompt", "prompts", "message"),
    [
        (3, None, "prompt: expected a text, found int"),
        (None, ["x"], "prompts: expected a mapping .* found list"),
        (None, {"SciFact": None}, r"prompts\[SciFact\]: expected a text, found NoneType"),
        (None, {"SciFact": {"query": "x"}}, r"prompts\[SciFact\]: expected a text, found dict"),
        (None, {7: "x"}, "the key 7 is int"),
        (None, {"SciFact-document": "x", "SciFact-passage": "y"}, "mean the same side"),
    ],
)
def test_wrong_types_are_named_with_their_key(prompt: object, prompts: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Prompts(prompt, prompts)


def test_both_spellings_with_one_text_are_one_rule() -> None:
    assert Prompts(None, {"passage": "x", "document": "x"}).prefix(SCIFACT, "document") == "x"


def config(**given: object) -> SimpleNamespace:
    keys = {
        "instruction_profile": "none",
        "instruction_template": None,
        "instruction_dict_path": None,
        "prompt": None,
        "prompts": None,
        "catalog_prompts": {},
    }
    return SimpleNamespace(**{**keys, **given})


def test_the_users_prompts_win_over_the_profile_and_that_over_the_catalog() -> None:
    everything = config(
        instruction_profile="mteb", prompts={"query": "mine: "}, catalog_prompts={"query": "card: ", "document": "d: "}
    )
    rules = make_rules(everything)
    task = TaskInfo("SciFact", "Retrieval", "own")
    assert (rules.prefix(task, "query").text, rules.prefix(task, "query").source) == ("mine: ", "prompts[query]")
    assert rules.prefix(TaskInfo("S", "STS", "own"), None).source == "profile mteb"
    assert rules.prefix(task, "document").source == "catalog prompts[document]"


def test_a_prompt_of_ones_own_keeps_the_profile_off_the_documents() -> None:
    rules = TextRules(QwenOfficial({"CMedQAv1-reranking": "rank"}), Prompts("p: "))
    assert rules.prefix(RERANKING, "document").text == ""
    assert rules.prefix(RERANKING, "query").text == "p: "


def test_the_catalogs_query_prompt_leaves_texts_without_sides_alone() -> None:
    rules = make_rules(config(catalog_prompts={"query": "Represent this sentence: "}))
    assert rules.prefix(SCIFACT, "query").text == "Represent this sentence: "
    assert rules.prefix(SCIFACT, "document").text == ""
    assert rules.prefix(STS, None).text == ""
    assert rules.prefix(STS, None).source == "none"


def test_fingerprints_tell_prompts_apart() -> None:
    made = [
        make_rules(config()),
        make_rules(config(prompt="x")),
        make_rules(config(prompts={"query": "x"})),
        make_rules(config(catalog_prompts={"query": "x"})),
        make_rules(config(prompt="")),
    ]
    assert len({rules.fingerprint for rules in made}) == len(made)
    assert made[0].fingerprint == "none"


class WrongAnswers:
    name = "wrong"
    notes = ()

    def instruction(self, task: TaskInfo, side: str | None) -> object:
        return 3

    def prefix(self, task: TaskInfo, side: str | None) -> object:
        return None


def test_a_plugin_that_gives_no_text_is_named() -> None:
    rules = TextRules(WrongAnswers())
    with pytest.raises(PluginError, match="'wrong' gave NoneType for SciFact"):
        rules.prefix(SCIFACT, "query")
    with pytest.raises(PluginError, match="'wrong' gave int for SciFact"):
        rules.rerank_instruction(SCIFACT)
    assert rules.fingerprint == "wrong"
