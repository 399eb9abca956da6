"""Which settings make a score another measurement, and under which names a run leaves word of them.

Those of a model are its configuration's keys that have a name in the result (:class:`evalscope_vacc.config.Key`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, get_args

from evalscope_vacc import config


@dataclass(frozen=True)
class Setting:
    """One setting."""

    name: str  # in :class:`evalscope_vacc.results.model.Conditions`
    # the keys that may hold it in a result's name and in the evidence, ours first; the others are what plain MTEB
    # runs call it
    spellings: tuple[str, ...]
    compared: bool = False  # whether runs that differ in it may not be compared
    integer: bool = False  # whether it is a whole number
    of_model: bool = False  # whether it is a key of the model and not of the run
    in_name: bool = True  # whether a result's name says it where it is not the default
    catalog: str = ""  # the attribute of a catalog entry that says the model's default
    default: Any = None  # the default of every other model


_OF_THE_RUN = (
    Setting("top_k", ("top_k",), compared=True, integer=True),
    Setting("first_stage", ("first", "first_stage"), compared=True),
    Setting("limit", ("limit", "limits"), integer=True),
    Setting("dtype", ("dtype", "torch_dtype"), in_name=False),
)
_CALLED = {"instruction_profile": "profile", "rerank_template": "template"}
_ELSEWHERE = {"max_tokens": ("max_length",), "dimensions": ("truncate_dim",)}


def settings() -> tuple[Setting, ...]:
    """Returns every setting: the model's in the order of its keys, then the run's."""
    return _settings(config.ModelConfig)


@lru_cache(maxsize=2)
def _settings(model: type[config.ModelConfig]) -> tuple[Setting, ...]:
    return (*_of_the_model(model), *_OF_THE_RUN)


def _of_the_model(model: type[config.ModelConfig]) -> Iterator[Setting]:
    marks = config.keys(model)
    for short, names in config.named_keys(model).items():
        key = names[0]
        mark, field = marks[key], model.model_fields[key]
        if len(names) > 1:  # a digest of all of them, which stands under the short name only
            yield Setting(short, (short,), mark.compared, of_model=True)
            continue
        name = _CALLED.get(key, key)
        spellings = (short, key, *_ELSEWHERE.get(key, ()), *mark.older)
        kinds = [getattr(kind, "__origin__", kind) for kind in (field.annotation, *get_args(field.annotation))]
        yield Setting(
            name,
            tuple(dict.fromkeys(spellings)),
            mark.compared,
            integer=int in kinds,
            of_model=True,
            catalog=mark.catalog,
            default=field.default,
        )
