"""The name of a result: MTEB's ``ModelMeta`` of a served model.

What changes a score and is known without the server is part of the name: the served name and the revision as the path,
the rest in ``experiment_kwargs``, of which MTEB makes a folder name. Short keys, and only values that differ from the
defaults, because MTEB hashes names of more than 200 characters.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evalscope_vacc.config import ModelConfig, keys, named_keys
from evalscope_vacc.errors import VaccError
from evalscope_vacc.plugins import plugins
from evalscope_vacc.text.instructions import BUILT_IN_PROFILES, make_profile

ORGANISATION = "vacc"
_SAFE = re.compile(r"[^A-Za-z0-9._+-]")

OF_THE_RUN = ("first", "top_k", "limit")
"""Short keys of what the host decides; those of the model are the names in its keys' marks."""


def result_name(model_name: str) -> str:
    """Returns the name under which MTEB files the results: never the official one, whose scores may lie in a cache.

    A leaderboard cache answers for official names without running anything; an organisation of our own cannot collide.
    """
    return f"{ORGANISATION}/{model_name}"


def experiment_kwargs(
    config: ModelConfig, *, first: str | None = None, top_k: int | None = None, limit: int | None = None
) -> dict[str, Any]:
    """Returns the settings that distinguish this run's scores from a run with the defaults.

    Args:
        config: The served model.
        first: Identity of the first stage (8 hex digits), for a cross-encoder that reranks.
        top_k: How many candidates it got.
        limit: The run's ``eval.limits``.
    """
    settings: dict[str, Any] = {}
    for short, names in named_keys(type(config)).items():
        if len(names) > 1:
            value, default = _digest_of(config, names), None
        else:
            value, default = getattr(config, names[0]), config.fallback(names[0])
            value = _profile(config) if names[0] == "instruction_profile" else value
        if value is not None and value != default:
            settings[short] = value
    if config.catalog_prompts != config.card_prompts:
        settings["profile"] = _profile(config)  # a profile that is written out switches the catalog's prompts off
    of_the_run = zip(OF_THE_RUN, (first, top_k, limit), strict=True)
    return settings | {short: value for short, value in of_the_run if value is not None}


def _digest_of(config: ModelConfig, names: Sequence[str]) -> str | None:
    """8 hex digits of the values of several keys; None where all of them are empty."""
    marks = keys(type(config))
    values = {name: value for name in names if (value := getattr(config, name)) != config.fallback(name)}
    values = {name: values.get(name) for name in names}
    files = [values[name] for name in names if marks[name].file]
    # in this form since the first release: earlier results are found under these digests
    rules = tuple(
        sorted((value or {}).items()) if name == "prompts" else value
        for name, value in values.items()
        if not marks[name].file
    )
    if not any(rules) and not any(files):
        return None
    return _digest(repr(rules), *(_file_digest(file) for file in files))


def _profile(config: ModelConfig) -> str:
    """The profile's name, or a plugin's own fingerprint of what it sends."""
    name = config.instruction_profile
    if name in BUILT_IN_PROFILES:
        return name
    try:
        profile = make_profile(
            name,
            instruction_template=config.instruction_template,
            instruction_dict_path=config.instruction_dict_path,
            extra=plugins().instruction_profiles(),
        )
    except VaccError:
        return name  # the model itself says what is wrong
    return str(getattr(profile, "fingerprint", name))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


def _file_digest(path: str | None) -> str:
    """A dictionary's content decides the texts, not where it lies."""
    if path is None or path == "metadata":
        return path or ""
    try:
        return hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest()
    except OSError:
        return path


def first_stage_digest(*parts: str) -> str:
    """Returns 8 hex digits that stand for a first stage: its name, revision and settings, or its prediction files."""
    return _digest(*parts)


def build_meta(
    config: ModelConfig,
    *,
    loader: Callable[..., Any] | None = None,
    embed_dim: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Any:
    """Returns the ``ModelMeta``, for every MTEB from 1.38 to 2.x.

    Where that class has no ``experiment_kwargs`` yet, the settings become part of the revision, so that two different
    runs never share a cached score there either.
    """
    try:
        from mteb.models.model_meta import ModelMeta
    except ImportError:  # mteb 1.x
        from mteb.model_meta import ModelMeta

    settings = dict(experiment_kwargs(config) if settings is None else settings)
    fields = ModelMeta.model_fields
    revision = config.revision
    values: dict[str, Any] = {
        "loader": loader,
        "name": result_name(config.model_name),
        "languages": None,
        "release_date": None,
        "n_parameters": None,
        "memory_usage_mb": None,
        "max_tokens": config.max_tokens,
        "embed_dim": embed_dim or config.dimensions,
        "license": None,
        "open_weights": None,
        "public_training_code": None,
        "public_training_data": None,
        "framework": ["API"],
        "similarity_fn_name": "cosine",
        "use_instructions": config.instruction_profile != "none" or config.rerank_template != "none",
        "training_datasets": None,
    }
    if "model_type" in fields:
        values["model_type"] = ["cross-encoder" if config.is_cross_encoder else "dense"]
    else:
        values["is_cross_encoder"] = config.is_cross_encoder
    if "experiment_kwargs" in fields:
        values["experiment_kwargs"] = settings or None
    elif settings:
        revision += "__" + "__".join(f"{key}_{_SAFE.sub('-', str(value))}" for key, value in sorted(settings.items()))
    return ModelMeta(revision=revision, **values)
