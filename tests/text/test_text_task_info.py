"""From MTEB's metadata to what the text rules know, on objects shaped like each generation's."""

from __future__ import annotations

from enum import Enum

import pytest

from evalscope_vacc.models.tasks import side_of


class NewPromptType(str, Enum):
    query = "query"
    document = "document"


class OldPromptType(str, Enum):
    query = "query"
    passage = "passage"


@pytest.mark.parametrize(
    ("given", "side"),
    [
        (None, None),
        ("query", "query"),
        ("document", "document"),
        ("passage", "document"),
        (NewPromptType.query, "query"),
        (NewPromptType.document, "document"),
        (OldPromptType.passage, "document"),
    ],
)
def test_every_generations_prompt_type_is_a_side(given: object, side: str | None) -> None:
    assert side_of(given) == side


def test_another_prompt_type_is_refused() -> None:
    with pytest.raises(ValueError, match="neither query nor document"):
        side_of("queries")


@pytest.mark.host
def test_a_task_of_ones_own_and_an_unknown_name_are_understood() -> None:
    mteb = pytest.importorskip("mteb")
    from evalscope_vacc.models.tasks import task_info

    known = mteb.get_task("STS12").metadata
    own = type("OwnTask", (type(mteb.get_task("STS12")),), {"metadata": known.model_copy(update={"name": "OwnTask"})})
    assert task_info("OwnTask").default_prompt == "Retrieve semantically similar text."
    assert task_info(own.metadata) == task_info("OwnTask")
    assert task_info(own).type == "STS"
    unknown = task_info("NoSuchTask")
    assert (unknown.name, unknown.type, unknown.prompt, unknown.default_prompt) == ("NoSuchTask", "", None, None)
