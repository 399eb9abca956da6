"""The exact string that reaches the server, for every task, side and profile of the sample of expected texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from served_model import ServedModel

pytestmark = pytest.mark.host
mteb = pytest.importorskip("mteb", minversion="2.7", reason="tests/legacy has the older line's")


@pytest.mark.parametrize("profile", ["qwen-official", "mteb"])
@pytest.mark.shows("texts")
def test_every_expected_text_arrives_to_the_letter(shared: Path, profile: str) -> None:
    from mteb.types import PromptType

    from evalscope_vacc import VaccEncoder

    expected = json.loads((shared / "data" / "expected_texts_sample.json").read_text())
    dictionary = {"instruction_dict_path": str(shared / "facts" / "task_prompts.json")}
    with ServedModel() as server:
        model = VaccEncoder(
            server.name,
            api_base=server.base,
            store="off",
            preflight="off",
            instruction_profile=profile,
            **(dictionary if profile == "qwen-official" else {}),
        )
        for name, rules in expected.items():
            metadata = mteb.get_task(name).metadata
            for side, prefix in rules[profile].items():
                text = f"a text of {name} {side}"
                model.encode(
                    [text],
                    task_metadata=metadata,
                    prompt_type=None if side == "None" else PromptType(side),
                    show_progress_bar=False,
                )
                assert server.texts()[-1] == prefix + text, (name, side)
    assert len(expected) == 64
