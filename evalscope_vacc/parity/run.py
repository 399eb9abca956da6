"""One comparison from beginning to end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evalscope_vacc.config import ModelConfig
from evalscope_vacc.errors import ConfigError
from evalscope_vacc.parity.compare import PairParity, VectorParity, compare_scores, compare_vectors
from evalscope_vacc.parity.plots import need_plots, plot_scores, plot_vectors
from evalscope_vacc.parity.reference import ServedSide, open_reference
from evalscope_vacc.parity.stored import save as save_answers
from evalscope_vacc.parity.stored import text_hash
from evalscope_vacc.parity.texts import Sample, own_pairs, own_samples, task_samples
from evalscope_vacc.parity.thresholds import threshold


@dataclass(frozen=True)
class ParityResult:
    """What a comparison gave.

    Attributes:
        model: Served name.
        served: What was asked.
        reference: What it was compared with; "" where answers were only stored.
        dtype: Whose thresholds hold.
        texts: Where the texts are from.
        found: The measures; None where answers were only stored.
        files: What was written.
        seconds: What it took.
    """

    model: str
    served: str
    reference: str
    dtype: str
    texts: str
    found: VectorParity | PairParity | None
    files: tuple[Path, ...] = ()
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def exit_status(self) -> int:
        """0 where it passes, else 1."""
        return int(self.found is not None and not self.found.passed)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "model": self.model,
            "served": self.served,
            "reference": self.reference,
            "dtype": self.dtype,
            "texts_from": self.texts,
            "server": self.facts,
            "files": [str(path) for path in self.files],
            "seconds": round(self.seconds, 3),
            **(self.found.to_json() if self.found is not None else {}),
        }


def run_parity(
    config: ModelConfig,
    reference: str | None,
    *,
    dtype: str = "float32",
    save: Path | None = None,
    plots: Path | None = None,
    task: str | None = None,
    reference_model: str | None = None,
    reference_key: str | None = None,
) -> ParityResult:
    """Sends the same texts through a server and through a reference.

    Args:
        config: The served model.
        reference: As :func:`~evalscope_vacc.parity.reference.open_reference` takes it; None = only store.
        dtype: Number format of the served weights; chooses the thresholds.
        save: Where the served answers are stored.
        plots: Folder for plots.
        task: An MTEB task whose texts are used instead of our own.
        reference_model: Served name at a reference server.
        reference_key: API key of a reference server.

    Raises:
        ConfigError: Something given cannot be used.
        ServerError: A server could not be asked, or gave an answer that cannot be right.
    """
    start = time.monotonic()
    limits = threshold(dtype)
    if reference is None and save is None:
        raise ConfigError("nothing to compare with: give --reference, or --save to store the served answers")
    if plots is not None:
        need_plots()
    if task is not None and config.is_cross_encoder:
        raise ConfigError("--task is for embedding models; a reranker is compared on our own pairs")
    samples = task_samples(task) if task is not None else own_samples()
    queries, documents = own_pairs()
    served = ServedSide(config)
    other = None
    try:
        facts = served.facts()
        if reference is not None:
            template = served.template if config.is_cross_encoder else None
            other = open_reference(reference, config, model=reference_model, key=reference_key, template=template)
        found: VectorParity | PairParity | None = None
        files: list[Path] = []
        if config.is_cross_encoder:
            scores = served.scores(queries, documents)
            keys = [text_hash(query, document) for query, document in zip(queries, documents, strict=True)]
            _save(save, "scores", keys, scores, served, facts, files)
            if other is not None:
                pairs = compare_scores(queries, scores, other.scores(queries, documents), limits)
                found = pairs
                files += _plot(plots, lambda folder: plot_scores(folder, config.model_name, pairs))
        else:
            texts = [s.text for s in samples]
            vectors = served.vectors(texts)
            _save(save, "vectors", [text_hash(text) for text in texts], vectors, served, facts, files)
            if other is not None:
                measured = compare_vectors(samples, vectors, other.vectors(texts), limits)
                found = measured
                files += _plot(
                    plots, lambda folder: _vector_plots(folder, config.model_name, samples, measured, limits.least)
                )
        return ParityResult(
            config.model_name,
            served.about,
            other.about if other is not None else "",
            dtype,
            task or "our own list",
            found,
            tuple(files),
            time.monotonic() - start,
            facts,
        )
    finally:
        served.close()
        if other is not None:
            other.close()


def _save(
    path: Path | None,
    kind: str,
    keys: Sequence[str],
    values: np.ndarray[Any, Any],
    served: ServedSide,
    facts: dict[str, Any],
    files: list[Path],
) -> None:
    if path is not None:
        save_answers(path, kind, keys, values, {"served": served.about, **facts})
        files.append(path)


def _plot(folder: Path | None, draw: Callable[[Path], list[Path]]) -> list[Path]:
    return [] if folder is None else draw(folder)


def _vector_plots(folder: Path, model: str, samples: Sequence[Sample], found: VectorParity, least: float) -> list[Path]:
    # vectors of two sizes have no cosines to draw
    return plot_vectors(folder, model, samples, found, least) if np.isfinite(found.absolute) else []
