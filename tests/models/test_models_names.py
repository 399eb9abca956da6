"""The name of a result: two configurations that send other texts never share one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evalscope_vacc.config import configure
from evalscope_vacc.models.meta import experiment_kwargs
from evalscope_vacc.plugins import plugins


def name_of(model: str = "some-model", **keys: Any) -> dict[str, Any]:
    return experiment_kwargs(configure({"model_name": model, "api_base": "http://localhost", **keys}))


def test_a_name_holds_nothing_that_is_the_default() -> None:
    assert name_of() == name_of("Qwen3-Embedding-0.6B") == name_of("bge-small-en-v1.5") == {}


def test_a_profile_that_switches_the_catalogs_prompts_off_is_named() -> None:
    assert name_of("bge-small-en-v1.5", instruction_profile="none") == {"profile": "none"}
    assert name_of("bge-m3", instruction_profile="none") == {}, "there is nothing to switch off"


def test_an_empty_prompt_as_in_evalscopes_examples_changes_nothing_and_says_so() -> None:
    config = configure({"model_name": "Qwen3-Embedding-0.6B", "api_base": "http://localhost", "prompt": ""})
    assert (config.prompt, config.instruction_profile) == (None, "qwen-official")
    assert experiment_kwargs(config) == {}
    assert any("prompt is empty" in note for note in config.notes)


def test_a_dictionary_in_the_home_folder_is_named_by_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    names = []
    for text in ("one", "two"):
        (tmp_path / "dictionary.json").write_text(f'{{"SciFact": "{text}"}}')
        names.append(name_of(model_kwargs={"instruction_dict_path": "~/dictionary.json"})["prompts"])
    assert names[0] != names[1]


class Mine:
    name = "mine"
    notes = ()
    fingerprint = "mine-v2"


def test_a_plugins_profile_is_named_by_its_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(plugins()), "instruction_profiles", lambda _: {"mine": lambda **_: Mine()})
    Mine.instruction = Mine.prefix = lambda *_: ""  # type: ignore[attr-defined]
    assert name_of(instruction_profile="mine") == {"profile": "mine-v2"}


@pytest.mark.parametrize(
    "keys",
    [
        {"prompt": "x"},
        {"prompts": {"query": "x"}},
        {"prompts": {"query": ""}},
        {"dimensions": 8},
        {"max_tokens": 9},
        {"truncate": "error"},
        {"instruction_profile": "mteb"},
        {"instruction_profile": "mteb", "instruction_template": "{}: "},
    ],
)
def test_whatever_changes_a_text_changes_the_name(keys: dict[str, Any]) -> None:
    assert name_of(**keys) != name_of()
