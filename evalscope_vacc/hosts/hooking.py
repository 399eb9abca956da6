"""Puts functions of ours in the place of a host's."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from typing import Any

MARK = "__evalscope_vacc__"
"""What a function or class of a host's has that was changed."""


def is_hooked(thing: Any) -> bool:
    """Whether it was changed already."""
    return bool(getattr(thing, MARK, False))


def replace(owner: Any, name: str, make: Callable[[Any], Any], importers: Iterable[str] = ()) -> None:
    """Replaces a function of a module or class once, also where it has been imported by name already.

    Args:
        owner: The module or class; nothing is done where it has no such function.
        name: The function's name.
        make: Makes the new function of the old one.
        importers: Names of modules that may have imported it.
    """
    original = getattr(owner, name, None)
    if original is None or is_hooked(original):
        return
    wrapped = functools.wraps(original)(make(original))
    setattr(wrapped, MARK, True)
    setattr(owner, name, staticmethod(wrapped) if isinstance(vars(owner).get(name), staticmethod) else wrapped)
    for importer in importers:
        # a module may have the name of a function in it: only the function itself is replaced
        other = sys.modules.get(importer)
        if other is not None and vars(other).get(name) is original:
            setattr(other, name, wrapped)
