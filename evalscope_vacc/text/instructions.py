"""Which text goes before a text: the user's prompts, then an instruction profile, then the catalog's prompts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from evalscope_vacc.errors import ConfigError, PluginError
from evalscope_vacc.names import did_you_mean
from evalscope_vacc.redact import clean
from evalscope_vacc.text.dictionary import METADATA, find_dictionary
from evalscope_vacc.text.profiles import QWEN3_TEMPLATE, InstructionTemplate, MtebQwen3, NoInstruction, QwenOfficial
from evalscope_vacc.text.task import Side, TaskInfo

BUILT_IN_PROFILES = ("qwen-official", "mteb", "none")


class InstructionProfile(Protocol):
    """A rule that gives each text of a task its instruction.

    A profile may also have ``fingerprint`` (a short text that changes with what is sent, part of result names) and
    ``rerank_instruction(task) -> str | None`` (a cross-encoder's instruction; without it, that of the query side).
    """

    @property
    def name(self) -> str:
        """The name that users write as ``instruction_profile``."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines that a reader of the results must know, such as that no dictionary was used."""

    def instruction(self, task: TaskInfo, side: Side | None) -> str | None:
        """Returns the bare instruction of a text, None where nothing is added."""

    def prefix(self, task: TaskInfo, side: Side | None) -> str:
        """Returns the exact text put before a text, "" for nothing."""


ProfileFactory = Callable[..., InstructionProfile]
"""Called as ``factory(instruction_template=…, instruction_dict_path=…)``, both as configured or None."""


def make_profile(
    name: str,
    *,
    instruction_template: str | None = None,
    instruction_dict_path: str | None = None,
    cache_dir: Path | None = None,
    extra: Mapping[str, ProfileFactory] | None = None,
) -> InstructionProfile:
    """Makes the profile of a name.

    Args:
        name: ``qwen-official``, ``mteb``, ``none``, or a key of ``extra``.
        instruction_template: Text around an instruction, with exactly one ``{}`` or ``{instruction}``; default the
            profile's own.
        instruction_dict_path: A dictionary's file, or the word ``metadata``; default for ``qwen-official`` the fetched
            dictionary.
        cache_dir: Where fetched files are; default ``$VACC_HOME``, else the user's cache.
        extra: Plugins' profiles by name.

    Raises:
        ConfigError: Unknown name, unusable template or dictionary, or one given to a profile that uses none.
        PluginError: A plugin took a built-in name, or what it made is no profile.
    """
    extra = extra or {}
    taken = sorted(set(extra) & set(BUILT_IN_PROFILES))
    if taken:
        raise PluginError(f"a plugin registers the instruction profile {taken[0]!r}, which is built in; rename it")
    if name in extra:
        return _of_plugin(name, extra[name], instruction_template, instruction_dict_path)
    if name not in BUILT_IN_PROFILES:
        raise ConfigError(unknown_name("instruction_profile", name, (*BUILT_IN_PROFILES, *extra)))
    if name == "none":
        for key, value in (
            ("instruction_template", instruction_template),
            ("instruction_dict_path", instruction_dict_path),
        ):
            if value is not None:
                raise ConfigError(
                    f"{key} is given, but instruction_profile is none, which sends texts as they are; set "
                    "`instruction_profile: qwen-official` (or `mteb`), or leave the key out"
                )
        return NoInstruction()
    template = QWEN3_TEMPLATE if instruction_template is None else InstructionTemplate.parse(instruction_template)
    if name == "mteb":
        given = instruction_dict_path not in (None, METADATA)
        return MtebQwen3(find_dictionary(instruction_dict_path, cache_dir) if given else None, template)
    return QwenOfficial(find_dictionary(instruction_dict_path, cache_dir), template)


def _of_plugin(
    name: str, factory: ProfileFactory, instruction_template: str | None, instruction_dict_path: str | None
) -> InstructionProfile:
    try:
        profile = factory(instruction_template=instruction_template, instruction_dict_path=instruction_dict_path)
    except ConfigError:
        raise
    except Exception as error:
        raise PluginError(
            f"the instruction profile {name!r} of a plugin cannot be made: "
            + clean(f"{type(error).__name__}: {error}", limit=500)
        ) from error
    missing = [part for part in ("name", "notes", "instruction", "prefix") if not hasattr(profile, part)]
    if missing:
        raise PluginError(f"the instruction profile {name!r} of a plugin has no {', '.join(missing)}")
    return profile


def unknown_name(key: str, name: object, known: tuple[str, ...]) -> str:
    """Returns the message for a name that is not known: the nearest one, and all of them."""
    hint = did_you_mean(name, known)
    return f"{key}: {clean(str(name), limit=80)!r} is not known{hint and '; '}{hint} (known: {', '.join(known)})"


@dataclass(frozen=True)
class Prompts:
    """EvalScope's ``prompt`` and ``prompts``: raw prefixes.

    Attributes:
        prompt: Goes before queries and before every text of tasks without sides, never before documents.
        prompts: Prefixes by key, the most specific first: ``Task-side``, ``Task``, ``Type-side``, ``Type``, ``side``
            (MTEB's order). A side is ``query`` or ``document``, also spelled ``passage``. They go before ``prompt``.
        label: What `find` calls the source in front of the key.
    """

    prompt: str | None = None
    prompts: Mapping[str, str] | None = None
    label: str = ""

    def __post_init__(self) -> None:
        if self.prompt is not None and not isinstance(self.prompt, str):
            raise ConfigError(f"prompt: expected a text, found {type(self.prompt).__name__}")
        if self.prompts is None:
            return
        if not isinstance(self.prompts, Mapping):
            raise ConfigError(
                f"prompts: expected a mapping of task, type or side to text, found {type(self.prompts).__name__}"
            )
        for key, value in self.prompts.items():
            if not isinstance(key, str):
                raise ConfigError(f"prompts: the key {key!r} is {type(key).__name__}; expected a text")
            if not isinstance(value, str):
                raise ConfigError(f"prompts[{clean(key, limit=80)}]: expected a text, found {type(value).__name__}")
            twin = key[: -len("passage")] + "document" if key.endswith("passage") else key
            if self.prompts.get(twin, value) != value:
                raise ConfigError(f"prompts: {key!r} and {twin!r} mean the same side and have different texts")

    def prefix(self, task: TaskInfo, side: Side | None) -> str | None:
        """Returns the raw prefix of a text, or None where no rule says anything."""
        found = self.find(task, side)
        return None if found is None else found.text

    def find(self, task: TaskInfo, side: Side | None) -> Prefix | None:
        """Returns the raw prefix and the key that gave it, or None where no rule says anything."""
        prompts = self.prompts or {}
        for key in _keys(task, side):
            if key in prompts:
                return Prefix(prompts[key], f"{self.label}prompts[{key}]")
        if self.prompt is None:
            return None
        # the user's own prompt replaces the profile on every side: documents stay as they are, they do not get
        # another rule's instruction
        return Prefix("" if side == "document" else self.prompt, f"{self.label}prompt")


def _keys(task: TaskInfo, side: Side | None) -> Iterator[str]:
    spellings = {"query": ("query",), "document": ("document", "passage")}[side] if side else ()
    for name in (task.name, task.type):
        if name:
            yield from (f"{name}-{spelling}" for spelling in spellings)
            yield name
    yield from spellings


@dataclass(frozen=True)
class Prefix:
    """What is put before a text.

    Attributes:
        text: The exact text; "" for nothing.
        source: The rule that gave it: ``prompts[query]``, ``prompt``, ``profile qwen-official``,
            ``catalog prompts[query]`` or ``none``.
    """

    text: str
    source: str


@dataclass(frozen=True)
class TextRules:
    """All rules of one model, in their order: the user's prompts, the profile, the catalog's prompts.

    Attributes:
        profile: Instruction profile.
        config: The user's ``prompt`` and ``prompts``.
        catalog: Prefixes that the model's card prescribes; empty when the user chose a profile.
    """

    profile: InstructionProfile = field(default_factory=NoInstruction)
    config: Prompts = field(default_factory=Prompts)
    catalog: Prompts = field(default_factory=Prompts)

    def prefix(self, task: TaskInfo, side: Side | None) -> Prefix:
        """Returns the exact text put before a text, and which rule gave it.

        Raises:
            PluginError: A plugin's profile gave something else than a text.
        """
        found = self.config.find(task, side)
        if found is not None:
            return found
        text = self.profile.prefix(task, side)
        if not isinstance(text, str):
            raise PluginError(
                f"the instruction profile {self.profile.name!r} gave {type(text).__name__} for {task.name}, side {side}"
                "; expected a text"
            )
        if text:
            return Prefix(text, f"profile {self.profile.name}")
        return self.catalog.find(task, side) or Prefix("", "none")

    def pair_prefix(self, task: TaskInfo, side: Side) -> str:
        """Returns the text put before a query or a document of a pair: the user's own prompts and nothing else.

        A profile gives a cross-encoder its instruction (`rerank_instruction`), not a prefix.
        """
        found = self.config.find(task, side)
        return "" if found is None else found.text

    def rerank_instruction(self, task: TaskInfo) -> str | None:
        """Returns a cross-encoder's instruction for a task; None leaves the rerank template's default.

        Raises:
            PluginError: A plugin's profile gave something else than a text or None.
        """
        own = getattr(self.profile, "rerank_instruction", None)
        instruction = own(task) if callable(own) else self.profile.instruction(task, "query")
        if instruction is not None and not isinstance(instruction, str):
            raise PluginError(
                f"the instruction profile {self.profile.name!r} gave {type(instruction).__name__} for {task.name}; "
                "expected a text or None"
            )
        return instruction or None

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines that a reader of the results must know."""
        return tuple(self.profile.notes)

    @property
    def fingerprint(self) -> str:
        """Short text that changes with whatever changes a prefix: the profile's, and a digest of the prompts."""
        name = str(getattr(self.profile, "fingerprint", self.profile.name))
        given = {
            label: [prompts.prompt, dict(prompts.prompts or {})]
            for label, prompts in (("config", self.config), ("catalog", self.catalog))
            if prompts.prompt is not None or prompts.prompts
        }
        if not given:
            return name
        canonical = json.dumps(given, sort_keys=True)
        return f"{name}-p{hashlib.sha256(canonical.encode()).hexdigest()[:8]}"


class RulesConfig(Protocol):
    """The part of a model's configuration that decides what is sent."""

    @property
    def instruction_profile(self) -> str:
        """Name of the profile."""

    @property
    def instruction_template(self) -> str | None:
        """Text around an instruction."""

    @property
    def instruction_dict_path(self) -> str | None:
        """Dictionary file, or ``metadata``."""

    @property
    def prompt(self) -> str | None:
        """EvalScope's ``prompt``."""

    @property
    def prompts(self) -> Mapping[str, str] | None:
        """EvalScope's ``prompts``."""

    @property
    def catalog_prompts(self) -> Mapping[str, str]:
        """Prefixes of the model's card."""


def make_rules(
    config: RulesConfig, *, extra: Mapping[str, Any] | None = None, cache_dir: Path | None = None
) -> TextRules:
    """Makes the rules of a model from its configuration.

    Args:
        config: The configured model.
        extra: Plugins' profiles by name.
        cache_dir: As in `make_profile`.

    Raises:
        ConfigError: As `make_profile`, or ``prompt`` or ``prompts`` of a wrong type.
        PluginError: As `make_profile`.
    """
    return TextRules(
        profile=make_profile(
            config.instruction_profile,
            instruction_template=config.instruction_template,
            instruction_dict_path=config.instruction_dict_path,
            cache_dir=cache_dir,
            extra=extra,
        ),
        config=Prompts(config.prompt, config.prompts),
        catalog=Prompts(None, config.catalog_prompts or None, label="catalog "),
    )
