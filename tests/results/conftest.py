"""Builds result folders the way the hosts write them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).parent / "data"
GOLDEN = Path(__file__).parent / "golden"

Write = Callable[..., Path]


@pytest.fixture
def data() -> Path:
    """Results that real hosts wrote."""
    return DATA


@pytest.fixture
def golden() -> Path:
    """What the outputs must look like."""
    return GOLDEN


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores that the developer collected must not decide a test."""
    monkeypatch.setenv("VACC_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def write_run(tmp_path: Path) -> Write:
    """Writes one run in MTEB 2.x's layout and returns the folder that holds ``results``."""

    def write(
        scores: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float] | float]]],
        *,
        model: str = "vacc/minilm",
        revision: str = "served-1234abcd",
        kwargs: Mapping[str, Any] | None = None,
        cross_encoder: bool = False,
        mteb_version: str = "2.26.24",
        dataset_revision: str | None = "rev1",
        folder: str = "run",
        metric: str = "cosine_spearman",
    ) -> Path:
        root = tmp_path / folder
        place = root / "results" / model.replace("/", "__") / revision
        if kwargs:
            place = place / "experiments" / "__".join(f"{k}_{v}" for k, v in sorted(kwargs.items()))
        place.mkdir(parents=True, exist_ok=True)
        meta = {"name": model, "revision": revision, "experiment_kwargs": dict(kwargs) if kwargs else None}
        meta["model_type"] = ["cross-encoder" if cross_encoder else "dense"]
        (place / "model_meta.json").write_text(json.dumps(meta))
        for task, splits in scores.items():
            content = {
                "task_name": task,
                "mteb_version": mteb_version,
                "dataset_revision": dataset_revision,
                "scores": {
                    split: [
                        {**_metrics(value, metric), "hf_subset": subset, "languages": ["eng-Latn"]}
                        for subset, value in subsets.items()
                    ]
                    for split, subsets in splits.items()
                },
                "evaluation_time": 1.0,
                "kg_co2_emissions": None,
            }
            (place / f"{task}.json").write_text(json.dumps(content))
        return root

    return write


def _metrics(value: Mapping[str, float] | float, metric: str) -> dict[str, float]:
    if isinstance(value, Mapping):
        return {**value, "main_score": next(iter(value.values()))}
    return {metric: value, "main_score": value}
