"""Every configuration key of a served model, once: its type, default, meaning, and the older spellings of it.

:class:`ModelKeys` is what a user writes; :class:`ModelConfig` is what the rest of the package works with, after the
environment and the catalog have filled in what was left out. The hosts take their fields from :data:`KEYS`, so that a
key that is added here is known everywhere.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.redact import MASK, clean, public_url

if TYPE_CHECKING:
    from evalscope_vacc.catalog import Entry

MODEL_TYPE = "vacc_api"
NO_KEY = "EMPTY"
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

StoreMode = Literal["off", "resume", "reuse"]


class EncodeKwargs(BaseModel):
    """``encode_kwargs`` of a model entry."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    batch_size: int | None = Field(None, ge=1, description="texts, or documents of one query, per request; default 32")
    show_progress_bar: bool = Field(True, description="whether a progress bar is shown")


class ModelKwargs(BaseModel):
    """``model_kwargs`` of a model entry."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    instruction_template: str | None = Field(None, description='such as "Instruct: {}\\nQuery:"; also {instruction}')
    instruction_dict_path: str | None = Field(
        None, description='JSON file, task to instruction; the word "metadata": go on without a dictionary'
    )
    task_name: tuple[str, ...] = Field((), description="tasks whose stored first-stage predictions are reranked")
    embed_results: tuple[str, ...] | dict[str, str] = Field(
        (), description="their prediction files, in the order of task_name, or task to file"
    )

    @field_validator("task_name", "embed_results", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        if value is None:
            return ()
        return (value,) if isinstance(value, str) else value


class ModelKeys(BaseModel):
    """The keys of one served model as the user writes them."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, protected_namespaces=())

    model_type: str = Field(MODEL_TYPE, description="which plugin serves this entry")
    model_name: str = Field(min_length=1, description="as in --served-model-name")
    api_base: str | tuple[str, ...] | None = Field(None, description="one address or a list; default $VACC_API_BASE")
    api_key: SecretStr | None = Field(None, description="literal, EMPTY, or ${NAME} from the environment")
    is_cross_encoder: bool | None = Field(None, description="whether the model scores pairs")
    dimensions: int | None = Field(None, ge=1, description="Matryoshka size: cut and renormalised here")
    encode_kwargs: EncodeKwargs = Field(EncodeKwargs(), description="batch_size")
    max_concurrency: int | None = Field(None, ge=1, description="requests in flight, per server; default 4")
    max_tokens: int | None = Field(None, ge=1, description="limit per text, exact in tokens")
    max_seq_length: int | None = Field(None, ge=1, description="EvalScope's name of max_tokens")
    instruction_profile: str | None = Field(None, description="qwen-official, mteb, none, or a plugin's")
    prompt: str | None = Field(None, description="raw prefix of queries, and of every text of tasks without sides")
    prompts: dict[str, str] | None = Field(None, description="raw prefixes by task, type or side, as MTEB spells them")
    model_kwargs: ModelKwargs = Field(ModelKwargs(), description="instructions; stored results")
    rerank_template: str | None = Field(None, description="auto, qwen3, qwen3-evaluation, none, or a plugin's")
    dialect: str = Field("auto", description="vllm, openai, tei, infinity, jina, or a plugin's")
    timeout_s: float = Field(300, gt=0, description="seconds that one request may take")
    retries: int = Field(5, ge=0, description="times that a failed request is sent again")
    wait_for_server_s: float = Field(600, ge=0, description="seconds to wait for a server that went away")
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="further HTTP headers")
    verify: bool | str = Field(True, description="TLS verification, or the file of a private CA")
    trust_env: bool | None = Field(None, description="use the environment's proxies; default: not for local addresses")
    store: str = Field("resume", description="off, resume, reuse, or a folder")
    revision: str | None = Field(None, description="part of the result's name; default from the addresses")
    preflight: bool = Field(True, description="the short check before a run: on or off")
    tokenizer: str | None = Field(None, description="path or hub name, for counting tokens here")
    truncate: Literal["cut", "error"] = Field("cut", description="what happens to a text that is too long")

    @model_validator(mode="before")
    @classmethod
    def _older_spellings(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        data = dict(data)
        # EvalScope copies model_name into model_name_or_path; users of its local models know only the latter
        path = data.pop("model_name_or_path", None)
        if path and not data.get("model_name"):
            data["model_name"] = path
        for name in ("hub", "pooling_mode", "config_kwargs", "provider", "device"):
            data.pop(name, None)  # about loading weights, which the server has done
        for name in ("encode_kwargs", "model_kwargs", "headers"):
            if data.get(name, ...) is None:
                del data[name]
        _lift(data, "batch_size", "encode_kwargs")
        for name in ModelKwargs.model_fields:
            _lift(data, name, "model_kwargs")
        return data

    @field_validator("api_base", mode="before")
    @classmethod
    def _plain_addresses(cls, value: object) -> object:
        # the hosts keep an address with a password in it as a secret
        if isinstance(value, (list, tuple)):
            return tuple(v.get_secret_value() if isinstance(v, SecretStr) else v for v in value)
        return value.get_secret_value() if isinstance(value, SecretStr) else value

    @field_validator("preflight", mode="before")
    @classmethod
    def _on_off(cls, value: object) -> object:
        return {"on": True, "off": False}.get(value, value) if isinstance(value, str) else value


def _lift(data: dict[str, Any], name: str, group: str) -> None:
    """Moves a key that was written beside ``group`` into it; constructors are friendlier flat."""
    if name in data:
        inner = data.get(group)
        data[group] = {**(inner if isinstance(inner, Mapping) else {}), name: data.pop(name)}


KEYS: Mapping[str, Any] = ModelKeys.model_fields


@dataclass(frozen=True)
class ModelConfig:
    """One served model, complete: what the user wrote, then the environment, then the catalog, then the defaults.

    Attributes:
        model_name: The served name.
        bases: Normalised addresses without ``/v1``, as the engine wants them; may hold user information.
        notes: One line for each value that the catalog supplied, or that a default chose, for printing.
        catalog_prompts: Raw prefixes that the model's card prescribes (keys as in MTEB).
        key_reference: ``${NAME}`` where the key came from the environment, else "".

    The other attributes are the keys of :class:`ModelKeys`.
    """

    model_name: str
    bases: tuple[str, ...]
    revision: str
    is_cross_encoder: bool = False
    api_key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    dimensions: int | None = None
    batch_size: int | None = None
    show_progress_bar: bool = True
    max_concurrency: int = 4
    max_tokens: int | None = None
    instruction_profile: str = "none"
    prompt: str | None = None
    prompts: Mapping[str, str] | None = None
    catalog_prompts: Mapping[str, str] = field(default_factory=dict)
    instruction_template: str | None = None
    instruction_dict_path: str | None = None
    embed_results: Mapping[str, str] = field(default_factory=dict)
    rerank_template: str = "none"
    dialect: str = "auto"
    timeout_s: float = 300
    retries: int = 5
    wait_for_server_s: float = 600
    verify: bool | str = True
    trust_env: bool | None = None
    store: str = "resume"
    preflight: bool = True
    tokenizer: str | None = None
    truncate: Literal["cut", "error"] = "cut"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every string that may not be printed or written."""
        found = [*self.headers.values()]
        if self.api_key:
            found.append(self.api_key)
        for base in self.bases:
            userinfo = base.split("://", 1)[-1].split("/", 1)[0].rpartition("@")[0]
            found += [userinfo, userinfo.partition(":")[2]] if userinfo else []
        return tuple(s for s in found if s)

    @property
    def servers(self) -> tuple[str, ...]:
        """The addresses as they may be printed."""
        return tuple(public_url(base) for base in self.bases)

    def public(self) -> dict[str, Any]:
        """Every value as plain data without secrets, for evidence files and reports."""
        kept = {
            name: value
            for name, value in vars(self).items()
            if name not in {"api_key", "headers", "bases", "notes", "defaults"}
        }
        kept["prompts"] = dict(self.prompts) if self.prompts else None
        kept["catalog_prompts"] = dict(self.catalog_prompts)
        kept["embed_results"] = dict(self.embed_results)
        kept["api_base"] = list(self.servers)
        kept["headers"] = dict.fromkeys(self.headers, MASK)
        kept["api_key"] = MASK if self.api_key else None
        return kept


def read_keys(mapping: Mapping[str, Any], *, where: str = "the model entry") -> ModelKeys:
    """Returns the keys of one served model, checked.

    Args:
        mapping: One entry of EvalScope's ``models:`` list, or keyword arguments of a model class.
        where: What the mapping is, for messages.

    Raises:
        ConfigError: An unknown key (the nearest known one is named) or a value of the wrong kind. The message never
            repeats a value.
    """
    try:
        return ModelKeys.model_validate(dict(mapping))
    except ValidationError as error:
        raise ConfigError(explain(error, where)) from None


def explain(error: ValidationError, where: str) -> str:
    """Says what pydantic found, without the values: one of them may be a key."""
    lines = []
    for item in error.errors(include_input=False, include_url=False, include_context=False):
        place = ".".join(
            str(part) for part in item["loc"] if not str(part).startswith(("function-", "tuple[", "dict["))
        )
        if item["type"] == "extra_forbidden":
            lines.append(f"{where}: unknown key {place!r}{_nearest(place)}")
        else:
            lines.append(f"{where}: {place or 'value'}: {item['msg']}")
    return "\n".join(dict.fromkeys(lines))


def _nearest(key: str) -> str:
    group, _, last = key.rpartition(".")
    known: Iterable[str] = {
        "encode_kwargs": EncodeKwargs.model_fields,
        "model_kwargs": ModelKwargs.model_fields,
    }.get(group, {**KEYS, **ModelKwargs.model_fields, "batch_size": None})
    close = difflib.get_close_matches(last.replace("-", "_").lower(), list(known), n=1, cutoff=0.5)
    if close:
        return f": did you mean {close[0]!r}?"
    return f": the keys are {', '.join(sorted(known))}"


def expand(value: str, where: str) -> str:
    """Returns ``value`` with every ``${NAME}`` replaced from the environment.

    Raises:
        ConfigError: A variable is not set.
    """

    def lookup(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise ConfigError(
                f"{where}: the environment variable {name} is not set: export {name}=… or write the value"
            )
        return os.environ[name]

    return _REFERENCE.sub(lookup, value)


def masked(value: str) -> str:
    """Returns a secret as it may be written to disk: references stay, everything else is masked."""
    return value if _REFERENCE.fullmatch(value) or value in ("", NO_KEY) else MASK


def masked_address(value: str) -> str:
    """Returns an address as it may be written to disk: without its user information, references kept."""
    return clean(value) if "${" in value else public_url(value) if "://" in value else value


def resolve(keys: ModelKeys, *, entry: Entry | None = None, catalog: bool = True) -> ModelConfig:
    """Completes the keys from the environment, the catalog and the defaults.

    Args:
        keys: What the user wrote.
        entry: The catalog's entry, where the caller has looked it up.
        catalog: Whether the catalog is asked by the served name when no entry is given.

    Raises:
        ConfigError: No address, a reference to an unset variable, or values that cannot hold together.
    """
    from evalscope_vacc.catalog import find
    from evalscope_vacc.plugins import plugins
    from evalscope_vacc.wire.address import normalize_base, server_revision

    where = f"model {clean(keys.model_name, limit=200)!r}"
    given = keys.api_base if keys.api_base is not None else os.environ.get("VACC_API_BASE")
    if not given:
        raise ConfigError(
            f"{where}: no api_base: write it in the model's entry or export VACC_API_BASE=http://HOST:PORT/v1"
        )
    listed = given.split(",") if isinstance(given, str) else given
    bases = tuple(dict.fromkeys(normalize_base(expand(base.strip(), where)) for base in listed if base.strip()))
    if entry is None and catalog:
        entry = find(keys.model_name, plugins().catalog_entries().values())

    notes: list[str] = []
    defaults: dict[str, Any] = {}

    def choose(name: str, written: Any, from_catalog: Any, default: Any) -> Any:
        fallback = default if from_catalog is None else from_catalog
        defaults[name] = fallback
        if written is not None:
            return written
        if from_catalog is not None and entry is not None:
            notes.append(f"{name}: {from_catalog} (catalog: {entry.name})")
        return fallback

    cross = bool(choose("is_cross_encoder", keys.is_cross_encoder, _kind(entry), False))
    if cross and keys.dimensions is not None:
        raise ConfigError(f"{where}: dimensions is about embeddings; a cross-encoder has none: remove the key")
    if keys.max_tokens is not None and keys.max_seq_length not in (None, keys.max_tokens):
        raise ConfigError(
            f"{where}: max_tokens is {keys.max_tokens} and max_seq_length {keys.max_seq_length}: they mean the same; keep one"
        )
    matching = entry if entry is not None and (entry.kind == "cross-encoder") == cross else None
    # a dictionary without a profile is the vendor's guide, whose rules are Qwen's
    rules = "qwen-official" if keys.model_kwargs.instruction_dict_path else "none"
    profile = choose("instruction_profile", keys.instruction_profile, matching.profile if matching else None, rules)
    if keys.instruction_profile is None and rules != "none" and (matching is None or matching.profile is None):
        notes.append(f"instruction_profile: {rules} (an instruction dictionary is given)")
    elif keys.instruction_profile is None and matching is None and not (keys.prompt or keys.prompts):
        notes.append("instruction_profile: none (the served name is not in the catalog; texts go out as they are)")
    if keys.prompt == "":
        # EvalScope's own default, which its examples write out: nobody means to switch the model's instructions off by it
        notes.append("prompt is empty, so it is not used (instruction_profile: none sends texts as they are)")
    defaults["catalog_prompts"] = dict(matching.prompts) if matching else {}
    config = ModelConfig(
        model_name=keys.model_name,
        bases=bases,
        revision=keys.revision or server_revision(bases),
        is_cross_encoder=cross,
        api_key=_secret(keys.api_key, where)
        or (os.environ.get("VACC_API_KEY") if keys.api_key is None else None)
        or None,
        headers={name: expand(value.get_secret_value(), where) for name, value in keys.headers.items()},
        dimensions=keys.dimensions,
        batch_size=keys.encode_kwargs.batch_size,
        show_progress_bar=keys.encode_kwargs.show_progress_bar,
        max_concurrency=choose(
            "max_concurrency", keys.max_concurrency, matching.max_concurrency if matching else None, 4
        ),
        max_tokens=choose(
            "max_tokens", keys.max_tokens or keys.max_seq_length, matching.max_tokens if matching else None, None
        ),
        instruction_profile=profile,
        prompt=keys.prompt or None,
        prompts=keys.prompts,
        catalog_prompts=defaults["catalog_prompts"] if keys.instruction_profile is None else {},
        instruction_template=keys.model_kwargs.instruction_template,
        instruction_dict_path=keys.model_kwargs.instruction_dict_path,
        embed_results=_stored(keys.model_kwargs, where),
        rerank_template=(
            choose("rerank_template", keys.rerank_template, matching.template if matching else None, "none")
            if cross
            else "none"
        ),
        dialect=keys.dialect,
        timeout_s=keys.timeout_s,
        retries=keys.retries,
        wait_for_server_s=keys.wait_for_server_s,
        verify=keys.verify,
        trust_env=keys.trust_env,
        store=keys.store,
        preflight=keys.preflight,
        tokenizer=keys.tokenizer,
        truncate=keys.truncate,
        defaults=defaults,
        notes=tuple(notes),
    )
    if matching and config.dimensions and matching.dimensions and config.dimensions > matching.dimensions:
        raise ConfigError(
            f"{where}: dimensions is {config.dimensions}, but {matching.name} has {matching.dimensions}: choose at most that"
        )
    return config


def _kind(entry: Entry | None) -> bool | None:
    return None if entry is None else entry.kind == "cross-encoder"


def _secret(value: SecretStr | None, where: str) -> str | None:
    text = expand(value.get_secret_value(), where) if value is not None else ""
    return text if text and text != NO_KEY else None


def _stored(keys: ModelKwargs, where: str) -> dict[str, str]:
    """Task name to prediction file, from either of the two spellings."""
    files = keys.embed_results
    if isinstance(files, dict):
        named: Sequence[str] = keys.task_name or tuple(files)
        missing = [task for task in named if task not in files]
        if missing:
            raise ConfigError(f"{where}: model_kwargs.embed_results has no file for {', '.join(missing)}")
        return {task: str(Path(files[task])) for task in named}
    if len(files) != len(keys.task_name):
        raise ConfigError(
            f"{where}: model_kwargs.task_name has {len(keys.task_name)} tasks and embed_results {len(files)} files: "
            "give one file for each task, in the same order"
        )
    if len(set(keys.task_name)) != len(keys.task_name):
        raise ConfigError(f"{where}: model_kwargs.task_name names a task twice")
    return dict(zip(keys.task_name, files, strict=True))


def configure(mapping: Mapping[str, Any], *, where: str = "the model entry") -> ModelConfig:
    """Reads and completes one entry: :func:`read_keys`, then :func:`resolve`.

    Raises:
        ConfigError: As those two.
    """
    return resolve(read_keys(mapping, where=where))
