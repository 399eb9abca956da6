"""An encoder and a reranker, by their addresses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sound_server import SoundServer

pytestmark = pytest.mark.host
pytest.importorskip("mteb", minversion="2.7", reason="the newer line's tests")

TASK = "VaccDemoRetrieval"


@pytest.fixture
def reranker() -> Iterator[SoundServer]:
    with SoundServer("some-reranker", kind="cross-encoder") as server:
        yield server


def scores(done: Any) -> dict[tuple[str, str], float]:
    return {(row["model"], row["subset"]): row["ours"] for row in done.json()["rows"]}


@pytest.mark.slow
def test_a_reranker_orders_what_the_encoder_or_its_run_found(
    command: Callable[..., Any], model: SoundServer, reranker: SoundServer, tmp_path: Path
) -> None:
    alone = command(model.base, "--tasks", TASK, "--against", "none", "--json")
    assert alone.status == 0, alone.output
    both = command(model.base, reranker.base, "--tasks", TASK, "--against", "none", "--json")
    assert both.status == 0, both.output
    assert Path(both.json()["files"]["run"]).parent == tmp_path / "outputs" / "minilm+some-reranker"
    found = scores(both)
    assert {model for model, _ in found} == {"vacc/minilm", "vacc/some-reranker"}
    stored = command(
        reranker.base, "--tasks", TASK, "--first-stage", alone.json()["files"]["run"], "--against", "none", "--json"
    )
    assert stored.status == 0, stored.output
    assert scores(alone) | scores(stored) == found


def test_two_encoders_are_refused_in_a_line(command: Callable[..., Any], model: SoundServer) -> None:
    with SoundServer("other") as other:
        done = command(model.base, other.base, "--tasks", TASK, "--against", "none")
    assert done.status == 2
    assert "both addresses serve encoders" in done.output
