"""What the hub's libraries read from the environment when they are imported, and what of it a run sets for itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any


@contextmanager
def offline() -> Iterator[None]:
    """Inside the block this process asks no hub, as with ``HF_HUB_OFFLINE=1`` from its start."""
    with _settings({"HF_HUB_OFFLINE": True, "HF_DATASETS_OFFLINE": True}):
        yield


@contextmanager
def cache_in(folder: Path) -> Iterator[None]:
    """Inside the block the hub's libraries, of this process and of those that it starts, keep their files in a folder.

    The user's token stays where it is, so that it is no part of the folder.
    """
    places = {"HF_HUB_CACHE": "hub", "HF_DATASETS_CACHE": "datasets", "HF_MODULES_CACHE": "modules"}
    # without links the folder can be carried on any disk
    with _settings({**{name: str(folder / place) for name, place in places.items()}, "HF_HUB_DISABLE_SYMLINKS": True}):
        yield


@contextmanager
def _settings(values: Mapping[str, str | bool]) -> Iterator[None]:
    """Sets what the hub's libraries read from the environment, also where they were imported before."""
    before = {name: os.environ.get(name) for name in values}
    changed: list[tuple[Any, str, Any]] = []
    try:
        # first the environment: a library that is imported now works out from it what else it needs
        os.environ.update({name: "1" if value is True else str(value) for name, value in values.items()})
        import datasets
        from huggingface_hub import constants

        for module in (constants, datasets.config):
            for name in filter(partial(hasattr, module), values):
                changed.append((module, name, getattr(module, name)))
                setattr(module, name, values[name])
        yield
    finally:
        for module, name, value in changed:
            setattr(module, name, value)
        for name, text in before.items():
            os.environ.pop(name, None)
            if text is not None:
                os.environ[name] = text
