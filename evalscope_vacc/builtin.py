"""Our own plugin: the model type ``vacc_api``, registered through the entry point that everybody else uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from evalscope_vacc.hookspecs import MODEL_TYPE, hookimpl


def build(mapping: Mapping[str, Any]) -> Any:
    """Builds an encoder or a cross-encoder from one model entry."""
    from evalscope_vacc.models import from_mapping

    return from_mapping(mapping)


@hookimpl
def register_model_types(register: Callable[[str, Callable[..., Any]], None]) -> None:
    """Adds ``vacc_api``."""
    register(MODEL_TYPE, build)
