"""Reads a task configuration in the older spelling (EvalScope 1.3 to 1.8.0) and writes it in the newer one.

A Python script is read, never run: of its values only literals are understood, names that were given literals before,
and the few expressions that such scripts build paths and keys with.
"""

from __future__ import annotations

import ast
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalscope_vacc.catalog import find
from evalscope_vacc.config import MODEL_TYPE, read_keys, shown
from evalscope_vacc.errors import ConfigError
from evalscope_vacc.files import read_bounded
from evalscope_vacc.hosts.entry import task_config
from evalscope_vacc.hosts.spelling import newer_spelling
from evalscope_vacc.redact import MASK
from evalscope_vacc.task_file import MAX_BYTES, TOP_K, read_config
from evalscope_vacc.wire.address import normalize_base

KEY_REFERENCE = "${VACC_API_KEY}"
# about weights that EvalScope loads itself; a server has done that
_LOCAL_KEYS = ("pooling_mode", "config_kwargs", "hub", "model_name_or_path")


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
    # a dictionary with a name of its own that another one holds as its eval_config
    inner = [content.get("eval_config") for _, content in found]
    found = [(line, content) for line, content in found if content not in inner]
    if not found:
        raise ConfigError(
            f"{path}: no RAGEval configuration found: expected a dictionary with eval_config, or with tool and eval, given "
            "to a name or to TaskConfig(...) or run_task(...)"
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
    notes: list[str] = []
    newer = newer_spelling(config)
    entries = newer.get("models") or []
    evaluation = {key: value for key, value in newer["eval"].items() if value is not None}
    if config["eval"].get("top_k") is None and len(entries) > 1:
        notes.append(f"eval.top_k is {TOP_K}: it was not given, and EvalScope's own default hides most of a reranker")
    if config["eval"].get("dataset_path") is not None:
        notes.append(
            "custom_tasks: EvalScope 1.8.1 and later read qrels.jsonl (query-id, corpus-id, score), not qrels/test.tsv"
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
    for key in _LOCAL_KEYS:
        if key in keys and not (key == "model_name_or_path" and not keys.get("model_name")):
            del keys[key]
    keys.setdefault("model_name", keys.pop("model_name_or_path", None))
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


def _address(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_address(one) for one in value]
    if value is None or "${" in str(value):
        return value
    return shown("api_base", normalize_base(str(value)) + "/v1")


# -- Python scripts ------------------------------------------------------------------------------------------------------


def _in_script(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields line and dictionary of every RAGEval configuration of a script."""
    try:
        tree = ast.parse(read_bounded(path, MAX_BYTES), filename=str(path))
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    names: dict[str, Any] = {}
    seen: set[int] = set()
    for node in _statements(tree.body):
        for value in _dictionaries(node):
            if _keys(value) & {"eval_config"} or {"tool", "eval"} <= _keys(value):
                # the eval_config within one that was found already
                if value.lineno not in seen:
                    yield value.lineno, _value(value, names, path)
                seen |= {inner.lineno for inner in ast.walk(value) if isinstance(inner, (ast.Dict, ast.Call))}
        target = node.targets[0] if isinstance(node, ast.Assign) and len(node.targets) == 1 else None
        if isinstance(node, ast.AnnAssign):
            target = node.target
        if isinstance(target, ast.Name) and isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            try:
                names[target.id] = _value(node.value, names, path)
            except ConfigError:
                names.pop(target.id, None)  # something else; only a configuration that uses it is hurt


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yields statements in the order of the file, those of functions and branches included."""
    for node in body:
        inner = [getattr(node, name, None) for name in ("body", "orelse", "finalbody")]
        if any(inner):
            for part in inner:
                yield from _statements(part or [])
        else:
            yield node


def _dictionaries(node: ast.stmt) -> Iterator[ast.Dict | ast.Call]:
    """Yields dictionaries and calls with keywords, the outer before the inner."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Dict) or (isinstance(inner, ast.Call) and inner.keywords):
            yield inner


def _keys(node: ast.Dict | ast.Call) -> set[str]:
    if isinstance(node, ast.Call):
        return {keyword.arg for keyword in node.keywords if keyword.arg}
    return {key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}


def _value(node: ast.expr, names: Mapping[str, Any], path: Path) -> Any:
    """The value of an expression that is built from literals.

    Raises:
        ConfigError: It is built from something else; the line is named.
    """

    def value(inner: ast.expr) -> Any:
        return _value(inner, names, path)

    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        return [value(item) for item in node.elts]
    if isinstance(node, ast.Dict) and all(key is not None for key in node.keys):
        return {value(key): value(item) for key, item in zip(node.keys, node.values, strict=True) if key is not None}
    if isinstance(node, ast.Name) and node.id in names:
        return names[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        number = node.operand.value
        if isinstance(number, (int, float)):
            return -number
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Div)):
        left, right = value(node.left), value(node.right)
        if isinstance(left, str) and isinstance(right, str):
            return left + right if isinstance(node.op, ast.Add) else posixpath.join(left, right)
        if isinstance(left, list) and isinstance(right, list) and isinstance(node.op, ast.Add):
            return left + right
    if isinstance(node, ast.JoinedStr):
        return "".join(str(value(p.value if isinstance(p, ast.FormattedValue) else p)) for p in node.values)
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        if called in ("os.getenv", "os.environ.get", "getenv") and node.args:
            return f"${{{value(node.args[0])}}}"
        if called in ("os.path.join", "Path", "pathlib.Path", "str") and node.args and not node.keywords:
            return posixpath.join(*(str(value(argument)) for argument in node.args))
        if called.rpartition(".")[2] in ("dict", "TaskConfig") and not node.args and all(k.arg for k in node.keywords):
            return {str(keyword.arg): value(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
        return f"${{{value(node.slice)}}}"
    if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "EvalBackend":
        return "RAGEval" if node.attr == "RAG_EVAL" else node.attr
    raise ConfigError(
        f"{path}: line {node.lineno}: {ast.unparse(node)[:100]!r} is computed, and the script is not run: write the value"
    )
