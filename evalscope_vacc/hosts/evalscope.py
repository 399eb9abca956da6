"""EvalScope 1.8.1 and later: its configuration accepts our keys, its ``load_model`` builds our models.

The classes are changed in place: a field that is added to the class and a rebuilt schema reach everybody who has
imported the class, whenever that was, and the field survives the dump to YAML. Entries without ``model_type`` reach
EvalScope unchanged.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, List, Optional, Union  # noqa: UP035 -- evaluated by pydantic on every Python that we support

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import core_schema

from evalscope_vacc.config import ABOUT_WEIGHTS, MODEL_TYPE, explain, hidden, keys, read_keys, shown, spellings
from evalscope_vacc.errors import ConfigError
from evalscope_vacc.hosts.entries import any_ours, is_ours, written
from evalscope_vacc.hosts.hooking import MARK, is_hooked, replace
from evalscope_vacc.hosts.logs import show_logs
from evalscope_vacc.hosts.spelling import check_shape, newer_spelling
from evalscope_vacc.plugins import plugins

Handler = Callable[[Any], Any]


# -- the classes of the configuration --------------------------------------------------------------------------------


def _change(cls: Any, fields: Mapping[str, Any], validate: Any, serialize: Any = None) -> None:
    """Adds optional fields to a pydantic class, and a validator and a serializer around it, in place."""
    known = cls.__dict__.get("__pydantic_fields__") or cls.model_fields
    for name, annotation in fields.items():
        known[name] = FieldInfo(annotation=annotation, default=None)
        cls.__annotations__[name] = annotation

    def quietly(value: Any, default: Any) -> Any:
        with warnings.catch_warnings():
            # EvalScope types its fields otherwise than what it puts there: each dump warned, in our name
            warnings.filterwarnings("ignore", "Pydantic serializer warnings", UserWarning)
            return serialize(value, default)

    def schema(_: Any, source: Any, handler: Any) -> Any:
        shown = core_schema.wrap_serializer_function_ser_schema(quietly) if serialize else None
        return core_schema.no_info_wrap_validator_function(validate, handler(source), serialization=shown)

    cls.__get_pydantic_core_schema__ = classmethod(schema)
    cls.model_rebuild(force=True)
    setattr(cls, MARK, True)


def _hook_entry(cls: Any) -> None:
    """Makes a model entry's class accept our keys where ``model_type`` is given, and nothing new where it is not."""
    known = set(cls.model_fields)
    own = [name for name in spellings() if name not in known]
    secret = {name for name, mark in keys().items() if mark.hide}
    fields: dict[str, Any] = dict.fromkeys(own, Any)
    # widened: one address or a list of them; a literal key is kept where neither repr() nor a dump shows it
    fields["api_base"] = Optional[Union[str, SecretStr, List[Union[str, SecretStr]]]]  # noqa: UP006, UP007, UP045
    fields["api_key"] = Optional[Union[SecretStr, str]]  # noqa: UP007, UP045

    def validate(data: Any, handler: Handler) -> Any:
        if not isinstance(data, Mapping):
            return handler(data)
        kind = data.get("model_type")
        stray = [name for name in data if name in own and data[name] is not None]
        if not kind:
            if stray:
                raise ConfigError(
                    f"the model entry {data.get('model_name') or data.get('model_name_or_path')!r} has {stray[0]!r} but "
                    f"no model_type: write model_type: {MODEL_TYPE}, or remove the key"
                )
            return handler(data)
        plugins().model_type(kind)
        where = f"model {data.get('model_name') or data.get('model_name_or_path')!r}"
        if kind == MODEL_TYPE:
            read_keys(data, where=where)
        # what EvalScope's class does not know at this place it takes among the arguments of a model
        strangers = {name: value for name, value in data.items() if name in ABOUT_WEIGHTS and name not in known}
        if strangers:
            kept = {name: value for name, value in data.items() if name not in strangers}
            data = {**kept, "model_kwargs": {**(data.get("model_kwargs") or {}), **strangers}}
        try:
            return handler({name: hidden(name, value) for name, value in data.items()})
        except ValidationError as error:
            raise ConfigError(explain(error, where)) from None

    def serialize(value: Any, default: Handler) -> Any:
        dumped = default(value)
        if not isinstance(dumped, dict):
            return dumped
        if not is_ours(value):
            return {name: item for name, item in dumped.items() if name not in own}
        # only what the user wrote: EvalScope's defaults (max_seq_length 512 …) do not hold for our models
        # secrets from the object: as JSON, pydantic has already made stars of the references among them
        return {
            name: shown(name, getattr(value, name) if name in secret else item)
            for name, item in dumped.items()
            if name in value.model_fields_set
        }

    _change(cls, fields, validate, serialize)


def hook_mteb_arguments(module: ModuleType) -> None:
    """``evalscope.backend.rag_eval.mteb.arguments``: model entries, the older spelling, errors without secrets."""
    if is_hooked(module.MTEBModelConfig):
        return
    _hook_entry(module.MTEBModelConfig)
    own = {"verbosity": Any, "dataset_paths": Any, "benchmarks": Any, "workers": Any}
    _change(module.MTEBEvalConfig, own, lambda data, handler: handler(data), _without_empty(*own))

    def validate(data: Any, handler: Handler) -> Any:
        if not isinstance(data, Mapping):
            return handler(data)
        if not any_ours(data.get("models") or data.get("model") or []):
            if isinstance(data.get("eval"), Mapping) and data["eval"].get("dataset_paths"):
                raise ConfigError(
                    f"eval.dataset_paths is for runs with a model of model_type: {MODEL_TYPE}; EvalScope would load the hub's"
                )
            return handler(data)
        show_logs("evalscope")
        check_shape(data)
        try:
            return handler(newer_spelling(data))
        except ValidationError as error:
            raise ConfigError(explain(error, "eval_config")) from None

    _change(module.MTEBToolConfig, {}, validate)


def _without_empty(*names: str) -> Any:
    def serialize(value: Any, default: Handler) -> Any:
        dumped = default(value)
        if isinstance(dumped, dict):
            for name in names:
                if dumped.get(name) is None:
                    dumped.pop(name, None)
        return dumped

    return serialize


def hook_ragas_arguments(module: ModuleType) -> None:
    """``evalscope.backend.rag_eval.ragas.arguments``: embeddings of the RAGAS tool may be ours."""
    if getattr(module, "RAGASEmbeddingConfig", None) is None or is_hooked(module.RAGASEmbeddingConfig):
        return
    _hook_entry(module.RAGASEmbeddingConfig)
    for name in ("RAGASEvalConfig", "RAGASTestsetGenerationConfig", "RAGASToolConfig"):
        cls = getattr(module, name, None)
        if cls is not None:
            cls.model_rebuild(force=True)


# -- the functions ---------------------------------------------------------------------------------------------------


def hook_models(module: ModuleType) -> None:
    """``evalscope.backend.rag_eval.models``: ``load_model`` builds our models, and leaves the others to EvalScope."""

    def make(original: Any) -> Any:
        def load_model(config: Any) -> Any:
            if not is_ours(config):
                return original(config)
            from evalscope_vacc.models import load_model as load

            return load(written(config))

        return load_model

    replace(
        module,
        "load_model",
        make,
        ("evalscope.backend.rag_eval", "evalscope.backend.rag_eval.mteb.task_template"),
    )


def hook_run(module: ModuleType) -> None:
    """``evalscope.backend.rag_eval.mteb.task_template``: runs with one of our models are run by us."""

    def make(original: Any) -> Any:
        def run_mteb_eval(config: Any) -> Any:
            if not any_ours(config.models):
                return original(config)
            from evalscope_vacc.hosts.evalscope_run import run_tool

            return run_tool(config, module)

        return run_mteb_eval

    replace(module, "run_mteb_eval", make, ("evalscope.backend.rag_eval.mteb",))


def _embeddings(original: Any) -> Any:
    def build(embedding_config: Any) -> Any:
        if not is_ours(embedding_config):
            return original(embedding_config)
        from ragas.embeddings.base import LangchainEmbeddingsWrapper

        from evalscope_vacc.models import load_model as load

        return LangchainEmbeddingsWrapper(load(written(embedding_config)))

    return build


def hook_ragas_run(module: ModuleType) -> None:
    """``evalscope.backend.rag_eval.ragas.task_template``: builds our embeddings where they are asked for."""
    replace(module, "_build_embeddings", _embeddings)


def hook_ragas_testset(module: ModuleType) -> None:
    """``evalscope.backend.rag_eval.ragas.tasks.testset_generation``: the same."""
    replace(module, "_build_ragas_embeddings", _embeddings)
