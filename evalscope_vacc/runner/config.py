"""The configuration of a run: what EvalScope is given, made from addresses or read from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from evalscope_vacc.catalog import find
from evalscope_vacc.checks.run import find_entry
from evalscope_vacc.config import MODEL_TYPE, ModelConfig, configure, shown
from evalscope_vacc.errors import ConfigError, VaccError
from evalscope_vacc.redact import MASK
from evalscope_vacc.results.model import Reference
from evalscope_vacc.runner.options import Options
from evalscope_vacc.task_file import read_rageval
from evalscope_vacc.wire.address import is_address

HUB = "huggingface"
KEY_REFERENCE = "${VACC_API_KEY}"


def configuration(options: Options) -> dict[str, Any]:
    """Returns ``{tool, models, eval}`` as EvalScope takes it; servers of addresses are asked what they serve.

    Raises:
        ConfigError: The options cannot be used, or a server serves several models and none was named.
        ServerError: A server did not answer, or refuses the key.
    """
    addresses = [target for target in options.targets if is_address(target)]
    if not addresses and len(options.targets) == 1:
        found = _from_file(Path(options.targets[0]), options)
    elif len(addresses) == len(options.targets):
        found = {"tool": "MTEB", "models": _from_addresses(addresses, options), "eval": {}}
    else:
        other = next(target for target in options.targets if target not in addresses)
        raise ConfigError(f"{other}: give addresses such as http://host:8000, or one configuration file")
    if options.first_stage is not None:
        found["models"] = [_reranking(entry, options.first_stage) for entry in found["models"]]
    evaluation = dict(found.get("eval") or {})
    if options.tasks or options.benchmarks or options.preset:
        for name in ("task_names", "tasks", "task_types", "benchmarks"):
            evaluation.pop(name, None)
    if options.tasks:
        evaluation["task_names"] = list(options.tasks)
    if options.benchmarks:
        evaluation["benchmarks"] = list(options.benchmarks)
    if options.workers is not None:
        evaluation["workers"] = options.workers
    evaluation["hub"] = HUB if options.data else options.hub or evaluation.get("hub") or HUB
    # a task that an earlier start of this run finished is not done again
    evaluation["overwrite_results"] = False
    return {**found, "eval": evaluation}


def served(config: Mapping[str, Any]) -> list[ModelConfig]:
    """Returns the complete configurations of the served models.

    Raises:
        ConfigError: One cannot be used.
    """
    return [
        configure(entry, where=f"model {entry.get('model_name', '?')!r}")
        for entry in config["models"]
        if entry.get("model_type") == MODEL_TYPE
    ]


def with_templates(
    config: Mapping[str, Any], options: Options, references: Sequence[Reference]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Gives rerankers of addresses the template that their published scores were made with, unless the user set one.

    Returns:
        The configuration, and model to template where that is another one than the model's own.
    """
    reference = next((one for one in references if one.kind == "cross-encoder" and one.conditions.template), None)
    changed: dict[str, str] = {}
    if reference is None or "rerank_template" in options.settings or not is_address(options.targets[0]):
        return dict(config), changed
    template = str(reference.conditions.template)
    models = []
    for entry in config["models"]:
        model = configure(entry)
        own = find(model.model_name)
        if model.is_cross_encoder and template not in (model.rerank_template, own.template_family if own else None):
            changed[model.model_name] = template
        models.append({**entry, "rerank_template": template} if model.model_name in changed else entry)
    return {**config, "models": models}, changed


def to_keep(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the configuration as it may be written to disk: a literal key becomes a reference to the environment."""
    models = []
    for entry in config["models"]:
        kept = {name: shown(name, value) for name, value in entry.items()}
        if kept.get("api_key") == MASK:
            kept["api_key"] = KEY_REFERENCE
        models.append(kept)
    # where it is written and how many processes do it change nothing of what a run is
    evaluation = {name: value for name, value in config["eval"].items() if name not in ("output_folder", "workers")}
    return {**config, "models": models, "eval": evaluation}


def _reranking(entry: Mapping[str, Any], first_stage: Path) -> dict[str, Any]:
    """An entry with its first stage, where it is a reranker's."""
    if entry.get("model_type") != MODEL_TYPE or not configure(entry).is_cross_encoder:
        return dict(entry)
    return {**entry, "embed_results": str(first_stage.absolute())}


def secrets_of(path: Path) -> tuple[str, ...]:
    """Returns the secrets of a file's models; an entry that cannot be used has none that are known."""
    inner = read_rageval(path)
    entries = inner.get("models") or inner.get("model")
    found: list[str] = []
    for entry in entries if isinstance(entries, list) else ():
        with suppress(VaccError):
            found += configure(entry).secrets
    return tuple(found)


def _from_addresses(addresses: Sequence[str], options: Options) -> list[dict[str, Any]]:
    names = list(options.models)
    if len(names) not in (0, len(addresses)):
        raise ConfigError(
            f"--model is given {len(names)} times for {len(addresses)} addresses: name each model, or none"
        )
    settings = dict(options.settings)
    found = []
    for number, address in enumerate(addresses):
        url = address if "://" in address else f"http://{address}"
        name = names[number] if names else None
        entry = find_entry(url, model=name, api_key=options.key, dialect=settings.get("dialect"))
        found.append({"model_type": MODEL_TYPE, **entry, **settings})
    kinds = [configure(entry, where=address).is_cross_encoder for entry, address in zip(found, addresses, strict=True)]
    if len(found) == 2 and kinds.count(True) != 1:
        kind = "rerankers" if all(kinds) else "encoders"
        raise ConfigError(f"both addresses serve {kind}: give an encoder's and that of the reranker of what it finds")
    return found


def _from_file(path: Path, options: Options) -> dict[str, Any]:
    inner = read_rageval(path)
    models = inner.get("models") or inner.get("model")
    if not isinstance(models, list) or not all(isinstance(entry, Mapping) for entry in models):
        raise ConfigError(f"{path}: expected a list `models`, as `evalscope eval --eval-config` takes it")
    if options.models:
        names = [str(entry.get("model_name")) for entry in models]
        unknown = [name for name in options.models if name not in names]
        if unknown:
            raise ConfigError(f"{path}: no model is named {unknown[0]!r}; there are {', '.join(names)}")
        models = [entry for entry in models if entry.get("model_name") in options.models]
    ours = {"model_type": MODEL_TYPE, **options.settings, **({"api_key": options.key} if options.key else {})}
    entries = [{**entry, **ours} if entry.get("model_type") == MODEL_TYPE else dict(entry) for entry in models]
    if not any(entry.get("model_type") == MODEL_TYPE for entry in entries):
        raise ConfigError(f"{path}: no model has model_type: {MODEL_TYPE}; the others are not served ones")
    return {"tool": inner.get("tool", "MTEB"), "models": entries, "eval": dict(inner.get("eval") or {})}
