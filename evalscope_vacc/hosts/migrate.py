"""Reads a task configuration in the older spelling (EvalScope 1.3 to 1.8.0) and writes it in the newer one.

Of a Python script the dictionaries are read, where all their values are literal; it is never run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalscope_vacc.catalog import find
from evalscope_vacc.config import ABOUT_WEIGHTS, MODEL_TYPE, read_keys, shown
from evalscope_vacc.errors import ConfigError
from evalscope_vacc.files import read_bounded
from evalscope_vacc.hosts.entry import task_config
from evalscope_vacc.hosts.spelling import newer_spelling
from evalscope_vacc.redact import MASK
from evalscope_vacc.task_file import MAX_BYTES, TOP_K, read_config
from evalscope_vacc.wire.address import normalize_base

KEY_REFERENCE = "${VACC_API_KEY}"
# about weights that EvalScope loads itself; a server has done that
_PREDICTIONS = (
    "a run keeps its predictions in RUN/predictions/TASK_predictions.json, two stages in RUN/stage1/predictions; "
    "EvalScope up to 1.8.0 called them RUN/TASK_SUBSET_predictions.json, which embed_results still reads"
)
_LITERAL = (ast.Dict, ast.List, ast.Tuple, ast.Set, ast.Constant, ast.UnaryOp, ast.unaryop, ast.expr_context)


@dataclass(frozen=True)
class Migrated:
    """One configuration in the newer spelling.

    Attributes:
        where: Where it was found, such as ``line 12``; "" for a whole file.
        content: ``work_dir`` where one was given, ``tool``, ``models``, ``eval``.
        notes: What a reader must know or do.
    """

    where: str
    content: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def migrate(path: Path) -> list[Migrated]:
    """Returns every RAGEval configuration of a file in the newer spelling.

    Args:
        path: A ``.py`` script, or a YAML or JSON file.

    Raises:
        ConfigError: The file cannot be read, holds no such configuration, or one with a wrong key.
    """
    if path.suffix != ".py":
        return [_newer("", read_config(path))]
    found = list(_in_script(path))
    if not found:
        raise ConfigError(
            f"{path}: no RAGEval configuration found: expected a dictionary with eval_config, or with tool and eval"
        )
    return [_newer(f"line {line}", content) for line, content in found]


# -- the newer spelling --------------------------------------------------------------------------------------------------


def _newer(where: str, given: Mapping[str, Any]) -> Migrated:
    whole = task_config(given)
    work_dir = whole.get("work_dir")
    config = whole.get("eval_config")
    if not isinstance(config, Mapping) or not isinstance(config.get("eval"), Mapping):
        raise ConfigError(f"{where or 'the file'}: no eval_config with tool, model and eval")
    tool = str(config.get("tool", ""))
    if tool.lower() != "mteb":
        raise ConfigError(
            f"{where or 'the file'}: tool is {tool!r}: only the configuration of MTEB has changed its form"
        )
    notes = [_PREDICTIONS]
    newer = newer_spelling(config)
    entries = newer.get("models") or []
    evaluation = {key: value for key, value in newer["eval"].items() if value is not None}
    if config["eval"].get("top_k") is None and len(entries) > 1:
        notes.append(f"eval.top_k is {TOP_K}: it was not given, and EvalScope's own default hides most of a reranker")
    if config["eval"].get("dataset_path") is not None:
        notes.append(
            "custom_tasks: the main score is nDCG@10 there, recall@5 here; a run with no vacc_api model reads qrels.jsonl "
            "(query-id, corpus-id, score) only, not qrels/test.tsv"
        )
    content: dict[str, Any] = {"tool": "mteb"}
    if work_dir:
        content = {"work_dir": str(work_dir), **content}
    content["models"] = [_model(entry, position, notes) for position, entry in enumerate(entries)]
    content["eval"] = evaluation
    return Migrated(where, content, notes)


def _model(entry: Any, position: int, notes: list[str]) -> dict[str, Any]:
    name = f"models[{position}]"
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{name}: expected keys such as model_name and api_base, found {type(entry).__name__}")
    keys = {key: value for key, value in entry.items() if value is not None and value != {}}
    if not keys.get("api_base") and not keys.get("model_type"):
        notes.append(f"{name}: weights that EvalScope loads itself; left as they are")
        return keys
    keys = {
        key: kept for key, value in keys.items() if key not in ABOUT_WEIGHTS and (kept := _for_a_server(value)) != {}
    }
    path = keys.pop("model_name_or_path", None)
    keys.setdefault("model_name", path)
    result = {"model_type": MODEL_TYPE, **keys}
    read_keys(result, where=name)
    result["api_base"] = _address(keys.get("api_base"))
    if MASK in str(result["api_base"]):
        notes.append(f"{name}: the user name and password of api_base are left out: write them as ${{NAME}}")
    if shown("api_key", keys.get("api_key")) == MASK:
        result["api_key"] = KEY_REFERENCE
        notes.append(f"{name}: the key is not repeated here: export VACC_API_KEY=…")
    if keys.get("headers"):
        result["headers"] = shown("headers", keys["headers"])
    for header, value in result.get("headers", {}).items():
        if value == MASK:
            notes.append(f"{name}: the header {header} is not repeated here: write it as ${{NAME}}")
    if result.get("max_seq_length") is not None:
        result["max_tokens"] = result.pop("max_seq_length")
        notes.append(f"{name}: max_seq_length is max_tokens: tokens, exactly, the instruction included")
    known = find(str(result["model_name"]))
    if result.get("is_cross_encoder") and "rerank_template" not in result and (known is None or known.template is None):
        notes.append(
            f"{name}: no template is added; the guide's edit added Qwen's to every reranker. For a Qwen3 reranker of "
            "another name write rerank_template: auto"
        )
    return result


def _for_a_server(value: Any) -> Any:
    """Returns a key's value; of a group of keys those that are not about weights."""
    return {k: v for k, v in value.items() if k not in ABOUT_WEIGHTS} if isinstance(value, Mapping) else value


def _address(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_address(one) for one in value]
    if value is None or "${" in str(value):
        return value
    return shown("api_base", normalize_base(str(value)) + "/v1")


# -- Python scripts ------------------------------------------------------------------------------------------------------


def _in_script(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields line and value of every dictionary of a script that is a RAGEval configuration."""
    try:
        tree = ast.parse(read_bounded(path, MAX_BYTES), filename=str(path))
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    for node in _configurations(tree):
        try:
            yield node.lineno, ast.literal_eval(node)
        except ValueError:
            computed = next(inner for inner in ast.walk(node) if not isinstance(inner, _LITERAL))
            line, text = getattr(computed, "lineno", node.lineno), ast.unparse(computed)[:100]
            raise ConfigError(
                f"{path}: line {line}: {text!r} is computed, and the script is not run: write the value"
            ) from None


def _configurations(node: ast.AST) -> Iterator[ast.Dict]:
    """Yields the outermost dictionaries with the keys of a configuration."""
    if isinstance(node, ast.Dict):
        names = {key.value for key in node.keys if isinstance(key, ast.Constant)}
        if "eval_config" in names or {"tool", "eval"} <= names:
            yield node
            return
    for inner in ast.iter_child_nodes(node):
        yield from _configurations(inner)
