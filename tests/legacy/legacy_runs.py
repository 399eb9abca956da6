"""Runs on the older line, and what the same weights score in this process."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import requests


def evalscope_version() -> tuple[int, ...]:
    """The installed version as numbers; () where there is none."""
    try:
        return tuple(int(part) for part in version("evalscope").split(".")[:3])
    except (PackageNotFoundError, ValueError):
        return ()


class InProcess:
    """The weights of the demo server in this process, as mteb 1.38 sees them. A text is encoded once.

    Args:
        dimensions: Size to which vectors are cut and renormalised.
    """

    _known: dict[str, np.ndarray] = {}  # noqa: RUF012 -- shared on purpose: both sizes are of the same vectors
    _weights: Any = None

    def __init__(self, dimensions: int | None = None) -> None:
        self.dimensions = dimensions

    def encode(self, sentences: Any, *, task_name: str = "", prompt_type: Any = None, **kwargs: Any) -> np.ndarray:
        texts = list(sentences)
        missing = list(dict.fromkeys(text for text in texts if text not in self._known))
        if missing:
            self._known.update(zip(missing, self._vectors(missing), strict=True))
        out = np.stack([self._known[text] for text in texts])
        if self.dimensions:
            out = out[:, : self.dimensions]
            out = out / np.linalg.norm(out, axis=1, keepdims=True)
        return out

    def _vectors(self, texts: list[str]) -> np.ndarray:
        if InProcess._weights is None:
            from sentence_transformers import SentenceTransformer

            from evalscope_vacc.demo.model import weights_folder

            InProcess._weights = SentenceTransformer(str(weights_folder()), device="cpu")
            InProcess._weights.max_seq_length = 256
        return np.asarray(InProcess._weights.encode(texts, batch_size=32, normalize_embeddings=True))


class AskedFor(InProcess):
    """Vectors of the demo server, had by a plain request: SciFact takes minutes to compute, and the server knows it.

    Some of them, the longest texts' among them, are held against the weights in this process.
    """

    _known: dict[str, np.ndarray] = {}  # noqa: RUF012 -- as above
    _held_against = 16

    def __init__(self, server: str, dimensions: int | None = None) -> None:
        super().__init__(dimensions)
        self._server = server

    def _vectors(self, texts: list[str]) -> np.ndarray:
        found: list[list[float]] = []
        for i in range(0, len(texts), 64):
            body = {"model": "minilm", "input": texts[i : i + 64], "truncate_prompt_tokens": -1}
            answer = requests.post(f"{self._server}/v1/embeddings", json=body, timeout=600)
            answer.raise_for_status()
            found += [row["embedding"] for row in answer.json()["data"]]
        vectors = np.array(found, np.float32)
        by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        some = [*by_length[-self._held_against :], *by_length[: self._held_against]]
        expected = super()._vectors([texts[i] for i in some])
        np.testing.assert_allclose(vectors[some], expected, atol=1e-5)
        return vectors


class Cosine:
    """A cross-encoder whose score is the cosine of the same vectors, as vLLM scores pairs on an embedding model."""

    def __init__(self, encoder: InProcess) -> None:
        self.encoder = encoder

    def predict(self, sentences: Any, **kwargs: Any) -> np.ndarray:
        queries = self.encoder.encode([pair[0] for pair in sentences])
        documents = self.encoder.encode([pair[1] for pair in sentences])
        return (queries * documents).sum(axis=1)


def reference(model: Any, task: Any, **kwargs: Any) -> dict[str, float]:
    """Main score by split, of a model in this process under the installed mteb."""
    import mteb

    # once EvalScope's own list of tasks is imported, its loader stands in MTEB's place and asks ModelScope by default
    task.load_data(hub="huggingface")
    results = mteb.MTEB(tasks=[task]).run(
        model, output_folder=None, verbosity=0, encode_kwargs={"batch_size": 256}, **kwargs
    )
    return {split: scores[0]["main_score"] for split, scores in results[0].scores.items()}


def rageval(models: list[dict[str, Any]], work_dir: Path, **evaluation: Any) -> dict[str, Any]:
    """A task configuration in the guide's spelling."""
    evaluation = {
        "verbosity": 2,
        "output_folder": "outputs",
        "overwrite_results": True,
        "hub": "huggingface",
    } | evaluation
    return {
        "work_dir": str(work_dir),
        "eval_backend": "RAGEval",
        "eval_config": {"tool": "MTEB", "model": models, "eval": evaluation},
    }


def main_scores(result: Any) -> dict[tuple[str, str], float]:
    """(task, split) to main score of a finished run."""
    return {(row["task"], row["split"]): row["main_score"] for row in result.rows()}
