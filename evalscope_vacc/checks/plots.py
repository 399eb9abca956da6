"""Plots of a comparison, as PNG files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalscope_vacc.checks.texts import Sample
from evalscope_vacc.errors import ConfigError

_UNSAFE = re.compile(r"[^\w.-]+")
# below this a cosine's distance from 1 is float64's own rounding; a logarithm needs a floor
_FLOOR = 1e-12


def need_plots() -> None:
    """Raises ConfigError, before anything is asked, where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise ConfigError("--plots needs matplotlib, which is not installed: pip install 'evalscope-vacc[plots]'")


def plot_vectors(folder: Path, model: str, samples: Sequence[Sample], gaps: NDArray[np.float64], least: float) -> Path:
    """Draws one minus the cosine of each text over its length, and its distribution, with the threshold ``least``."""
    gaps = np.maximum(gaps, _FLOOR)
    figure, left, right = _figure(model)
    for language, mark in (("en", "o"), ("zh", "^")):
        mine = np.array([s.language == language for s in samples])
        if mine.any():
            tokens = np.array([s.tokens for s in samples])[mine]
            left.scatter(tokens, gaps[mine], marker=mark, s=22, alpha=0.7, label=language)
    left.set(xscale="log", yscale="log", xlabel="tokens (estimated)", ylabel="1 - cosine", title="By length")
    left.axhline(least, color="crimson", linewidth=1, label=f"allowed {least:g}")
    left.legend()
    right.hist(np.log10(gaps), bins=30)
    right.axvline(np.log10(least), color="crimson", linewidth=1)
    right.set(xlabel="log10(1 - cosine)", ylabel="texts", title="Distribution")
    return _save(figure, folder, model, "vectors")


def plot_scores(folder: Path, model: str, served: NDArray[np.float64], reference: NDArray[np.float64]) -> Path:
    """Draws served over reference scores, and the distribution of their differences."""
    figure, left, right = _figure(model)
    ends = [float(min(reference.min(), served.min())), float(max(reference.max(), served.max()))]
    left.plot(ends, ends, color="grey", linewidth=1)
    left.scatter(reference, served, s=18, alpha=0.6)
    left.set(xlabel="reference", ylabel="served", title="Scores")
    right.hist(served - reference, bins=30)
    right.set(xlabel="served - reference", ylabel="pairs", title="Differences")
    return _save(figure, folder, model, "scores")


def _figure(model: str) -> tuple[Any, Any, Any]:
    # without pyplot: no window system is looked for, and nothing global is changed
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 4.2), layout="constrained")
    figure.suptitle(f"{model}: served against the reference")
    return figure, *figure.subplots(1, 2)


def _save(figure: Any, folder: Path, model: str, what: str) -> Path:
    path = folder / f"parity-{_UNSAFE.sub('_', model)[:100]}-{what}.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise ConfigError(f"--plots {folder}: cannot be written: {error}") from None
    return path
