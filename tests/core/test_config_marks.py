"""A key stands in one place: everything that depends on its value is derived from its mark."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from evalscope_vacc import config as config_module
from evalscope_vacc.config import Key, ModelConfig, configure, key, keys, shown, spellings
from evalscope_vacc.errors import ConfigError
from evalscope_vacc.models.meta import experiment_kwargs
from evalscope_vacc.results.evidence import experiment_conditions, read_conditions, revision_conditions
from evalscope_vacc.results.model import Conditions, Reason, blocking

BASE = {"model_name": "some-model", "api_base": "http://127.0.0.1:8000/v1"}
# a value of each key that is not its default, as a user may write it
OTHER: dict[str, Any] = {
    "model_type": "other_api", "model_name": "other", "api_base": "http://elsewhere:1", "api_key": "sekret-1",
    "headers": {"X-Key": "sekret-2"}, "is_cross_encoder": True, "instruction_profile": "mteb", "prompt": "Q: ",
    "prompts": {"query": "Q: "}, "instruction_template": "I: {}", "instruction_dict_path": "metadata",
    "rerank_template": "qwen3", "raw_scores": True,
    "dimensions": 8, "max_tokens": 9, "truncate": "error", "tokenizer": "some/folder",
    "dialect": "tei", "task_name": ["A"], "embed_results": ["a.json"], "batch_size": 3, "show_progress_bar": False,
    "max_concurrency": 2, "timeout_s": 1, "retries": 1, "wait_for_server_s": 1, "verify": False, "trust_env": True,
    "store": "off", "revision": "mine", "preflight": "off", "empty": "space",
    "extra_body": {"a": 1}, "extra_body_query": {"b": "q"}, "extra_body_document": {"b": "d"},
}  # fmt: skip
NEEDS: dict[str, dict[str, Any]] = {
    "rerank_template": {"is_cross_encoder": True},
    "raw_scores": {"is_cross_encoder": True},
    "task_name": {"embed_results": ["a.json"]},
    "embed_results": {"task_name": ["A"]},
}


def readme_table(language: int) -> str:
    path = Path(__file__).resolve().parents[2] / "docs" / "model_keys.py"
    spec = importlib.util.spec_from_file_location("model_keys", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.table(language)


@pytest.mark.parametrize("name", list(keys()))
def test_what_follows_from_another_value_is_what_the_mark_says(name: str) -> None:
    mark = keys()[name]
    needs = NEEDS.get(name, {})
    plain = configure({**BASE, **(needs if name in ("rerank_template", "raw_scores") else {}), "revision": "r"})
    other = configure({**BASE, "revision": "r", **needs, name: OTHER[name]})
    assert (experiment_kwargs(plain) != experiment_kwargs(other)) == bool(mark.name)
    if mark.name:
        assert mark.name in experiment_kwargs(other)
    assert (plain.identity() != other.identity()) == bool(mark.answers or mark.name)
    assert plain.public() != other.public(), "the evidence says it, or that something is there"
    written = json.dumps([other.public(), other.identity()]) + repr(other) + str(other) + other.model_dump_json()
    assert "sekret" not in written


@pytest.mark.parametrize("name", [name for name, mark in keys().items() if mark.name])
def test_a_named_key_is_read_back_from_the_name_of_a_result(name: str) -> None:
    config = configure({**BASE, **NEEDS.get(name, {}), name: OTHER[name]})
    settings = experiment_kwargs(config)
    found = experiment_conditions(settings)
    assert found
    assert revision_conditions("__".join(["served", *(f"{k}_{v}" for k, v in settings.items())])) == found
    assert (
        experiment_conditions(config.public()).items()
        >= {k: v for k, v in found.items() if k not in {"prompts", "body"}}.items()
    )


def test_scores_of_texts_that_were_cut_are_not_held_against_a_run_that_refused_long_texts() -> None:
    cut, refused = (read_conditions(configure({**BASE, "truncate": how}).public()) for how in ("cut", "error"))
    assert cut.conflicts(refused) == (Reason.of("setting_differs", setting="truncate", theirs="error", ours="cut"),)
    assert Conditions().conflicts(refused) == ()
    named = [dict(note.args).get("setting") for note in cut.unrecorded(Conditions())]
    assert "truncate" not in named, "the default says nothing"
    assert Conditions().merged(refused) == refused


class Wider(ModelConfig):
    """With further keys, each declared in this one place."""

    colour: str = key("plain", "colour of the texts", "文本的颜色", name="colour", group="model_kwargs")
    licence: str | None = key(None, "what may be done with it", "许可", catalog="license")
    pin: str | None = key(None, "a number that opens a door", "门的密码", hide="value")


@pytest.fixture
def wider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_module, "ModelConfig", Wider)


@pytest.mark.usefixtures("wider")
@pytest.mark.parametrize("written", [{"colour": "red"}, {"model_kwargs": {"colour": "red"}}])
def test_a_new_key_reaches_name_evidence_comparison_store_and_readme(written: dict[str, Any]) -> None:
    plain, red = configure(BASE), configure({**BASE, **written})
    assert (plain.colour, red.colour) == ("plain", "red")
    assert (experiment_kwargs(plain), experiment_kwargs(red)) == ({}, {"colour": "red"})
    assert (plain.public()["colour"], red.public()["colour"]) == ("plain", "red")
    assert plain.identity() != red.identity()
    assert "colour" in blocking()
    for found in (Conditions.of(experiment_conditions(experiment_kwargs(red))), read_conditions(red.public())):
        assert found.conflicts(read_conditions(plain.public())) == (
            Reason.of("setting_differs", setting="colour", theirs="plain", ours="red"),
        )
    assert Conditions.of(revision_conditions("served-1a2b3c4d__colour_red")).get("colour") == "red"
    assert "| `model_kwargs.colour` | `plain` | colour of the texts |" in readme_table(0)
    assert "| `model_kwargs.colour` | `plain` | 文本的颜色 |" in readme_table(1)


@pytest.mark.usefixtures("wider")
def test_a_new_key_is_filled_by_the_catalog_and_masked() -> None:
    config = configure({**BASE, "model_name": "bge-m3", "pin": "sekret"})
    assert (config.licence, config.origins["licence"]) == ("MIT", "catalog: bge-m3")
    assert config.pin == "sekret"
    assert config.secrets == ("sekret",)
    assert "sekret" not in repr(config) + json.dumps(config.public()) + config.model_dump_json()


@pytest.mark.usefixtures("wider")
def test_a_new_key_is_a_field_of_the_hosts() -> None:
    from evalscope_vacc.hosts.evalscope import _hook_entry

    class Entry(BaseModel):
        model_name: str = ""
        api_base: str | None = None
        api_key: str | None = None

    _hook_entry(Entry)
    entry = Entry(model_type="vacc_api", **BASE, colour="red", pin="sekret", batch_size=8)
    assert isinstance(entry.pin, SecretStr)
    assert "sekret" not in repr(entry) + str(entry.model_dump())
    assert entry.model_dump()["colour"] == "red"
    with pytest.raises(ConfigError, match="'color': did you mean 'colour'"):
        Entry(model_type="vacc_api", **BASE, color="red")


@pytest.mark.parametrize(
    ("entry", "origins"),
    [
        ({}, {"max_concurrency": "default", "revision": "the addresses", "instruction_profile": "default"}),
        ({"model_name": "bge-m3"}, {"max_tokens": "catalog: bge-m3", "is_cross_encoder": "catalog: bge-m3"}),
        ({"max_tokens": 5, "revision": "mine"}, {"max_tokens": "written", "revision": "written"}),
        ({"instruction_dict_path": "d.json"}, {"instruction_profile": "an instruction dictionary is given"}),
    ],
)
def test_it_is_recorded_where_each_value_came_from(entry: dict[str, Any], origins: dict[str, str]) -> None:
    config = configure({**BASE, **entry})
    assert config.origins.items() >= origins.items()
    assert set(config.origins) == set(keys())
    assert config.public()["origins"] == config.origins


def test_values_of_the_environment_are_recorded_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VACC_API_BASE", "http://a:1")
    monkeypatch.setenv("VACC_API_KEY", "sekret")
    config = configure({"model_name": "m"})
    assert (config.origins["api_base"], config.origins["api_key"]) == ("environment", "environment")
    assert configure({"model_name": "m", "api_key": "EMPTY"}).api_key is None


def test_every_key_has_both_languages_and_a_group_is_no_key() -> None:
    for name, mark in keys().items():
        assert isinstance(mark, Key), name
        assert mark.meaning
        assert any("\u4e00" <= char <= "\u9fff" for char in mark.chinese), name
    assert {"encode_kwargs", "model_kwargs", "max_seq_length", *keys()} == set(spellings())


def test_masking_keeps_references_and_addresses() -> None:
    assert shown("api_key", "sekret") == "***"
    assert shown("api_key", "${MY_KEY}") == "${MY_KEY}"
    assert shown("api_key", SecretStr("EMPTY")) == "EMPTY"
    assert shown("headers", {"A": SecretStr("x"), "B": "${B}"}) == {"A": "***", "B": "${B}"}
    assert shown("api_base", ["http://u:p@h:1/v1", "http://${U}@h"]) == ["http://h:1/v1", "http://***@h"]
    assert shown("max_tokens", 8) == 8


# of the release 0.1.0, whose results must be found again
@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ({"prompt": "Q: "}, {"prompts": "cbf5e9c5"}),
        ({"prompts": {"query": "Q: ", "a": ""}}, {"prompts": "2a19b2f5"}),
        ({"model_kwargs": {"instruction_template": "I: {}\nQ:"}}, {"prompts": "d1789d66"}),
        ({"model_kwargs": {"instruction_dict_path": "metadata"}}, {"prompts": "ab68dcf0"}),
        (
            {"model_name": "Qwen3-Embedding-0.6B", "instruction_profile": "mteb", "max_tokens": 512, "dimensions": 64},
            {"profile": "mteb", "dim": 64, "maxlen": 512},
        ),
        ({"model_name": "Qwen3-Reranker-0.6B", "rerank_template": "none"}, {"template": "none"}),
        ({"rerank_template": "qwen3"}, {}),
    ],
)
def test_names_are_those_of_earlier_results(entry: dict[str, Any], name: dict[str, Any]) -> None:
    assert experiment_kwargs(configure({**BASE, **entry})) == name
