"""Does a server answer what its weights answer? The same texts through both, and what a difference looks like."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from evalscope_vacc.checks.compare import PairParity, Sign, VectorParity, compare_scores, compare_vectors
from evalscope_vacc.checks.plots import need_plots, plot_scores, plot_vectors
from evalscope_vacc.checks.reference import LocalEncoder, ServedSide, Side, open_reference
from evalscope_vacc.checks.sameness import ask_often, scores_of, vectors_of
from evalscope_vacc.checks.samples import Sample, own_pairs, own_samples, task_samples
from evalscope_vacc.checks.signatures import recognise
from evalscope_vacc.checks.stored import save as save_answers
from evalscope_vacc.checks.stored import text_hash
from evalscope_vacc.checks.texts import SANITY_EN
from evalscope_vacc.checks.tolerance import Threshold, threshold
from evalscope_vacc.config import ModelConfig
from evalscope_vacc.errors import ConfigError

AUTO = "auto"
_SECONDS = 10.0


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
        reference: As :func:`~evalscope_vacc.checks.reference.open_reference` takes it; None = only store.
        dtype: Number format of the served weights, which chooses the thresholds; "auto" = as its answers look.
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
    if dtype != AUTO:
        threshold(dtype)
    if reference is None and save is None:
        raise ConfigError("nothing to compare with: give --reference, or --save to store the served answers")
    if plots is not None:
        need_plots()
    if task is not None and config.is_cross_encoder:
        raise ConfigError("--task is for embedding models; a reranker is compared on our own pairs")
    samples = task_samples(task) if task is not None else own_samples()
    with ExitStack() as opened:
        served = opened.enter_context(closing(ServedSide(config)))
        other: Side | None = None
        if reference is not None:
            template = served.template if config.is_cross_encoder else None
            other = open_reference(reference, config, model=reference_model, key=reference_key, template=template)
            opened.enter_context(closing(other))
        dtype = _seen_dtype(served) if dtype == AUTO else dtype
        asked = _Asked(served, other, threshold(dtype), save, plots)
        found = asked.scores() if config.is_cross_encoder else asked.vectors(samples)
        return ParityResult(
            config.model_name,
            served.about,
            other.about if other is not None else "",
            dtype,
            task or "our own list",
            found,
            tuple(asked.files),
            time.monotonic() - start,
            served.facts(),
        )


def _seen_dtype(served: ServedSide) -> str:
    """The number format that answers to the same texts look like; the coarsest that rounding explains where none fits."""
    target = served.target
    asker = scores_of(target, SANITY_EN[0][0]) if target.config.is_cross_encoder else vectors_of(target)
    return ask_often(asker, seconds=_SECONDS).tolerance.dtype or "bfloat16"


@dataclass
class _Asked:
    """Both sides of a comparison, and what is written of it."""

    served: ServedSide
    other: Side | None
    limits: Threshold
    save: Path | None
    plots: Path | None
    files: list[Path] = field(default_factory=list)

    def scores(self) -> PairParity | None:
        queries, documents = own_pairs()
        scores = self.served.scores(queries, documents)
        self._store("scores", [text_hash(q, d) for q, d in zip(queries, documents, strict=True)], scores)
        if self.other is None:
            return None
        found = compare_scores(queries, scores, self.other.scores(queries, documents), self.limits)
        if self.plots is not None:
            self.files += plot_scores(self.plots, self.served.target.config.model_name, found)
        return found

    def vectors(self, samples: Sequence[Sample]) -> VectorParity | None:
        texts = [s.text for s in samples]
        vectors = self.served.vectors(texts)
        self._store("vectors", [text_hash(text) for text in texts], vectors)
        if self.other is None:
            return None
        found = compare_vectors(samples, vectors, self.other.vectors(texts), self.limits)
        comparable = bool(np.isfinite(found.absolute))
        if not found.passed and comparable and isinstance(self.other, LocalEncoder):
            code = recognise(self.other, texts, vectors, 1 - found.cosines)
            if code:
                found = replace(found, looks_like=(Sign(code), *found.looks_like))
        if self.plots is not None and comparable:
            name = self.served.target.config.model_name
            self.files += plot_vectors(self.plots, name, samples, found, self.limits.least)
        return found

    def _store(self, kind: str, keys: Sequence[str], values: np.ndarray[Any, Any]) -> None:
        if self.save is not None:
            save_answers(self.save, kind, keys, values, {"served": self.served.about, **self.served.facts()})
            self.files.append(self.save)
