"""The demo server for these tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "servers"))

from demo_process import running_demo_server

from evalscope_vacc.demo import DemoServer


@pytest.fixture(scope="session")
def demo_server() -> Iterator[DemoServer]:
    """Real all-MiniLM-L6-v2 behind HTTP, started once."""
    with running_demo_server() as server:
        yield server
