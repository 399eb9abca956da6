"""What a server is compared with: weights in this process, which can be made to have each known fault, and others."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalscope_vacc.catalog import find
from evalscope_vacc.checks.connection import first_contact
from evalscope_vacc.checks.scores import check_kind, family_of, template_finding
from evalscope_vacc.checks.target import Answers, Target, connect, cosines
from evalscope_vacc.config import ModelConfig, configure
from evalscope_vacc.errors import ConfigError
from evalscope_vacc.files import replacing
from evalscope_vacc.plugins import plugins
from evalscope_vacc.redact import clean
from evalscope_vacc.text.templates import RerankTemplate, get_template
from evalscope_vacc.text.truncation import LocalTokenizer, cut_text
from evalscope_vacc.wire.address import normalize_base, public_base
from evalscope_vacc.wire.probe import probe, require_model

_BATCH = 8
_FORMAT = 1
_MOST_BYTES = 4 << 30
_SHAPES = {"vectors": (2, np.dtype(np.float32)), "scores": (1, np.dtype(np.float64))}

Item = tuple[str, ...]
"""An exact text, or a bare query and a bare document."""


class ServedSide:
    """A served model, asked as the check asks it: no instruction, no smaller size; those are not what is compared.

    Of several servers the first one is asked; whether all are alike is the check's question. Raises ServerError where it cannot
    be asked, ConfigError where it is not what the configuration takes it for.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._engine = connect(config, config.bases[0])
        self.target = Target.at(config, self._engine)
        self.about = f"{config.model_name} at {self.target.server}"
        try:
            first_contact(self._engine)
            self.target.facts = probe(self._engine, config.model_name, server=self.target.server)
            require_model(self.target.facts, config.model_name)
            if config.is_cross_encoder:
                self._settle()
        except BaseException:
            self.close()
            raise

    def _settle(self) -> None:
        for finding in (*check_kind(self.target), template_finding(self.target)):
            # an embedding server's cosines can be compared, too
            if finding.state == "wrong" and finding.code != "kind.embeds":
                raise ConfigError(f"{self.about}: {finding.line()}")

    @property
    def template(self) -> RerankTemplate | None:
        """The template that stands around the texts, on whichever side it is applied."""
        if self.target.template is not None or not self.target.templated:
            return self.target.template
        return get_template(family_of(self.target) or "qwen3", extra=plugins().rerank_templates())

    def facts(self) -> dict[str, Any]:
        """What the server says of itself."""
        facts = self.target.facts
        return {"version": facts.version, "max_model_len": facts.max_model_len} if facts is not None else {}

    def answers(self, items: Sequence[Item]) -> Answers:
        """Answers to texts, or to pairs, those of a query standing together."""
        target = self.target
        if target.config.is_cross_encoder:
            groups = [(query, [pair[1] for pair in pairs]) for query, pairs in groupby(items, key=itemgetter(0))]
            return np.concatenate([target.score(query, documents).values for query, documents in groups])
        texts = [text for (text,) in items]
        by_server = target.limit if target.dialect.truncates else None
        if target.limit is not None and by_server is None and target.config.tokenizer:
            counter = LocalTokenizer(target.config.tokenizer)
            texts = [cut_text(text, target.limit, counter).text for text in texts]
        parts = [texts[i : i + target.batch] for i in range(0, len(texts), target.batch)]
        return np.concatenate([target.embed(part, truncate_to=by_server).values for part in parts])

    def close(self) -> None:
        """Frees what it holds."""
        self._engine.close()


@dataclass(frozen=True)
class Stored:
    """Answers of an earlier run."""

    kind: str  # "vectors" or "scores"
    values: Answers
    positions: Mapping[str, int]  # SHA-256 of a text (or pair) to its row
    about: Mapping[str, Any]  # what was said of the server then: model, servers, version

    def rows(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """Rows of these texts; raises ConfigError where one of them is not in the file."""
        missing = sum(key not in self.positions for key in keys)
        if missing:
            raise ConfigError(
                f"the stored answers are missing {missing} of {len(keys)} texts: they were stored with other texts "
                "(another --task, or another version of this package); store them again with --save"
            )
        return np.array([self.positions[key] for key in keys], dtype=np.int64)


def text_hash(*texts: str) -> str:
    """SHA-256, in hex, of a text, or of a query and a document; each with its length before it."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def save(path: Path, kind: str, keys: Sequence[str], values: NDArray[Any], about: Mapping[str, Any]) -> None:
    """Writes answers to a ``.npz`` file: the :func:`text_hash` of each text or pair, in their order, not the texts.

    Raises:
        ConfigError: The file cannot be written.
    """
    note = json.dumps({**about, "format": _FORMAT, "kind": kind}, ensure_ascii=False)
    try:
        with replacing(path) as part, part.open("wb") as file:
            np.savez_compressed(file, keys=np.array(list(keys), dtype="S64"), values=values, about=np.array(note))
    except OSError as error:
        raise ConfigError(f"--save {path}: cannot be written: {error}") from None


def load(path: Path) -> Stored:
    """Reads what :func:`save` wrote, executing nothing; raises ConfigError where it cannot be read, or is not such a file."""
    if path.is_file() and path.stat().st_size > _MOST_BYTES:
        raise ConfigError(f"{path}: larger than any file that --save writes")
    try:
        with np.load(path, allow_pickle=False) as file:
            keys, values, about = file["keys"], file["values"], dict(json.loads(str(file["about"])))
    except Exception as error:  # noqa: BLE001 -- zipfile and numpy raise all kinds for a damaged file
        raise ConfigError(f"{path}: cannot be read: {clean(str(error), limit=200)}") from None
    kind = str(about.get("kind"))
    good = _SHAPES.get(kind) == (values.ndim, values.dtype) and about.get("format") == _FORMAT
    if not good or keys.shape != (len(values),) or keys.dtype != np.dtype("S64"):
        raise ConfigError(f"{path}: not a file that --save of this version writes")
    if not np.isfinite(values).all():
        raise ConfigError(f"{path}: holds numbers that are not finite")
    return Stored(kind, values, {key.decode("ascii", "replace"): row for row, key in enumerate(keys)}, about)


class StoredSide:
    """Answers that ``--save`` wrote; raises ConfigError where the file cannot be read, or holds answers of another kind."""

    def __init__(self, path: Path, kind: str) -> None:
        self._stored = load(path)
        if self._stored.kind != kind:
            raise ConfigError(f"{path} holds {self._stored.kind}; this model gives {kind}")
        self.about = clean(f"{path.name}, stored of {self._stored.about.get('served', 'a server')}", limit=300)

    def answers(self, items: Sequence[Item]) -> Answers:
        """Answers to texts, or to pairs."""
        return np.asarray(self._stored.values[self._stored.rows([text_hash(*item) for item in items])])


class LocalEncoder:
    """sentence-transformers in this process, in float32 on the CPU."""

    def __init__(self, source: str, limit: int | None) -> None:
        from sentence_transformers import SentenceTransformer

        self._model: Any = _loaded(source, lambda: SentenceTransformer(source, device="cpu"))
        self._model.float()
        # we decide the exact texts; the model's own default prompt would be added silently
        self._model.default_prompt_name = None
        own = self._model.max_seq_length
        if limit is not None and (own is None or limit < own):
            self._model.max_seq_length = limit
        self.about = f"{source} in process (at most {self._model.max_seq_length} tokens)"

    def answers(self, items: Sequence[Item]) -> Answers:
        """Vectors of texts."""
        return self.vectors([text for (text,) in items])

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of exact texts, shape (texts, dimensions)."""
        found = self._model.encode(
            list(texts), batch_size=_BATCH, show_progress_bar=False, convert_to_numpy=True, normalize_embeddings=False
        )
        return np.asarray(found, dtype=np.float32)

    def pooled(
        self, texts: Sequence[str], pool: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Vectors as another pooling makes them of the states of a text's tokens, shape (tokens, dimensions)."""
        states = self._model.encode(list(texts), batch_size=1, show_progress_bar=False, output_value="token_embeddings")
        return np.stack([pool(one.cpu().numpy()) for one in states]).astype(np.float32)

    def cut_to(self, texts: Sequence[str], tokens: int) -> NDArray[np.float32]:
        """Vectors of texts cut to fewer tokens."""
        own, self._model.max_seq_length = self._model.max_seq_length, tokens
        try:
            return self.vectors(texts)
        finally:
            self._model.max_seq_length = own


class LocalCrossEncoder:
    """A reranker in this process, in float32 on the CPU: a classifier, or a language model that says yes or no."""

    def __init__(self, source: str, limit: int | None, template: RerankTemplate | None) -> None:
        self._limit, self._template = limit, template
        self._model: Any
        self._tokenizer: Any = None
        if _is_causal(source):
            from transformers import AutoModelForCausalLM, AutoTokenizer

            self._tokenizer = _loaded(source, lambda: AutoTokenizer.from_pretrained(source, padding_side="left"))
            self._model = _loaded(source, lambda: AutoModelForCausalLM.from_pretrained(source).float().eval())
        else:
            from sentence_transformers import CrossEncoder

            self._model = _loaded(source, lambda: CrossEncoder(source, device="cpu", max_length=limit))
        how = "classifier" if self._tokenizer is None else "language model, yes against no"
        self.about = f"{source} in process ({how}{f', template {template.name}' if template else ''})"

    def answers(self, items: Sequence[Item]) -> Answers:
        """Scores of pairs."""
        template = self._template
        pairs = [
            (query, document) if template is None else (template.query(query, None), template.document(document))
            for query, document in items
        ]
        if self._tokenizer is not None:
            return np.array([self._yes(query + document) for query, document in pairs], dtype=np.float64)
        found = self._model.predict(pairs, batch_size=_BATCH, show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(found, dtype=np.float64).reshape(-1)

    def _yes(self, prompt: str) -> float:
        """Softmax over the words yes and no at the prompt's end, as the model's card computes it."""
        import torch

        ids = self._tokenizer(prompt, add_special_tokens=False)["input_ids"]
        if self._limit is not None and len(ids) > self._limit:
            raise ConfigError("a pair is longer than the limit; the reference of a language model is not cut")
        words = [self._tokenizer.convert_tokens_to_ids(word) for word in ("no", "yes")]
        with torch.no_grad():
            logits = self._model(input_ids=torch.tensor([ids])).logits[0, -1, words]
        return float(torch.softmax(logits.double(), dim=-1)[1])


Side = ServedSide | StoredSide | LocalEncoder | LocalCrossEncoder


def open_reference(
    given: str,
    config: ModelConfig,
    *,
    model: str | None = None,
    key: str | None = None,
    template: RerankTemplate | None = None,
) -> Side:
    """Opens what the user named: a folder with weights, a name on Hugging Face or of the catalog, an address, or a file.

    The served model's configuration decides the kind and the limit; ``template`` is what a reranker's texts are wrapped in. A
    reference server is asked for ``model``, or the same name, with ``key``: the served model's own is not sent elsewhere.

    Raises:
        ConfigError: It cannot be opened.
    """
    if "://" in given:
        shown = public_base(normalize_base(given))
        entry: dict[str, Any] = {
            "model_name": model or config.model_name,
            "api_base": given,
            "is_cross_encoder": config.is_cross_encoder,
            "max_tokens": config.max_tokens,
            "rerank_template": config.rerank_template if config.is_cross_encoder else None,
            "instruction_profile": "none",
            "tokenizer": config.tokenizer,
            "api_key": key or "EMPTY",
        }
        return ServedSide(configure({k: v for k, v in entry.items() if v is not None}, where=f"--reference {shown}"))
    path = Path(given).expanduser()
    if path.suffix == ".npz" or path.is_file():
        return StoredSide(path, "scores" if config.is_cross_encoder else "vectors")
    source = str(path) if path.is_dir() else _hub_name(given)
    if config.is_cross_encoder:
        return LocalCrossEncoder(source, config.max_tokens, template)
    return LocalEncoder(source, config.max_tokens)


def _hub_name(given: str) -> str:
    entry = find(given)
    if entry is not None and "/" not in given:
        return entry.huggingface
    if given.count("/") == 1 and not given.startswith((".", "/", "~")):
        return given
    raise ConfigError(
        f"--reference {clean(given, limit=200)!r} is not a folder, a .npz file, an address (http://…), or a name on a "
        "hub (org/name) or in the catalog"
    )


def _is_causal(source: str) -> bool:
    folder = Path(source)
    if folder.is_dir():
        try:
            names = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or ()
        except (OSError, ValueError, AttributeError):
            raise ConfigError(f"{source}: has no readable config.json; give a folder with a model's files") from None
    else:
        from transformers import AutoConfig

        names = _loaded(source, lambda: AutoConfig.from_pretrained(source)).architectures or ()
    return any(str(name).endswith("ForCausalLM") for name in names)


def _loaded(source: str, load_it: Callable[[], Any]) -> Any:
    try:
        return load_it()
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ConfigError(f"--reference {source}: cannot be loaded: {clean(str(error), limit=300)}") from None


Vectors = NDArray[np.float32]

# the texts that differ most tell most; more of them tell no more
_TEXTS = 10
# one minus the cosine: rounding of the served side still fits, another fault does not
_FITS = 1e-3
# a fault explains a difference only where it makes nearly all of it go away
_BETTER = 0.05


def _kept(keep: Callable[[str], bool]) -> Callable[[str], str]:
    return lambda text: "".join(sign for sign in text if keep(sign))


def _without_accents(text: str) -> str:
    return "".join(sign for sign in unicodedata.normalize("NFD", text) if not unicodedata.combining(sign))


# how each fault is made, by code: the pooling of a text's states, the text that is read, the tokens that are kept
_POOLED: Mapping[str, Callable[[Vectors], Vectors]] = {
    "pooled.first": lambda states: states[0],
    "pooled.last": lambda states: states[-1],
    "pooled.mean": lambda states: states.mean(axis=0),
    "pooled.maximum": lambda states: states.max(axis=0),
    "pooled.inner": lambda states: states[1:-1].mean(axis=0),
}
_READ: Mapping[str, Callable[[str], str]] = {
    "cut.characters": lambda text: text[:512],
    "read.lower": str.lower,
    "read.accents": _without_accents,
    "read.emoji": _kept(lambda sign: unicodedata.category(sign) != "So"),
    "read.newlines": _kept(lambda sign: sign not in "\r\n"),
    "read.spaces": str.strip,
    "read.punctuation": _kept(lambda sign: not unicodedata.category(sign).startswith("P")),
    "read.latin-1": lambda text: text.encode("utf-8", "replace").decode("latin-1"),
    "read.prefix": lambda text: f"query: {text}",
    "read.instruction": lambda text: f"Represent this sentence for searching relevant passages: {text}",
}
_CUT = {f"cut.{tokens}": tokens for tokens in (32, 64, 128, 256, 512)}
SIGNATURES = (*_POOLED, *_CUT, *_READ)


def _made(reference: LocalEncoder, code: str, texts: Sequence[str]) -> Vectors:
    """Vectors as the reference gives them with a fault."""
    if code in _POOLED:
        return reference.pooled(texts, _POOLED[code])
    if code in _CUT:
        return reference.cut_to(texts, _CUT[code])
    return reference.vectors([_READ[code](text) for text in texts])


def recognise(reference: LocalEncoder, texts: Sequence[str], served: Vectors, gaps: NDArray[np.float64]) -> str:
    """Names the fault that gives the served vectors, shape (texts, dimensions); "" where none of :data:`SIGNATURES` fits.

    ``reference`` are the same weights in process; ``gaps`` one minus the cosine of each text with theirs.
    """
    worst = np.argsort(-gaps)[:_TEXTS]
    chosen = [texts[i] for i in worst]
    best, least = "", _FITS
    for code in SIGNATURES:
        made = _made(reference, code, chosen)
        if made.shape[1] != served.shape[1]:
            continue
        left = float((1 - np.diag(cosines(made, served[worst]))).max())
        if left < least and left < _BETTER * float(gaps[worst].max()):
            best, least = code, left
    return best
