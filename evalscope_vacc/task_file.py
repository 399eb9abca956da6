"""Reads the file that says what a run evaluates: YAML, or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.files import read_bounded
from evalscope_vacc.redact import clean

MAX_BYTES = 16 << 20
TOP_K = 100
"""Default of ``eval.top_k``: Qwen's published reranking scores are of the top 100."""


def read_config(path: Path) -> dict[str, Any]:
    """Reads a whole task configuration, or EvalScope's RAGEval file (``tool``, ``models``, ``eval``).

    Raises:
        ConfigError: It is missing, too large, no mapping, or one with a key that stands there twice.
    """
    try:
        loader = _Loader(read_bounded(path, MAX_BYTES))
        loader.name = str(path)
        content = loader.get_single_data()
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read: {clean(' '.join(str(error).split()), limit=300)}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected keys such as tool, models and eval, found {type(content).__name__}")
    return content


def read_rageval(path: Path) -> dict[str, Any]:
    """Reads ``{tool, models, eval}`` from EvalScope's RAGEval file, or from a task file that holds or names one.

    Raises:
        ConfigError: As :func:`read_config`.
    """
    content = read_config(path)
    inner = content.get("eval_config")
    if isinstance(inner, str):
        return read_config(Path(inner))
    return inner if isinstance(inner, dict) else content


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen: dict[str, int] = {}
        for key, _ in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen and name != "<<":
                raise ConfigError(
                    f"{key.start_mark.name}: the key {clean(name, limit=100)!r} occurs twice, in lines {seen[name]} "
                    f"and {line}: keep one"
                )
            seen[name] = line
        return node
