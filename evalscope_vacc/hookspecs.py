"""What a plugin may add. A plugin is a module or object of the entry-point group ``evalscope_vacc``.

Each hook hands over a ``register`` function, to be called once per thing added:

    from evalscope_vacc import hookimpl

    @hookimpl
    def register_instruction_profiles(register):
        register("my-profile", MyProfile)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from evalscope_vacc.catalog import Entry
    from evalscope_vacc.text.instructions import InstructionProfile
    from evalscope_vacc.text.templates import RerankTemplate
    from evalscope_vacc.wire.dialects import Dialect

PROJECT = "evalscope_vacc"
MODEL_TYPE = "vacc_api"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_model_types(register: Callable[[str, Callable[..., Any]], None]) -> None:
    """Adds model types: ``register(name, build)``.

    ``name`` is what users write as ``model_type``; ``build(mapping)`` gets the model's entry as a dictionary and
    returns an object of MTEB's ``EncoderProtocol`` or ``CrossEncoderProtocol``.
    """


@hookspec
def register_instruction_profiles(register: Callable[[str, Callable[..., InstructionProfile]], None]) -> None:
    """Adds instruction profiles: ``register(name, factory)``.

    ``factory(instruction_template=…, instruction_dict_path=…)`` returns an ``InstructionProfile``.
    """


@hookspec
def register_rerank_templates(register: Callable[[str, RerankTemplate], None]) -> None:
    """Adds templates of cross-encoders: ``register(name, template)``."""


@hookspec
def register_dialects(register: Callable[[str, Callable[[], Dialect]], None]) -> None:
    """Adds dialects of servers: ``register(name, make)``; ``make()`` returns a ``Dialect``."""


@hookspec
def register_catalog_entries(register: Callable[[str, Entry], None]) -> None:
    """Adds served models to the catalog: ``register(entry.name, entry)``."""
