"""The rules of the profiles, on tasks made here; test_text_all_tasks.py checks them on MTEB's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalscope_vacc.errors import ConfigError, PluginError
from evalscope_vacc.text.instructions import make_profile
from evalscope_vacc.text.profiles import InstructionTemplate, MtebQwen3, NoInstruction, QwenOfficial
from evalscope_vacc.text.task import TaskInfo

GENERIC = "Retrieve text based on user query."
DICTIONARY = {
    "Plain": "find it",
    "Both": {"query": "for the query", "document": "for the document"},
    "QueryOnly": {"query": "for the query"},
    "Blank": "  ",
}


def wrapped(instruction: str) -> str:
    return f"Instruct: {instruction}\nQuery:"


@pytest.fixture
def official() -> QwenOfficial:
    return QwenOfficial(DICTIONARY)


@pytest.mark.parametrize("kind", ["Retrieval", "InstructionRetrieval", "InstructionReranking", "Any2AnyRetrieval"])
def test_official_leaves_documents_of_retrieval_bare(official: QwenOfficial, kind: str) -> None:
    task = TaskInfo("Plain", kind, default_prompt=GENERIC)
    assert official.prefix(task, "query") == wrapped("find it")
    assert official.prefix(task, "document") == ""


def test_official_gives_documents_the_dictionaries_own_text_for_them(official: QwenOfficial) -> None:
    assert official.prefix(TaskInfo("Both", "Retrieval"), "document") == wrapped("for the document")
    assert official.prefix(TaskInfo("QueryOnly", "Retrieval"), "query") == wrapped("for the query")
    assert official.prefix(TaskInfo("QueryOnly", "Retrieval"), "document") == ""


def test_official_instructs_documents_of_reranking(official: QwenOfficial) -> None:
    assert official.prefix(TaskInfo("Plain", "Reranking"), "document") == wrapped("find it")
    assert official.prefix(TaskInfo("Other", "Reranking", default_prompt=GENERIC), "document") == wrapped(GENERIC)
    # metadata that names the query side alone: nothing for the document, not the generic sentence
    assert official.prefix(TaskInfo("Other", "Reranking", {"query": "q"}, GENERIC), "document") == ""
    assert official.prefix(TaskInfo("Other", "Reranking", {"query": "q"}, GENERIC), "query") == wrapped("q")


@pytest.mark.parametrize("kind", ["STS", "PairClassification"])
@pytest.mark.parametrize("side", [None, "query", "document"])
@pytest.mark.parametrize("name", ["Plain", "Both", "Other"])
def test_official_overrides_the_dictionary_for_symmetric_tasks(
    official: QwenOfficial, kind: str, side: str | None, name: str
) -> None:
    task = TaskInfo(name, kind, "own", "generic")
    assert official.prefix(task, side) == wrapped("Retrieve semantically similar text")


def test_official_falls_back_to_the_task_and_then_to_its_class(official: QwenOfficial) -> None:
    assert official.instruction(TaskInfo("Other", "Clustering", "own", "generic"), None) == "own"
    assert official.instruction(TaskInfo("Other", "Clustering", None, "generic"), None) == "generic"
    assert official.instruction(TaskInfo("Other", "Clustering"), None) is None
    assert official.instruction(TaskInfo("Blank", "Clustering", "own"), None) is None


def test_official_refuses_sides_for_a_task_without_them(official: QwenOfficial) -> None:
    with pytest.raises(ConfigError, match="Both, whose texts have no side"):
        official.prefix(TaskInfo("Both", "Classification"), None)


def test_official_without_a_dictionary_says_so_and_keeps_the_other_rules() -> None:
    profile = make_profile("qwen-official", instruction_dict_path="metadata")
    assert "not comparable" in profile.notes[0]
    assert profile.fingerprint == "qwen-official-metadata"
    assert profile.prefix(TaskInfo("Any", "STS", "own"), None) == wrapped("Retrieve semantically similar text")
    assert profile.prefix(TaskInfo("Any", "Retrieval", {"query": "own"}), "query") == wrapped("own")


def test_mteb_never_instructs_documents() -> None:
    profile = MtebQwen3(DICTIONARY)
    for kind in ("Retrieval", "Reranking", "PairClassification"):
        assert profile.prefix(TaskInfo("Both", kind, "own", "generic"), "document") == ""


def test_mteb_takes_the_metadata_and_then_the_class() -> None:
    profile = make_profile("mteb")
    assert profile.prefix(TaskInfo("T", "STS", None, "generic"), None) == wrapped("generic")
    assert profile.prefix(TaskInfo("T", "STS", "own", "generic"), None) == wrapped("own")
    assert profile.prefix(TaskInfo("T", "Retrieval", {"query": "own"}, "generic"), "query") == wrapped("own")
    # as that class: sides named, but not this one
    assert profile.prefix(TaskInfo("T", "Retrieval", {"document": "own"}, "generic"), "query") == ""
    assert profile.prefix(TaskInfo("T", "STS", {"query": "own"}, "generic"), None) == wrapped("own")


def test_mteb_puts_a_dictionary_before_the_metadata(tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    file.write_text(json.dumps({"T": "mine"}))
    profile = make_profile("mteb", instruction_dict_path=str(file))
    assert profile.prefix(TaskInfo("T", "STS", "own"), None) == wrapped("mine")
    assert profile.fingerprint != make_profile("mteb").fingerprint
    assert profile.notes


def test_none_sends_texts_as_they_are() -> None:
    assert make_profile("none").prefix(TaskInfo("T", "Retrieval", "own"), "query") == ""


@pytest.mark.parametrize("key", ["instruction_template", "instruction_dict_path"])
def test_none_refuses_what_it_would_ignore(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key} is given, but instruction_profile is none"):
        make_profile("none", **{key: "Instruct: {}"})


def test_rerank_instruction_is_specific_or_absent(official: QwenOfficial) -> None:
    assert official.rerank_instruction(TaskInfo("Plain", "Reranking", "own", GENERIC)) == "find it"
    assert official.rerank_instruction(TaskInfo("Both", "Reranking", "own", GENERIC)) == "for the query"
    assert official.rerank_instruction(TaskInfo("Other", "Reranking", {"query": "own"}, GENERIC)) == "own"
    assert official.rerank_instruction(TaskInfo("Other", "Reranking", None, GENERIC)) is None
    assert make_profile("mteb").rerank_instruction(TaskInfo("Other", "Reranking", "own", GENERIC)) is None
    assert NoInstruction().rerank_instruction(TaskInfo("Other", "Reranking", "own", GENERIC)) is None


@pytest.mark.parametrize("template", ["Instruct: {}\nQuery:", "Instruct: {instruction}\nQuery:"])
def test_both_placeholders_of_a_template_mean_the_same(template: str) -> None:
    assert InstructionTemplate.parse(template).fill("x {y}") == "Instruct: x {y}\nQuery:"


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ('{"task": "{}"}', '{"task": "x"}'),
        ("{other} {} {1}", "{other} x {1}"),
        ("{{}}", "{x}"),
        ("%s {}", "%s x"),
    ],
)
def test_other_braces_of_a_template_stand_for_themselves(template: str, filled: str) -> None:
    assert InstructionTemplate.parse(template).fill("x") == filled


@pytest.mark.parametrize(
    "template", ["", "Instruct: ", "{} {}", "{}{instruction}", "{instruction} {instruction}", "{0}"]
)
def test_a_template_needs_exactly_one_place(template: str) -> None:
    with pytest.raises(ConfigError, match="exactly one"):
        make_profile("qwen-official", instruction_template=template, instruction_dict_path="metadata")


def test_a_template_with_an_escape_left_in_it_is_remarked_on() -> None:
    profile = make_profile("mteb", instruction_template="Instruct: {}\\nQuery:")
    assert "backslash" in profile.notes[0]
    assert not make_profile("mteb", instruction_template="Instruct: {}\nQuery:").notes


@given(
    before=st.text().filter(lambda t: "{" not in t and "}" not in t),
    after=st.text().filter(lambda t: "{" not in t and "}" not in t),
    instruction=st.text(),
    placeholder=st.sampled_from(["{}", "{instruction}"]),
)
def test_a_template_only_ever_puts_the_instruction_in(
    before: str, after: str, instruction: str, placeholder: str
) -> None:
    assert InstructionTemplate.parse(before + placeholder + after).fill(instruction) == before + instruction + after


def test_fingerprints_tell_apart_what_is_sent(tmp_path: Path, shared: Path) -> None:
    published = shared / "facts" / "task_prompts.json"
    reformatted, other = tmp_path / "reformatted.json", tmp_path / "other.json"
    reformatted.write_text(json.dumps(json.loads(published.read_text()), indent=7, sort_keys=True))
    other.write_text(json.dumps({"T": "x"}))
    template = "Task: {}\n"
    prints = [
        make_profile("qwen-official", instruction_dict_path=str(published)).fingerprint,
        make_profile("qwen-official", instruction_dict_path=str(other)).fingerprint,
        make_profile("qwen-official", instruction_dict_path="metadata").fingerprint,
        make_profile("qwen-official", instruction_dict_path=str(published), instruction_template=template).fingerprint,
        make_profile("mteb").fingerprint,
        make_profile("mteb", instruction_template=template).fingerprint,
        make_profile("none").fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    assert prints[0] == "qwen-official"
    assert make_profile("qwen-official", instruction_dict_path=str(reformatted)).fingerprint == "qwen-official"
    assert not make_profile("qwen-official", instruction_dict_path=str(reformatted)).notes
    assert "not the published one" in make_profile("qwen-official", instruction_dict_path=str(other)).notes[0]


def test_an_unknown_profile_names_the_nearest_and_all() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'qwen-official'\?.*qwen-official, mteb, none, ours"):
        make_profile("qwen-oficial", extra={"ours": lambda **_: NoInstruction()})


class Shouting:
    """A plugin's profile with the least that one needs."""

    name = "shouting"
    notes = ()

    def __init__(self, *, instruction_template: str | None = None, instruction_dict_path: str | None = None) -> None:
        self.template = instruction_template or "{}! "

    def instruction(self, task: TaskInfo, side: str | None) -> str | None:
        return task.name.upper() if side != "document" else None

    def prefix(self, task: TaskInfo, side: str | None) -> str:
        instruction = self.instruction(task, side)
        return "" if instruction is None else self.template.replace("{}", instruction)


def test_a_plugins_profile_gets_the_configured_keys() -> None:
    profile = make_profile("shouting", instruction_template="<{}>", extra={"shouting": Shouting})
    assert profile.prefix(TaskInfo("t"), "query") == "<T>"


def test_a_plugin_cannot_take_a_built_in_name() -> None:
    with pytest.raises(PluginError, match="'mteb', which is built in"):
        make_profile("none", extra={"mteb": Shouting})


def test_a_broken_plugin_is_named() -> None:
    def broken(**_: object) -> object:
        raise RuntimeError("no")

    with pytest.raises(PluginError, match=r"'ours' of a plugin cannot be made: RuntimeError: no"):
        make_profile("ours", extra={"ours": broken})
    with pytest.raises(PluginError, match="'ours' of a plugin has no name, notes, instruction, prefix"):
        make_profile("ours", extra={"ours": lambda **_: object()})
