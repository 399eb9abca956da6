"""What the catalog knows of one model, and the checks that a row of it has to pass.

Plain frozen dataclasses: the catalog is read when a configuration is, and must cost milliseconds.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, get_args

from evalscope_vacc.errors import ConfigError

Kind = Literal["encoder", "cross-encoder"]
Pooling = Literal["last", "cls", "mean", "classify"]


@dataclasses.dataclass(frozen=True)
class ServeSpec:
    """What a server of this model has to be told.

    Attributes:
        hf_overrides: JSON text of an object for ``--hf-overrides``, or None; kept as text, so that it is printed
            as written.
        trust_remote_code: Whether the vendor's guide passes ``--trust-remote-code`` in its image.
        states_tensor_parallel: Whether the vendor's guide writes ``--tensor-parallel-size`` even for one device.
        arguments: Further arguments of ``vllm serve``, for every runtime.
    """

    hf_overrides: str | None = None
    trust_remote_code: bool = False
    states_tensor_parallel: bool = False
    arguments: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Entry:
    """One served model.

    Attributes:
        name: Name without organisation; what ``--served-model-name`` gets unless told otherwise.
        kind: "encoder" or "cross-encoder".
        huggingface: Repository on Hugging Face, ``org/name``.
        modelscope: Repository on ModelScope, ``org/name``.
        size: Parameters as the model card writes them, such as "0.6B".
        download_mb: Size of the files that serving needs, in units of 10**6 bytes; used where a hub does not tell.
        layers: Transformer layers.
        hidden_size: Width of a hidden state.
        dimensions: Length of a vector; None for cross-encoders, which answer with scores.
        matryoshka: Smallest and largest length that the model was trained to be cut to, or None.
        max_tokens: Length in tokens at which the published scores were measured; the default limit of a run.
        model_limit: Longest input in tokens that the model itself takes.
        pooling: How one vector or score is made of the hidden states.
        profile: Instruction profile, or None where the catalog has no say (cross-encoders).
        template: Default of ``rerank_template``, or None for encoders.
        template_family: The template that the model was trained with, or None.
        prompts: Raw prefixes with mteb's keys (task, type, ``query``, ``document``, ``Task-query`` …).
        instruction_aware: Whether the model was trained to follow an instruction per task.
        max_concurrency: Requests in flight that the vendor of the accelerator gives for one server.
        tensor_parallel: Numbers of devices that one server may be spread over.
        languages: ISO 639-1 codes, or "multilingual".
        license: SPDX identifier.
        serve: What a server has to be told.
        source: Where the entry comes from: "" for the built-in catalog, else the plugin's name.
    """

    name: str
    kind: Kind
    huggingface: str
    max_tokens: int
    model_limit: int
    modelscope: str | None = None
    size: str = ""
    download_mb: int | None = None
    layers: int | None = None
    hidden_size: int | None = None
    dimensions: int | None = None
    matryoshka: tuple[int, int] | None = None
    pooling: Pooling | None = None
    profile: str | None = None
    template: str | None = None
    template_family: str | None = None
    prompts: Mapping[str, str] = dataclasses.field(default_factory=lambda: MappingProxyType({}))
    instruction_aware: bool = False
    max_concurrency: int = 4
    tensor_parallel: tuple[int, ...] = (1,)
    languages: tuple[str, ...] = ()
    license: str = ""
    serve: ServeSpec = dataclasses.field(default_factory=ServeSpec)
    source: str = ""

    @property
    def is_cross_encoder(self) -> bool:
        """Whether the model scores pairs instead of making vectors."""
        return self.kind == "cross-encoder"

    def hub_name(self, hub: str) -> str:
        """Returns the repository's name on ``hub``.

        Raises:
            ConfigError: The catalog knows no copy of the model there.
        """
        name = {"huggingface": self.huggingface, "modelscope": self.modelscope}.get(hub)
        if name is None:
            raise ConfigError(
                f"{self.name}: the catalog knows no copy of it on {hub!r}; it is on Hugging Face as {self.huggingface}"
            )
        return name

    def to_dict(self) -> dict[str, Any]:
        """Returns the entry as plain values that ``json`` and ``yaml`` can write."""
        plain: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, ServeSpec):
                value = dataclasses.asdict(value) | {"arguments": list(value.arguments)}
            elif isinstance(value, Mapping):
                value = dict(value)
            elif isinstance(value, tuple):
                value = list(value)
            plain[field.name] = value
        return plain


def entry_from_mapping(row: Mapping[str, Any], *, where: str, source: str = "") -> Entry:
    """Builds an entry of one table of the catalog's file, or of a plugin's mapping.

    Args:
        row: Keys as in :class:`Entry`; ``serve`` is a mapping of :class:`ServeSpec`'s keys.
        where: What an error calls the table, such as ``models.toml, model 3``.
        source: The plugin's name, "" for the built-in catalog.

    Raises:
        ConfigError: A key is unknown, missing or of the wrong kind; the message names entry and key.
    """
    name = row.get("name")
    if not isinstance(name, str) or not name or "/" in name:
        raise ConfigError(f"{where}: key 'name' must be a model's name without organisation, not {name!r}")
    where = f"{where} ({name})"
    checked = _checked(row, _ENTRY_RULES, where)
    for key in ("kind", "huggingface", "max_tokens", "model_limit"):
        if key not in checked:
            raise ConfigError(f"{where}: key {key!r} is missing")
    if "serve" in checked:
        checked["serve"] = ServeSpec(**_checked(checked["serve"], _SERVE_RULES, f"{where}, serve"))
    entry = Entry(**checked, source=source)
    _check_sense(entry, where)
    return entry


def _check_sense(entry: Entry, where: str) -> None:
    """Raises ConfigError where the values, each well formed, cannot all be true."""

    def refuse(key: str, why: str) -> None:
        raise ConfigError(f"{where}: key {key!r}: {why}")

    if entry.max_tokens > entry.model_limit:
        refuse("max_tokens", f"{entry.max_tokens} is above model_limit {entry.model_limit}")
    if entry.is_cross_encoder:
        if entry.dimensions is not None or entry.matryoshka is not None:
            refuse("dimensions", "a cross-encoder answers with scores, it has no dimensions")
    else:
        if entry.dimensions is None:
            refuse("dimensions", "an encoder needs it")
        if entry.template is not None:
            refuse("template", "rerank templates are for cross-encoders")
    if entry.matryoshka is not None:
        low, high = entry.matryoshka
        if not low < high <= (entry.dimensions or 0):
            refuse("matryoshka", f"{low}..{high} does not lie within the {entry.dimensions} dimensions")
    if list(entry.tensor_parallel) != sorted(set(entry.tensor_parallel)):
        refuse("tensor_parallel", "the numbers must rise")


# --- rules: key -> (check, what is wanted); a check returns the value to keep or raises ValueError


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def _text_or_empty(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004 - one kind of failure for every rule
    return value


def _hub_name(value: Any) -> str:
    if not isinstance(value, str) or value.count("/") != 1 or not all(value.split("/")):
        raise ValueError
    return value


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError  # noqa: TRY004
    return value


def _counts(value: Any) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError
    return tuple(_count(v) for v in value)


def _range(value: Any) -> tuple[int, int]:
    numbers = _counts(value)
    if len(numbers) != 2:
        raise ValueError
    return numbers[0], numbers[1]


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError  # noqa: TRY004
    return tuple(_text(v) for v in value)


def _prompts(value: Any) -> Mapping[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(k, str) and isinstance(v, str) for k, v in value.items()):
        raise ValueError
    return MappingProxyType(dict(value))


def _table(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError  # noqa: TRY004
    return value


def _json_object(value: Any) -> str:
    if not isinstance(value, str) or not isinstance(json.loads(value), dict):
        raise ValueError  # noqa: TRY004
    return value


def _one_of(*allowed: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in allowed:
            raise ValueError
        return str(value)

    return check


_Rules = Mapping[str, tuple[Callable[[Any], Any], str]]
_NUMBER = (_count, "a whole number above 0")
_STRING = (_text, "a text that is not empty")
_BOOL = (_flag, "true or false")
_ENTRY_RULES: _Rules = {
    "name": _STRING,
    "kind": (_one_of(*get_args(Kind)), " or ".join(map(repr, get_args(Kind)))),
    "huggingface": (_hub_name, "'organisation/name'"),
    "modelscope": (_hub_name, "'organisation/name'"),
    "size": (_text_or_empty, "a text"),
    "download_mb": _NUMBER,
    "layers": _NUMBER,
    "hidden_size": _NUMBER,
    "dimensions": _NUMBER,
    "matryoshka": (_range, "[smallest, largest]"),
    "max_tokens": _NUMBER,
    "model_limit": _NUMBER,
    "pooling": (_one_of(*get_args(Pooling)), "one of " + ", ".join(map(repr, get_args(Pooling)))),
    "profile": _STRING,
    "template": _STRING,
    "template_family": _STRING,
    "prompts": (_prompts, "a table of texts"),
    "instruction_aware": _BOOL,
    "max_concurrency": _NUMBER,
    "tensor_parallel": (_counts, "a list of whole numbers above 0"),
    "languages": (_texts, "a list of texts"),
    "license": (_text_or_empty, "a text"),
    "serve": (_table, "a table"),
}
_SERVE_RULES: _Rules = {
    "hf_overrides": (_json_object, "the JSON text of an object"),
    "trust_remote_code": _BOOL,
    "states_tensor_parallel": _BOOL,
    "arguments": (_texts, "a list of texts"),
}


def _checked(row: Mapping[str, Any], rules: _Rules, where: str) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in row.items():
        rule = rules.get(key)
        if rule is None:
            near = difflib.get_close_matches(str(key), rules, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; the keys are {', '.join(rules)}"
            raise ConfigError(f"{where}: key {key!r} is not known{hint}")
        check, wanted = rule
        try:
            kept[key] = check(value)
        except ValueError:
            raise ConfigError(f"{where}: key {key!r} must be {wanted}, not {value!r}") from None
    return kept
