"""Where served models are, for hosts that pass a name and nothing else (``mteb run -m vacc/NAME``).

``endpoints.toml`` in the user's configuration folder holds a table per model, ``[endpoints."vacc/NAME"]``, with every key
of a model's entry; without one, ``VACC_API_BASE`` and ``VACC_API_KEY`` and the catalog say the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evalscope_vacc.config import MODEL_TYPE, ModelConfig, configure, overlaid
from evalscope_vacc.errors import ConfigError
from evalscope_vacc.files import read_bounded
from evalscope_vacc.models.meta import ORGANISATION
from evalscope_vacc.paths import given_home, settings_folder

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PREFIX = f"{ORGANISATION}/"
MAX_BYTES = 1 << 20


def is_ours(name: str) -> bool:
    """Whether MTEB's name of a model means a served one: ``vacc/NAME``, NAME may hold slashes."""
    return isinstance(name, str) and name.startswith(PREFIX) and len(name) > len(PREFIX)


def endpoints_file() -> Path:
    """``endpoints.toml`` in ``$VACC_HOME``, where that is set and has one, else in the user's configuration folder."""
    home = given_home()
    if home and (home / "endpoints.toml").is_file():
        return home / "endpoints.toml"
    return settings_folder() / "endpoints.toml"


def read_endpoints(path: Path | None = None) -> dict[str, dict[str, Any]]:
    """Returns name to keys; nothing where there is no file.

    Raises:
        ConfigError: The file cannot be read as what it should be; the place is named.
    """
    path = path or endpoints_file()
    try:
        content = tomllib.loads(read_bounded(path, MAX_BYTES).decode())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    endpoints = content.get("endpoints", {})
    if not isinstance(endpoints, dict) or not all(isinstance(v, dict) for v in endpoints.values()):
        raise ConfigError(f'{path}: expected one table a model, such as [endpoints."vacc/NAME"]')
    return endpoints


def endpoint_config(name: str, options: Mapping[str, Any] | None = None) -> ModelConfig:
    """Returns the configuration of ``vacc/NAME``: the options first, then endpoints.toml, then the environment.

    Raises:
        ConfigError: No address is known, or a key or value cannot be used.
    """
    where = f"endpoint {name!r}"
    named = {"model_type": MODEL_TYPE, "model_name": name.removeprefix(PREFIX)}
    return configure(overlaid(where, named, read_endpoints().get(name, {}), options or {}), where=where)
