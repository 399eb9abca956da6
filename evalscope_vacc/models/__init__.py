"""VaccEncoder and VaccCrossEncoder: what MTEB's protocols see."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evalscope_vacc.config import ModelConfig
    from evalscope_vacc.models.cross_encoder import VaccCrossEncoder
    from evalscope_vacc.models.encoder import VaccEncoder


def load_model(mapping: Mapping[str, Any]) -> Any:
    """Builds a model from one entry of EvalScope's ``models:`` list.

    Args:
        mapping: The entry; ``model_type`` is ``vacc_api`` where it is missing.

    Raises:
        ConfigError: No plugin provides the model type, or a key or value cannot be used.
    """
    from evalscope_vacc.config import MODEL_TYPE
    from evalscope_vacc.plugins import plugins

    return plugins().model_type(mapping.get("model_type") or MODEL_TYPE)(mapping)


def from_mapping(mapping: Mapping[str, Any]) -> VaccEncoder | VaccCrossEncoder:
    """Builds our own encoder or cross-encoder from one entry."""
    from evalscope_vacc.config import configure

    return from_config(configure(mapping))


def from_config(config: ModelConfig, *, folder: Path | None = None, scope: str = "") -> VaccEncoder | VaccCrossEncoder:
    """Builds the class that the configuration asks for."""
    from evalscope_vacc.models.cross_encoder import VaccCrossEncoder
    from evalscope_vacc.models.encoder import VaccEncoder

    kind = VaccCrossEncoder if config.is_cross_encoder else VaccEncoder
    return kind.from_config(config, folder=folder, scope=scope)


def is_cross_encoder(model: Any) -> bool:
    """Whether a model, of ours or anybody's, scores pairs: by what it can do, as MTEB itself decides."""
    return callable(getattr(model, "predict", None))
