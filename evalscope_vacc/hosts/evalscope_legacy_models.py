"""Our models behind the protocols of mteb 1.x, which hands over plain texts, and to a cross-encoder no task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evalscope_vacc.errors import TextError
from evalscope_vacc.models import is_cross_encoder


class Face:
    """What both kinds share.

    Args:
        model: An encoder or cross-encoder of mteb 2.x's protocols: ours, or a plugin's.

    Attributes:
        task: The task that is being evaluated; mteb 1.x does not tell a cross-encoder.
        split: Its split, for messages and evidence.
        subset: Its subset, for messages and evidence.
        batch_size: Texts a request, or documents of one query, where neither the call nor the model's entry says it.
    """

    def __init__(self, model: Any) -> None:
        self.inner = model
        self.batch_size: int | None = None
        self.task: Any = None
        self.split = ""
        self.subset = ""

    def at(self, task: Any, split: str = "", subset: str = "") -> None:
        """Says what is being evaluated."""
        self.task, self.split, self.subset = task, split, subset

    def __getattr__(self, name: str) -> Any:
        # what is not mteb 1.x's is the model's own: served, open(), finish(), close()
        if name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    @property
    def mteb_model_meta(self) -> Any:
        """MTEB's ``ModelMeta``."""
        return self.inner.mteb_model_meta

    @mteb_model_meta.setter
    def mteb_model_meta(self, meta: Any) -> None:
        self.inner.mteb_model_meta = meta

    def _arguments(self, task_name: str | None, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        passed = {name: kwargs[name] for name in ("batch_size", "show_progress_bar") if kwargs.get(name) is not None}
        if self.batch_size is not None:
            passed.setdefault("batch_size", self.batch_size)
        return {
            "task_metadata": _metadata(task_name, self.task),
            "hf_split": self.split,
            "hf_subset": self.subset,
            **passed,
        }


class EncoderFace(Face):
    """An encoder as mteb 1.x calls it."""

    def encode(
        self, sentences: Sequence[str], *, task_name: str | None = None, prompt_type: Any = None, **kwargs: Any
    ) -> Any:
        """Encodes texts.

        Args:
            sentences: The texts; documents are title and text already joined by mteb.
            task_name: The task's name; decides the instruction.
            prompt_type: ``query``, ``passage`` (``document`` from mteb 1.38.36 on) or None.
            **kwargs: ``batch_size`` and ``show_progress_bar`` are passed on; the others are about local weights.

        Returns:
            Vectors of shape (texts, dimensions), float32.
        """
        texts = [sentences] if isinstance(sentences, str) else list(sentences)
        return self.inner.encode([{"text": texts}], prompt_type=prompt_type, **self._arguments(task_name, kwargs))


class CrossEncoderFace(Face):
    """A cross-encoder as mteb 1.x calls it."""

    def predict(self, sentences: Sequence[Sequence[str | None]], **kwargs: Any) -> Any:
        """Scores pairs.

        Args:
            sentences: (query, document) or (query, document, instruction); mteb puts title and text together.
            **kwargs: ``batch_size`` and ``show_progress_bar`` are passed on.

        Returns:
            Scores of shape (pairs,), float32, in the order of the pairs.

        Raises:
            TextError: A pair has no query or no document.
        """
        queries, documents, instructions = [], [], []
        for position, pair in enumerate(sentences):
            query, document = pair[0], pair[1]
            if not isinstance(query, str) or not isinstance(document, str):
                raise TextError(f"pair {position}: expected two texts, found {query!r:.80} and {document!r:.80}")
            queries.append(query)
            documents.append(document)
            instructions.append((pair[2] or "") if len(pair) > 2 else "")
        first: dict[str, list[str]] = {"text": queries}
        if any(instructions):
            joined = [f"{query} {extra}".strip() for query, extra in zip(queries, instructions, strict=True)]
            first = {"text": joined, "query": queries, "instruction": instructions}
        return self.inner.predict([first], [{"text": documents}], **self._arguments(None, kwargs))


def _metadata(name: str | None, task: Any) -> Any:
    """The task's metadata: MTEB's own where it knows the name, because EvalScope's copies have no prompts."""
    from mteb.overview import TASKS_REGISTRY

    own = getattr(task, "metadata", None)
    known = TASKS_REGISTRY.get(name or getattr(own, "name", None))
    if known is not None:
        return known.metadata
    if own is not None and name in (None, own.name):
        return own
    return name


def face_of(model: Any) -> Face:
    """Returns an encoder or cross-encoder behind mteb 1.x's protocol."""
    return CrossEncoderFace(model) if is_cross_encoder(model) else EncoderFace(model)


def for_installed_mteb(model: Any) -> Any:
    """Returns a model as the installed MTEB calls it: as it is on 2.x, behind a face on 1.x."""
    from importlib.metadata import version

    return face_of(model) if version("mteb").startswith("1.") else model


def load_model(mapping: Mapping[str, Any]) -> Any:
    """Builds a model from one entry, for hosts that load models through an entry point.

    Args:
        mapping: The entry as the user wrote it.

    Raises:
        ConfigError: No plugin provides the model type, or a key or value cannot be used.
    """
    from evalscope_vacc.models import load_model as load

    return for_installed_mteb(load(mapping))
