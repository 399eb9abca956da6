"""The older line of EvalScope (1.3.0 to 1.8.0) with mteb 1.38, as the accelerator's guide installs it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from served_model import ServedModel

sys.path.insert(0, str(Path(__file__).resolve().parent))
from legacy_runs import evalscope_version


@pytest.fixture(scope="session")
def legacy_host() -> tuple[int, ...]:
    """The version of an EvalScope of the older line; skips on the newer one."""
    have = evalscope_version()
    if not have or have >= (1, 8, 1):
        pytest.skip(f"needs EvalScope 1.3.0 to 1.8.0 (nox -s legacy), found {'.'.join(map(str, have)) or 'none'}")
    # EvalScope's handlers keep the stream of the test that imported it
    logging.raiseExceptions = False
    return have


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves to the session `legacy-full` (VACC_TEST_FULL=1) what is marked for it."""
    if os.environ.get("VACC_TEST_FULL") == "1":
        return
    left = [item for item in items if item.get_closest_marker("full")]
    items[:] = [item for item in items if item not in left]
    config.hook.pytest_deselected(items=left)


@pytest.fixture
def encoder() -> Iterator[ServedModel]:
    with ServedModel("some-encoder") as server:
        yield server


@pytest.fixture
def reranker() -> Iterator[ServedModel]:
    with ServedModel("some-reranker", kind="cross-encoder") as server:
        yield server
