"""Every configuration key of a served model, once: its type, default, meaning, and what follows from its value.

:class:`ModelConfig` is both what a user wrote (:func:`read_keys`) and what the rest of the package works with
(:func:`configure`, which fills in what was left out from the environment and the catalog). A key is one field of it. Its
mark, :class:`Key`, says where else it matters, and everything else is derived from the marks: the hosts' fields, the
name of a result, what `compare` calls a different setting, the store's identity, masking, the documentation's tables.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PrivateAttr,
    SecretStr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from evalscope_vacc import hookspecs
from evalscope_vacc.errors import ConfigError, NoAddressError
from evalscope_vacc.names import did_you_mean
from evalscope_vacc.redact import MASK, clean, public_url

if TYPE_CHECKING:
    from evalscope_vacc.catalog import Entry

MODEL_TYPE = hookspecs.MODEL_TYPE
NO_KEY = "EMPTY"
EVERY_TASK = ""
"""In ``embed_results``: every retrieval task of the run."""
DEFAULT_BATCH = 32
"""Texts per request, where neither the entry nor the host says it."""
WRITTEN = "written"
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
# the profiles whose instructions a template surrounds
_WITH_TEMPLATE = ("mteb", "qwen-official")
# how EvalScope, sentence-transformers, transformers and FlagEmbedding load weights and run them in process, wherever it
# stands in an entry: a server has done that, so nothing of it can be heeded here. A key that would change what is sent
# or scored is not among them
ABOUT_WEIGHTS = frozenset(
    [
        "hub",
        "pooling_mode",
        "config_kwargs",
        "provider",
        "device",
        "devices",
        "device_map",
        "torch_dtype",
        "dtype",
        "use_fp16",
        "use_bf16",
        "trust_remote_code",
        "attn_implementation",
        "use_flash_attention_2",
        "low_cpu_mem_usage",
        "quantization_config",
        "load_in_8bit",
        "load_in_4bit",
        "cache_dir",
        "cache_folder",
        "local_files_only",
        "tokenizer_kwargs",
        "processor_kwargs",
        "padding_side",
        "normalize_embeddings",
        "convert_to_tensor",
        "convert_to_numpy",
        "num_workers",
        "backend",
    ]
)
# how they spell what the catalog calls last, cls and mean
_POOLINGS = {"lasttoken": "last", "last_token": "last", "last": "last", "eos": "last", "cls": "cls", "mean": "mean"}


# of a request's body: no key of a configuration may replace them
_OUR_FIELDS = frozenset({"model", "input", "inputs", "texts", "query", "documents", "text_1", "text_2"})


@dataclass(frozen=True)
class Key:
    """The mark of a key: what follows from its value, for everybody outside this module.

    Attributes:
        meaning: One line for the table of keys.
        chinese: The same in Chinese.
        group: The mapping in which EvalScope spells the key; it may also stand beside that mapping.
        older: Further names that mean the same.
        environment: The variable that fills the key.
        catalog: The attribute of a catalog entry that fills it.
        answers: Whether another value may change an answer, so that stored answers do not hold for it.
        name: Short name under which a value that is not the default becomes part of the result's name. Such a key
            changes answers. Keys that share one are named by a digest of all their values.
        file: Whether the value is a file: its content counts, not its path.
        compared: Whether scores of two values are different measurements, which `compare` does not judge.
        hide: What must be hidden: the whole value, or the user information in an address.
        otherwise: What the tables say in place of a default of None, in English and Chinese.
    """

    meaning: str
    chinese: str
    group: str = ""
    older: tuple[str, ...] = ()
    environment: str = ""
    catalog: str = ""
    answers: bool = False
    name: str = ""
    file: bool = False
    compared: bool = True
    hide: Literal["", "value", "address"] = ""
    otherwise: tuple[str, str] = ("none", "无")


def key(default: Any, meaning: str, chinese: str, **marks: Any) -> Any:
    """Declares a key: a pydantic field whose secret values are in no rendering, with a :class:`Key` as its mark."""
    mark: Any = Key(meaning, chinese, **marks)
    hide = bool(mark.hide)
    return Field(default, description=meaning, repr=not hide, exclude=hide, json_schema_extra={"key": mark})


@dataclass(frozen=True)
class _Completion:
    """How a configuration was completed.

    Attributes:
        entry: The catalog's entry of this model, where it is of the same kind.
        origins: Key to where its value came from.
        notes: Lines for people.
        warnings: Lines about what is probably a mistake.
        dropped: What was written about weights, and is not used.
    """

    entry: Entry | None = None
    origins: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    dropped: Mapping[str, Any] = field(default_factory=dict)


class ModelConfig(BaseModel):
    """One served model.

    Complete, it holds what the user wrote, then the environment, then the catalog, then the defaults.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, protected_namespaces=(), validate_default=True
    )

    model_type: str = key(
        MODEL_TYPE,
        "the plugin that serves the entry; an entry without it is EvalScope's own",
        "提供该模型的插件；没有此参数的条目由 EvalScope 自己处理",
    )
    model_name: Annotated[str, StringConstraints(min_length=1)] = key(
        ..., "as in `--served-model-name`", "与 `--served-model-name` 相同", answers=True
    )
    api_base: tuple[str, ...] = key(
        (),
        "one address or a list; with or without `/v1`, `/v1/rerank` …",
        "一个地址或列表；是否带 `/v1`、`/v1/rerank` 均可",
        environment="VACC_API_BASE",
        answers=True,
        hide="address",
    )
    api_key: str | None = key(
        None,
        "literal, `EMPTY`, or `${NAME}` from the environment; never written to disk",
        "明文、`EMPTY` 或环境变量 `${NAME}`；不会写入磁盘",
        environment="VACC_API_KEY",
        hide="value",
    )
    headers: dict[str, str] = key({}, "further HTTP headers", "附加的 HTTP 请求头", hide="value")
    is_cross_encoder: bool = key(
        False, "whether the model scores pairs", "是否为 Reranker 模型", catalog="is_cross_encoder", answers=True
    )
    instruction_profile: str = key(
        "none",
        "`qwen-official`, `mteb`, `none`, or a plugin's",
        "`qwen-official`、`mteb`、`none` 或插件提供的",
        catalog="profile",
        name="profile",
    )
    prompt: str | None = key(
        None,
        "prefix of queries, and of every text of tasks without sides, exactly as written; wins over the profile",
        "查询以及不分查询和文档的任务中所有文本的原样前缀；优先于 profile",
        name="prompts",
        compared=False,
    )
    prompts: dict[str, str] | None = key(
        None,
        "prefixes by task, type or side, exactly as written, with MTEB's keys; they win over the profile",
        "按任务、类型或查询/文档指定的原样前缀，写法同 MTEB；优先于 profile",
        name="prompts",
        compared=False,
    )
    instruction_template: str | None = key(
        None,
        r'such as `"Instruct: {}\nQuery:"`; also `{instruction}`',
        r'例如 `"Instruct: {}\nQuery:"`；也可写 `{instruction}`',
        group="model_kwargs",
        catalog="instruction_template",
        name="prompts",
        compared=False,
        otherwise=("the profile's", "profile 的"),
    )
    instruction_dict_path: str | None = key(
        None,
        "JSON file, task to instruction; `metadata`: use MTEB's instructions instead",
        "JSON 文件，任务到指令；`metadata`：改用 MTEB 的指令",
        group="model_kwargs",
        name="prompts",
        file=True,
        compared=False,
        otherwise=("the fetched one", "已下载的"),
    )
    rerank_template: str = key(
        "none",
        "`auto` (the catalog's template for the model; none for an unknown name), `qwen3`, `qwen3-evaluation`, "
        "`bge-reranker-v2-gemma`, `mxbai-rerank-v2`, `none`, or a plugin's",
        "`auto`（内置模型表中该模型自己的模板；表中没有的名称不用模板）、`qwen3`、`qwen3-evaluation`、"
        "`bge-reranker-v2-gemma`、`mxbai-rerank-v2`、`none` 或插件提供的",
        catalog="template",
        name="template",
    )
    raw_scores: bool = key(
        False,
        "scores before the activation (logits), where the server can give them: they do not saturate at 0 and 1",
        "激活函数之前的得分（logits），在服务支持时使用：不会在 0 和 1 处饱和",
        name="raw",
    )
    # not compared: a shorter vector is exactly what a user wants judged
    dimensions: PositiveInt | None = key(
        None,
        "Matryoshka size: cut and renormalised here",
        "Matryoshka 维度：在客户端截取并重新归一化",
        name="dim",
        compared=False,
    )
    max_tokens: PositiveInt | None = key(
        None,
        "limit per text, exact in tokens (`max_seq_length` means the same)",
        "每个文本的上限，按 token 精确计算（`max_seq_length` 同义）",
        older=("max_seq_length",),
        catalog="max_tokens",
        name="maxlen",
        otherwise=("the server's length", "服务的长度"),
    )
    truncate: Literal["cut", "error"] = key(
        "cut",
        "what happens to a text that is too long: `cut` or `error`",
        "过长文本的处理方式：`cut`（截断）或 `error`（报错）",
        name="truncate",
    )
    empty: Literal["error", "space", "skip-as-zero"] = key(
        "error",
        "an empty text: `error` sends it as it is, and a refusal names its row; `space` sends a space; `skip-as-zero` "
        "sends nothing and takes a vector of zeros (encoders only)",
        "空文本的处理：`error` 原样发送，若被拒绝则报出所在行；`space` 发送一个空格；"
        "`skip-as-zero` 不发送，向量记为零（仅 Embedding 模型）",
        name="empty",
    )
    tokenizer: str | None = key(
        None,
        "path or hub name; tokens are then counted here, so every text that is cut is counted, too",
        "路径或模型库名称；在本地计数，也就能统计所有被截断的文本",
        answers=True,
        otherwise=("the server's `/tokenize`", "服务的 `/tokenize`"),
    )
    dialect: str = key(
        "auto",
        "the server's protocol; `auto` recognises it; or one of [these](../servers.md), or a plugin's",
        "服务的协议；`auto` 自动识别；或[其中之一](../servers.md)，或插件提供的",
        answers=True,
    )
    extra_body: dict[str, Any] = key(
        {},
        "further fields of every request's JSON body, for options that only one server has",
        "每个请求 JSON 体的附加字段，用于某个服务特有的参数",
        name="body",
    )
    extra_body_query: dict[str, Any] = key(
        {},
        "the same for queries only",
        "同上，仅用于查询",
        name="body",
    )
    extra_body_document: dict[str, Any] = key(
        {},
        "the same for documents only",
        "同上，仅用于文档",
        name="body",
    )
    task_name: tuple[str, ...] = key(
        (),
        "tasks whose stored predictions are reranked (MTEB 1.x or 2.x files)",
        "重排已保存预测的任务（MTEB 1.x 或 2.x 文件）",
        group="model_kwargs",
    )
    # not part of the store's identity: the pairs that follow from it are in the store's keys
    embed_results: dict[str, str] = key(
        {},
        "the prediction files, in the order of `task_name`; or a mapping from task to file; or a run's folder",
        "这些任务的预测文件，顺序与 `task_name` 相同，或任务到文件的映射，或一次评测的目录",
        group="model_kwargs",
    )
    batch_size: PositiveInt | None = key(
        None,
        "texts, or documents of one query, per request",
        "每个请求的文本数，或同一查询的文档数",
        group="encode_kwargs",
        otherwise=(str(DEFAULT_BATCH),) * 2,
    )
    show_progress_bar: bool = key(True, "whether a progress bar is shown", "是否显示进度条", group="encode_kwargs")
    max_concurrency: PositiveInt = key(
        4, "requests in flight, per server", "每个服务的并发请求数", catalog="max_concurrency"
    )
    timeout_s: PositiveFloat = key(300, "timeout of one request, in seconds", "单个请求的超时秒数")
    retries: NonNegativeInt = key(5, "how often a failed request is sent again", "失败请求的重试次数")
    wait_for_server_s: NonNegativeFloat = key(
        600, "seconds to wait for a server that went away", "服务中断后等待其恢复的秒数"
    )
    verify: bool | str = key(True, "TLS verification, or the file of a private CA", "TLS 校验，或私有 CA 的文件")
    trust_env: bool | None = key(
        None,
        "whether the environment's proxies are used",
        "是否使用环境变量中的代理",
        otherwise=("not for local addresses", "本地地址不用代理"),
    )
    store: str = key(
        "resume",
        "`resume` keeps the answers of an unfinished run and drops them when it is done; `reuse` keeps them for later "
        "runs; `off`; or a folder",
        "`resume` 保留未完成评测的应答，完成后删除；`reuse` 保留给以后的评测；`off`；或目录",
    )
    revision: str = key(
        "",
        "part of the result's name",
        "结果名称的一部分",
        answers=True,
        otherwise=("from the addresses", "由地址得出"),
    )
    preflight: bool = key(True, "the short check before a run: `on` or `off`", "评测前的简短检查：`on` 或 `off`")

    _made: _Completion = PrivateAttr(default_factory=_Completion)

    # -- reading -------------------------------------------------------------------------------------------------

    @model_validator(mode="before")
    @classmethod
    def _one_spelling(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        data = dict(data)
        # EvalScope copies model_name into model_name_or_path; users of its local models know only the latter
        path = data.pop("model_name_or_path", None)
        if path and not data.get("model_name"):
            data["model_name"] = path
        found: dict[str, Any] = {}
        spelled: dict[str, str] = {}
        for spelling, name, value in _spelled_flat(data, keys(cls)):
            if name in found and found[name] != value:
                raise ValueError(f"{spelled[name]} and {spelling} differ, and they mean the same; keep one")
            found[name], spelled[name] = value, spelling
        return found

    @field_validator("api_base", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        value = value.split(",") if isinstance(value, str) else value
        if not isinstance(value, (list, tuple)):
            return value
        parts = (part.strip() if isinstance(part, str) else part for part in value)
        return tuple(part for part in parts if part != "")

    @field_validator("extra_body", "extra_body_query", "extra_body_document")
    @classmethod
    def _own_fields(cls, body: dict[str, Any]) -> dict[str, Any]:
        ours = sorted(_OUR_FIELDS & body.keys())
        if ours:
            raise ValueError(f"it must not hold {', '.join(ours)}: that is what a request is about")
        return dict(sorted(body.items()))

    @field_validator("task_name", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("embed_results", mode="before")
    @classmethod
    def _by_task(cls, files: Any, info: ValidationInfo) -> Any:
        tasks: tuple[str, ...] = info.data.get("task_name", ())
        if isinstance(files, Mapping):
            missing = [task for task in tasks if task not in files]
            if missing:
                raise ValueError(f"it has no file for {', '.join(missing)}, which task_name lists")
            return {task: files[task] for task in tasks or files}
        files = [files] if isinstance(files, (str, Path)) else files
        if not isinstance(files, (list, tuple)):
            return files
        if len(files) == 1 and (not tasks or Path(files[0]).is_dir()):
            # a run's folder: the file of each task is found in it
            return dict.fromkeys(tasks or (EVERY_TASK,), str(files[0]))
        if len(files) != len(tasks):
            raise ValueError(
                f"task_name has {len(tasks)} tasks and embed_results {len(files)} files: "
                "give one file for each task, in the same order"
            )
        if len(set(tasks)) != len(tasks):
            raise ValueError("task_name names a task twice")
        return dict(zip(tasks, files, strict=True))

    @field_validator("preflight", mode="before")
    @classmethod
    def _on_off(cls, value: object) -> object:
        return {"on": True, "off": False}.get(value, value) if isinstance(value, str) else value

    @field_validator("store", mode="before")
    @classmethod
    def _off(cls, value: object) -> object:
        # what YAML makes of the word
        return "off" if value is False else value

    @field_validator("*", mode="before")
    @classmethod
    def _unwrapped(cls, value: object) -> object:
        # the hosts keep keys, headers and addresses with a password in them as secrets
        return each(value, lambda leaf: leaf.get_secret_value() if isinstance(leaf, SecretStr) else leaf)

    def model_post_init(self, context: Any, /) -> None:
        """Takes over how the values were found, where :func:`configure` says it."""
        if isinstance(context, _Completion):
            self._made = context

    # -- what is derived -----------------------------------------------------------------------------------------

    @property
    def bases(self) -> tuple[str, ...]:
        """Normalised addresses without ``/v1``, as the engine wants them; may hold user information."""
        return self.api_base

    @property
    def origins(self) -> Mapping[str, str]:
        """Where each value came from: "written", "environment", "catalog: NAME", "default", or what it follows from."""
        return self._made.origins

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for each value that the catalog supplied, or that a default chose, for printing."""
        return self._made.notes

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each value that contradicts the catalog, or that nobody chose; each says what to write."""
        return self._made.warnings

    @property
    def card_prompts(self) -> dict[str, str]:
        """Raw prefixes that the model's card prescribes (keys as in MTEB)."""
        return dict(self._made.entry.prompts) if self._made.entry is not None else {}

    @property
    def catalog_prompts(self) -> dict[str, str]:
        """Those of the card that are in force: a profile that is written out switches them off."""
        return {} if self.origins.get("instruction_profile") == WRITTEN else self.card_prompts

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every string that may not be printed or written."""
        from evalscope_vacc.wire.address import query_secrets

        found: list[str] = []
        for name, mark in keys(type(self)).items():
            if mark.hide == "value":
                each(getattr(self, name), found.append)
        for base in self.bases:
            user_information = base.split("://", 1)[-1].split("/", 1)[0].rpartition("@")[0]
            found += [user_information, user_information.partition(":")[2], *query_secrets(base)]
        return tuple(secret for secret in found if secret)

    @property
    def servers(self) -> tuple[str, ...]:
        """The addresses as they may be printed."""
        return tuple(public_url(base) for base in self.bases)

    def public(self) -> dict[str, Any]:
        """Every value as plain data without secrets, for evidence files and reports."""
        values = {name: shown(name, getattr(self, name)) for name in keys(type(self))}
        return {**values, "catalog_prompts": self.catalog_prompts, "origins": dict(self.origins)}

    def identity(self) -> dict[str, Any]:
        """What may change an answer, as plain data without secrets: the rest may differ when a run is started again."""
        marks = keys(type(self))
        public = self.public()
        kept = {name: public[name] for name, mark in marks.items() if mark.answers or mark.name}
        return {**kept, "catalog_prompts": public["catalog_prompts"]}

    def fallback(self, name: str) -> Any:
        """Returns the value that a key would have if nobody had written it."""
        return _fallback(self, name, self._made.entry)[0]

    def body_fields(self, side: str | None) -> dict[str, Any]:
        """Returns the further fields of requests for texts of one side; None in tasks without sides, and for pairs."""
        beside = {"query": self.extra_body_query, "document": self.extra_body_document}
        return {**self.extra_body, **beside.get(side or "", {})}

    @property
    def entry(self) -> Entry | None:
        """The catalog's entry that values were taken from, or None."""
        return self._made.entry

    def known_as(self, entry: Entry, why: str) -> ModelConfig:
        """Returns a copy in which a catalog entry fills what nobody wrote; ``why`` says where its name was found."""
        values, origins = dict(self), dict(self.origins)
        for name, mark in keys(type(self)).items():
            # the connections are open already, and the kind of model is given
            if mark.catalog and origins.get(name) == "default" and name not in ("is_cross_encoder", "max_concurrency"):
                values[name], origins[name] = _fallback(self, name, entry)
        _check_sense(values, entry, f"model {clean(self.model_name, limit=200)!r}")
        if not self.is_cross_encoder:
            values["rerank_template"] = "none"
        dropped = self._made.dropped
        notes = (f"known as {entry.name} ({why})", *_notes(values, origins, dropped))
        warnings = tuple(_warnings(values, origins, entry, dropped))
        return type(self).model_validate(values, context=_Completion(entry, origins, notes, warnings, dropped))


# -- reading -------------------------------------------------------------------------------------------------------------


def keys(model: type[ModelConfig] | None = None) -> dict[str, Key]:
    """Returns every key and its mark, in the order of the README's table."""
    extras: dict[str, Any] = {
        name: field.json_schema_extra for name, field in (model or ModelConfig).model_fields.items()
    }
    return {name: extra["key"] for name, extra in extras.items()}


def named_keys(model: type[ModelConfig] | None = None) -> dict[str, list[str]]:
    """Returns the short names of a result's name, and the keys that each stands for."""
    found: dict[str, list[str]] = {}
    for name, mark in keys(model).items():
        if mark.name:
            found.setdefault(mark.name, []).append(name)
    return found


def spellings() -> tuple[str, ...]:
    """Returns everything that may stand in a model's entry: the keys, their groups, their older names."""
    marks = keys()
    further = [name for mark in marks.values() for name in (mark.group, *mark.older) if name]
    return tuple(dict.fromkeys([*marks, *further]))


def _spelled_flat(data: Mapping[str, Any], marks: Mapping[str, Key]) -> Iterator[tuple[str, str, Any]]:
    """Yields spelling, key and value of whatever is given: groups opened, older names replaced, nothing for None."""
    groups = {mark.group for mark in marks.values() if mark.group}
    newer = {older: name for name, mark in marks.items() for older in mark.older}
    for name, value in data.items():
        if value is None or name in ABOUT_WEIGHTS:
            continue
        if name not in groups:
            yield name, newer.get(name, name), value
        elif isinstance(value, Mapping):
            for inner, item in value.items():
                if inner in ABOUT_WEIGHTS:
                    continue
                known = inner in marks and marks[inner].group == name
                if item is not None or not known:
                    yield f"{name}.{inner}", inner if known else f"{name}.{inner}", item
        else:
            raise ValueError(f"{name}: expected a mapping, found {type(value).__name__}")


def overlaid(where: str, *sources: Mapping[str, Any]) -> dict[str, Any]:
    """Joins keys of several sources; those of a later one win, however either spells them.

    Raises:
        ConfigError: A group of keys is no mapping.
    """
    marks = keys()
    try:
        return {name: value for source in sources for _, name, value in _spelled_flat(source, marks)}
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def read_keys(mapping: Mapping[str, Any], *, where: str = "the model entry") -> ModelConfig:
    """Returns the keys of one served model as they are written, checked; nothing is looked up.

    Args:
        mapping: One entry of EvalScope's ``models:`` list, or keyword arguments of a model class.
        where: What the mapping is, for messages.

    Raises:
        ConfigError: An unknown key (the nearest known one is named) or a value of the wrong kind. The message never
            repeats a value.
    """
    try:
        return ModelConfig.model_validate(dict(mapping))
    except ValidationError as error:
        raise ConfigError(explain(error, where)) from None


def explain(error: ValidationError, where: str) -> str:
    """Says in one line what pydantic found, without the values: one of them may be a key."""
    found = []
    listed = False
    for item in error.errors(include_input=False, include_url=False, include_context=False):
        place = ".".join(
            str(part) for part in item["loc"] if not str(part).startswith(("function-", "tuple[", "dict["))
        )
        if item["type"] == "extra_forbidden":
            hint = _nearest(place)
            listed |= not hint
            found.append(f"unknown key {place!r}{hint}")
        else:
            message = item["msg"].removeprefix("Value error, ").replace("Input should be", "it must be")
            message = message.replace("valid tuple", "list").replace("valid dictionary", "mapping")
            found.append(f"{place}: {message}" if place else message)
    if listed:
        found.append(f"the keys are {', '.join(sorted(keys()))}")
    return clean(f"{where}: {'; '.join(dict.fromkeys(found))}")


def _nearest(unknown: str) -> str:
    """Says which key may be meant; "" where none is near."""
    group, _, last = unknown.rpartition(".")
    marks = keys()
    if last in marks:
        return f": write {last} {f'into {marks[last].group}' if marks[last].group else f'beside {group}'}"
    known = [name for name, mark in marks.items() if not group or mark.group == group] or list(marks)
    hint = did_you_mean(last, known)
    return f": {hint}" if hint else ""


# -- secrets -------------------------------------------------------------------------------------------------------------


def each(value: Any, change: Callable[[Any], Any]) -> Any:
    """Returns a value of a key with every text or number in it changed; None stays."""
    if isinstance(value, Mapping):
        return {name: each(item, change) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [each(item, change) for item in value]
    return None if value is None else change(value)


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


def shown(name: str, value: Any) -> Any:
    """Returns a key's value as it may be written to disk: secrets masked, references to the environment kept."""
    mark = keys().get(name)
    hide = mark.hide if mark is not None else ""

    def show(leaf: Any) -> Any:
        text = leaf.get_secret_value() if isinstance(leaf, SecretStr) else leaf
        if hide == "address":
            return clean(text) if "${" in str(text) else public_url(text) if "://" in str(text) else text
        if hide == "value" or isinstance(leaf, SecretStr):
            return text if text in ("", NO_KEY) or _REFERENCE.fullmatch(str(text)) else MASK
        return text

    return each(value, show)


def hidden(name: str, value: Any) -> Any:
    """Returns a key's value with what is secret in it as a ``SecretStr``, which neither a dump nor repr() shows."""
    mark = keys().get(name)

    def hide(leaf: Any) -> Any:
        # an address with a password or a query in it is a secret like a key
        visible = mark is None or not mark.hide or (mark.hide == "address" and not re.search("[@?]", str(leaf)))
        return leaf if visible or isinstance(leaf, SecretStr) else SecretStr(str(leaf))

    return each(value, hide)


# -- completing ----------------------------------------------------------------------------------------------------------


def configure(mapping: Mapping[str, Any], *, where: str = "the model entry") -> ModelConfig:
    """Reads one entry (:func:`read_keys`) and completes it from the environment, the catalog and the defaults.

    Raises:
        ConfigError: As :func:`read_keys`; no address, a reference to an unset variable, or values that contradict each
        other.
    """
    from evalscope_vacc.catalog import find
    from evalscope_vacc.wire.address import normalize_base, server_revision

    given = read_keys(mapping, where=where)
    origins = dict.fromkeys(given.model_fields_set, WRITTEN)
    surroundings = {
        name: os.environ[mark.environment]
        for name, mark in keys().items()
        if name not in origins and os.environ.get(mark.environment)
    }
    if surroundings:
        given = read_keys({**mapping, **surroundings}, where=where)
        origins |= dict.fromkeys(surroundings, "environment")

    where = f"model {clean(given.model_name, limit=200)!r}"
    named = entry = find(given.model_name)
    values = {name: getattr(given, name) for name in keys()}
    for name in keys():
        if name not in origins:
            values[name], origins[name] = _fallback(given, name, entry)
        if name == "is_cross_encoder" and entry is not None and entry.is_cross_encoder != values[name]:
            entry = None  # it is about a model of the other kind; nothing else of it holds

    for name, mark in keys().items():
        if mark.hide:
            values[name] = each(values[name], lambda leaf: expand(leaf, where) if isinstance(leaf, str) else leaf)
    values["api_base"] = tuple(dict.fromkeys(map(normalize_base, values["api_base"])))
    values["api_key"] = None if values["api_key"] in ("", NO_KEY) else values["api_key"]
    _check_sense(values, entry, where)
    if not values["revision"]:
        values["revision"], origins["revision"] = server_revision(values["api_base"]), "the addresses"
    if not values["is_cross_encoder"]:
        values["rerank_template"] = "none"
    dropped = _dropped(mapping)
    notes = _notes(values, origins, dropped)
    warnings = tuple(_warnings(values, origins, named, dropped))
    values["prompt"] = values["prompt"] or None
    return ModelConfig.model_validate(values, context=_Completion(entry, origins, notes, warnings, dropped))


def _dropped(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what an entry says about weights, in its groups of keys too."""
    groups = [value for value in mapping.values() if isinstance(value, Mapping)]
    return {
        name: value
        for source in (mapping, *groups)
        for name, value in source.items()
        if name in ABOUT_WEIGHTS and value is not None
    }


def _fallback(given: ModelConfig, name: str, entry: Entry | None) -> tuple[Any, str]:
    """Returns the value of a key that nobody wrote, and where it comes from."""
    attribute = keys(type(given))[name].catalog
    value = getattr(entry, attribute) if attribute and entry is not None else None
    if name == "instruction_template" and entry is not None:
        written = given.origins or dict.fromkeys(given.model_fields_set, WRITTEN)
        profile = given.instruction_profile if written.get("instruction_profile") == WRITTEN else entry.profile
        value = value if profile in _WITH_TEMPLATE else None
    if value is not None and entry is not None:
        return value, f"catalog: {entry.name}"
    if name == "instruction_profile" and given.instruction_dict_path:
        # a dictionary without a profile is the vendor's guide, whose rules are Qwen's
        return "qwen-official", "an instruction dictionary is given"
    return type(given).model_fields[name].get_default(call_default_factory=True), "default"


def _check_sense(values: Mapping[str, Any], entry: Entry | None, where: str) -> None:
    """Raises ConfigError where the values contradict each other."""
    size = values["dimensions"]
    if not values["api_base"]:
        raise NoAddressError(
            f"{where}: no api_base: write it in the model's entry or export VACC_API_BASE=http://HOST:PORT/v1"
        )
    if values["raw_scores"] and not values["is_cross_encoder"]:
        raise ConfigError(f"{where}: raw_scores is about a cross-encoder's scores; an encoder has none: remove the key")
    if size is not None and values["is_cross_encoder"]:
        raise ConfigError(f"{where}: dimensions is about embeddings; a cross-encoder has none: remove the key")
    if size is not None and entry is not None and entry.dimensions and size > entry.dimensions:
        raise ConfigError(
            f"{where}: dimensions is {size}, but {entry.name} has {entry.dimensions}: choose at most that"
        )


def _notes(values: Mapping[str, Any], origins: Mapping[str, str], dropped: Mapping[str, Any]) -> tuple[str, ...]:
    notes = [
        f"{name}: {_in_one_line(values[name])} ({origin})"
        for name, origin in origins.items()
        if origin not in (WRITTEN, "environment", "default", "the addresses")
    ]
    if values["prompt"] == "":
        # EvalScope's own default, which its examples write out: nobody means to switch the model's instructions off by it
        notes.append("prompt is empty, so it is not used (instruction_profile: none sends texts as they are)")
    if dropped:
        notes.append(
            f"{', '.join(sorted(dropped))}: not used: these keys are for weights in process, and the server has "
            "loaded its own"
        )
    return tuple(notes)


def _in_one_line(value: Any) -> Any:
    return repr(value) if isinstance(value, str) and not value.isprintable() else value


def _warnings(
    values: Mapping[str, Any], origins: Mapping[str, str], entry: Entry | None, dropped: Mapping[str, Any]
) -> Iterator[str]:
    """Yields what contradicts the catalog's entry of the served name, or what nobody chose because there is none."""
    yield from _bare_prompts(values, entry)
    cross, template = values["is_cross_encoder"], values["rerank_template"]
    if entry is None:
        chosen = origins["instruction_profile"] != "default" or values["prompt"] or values["prompts"]
        if not cross and not chosen:
            yield (
                "there is no rule for this model: its texts are sent without a prefix; write prompts: {query: ..., "
                "document: ...} or an instruction_profile (instruction_profile: none if it needs none)"
            )
        elif cross and template == "auto":
            yield (
                "rerank_template is auto, and there is no rule for this model: pairs are sent without a template; "
                "write the template that it was trained with, such as rerank_template: qwen3 (none if it has none)"
            )
        return
    if entry.is_cross_encoder != cross:
        kinds = ("an encoder", "a cross-encoder")
        yield (
            f"{entry.name} is {kinds[entry.is_cross_encoder]}, but it is configured as {kinds[cross]}: "
            f"write is_cross_encoder: {str(entry.is_cross_encoder).lower()}"
        )
        return
    if values["max_tokens"] != entry.max_tokens:
        yield (
            f"max_tokens is {values['max_tokens']}, but the scores of {entry.name} were measured at "
            f"{entry.max_tokens}: write max_tokens: {entry.max_tokens}, or leave the key out"
        )
    pooling = _POOLINGS.get(str(dropped.get("pooling_mode")).casefold(), entry.pooling)
    if entry.pooling in _POOLINGS.values() and pooling != entry.pooling:
        yield (
            f"pooling_mode is {pooling}, and {entry.name} was trained with {entry.pooling}: the pooling of a server "
            "cannot be set here: remove the key"
        )
    profile = values["instruction_profile"]
    if not cross and profile in _WITH_TEMPLATE and entry.profile == "none":
        gets = "prefixes of its own" if entry.prompts else "no prefix"
        yield f"instruction_profile is {profile}, and {entry.name} was trained with {gets}: leave the key out"
    own = entry.template_family
    if cross and template not in ("auto", "none") and not (own and template.startswith(own)):
        yield (
            f"rerank_template is {template}, and {entry.name} was trained with {own or 'no template'}: "
            "write rerank_template: auto"
        )


def _bare_prompts(values: Mapping[str, Any], entry: Entry | None) -> Iterator[str]:
    """Yields what is said of a prompt that is an instruction's sentence, with nothing between it and the text.

    EvalScope and sentence-transformers put a prompt directly before a text, and so do we: a sentence without a colon, a
    space or a line break at its end runs into the text, and no model was trained so.
    """
    named = {"prompt": values["prompt"], **{f"prompts[{key}]": text for key, text in (values["prompts"] or {}).items()}}
    bare = [name for name, text in named.items() if text and _is_sentence(text)]
    if not bare:
        return
    if values["is_cross_encoder"]:
        does = "leave it out: a template brings its instruction"
        if values["rerank_template"] == "none" and (entry is None or entry.template is None):
            does += " (rerank_template: qwen3 for a fine-tuned Qwen3-Reranker)"
    elif entry is not None and entry.profile in _WITH_TEMPLATE:
        does = 'leave it out, so that each task gets its own instruction, or write it as "Instruct: …\\nQuery:"'
    else:
        does = 'write what the model was trained with around it, such as "Instruct: …\\nQuery:", or a colon and a space'
    yield f"{bare[0]} is a sentence that goes directly before the text, with nothing in between: {does}"


def _is_sentence(text: str) -> bool:
    words = len(text.split()) > 2 or (len(text) > 8 and not text.isascii())
    return words and (text[-1].isalnum() or text[-1] in ".。")
