"""Does a server give the answers of its weights? The same texts through both, and what a difference looks like."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evalscope_vacc.checks.compare import Parity, compare_scores, compare_vectors, need_plots, plot_scores, plot_vectors
from evalscope_vacc.checks.reference import Item, LocalEncoder, ServedSide, Side, open_reference, recognise, text_hash
from evalscope_vacc.checks.reference import save as save_answers
from evalscope_vacc.checks.sameness import ask_often, asker_of
from evalscope_vacc.checks.target import Answers
from evalscope_vacc.checks.texts import Sample, own_pairs, own_samples, task_samples
from evalscope_vacc.checks.tolerance import Threshold, threshold
from evalscope_vacc.config import ModelConfig
from evalscope_vacc.errors import ConfigError
from evalscope_vacc.messages import Reason

AUTO = "auto"
_SECONDS = 10.0


@dataclass(frozen=True)
class ParityResult:
    """What a comparison gave."""

    model: str  # served name
    served: str  # what was asked
    reference: str  # what it was compared with; "" where answers were only stored
    dtype: str  # whose thresholds hold
    texts_from: str  # where the texts are from
    found: Parity | None  # the measures; None where answers were only stored
    files: tuple[Path, ...] = ()  # what was written
    seconds: float = 0.0  # what it took
    server: dict[str, Any] = field(default_factory=dict)  # what the server says of itself

    @property
    def exit_status(self) -> int:
        """0 where it passes, else 1."""
        return int(self.found is not None and not self.found.passed)


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
        ServerError: A server could not be reached, or gave a wrong answer.
    """
    start = time.monotonic()
    if dtype != AUTO:
        threshold(dtype)
    if reference is None and save is None:
        raise ConfigError("nothing to compare with: give --reference, or --save to store the served answers")
    if plots is not None:
        need_plots()
    samples, items = _texts(config, task)
    files: list[Path] = []
    found, other = None, None
    with ExitStack() as opened:
        served = opened.enter_context(closing(ServedSide(config)))
        if reference is not None:
            template = served.template if config.is_cross_encoder else None
            other = open_reference(reference, config, model=reference_model, key=reference_key, template=template)
            if isinstance(other, ServedSide):
                opened.enter_context(closing(other))
        if dtype == AUTO:
            dtype = _looks_like(served)
        answers = served.answers(items)
        if save is not None:
            _store(save, served, items, answers)
            files.append(save)
        if other is not None:
            theirs = other.answers(items)
            found = _compared(samples, items, answers, other, theirs, threshold(dtype))
            if plots is not None:
                files += _plots(plots, config, samples, found, answers, theirs, threshold(dtype).least)
        facts, about, texts = served.facts(), other.about if other else "", task or "our own list"
    took = time.monotonic() - start
    return ParityResult(config.model_name, served.about, about, dtype, texts, found, tuple(files), took, facts)


def _looks_like(served: ServedSide) -> str:
    """Returns the number format that a server's answers look like; the coarsest that rounding explains where none fits."""
    dtype = ask_often(asker_of(served.target), seconds=_SECONDS).tolerance.dtype
    # most of a reranker's scores are near 0, where a sigmoid hides rounding: they do not tell the two formats apart
    coarser = served.target.config.is_cross_encoder and dtype == "float16"
    return "bfloat16" if coarser or not dtype else dtype


def _plots(
    folder: Path,
    config: ModelConfig,
    samples: Sequence[Sample],
    found: Parity,
    answers: Answers,
    theirs: Answers,
    least: float,
) -> list[Path]:
    if config.is_cross_encoder:
        return [plot_scores(folder, config.model_name, answers, theirs)]
    if found.gaps is None:
        return []
    return [plot_vectors(folder, config.model_name, samples, found.gaps, least)]


def _texts(config: ModelConfig, task: str | None) -> tuple[list[Sample], list[Item]]:
    """Chooses what is sent: texts, with what is known of them, or a reranker's pairs."""
    if config.is_cross_encoder:
        if task is not None:
            raise ConfigError("--task is for embedding models; a reranker is compared on our own pairs")
        return [], list(own_pairs())
    samples = task_samples(task) if task is not None else own_samples()
    return samples, [(sample.text,) for sample in samples]


def _store(path: Path, served: ServedSide, items: Sequence[Item], answers: Answers) -> None:
    kind = "scores" if served.target.config.is_cross_encoder else "vectors"
    keys = [text_hash(*item) for item in items]
    save_answers(path, kind, keys, answers, {"served": served.about, **served.facts()})


def _compared(
    samples: Sequence[Sample],
    items: Sequence[Item],
    answers: Answers,
    other: Side,
    theirs: Answers,
    limits: Threshold,
) -> Parity:
    if not samples:
        return compare_scores([query for query, _ in items], answers, theirs, limits)
    found = compare_vectors(samples, answers, theirs, limits)
    if found.passed or found.gaps is None or not isinstance(other, LocalEncoder):
        return found
    # weights in process can be made to have each known fault
    code = recognise(other, [sample.text for sample in samples], answers, found.gaps)
    return replace(found, looks_like=(Reason(code), *found.looks_like)) if code else found
