"""A whole plugin: an instruction profile, a rerank template, a dialect, a model type and a catalog entry."""

from __future__ import annotations

from dataclasses import dataclass

from evalscope_vacc import hookimpl


@dataclass(frozen=True)
class Shouting:
    """Puts the task's name in capitals before every query."""

    name: str = "shouting"
    notes: tuple[str, ...] = ("queries are shouted",)

    def instruction(self, task, side):
        return None if side == "document" else (task.name or "something").upper()

    def prefix(self, task, side):
        instruction = self.instruction(task, side)
        return f"{instruction}! " if instruction else ""


@hookimpl
def register_instruction_profiles(register):
    register("shouting", lambda **options: Shouting())


@hookimpl
def register_rerank_templates(register):
    from evalscope_vacc.text.templates import get_template

    register("qwen3-by-another-name", get_template("qwen3"))


@hookimpl
def register_dialects(register):
    from evalscope_vacc.wire.dialects import VllmDialect

    register("polite", VllmDialect)


@hookimpl
def register_model_types(register):
    def build(mapping):
        from evalscope_vacc.models import from_mapping

        return from_mapping({**mapping, "model_type": "vacc_api", "dialect": "polite"})

    register("polite_api", build)


@hookimpl
def register_catalog_entries(register):
    from evalscope_vacc.catalog import entry_from_mapping

    row = {
        "name": "Example-Embedding",
        "kind": "encoder",
        "huggingface": "example/Example-Embedding",
        "max_tokens": 77,
        "model_limit": 77,
        "dimensions": 16,
        "pooling": "mean",
        "profile": "shouting",
        "license": "apache-2.0",
    }
    register("Example-Embedding", entry_from_mapping(row, where="the example plugin", source="example"))
