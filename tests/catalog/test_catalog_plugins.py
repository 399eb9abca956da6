"""A model that a plugin adds to the catalog is known wherever a built-in one is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evalscope_vacc import catalog
from evalscope_vacc.cli.app import app
from evalscope_vacc.config import configure
from evalscope_vacc.results import evidence
from evalscope_vacc.results.model import Conditions, Run

ENTRY = catalog.entry_from_mapping(
    {
        "name": "tiny-reranker",
        "kind": "cross-encoder",
        "huggingface": "us/tiny-reranker",
        "max_tokens": 16,
        "model_limit": 32,
        "template": "qwen3",
    },
    where="a plugin",
)


class Found:
    """What the catalog sees of the plugins."""

    def catalog_entries(self) -> dict[str, tuple[catalog.Entry, str]]:
        return {ENTRY.name: (ENTRY, "tiny-plugin")}


@pytest.fixture(autouse=True)
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    found = Found()
    monkeypatch.setattr(catalog, "plugins", lambda: found)
    evidence._defaults.cache_clear()
    yield
    evidence._defaults.cache_clear()


def test_a_configuration_is_filled_from_it() -> None:
    config = configure({"model_name": "tiny-reranker", "api_base": "http://localhost"})
    assert (config.is_cross_encoder, config.max_tokens, config.rerank_template) == (True, 16, "qwen3")


@pytest.mark.parametrize("command", [["models"], ["models", "tiny-reranker"], ["serve", "tiny-reranker"]])
def test_commands_know_it(command: list[str]) -> None:
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "tiny-reranker" in done.output


def test_the_command_models_says_which_plugin_it_is_from() -> None:
    assert "tiny-plugin" in CliRunner().invoke(app, ["models", "tiny-reranker"]).output


def test_it_can_be_downloaded() -> None:
    from evalscope_vacc.serving.download import repository_of

    assert repository_of("tiny-reranker", "huggingface") == "us/tiny-reranker"


def test_an_estimate_counts_its_pairs(tmp_path: Path) -> None:
    from evalscope_vacc.results.estimate import estimate

    config = tmp_path / "eval.yaml"
    config.write_text("models: [{model_name: tiny-reranker}]\neval: {task_names: [SciFact]}\n")
    (task,) = estimate(config, texts_per_second=1).tasks
    assert task.unit == "pairs"


def test_results_of_it_have_its_defaults() -> None:
    found = evidence.conditions_of({}, Conditions(), Run("vacc/tiny-reranker"))
    assert (found.max_tokens, found.template) == (16, "qwen3")


def test_its_weights_are_a_reference_of_parity() -> None:
    from evalscope_vacc.checks.reference import _hub_name

    assert _hub_name("tiny-reranker") == "us/tiny-reranker"
