"""What the catalog knows of one model, and what a row of it may hold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from typing_extensions import Self

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.names import did_you_mean

Kind = Literal["encoder", "cross-encoder"]
Pooling = Literal["last", "cls", "mean", "classify"]

_Text = Annotated[str, Field(min_length=1)]
_Repository = Annotated[str, Field(pattern="^[^/]+/[^/]+$")]
_Count = Annotated[int, Field(ge=1)]


class _Row(BaseModel):
    # strict: a number in quotes is a mistake; lists alone may stand for tuples, as TOML has no others
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class ServeSpec(_Row):
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
    arguments: tuple[_Text, ...] = Field((), strict=False)

    @field_validator("hf_overrides")
    @classmethod
    def _is_an_object(cls, value: str | None) -> str | None:
        if value is not None and not isinstance(json.loads(value), dict):
            raise ValueError("it must be the JSON text of an object")
        return value


class Entry(_Row):
    """One served model.

    Attributes:
        name: Name without organisation; what ``--served-model-name`` gets unless told otherwise.
        kind: "encoder" or "cross-encoder".
        huggingface: Repository on Hugging Face, ``org/name``.
        modelscope: Repository on ModelScope, ``org/name``.
        size: Parameters as the model card writes them, such as "0.6B".
        download_mb: Size of the files that serving needs, in units of 10**6 bytes.
        layers: Transformer layers.
        hidden_size: Width of a hidden state.
        dimensions: Length of a vector; None for cross-encoders, which answer with scores.
        matryoshka: Smallest and largest length that the model was trained to be cut to, or None.
        max_tokens: Length in tokens at which the published scores were measured; the default limit of a run.
        model_limit: Longest input in tokens that the model itself takes.
        pooling: How one vector or score is made of the hidden states.
        profile: Instruction profile, or None where the catalog has no say (cross-encoders).
        instruction_template: What the model puts around an instruction, where it is not the profile's own.
        template: Default of ``rerank_template``, or None for encoders.
        template_family: The template that the model was trained with, or None.
        prompts: Raw prefixes with mteb's keys (task, type, ``query``, ``document``, ``Task-query`` …).
        rules_from: Where the rule of its texts is written: profile, prompts or template.
        rules_only: Whether the catalog knows its texts and sizes, and no vendor's guide of how to serve it.
        instruction_aware: Whether the model was trained to follow an instruction per task.
        max_concurrency: Requests in flight that the vendor of the accelerator gives for one server.
        tensor_parallel: Numbers of devices that one server may be spread over.
        languages: ISO 639-1 codes, or "multilingual".
        license: SPDX identifier.
        serve: What a server has to be told.
        source: Where the entry comes from: "" for the built-in catalog, else the plugin's name.
    """

    name: Annotated[str, Field(pattern="^[^/]+$")]
    kind: Kind
    huggingface: _Repository
    max_tokens: _Count
    model_limit: _Count
    modelscope: _Repository | None = None
    size: str = ""
    download_mb: _Count | None = None
    layers: _Count | None = None
    hidden_size: _Count | None = None
    dimensions: _Count | None = None
    matryoshka: tuple[_Count, _Count] | None = Field(None, strict=False)
    pooling: Pooling | None = None
    profile: _Text | None = None
    instruction_template: _Text | None = None
    template: _Text | None = None
    template_family: _Text | None = None
    prompts: Mapping[str, str] = {}
    rules_from: str = ""
    rules_only: bool = False
    instruction_aware: bool = False
    max_concurrency: _Count = 4
    tensor_parallel: tuple[_Count, ...] = Field((1,), strict=False, min_length=1)
    languages: tuple[_Text, ...] = Field((), strict=False)
    license: str = ""
    serve: ServeSpec = ServeSpec()
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
        return self.model_dump(mode="json")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        for key, why in self._contradictions():
            raise ValueError(f"key {key!r}: {why}")
        return self

    def _contradictions(self) -> Iterator[tuple[str, str]]:
        """Yields contradictions between well-formed values."""
        if self.max_tokens > self.model_limit:
            yield "max_tokens", f"{self.max_tokens} is above model_limit {self.model_limit}"
        if self.is_cross_encoder:
            if self.dimensions is not None or self.matryoshka is not None:
                yield "dimensions", "a cross-encoder answers with scores, it has no dimensions"
        else:
            if self.dimensions is None:
                yield "dimensions", "an encoder needs it"
            if self.template is not None:
                yield "template", "rerank templates are for cross-encoders"
        if self.instruction_template is not None and self.profile in (None, "none"):
            yield "instruction_template", "there is no profile with instructions for it"
        if self.matryoshka is not None:
            low, high = self.matryoshka
            if not low < high <= (self.dimensions or 0):
                yield "matryoshka", f"{low}..{high} is not within the {self.dimensions} dimensions"
        if list(self.tensor_parallel) != sorted(set(self.tensor_parallel)):
            yield "tensor_parallel", "the numbers must rise"


def entry_from_mapping(row: Mapping[str, Any], *, where: str, source: str = "") -> Entry:
    """Builds an entry of one table of the catalog's file, or of a plugin's mapping.

    Args:
        row: Keys as in :class:`Entry`; ``serve`` is a mapping of :class:`ServeSpec`'s keys.
        where: What an error calls the table, such as ``models.toml, model 3``.
        source: The plugin's name, "" for the built-in catalog.

    Raises:
        ConfigError: A key is unknown, missing or of the wrong kind; the message names entry and key.
    """
    try:
        return Entry.model_validate({**row, "source": source})
    except ValidationError as error:
        name = f" ({row['name']})" if isinstance(row.get("name"), str) else ""
        raise ConfigError(f"{where}{name}: {'; '.join(_explained(error))}") from None


def _explained(error: ValidationError) -> Iterator[str]:
    for item in error.errors(include_url=False):
        message = item["msg"].removeprefix("Value error, ")
        if not item["loc"]:
            yield message
            continue
        *group, last = map(str, item["loc"])
        place = "".join(f"{part}: " for part in group) + f"key {last!r}"
        if item["type"] == "extra_forbidden":
            known = ServeSpec.model_fields if group else Entry.model_fields
            hint = did_you_mean(last, known, f"the keys are {', '.join(known)}")
            yield f"{place} is not known; {hint}"
        elif item["type"] == "missing":
            yield f"{place} is missing"
        else:
            yield f"{place}: {message}, not {item['input']!r}"
