"""Plots of a comparison, as PNG files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evalscope_vacc.checks.compare import PairParity, VectorParity
from evalscope_vacc.checks.samples import Sample
from evalscope_vacc.errors import ConfigError

_UNSAFE = re.compile(r"[^\w.-]+")
# below this a cosine's distance from 1 is float64's own rounding; a logarithm needs a floor
_FLOOR = 1e-12


def need_plots() -> None:
    """Checks that plots can be drawn, before anything is asked.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    import importlib.util

    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("--plots needs matplotlib, which is not installed: pip install 'evalscope-vacc[plots]'")


def plot_vectors(folder: Path, model: str, samples: Sequence[Sample], found: VectorParity, least: float) -> list[Path]:
    """Draws one minus the cosine of each text over its length, and its distribution.

    Args:
        folder: Made where it does not exist.
        model: Served name, for titles and file names.
        samples: The texts, in the order of the cosines.
        found: The comparison.
        least: Threshold, drawn as a line.

    Returns:
        The files.

    Raises:
        ConfigError: matplotlib is not installed, or the folder cannot be written.
    """
    gaps = np.maximum(1 - found.cosines, _FLOOR)
    tokens = np.array([s.tokens for s in samples])
    languages = np.array([s.language for s in samples])
    figure, (left, right) = _figure(2)
    for language, mark in (("en", "o"), ("zh", "^")):
        mine = languages == language
        if mine.any():
            left.scatter(tokens[mine], gaps[mine], marker=mark, s=22, alpha=0.7, label=language)
    left.set(xscale="log", yscale="log", xlabel="tokens (estimated)", ylabel="1 - cosine", title="By length")
    left.axhline(least, color="crimson", linewidth=1, label=f"allowed {least:g}")
    left.legend()
    right.hist(np.log10(gaps), bins=30)
    right.axvline(np.log10(least), color="crimson", linewidth=1)
    right.set(xlabel="log10(1 - cosine)", ylabel="texts", title=f"overlap@10 {found.overlap:.3f}")
    return [_save(figure, folder, model, "vectors")]


def plot_scores(folder: Path, model: str, found: PairParity) -> list[Path]:
    """Draws served over reference scores, and the distribution of their differences.

    Args:
        folder: Made where it does not exist.
        model: Served name.
        found: The comparison.

    Returns:
        The files.

    Raises:
        ConfigError: matplotlib is not installed, or the folder cannot be written.
    """
    figure, (left, right) = _figure(2)
    low = float(min(found.reference.min(), found.served.min()))
    high = float(max(found.reference.max(), found.served.max()))
    left.plot([low, high], [low, high], color="grey", linewidth=1)
    left.scatter(found.reference, found.served, s=18, alpha=0.6)
    left.set(xlabel="reference", ylabel="served", title="Scores")
    right.hist(found.differences, bins=30)
    right.set(xlabel="served - reference", ylabel="pairs", title="Differences")
    return [_save(figure, folder, model, "scores")]


def _figure(columns: int) -> tuple[Any, Any]:
    need_plots()
    # without pyplot: no window system is looked for, and nothing global is changed
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * columns, 4.2), layout="constrained")
    return figure, figure.subplots(1, columns)


def _save(figure: Any, folder: Path, model: str, what: str) -> Path:
    figure.suptitle(f"{model}: served against the reference")
    path = folder / f"parity-{_UNSAFE.sub('_', model)[:100]}-{what}.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise ConfigError(f"--plots {folder}: cannot be written: {error}") from None
    return path
