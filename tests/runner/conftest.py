"""What the runner's tests share: the command in a warm process, and servers with real weights."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from loopback_server import Got, Reply
from warm_process import Started, WarmProcess

sys.path.insert(0, str(Path(__file__).parents[1] / "checks"))
from sound_server import SoundServer


class Model(SoundServer):
    """A sound model; ``before_vectors`` is called with the texts of each request, before its answer."""

    def __init__(self) -> None:
        super().__init__("minilm")
        self.before_vectors: Callable[[list[str]], None] = lambda texts: None

    def _answer(self, got: Got, sock: socket.socket) -> Reply | None:
        if got.path == "/v1/embeddings":
            given = got.json()["input"]
            self.before_vectors([given] if isinstance(given, str) else given)
        return super()._answer(got, sock)


@pytest.fixture
def model() -> Iterator[Model]:
    """A served model that is in order."""
    with Model() as server:
        yield server


@dataclass
class Done:
    """A command that has ended."""

    status: int | None
    output: str

    def json(self) -> dict[str, Any]:
        """The object that it printed."""
        found: dict[str, Any] = json.loads(self.output[self.output.rindex("\n{\n") :])
        return found

    @property
    def lines(self) -> list[str]:
        return self.output.splitlines()


@pytest.fixture
def begin(warm: WarmProcess, tmp_path: Path) -> Callable[..., Started]:
    """Starts ``evalscope-vacc run`` with these arguments in ``tmp_path``."""

    def start(*arguments: str | Path, command: str = "run", **environment: str) -> Started:
        told = {"VACC_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1", **environment}
        return warm.start(["evalscope-vacc", command, *map(str, arguments)], tmp_path, environment=told)

    return start


@pytest.fixture
def command(begin: Callable[..., Started]) -> Callable[..., Done]:
    """Runs the command to its end."""

    def run(*arguments: str | Path, **environment: str) -> Done:
        started = begin(*arguments, **environment)
        return Done(started.wait(), "\n" + started.output())

    return run
