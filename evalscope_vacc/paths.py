"""Where this package keeps files: under ``$VACC_HOME`` where that is set, else in the folders that the platform has for it."""

from __future__ import annotations

import os
from pathlib import Path

_NAME = "evalscope-vacc"


def given_home() -> Path | None:
    """``$VACC_HOME``, where it is set."""
    home = os.environ.get("VACC_HOME")
    return Path(home).expanduser() if home else None


def cache_folder() -> Path:
    """What can be made or fetched again: fetched prompts, the store, evidence of runs without a folder of their own."""
    if home := given_home():
        return home
    # imported when it is needed: `import evalscope_vacc` is to cost two milliseconds
    from platformdirs import user_cache_path

    return user_cache_path(_NAME)


def data_folder() -> Path:
    """What the user collected."""
    if home := given_home():
        return home
    from platformdirs import user_data_path

    return user_data_path(_NAME, appauthor=False)


def settings_folder() -> Path:
    """What the user wrote; the platform's folder, as ``$VACC_HOME`` need not hold settings."""
    from platformdirs import user_config_path

    return user_config_path(_NAME)
