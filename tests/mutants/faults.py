"""Faults that real servers have, one small function each, and variations that are none."""

from __future__ import annotations

import html
import itertools
import random
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from mutant_server import Mutant, Reranker, mean, unit

from evalscope_vacc.text.templates import TEMPLATES

Change = Callable[[Mutant], None]


@dataclass(frozen=True)
class Case:
    """A server to be judged.

    Attributes:
        name: Short.
        change: Turns a sound server into it.
        make: The sound server.
        keys: Of the model's configuration.
        sound: Whether there is nothing wrong with it.
    """

    name: str
    change: Change
    make: type[Mutant] = Mutant
    keys: dict[str, Any] = field(default_factory=dict)
    sound: bool = False

    def server(self) -> Mutant:
        mutant = self.make()
        self.change(mutant)
        return mutant


CASES: list[Case] = []


def encoder(name: str, *, sound: bool = False, **keys: Any) -> Callable[[Change], Change]:
    def add(change: Change) -> Change:
        CASES.append(Case(name, change, Mutant, keys, sound))
        return change

    return add


def reranker(name: str, *, sound: bool = False, rerank_template: str = "auto") -> Callable[[Change], Change]:
    def add(change: Change) -> Change:
        keys = {"is_cross_encoder": True, "rerank_template": rerank_template}
        CASES.append(Case(name, change, Reranker, keys, sound))
        return change

    return add


def every_eighth() -> Callable[[], bool]:
    chance = random.Random(5)
    return lambda: chance.random() < 1 / 8


# -- pooling and padding ---------------------------------------------------------------------------------------------


@encoder("CLS instead of mean pooling")
def _(m: Mutant) -> None:
    m.pool = lambda states, mask: states[:, 0]


@encoder("last token instead of mean pooling")
def _(m: Mutant) -> None:
    m.pool = lambda states, mask: states[torch.arange(len(states)), mask.sum(1).long() - 1]


@encoder("maximum instead of mean pooling")
def _(m: Mutant) -> None:
    m.pool = lambda states, mask: states.masked_fill(mask[..., None] == 0, -1e9).max(1).values


@encoder("attention mask ignored in a padded batch")
def _(m: Mutant) -> None:
    m.attends = False


@encoder("padding is pooled")
def _(m: Mutant) -> None:
    m.remembers = False
    m.pool = lambda states, mask: states.mean(1)


@encoder("last token of the padding")
def _(m: Mutant) -> None:
    m.remembers = False
    m.pool = lambda states, mask: states[:, -1]


@encoder("special tokens are not pooled")
def _(m: Mutant) -> None:
    def inner(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        mask = mask.clone()
        mask[torch.arange(len(mask)), mask.sum(1).long() - 1] = 0
        mask[:, 0] = 0
        return mean(states, torch.clamp(mask, min=1e-9))

    m.pool = inner


@encoder("not normalised")
def _(m: Mutant) -> None:
    m.finish = lambda vectors: vectors


@encoder("dimensions cut and not renormalised")
def _(m: Mutant) -> None:
    m.finish = lambda vectors: unit(vectors)[:, :128]


@encoder("a constant is added to every vector")
def _(m: Mutant) -> None:
    m.finish = lambda vectors: unit(unit(vectors) + 0.05)


# -- what is read of a text --------------------------------------------------------------------------------------------


@encoder("cut at 64 tokens")
def _(m: Mutant) -> None:
    m.keep = lambda ids: [*ids[:63], ids[-1]] if len(ids) > 64 else ids


@encoder("cut at 128 tokens")
def _(m: Mutant) -> None:
    m.keep = lambda ids: [*ids[:127], ids[-1]] if len(ids) > 128 else ids


@encoder("cut at 200 tokens")
def _(m: Mutant) -> None:
    m.keep = lambda ids: [*ids[:199], ids[-1]] if len(ids) > 200 else ids


@encoder("cut at 512 characters")
def _(m: Mutant) -> None:
    m.read = lambda text: text[:512]


@encoder("the end kept instead of the beginning")
def _(m: Mutant) -> None:
    m.keep = lambda ids: [ids[0], *ids[-63:]] if len(ids) > 64 else ids


@encoder("end token lost")
def _(m: Mutant) -> None:
    m.keep = lambda ids: ids[:-1] if len(ids) > 2 else ids


@encoder("end token lost when cut")
def _(m: Mutant) -> None:
    whole = m.model.prepare
    m.model.prepare = lambda prompt, limit: (  # type: ignore[method-assign]
        whole(prompt, limit._replace(side="right") if limit.tokens else limit)
    )


@encoder("lower-casing left out")
def _(m: Mutant) -> None:
    unknown = m.model._tokenizer.token_to_id("[UNK]")
    plain = m.model.tokenize

    def cased(text: str, *, special: bool = True) -> list[int]:
        # a lower-case vocabulary has no token for a word with a capital
        words = [plain(word, special=False) if word == word.lower() else [unknown] for word in text.split()]
        inner = list(itertools.chain.from_iterable(words))
        whole = plain("a")
        return [whole[0], *inner, whole[-1]] if special else inner

    m.model.tokenize = cased  # type: ignore[method-assign]


@encoder("accents stripped")
def _(m: Mutant) -> None:
    m.read = lambda text: "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))


@encoder("emoji stripped")
def _(m: Mutant) -> None:
    m.read = lambda text: "".join(c for c in text if ord(c) < 0x2600)


@encoder("newlines removed")
def _(m: Mutant) -> None:
    m.read = lambda text: text.replace("\n", "")


@encoder("outer spaces stripped")
def _(m: Mutant) -> None:
    m.read = str.strip


@encoder("UTF-8 read as Latin-1")
def _(m: Mutant) -> None:
    m.read = lambda text: text.encode("utf-8", "replace").decode("latin-1")


@encoder("HTML removed")
def _(m: Mutant) -> None:
    m.read = lambda text: re.sub(r"<[^>]*>", "", html.unescape(text))


@encoder("simplified for traditional Chinese")
def _(m: Mutant) -> None:
    pairs = str.maketrans(
        "圖書館燈塔鐘樓學醫飛機葉開門發電車個這說時長東馬鳥魚", "图书馆灯塔钟楼学医飞机叶开门发电车个这说时长东马鸟鱼"
    )
    m.read = lambda text: text.translate(pairs)


@encoder("punctuation removed")
def _(m: Mutant) -> None:
    m.read = lambda text: "".join(c for c in text if not unicodedata.category(c).startswith("P"))


@encoder("a query prefix before everything")
def _(m: Mutant) -> None:
    m.read = lambda text: f"Represent this sentence for searching relevant passages: {text}"


@encoder("a prefix before everything twice")
def _(m: Mutant) -> None:
    m.read = lambda text: f"query: query: {text}"


# -- batches, caches, restarts -------------------------------------------------------------------------------------------


@encoder("two vectors swapped in one batch of eight")
def _(m: Mutant) -> None:
    now = every_eighth()

    def swap(texts: Any, vectors: np.ndarray) -> np.ndarray:
        if len(vectors) > 1 and now():
            vectors = vectors.copy()
            vectors[[0, 1]] = vectors[[1, 0]]
        return vectors

    m.answer = swap


@encoder("one wrong vector in one batch of eight")
def _(m: Mutant) -> None:
    now = every_eighth()

    def spoil(texts: Any, vectors: np.ndarray) -> np.ndarray:
        if len(vectors) > 1 and now():
            vectors = vectors.copy()
            vectors[-1] = np.roll(vectors[-1], 1)
        return vectors

    m.answer = spoil


@encoder("texts of a request after the sixteenth get the first one's vector")
def _(m: Mutant) -> None:
    m.answer = lambda texts, vectors: np.concatenate([vectors[:16], vectors[:1].repeat(max(0, len(vectors) - 16), 0)])


@encoder("equal texts of a batch share a wrong vector")
def _(m: Mutant) -> None:
    def share(texts: Any, vectors: np.ndarray) -> np.ndarray:
        vectors = vectors.copy()
        for i, text in enumerate(texts):
            if list(texts).count(text) > 1:
                vectors[i] = vectors[(list(texts).index(text) + 1) % len(texts)]
        return vectors

    m.answer = share


@encoder("the second answer to a long text differs")
def _(m: Mutant) -> None:
    known: set[str] = set()

    def again(texts: Any, vectors: np.ndarray) -> np.ndarray:
        vectors = vectors.copy()
        for i, text in enumerate(texts):
            if text in known and len(text) > 500:
                vectors[i] = np.roll(vectors[i], 3) * 0.1 + vectors[i] * 0.9
        known.update(texts)
        return vectors

    m.answer = again


@encoder("vectors of other texts after a restart")
def _(m: Mutant) -> None:
    m.read = lambda text: " ".join(reversed(text.split()))[: max(3, len(text) // 2)]


@encoder("vectors in reverse order")
def _(m: Mutant) -> None:
    m.answer = lambda texts, vectors: vectors[::-1]


# -- weights and arithmetic ------------------------------------------------------------------------------------------------


def moved(share: float) -> Callable[[torch.nn.Module], None]:
    def change(net: torch.nn.Module) -> None:
        torch.manual_seed(0)
        for parameter in net.parameters():
            parameter.data += share * parameter.data.std() * torch.randn_like(parameter)

    return change


@encoder("weights moved by 10 %")
def _(m: Mutant) -> None:
    m.change_net(moved(0.1))


@encoder("weights moved by 1 %")
def _(m: Mutant) -> None:
    m.change_net(moved(0.01))


@encoder("weights moved by 0.1 %")
def _(m: Mutant) -> None:
    m.change_net(moved(0.001))


@encoder("random weights")
def _(m: Mutant) -> None:
    def change(net: Any) -> None:
        torch.manual_seed(0)
        net.init_weights()
        net.apply(net._init_weights)
        for parameter in net.parameters():
            if parameter.ndim > 1:
                parameter.data = torch.randn_like(parameter) * 0.02

    m.change_net(change)


@encoder("weights shuffled")
def _(m: Mutant) -> None:
    def change(net: torch.nn.Module) -> None:
        torch.manual_seed(0)
        for parameter in net.parameters():
            parameter.data = parameter.data.flatten()[torch.randperm(parameter.numel())].view_as(parameter)

    m.change_net(change)


@encoder("the last layer left out")
def _(m: Mutant) -> None:
    m.change_net(lambda net: setattr(net.encoder, "layer", net.encoder.layer[:-1]))


@encoder("the third layer left out")
def _(m: Mutant) -> None:
    m.change_net(lambda net: setattr(net.encoder, "layer", net.encoder.layer[:2] + net.encoder.layer[3:]))


def rounded(bits: int, *, by_row: bool) -> Callable[[torch.nn.Module], None]:
    def change(net: torch.nn.Module) -> None:
        for parameter in net.parameters():
            if parameter.ndim > 1:
                top = parameter.data.abs().amax(dim=1, keepdim=True) if by_row else parameter.data.abs().max()
                step = top / (2 ** (bits - 1) - 1)
                parameter.data = (parameter.data / step).round() * step

    return change


@encoder("int8 weights, a scale a tensor")
def _(m: Mutant) -> None:
    m.change_net(rounded(8, by_row=False))


@encoder("int4 weights, a scale a row")
def _(m: Mutant) -> None:
    m.change_net(rounded(4, by_row=True))


@encoder("fp8 weights")
def _(m: Mutant) -> None:
    def change(net: torch.nn.Module) -> None:
        for parameter in net.parameters():
            if parameter.ndim > 1:
                parameter.data = parameter.data.to(torch.float8_e4m3fn).float()

    m.change_net(change)


@encoder("vectors added up in bfloat16")
def _(m: Mutant) -> None:
    m.pool = lambda states, mask: (
        torch.cumsum((states * mask[..., None]).bfloat16(), 1)[:, -1].float() / mask.sum(1, keepdim=True)
    )


@encoder("NaN for texts over 200 tokens")
def _(m: Mutant) -> None:
    encode = m.encode

    def broken(prompts: Any) -> np.ndarray:
        vectors = encode(prompts).copy()
        vectors[[len(prompt) > 200 for prompt in prompts]] = np.nan
        return vectors

    m.encode = broken  # type: ignore[method-assign]


# -- rerankers ---------------------------------------------------------------------------------------------------------------


@reranker("template missing", rerank_template="none")
def _(m: Mutant) -> None:
    pass


@reranker("template doubled", rerank_template="qwen3")
def _(m: Mutant) -> None:
    m.template = "instruction"


@reranker("template doubled without a word")
def _(m: Mutant) -> None:
    template = TEMPLATES["qwen3"]
    m.prompt = lambda query, document: (template.query(query), template.document(document))


@reranker("end of the template cut off")
def _(m: Mutant) -> None:
    m.prompt = lambda query, document: (query, document[:-30])


@reranker("end of the template cut off from long documents")
def _(m: Mutant) -> None:
    m.prompt = lambda query, document: (query, document[:800])


@reranker("queries cut at 64 characters")
def _(m: Mutant) -> None:
    def cut(query: str, document: str) -> tuple[str, str]:
        head, mark, question = query.rpartition("<Query>: ")
        return f"{head}{mark}{question.rstrip()[:64]}\n", document

    m.prompt = cut


@reranker("documents after the tenth get the tenth one's score")
def _(m: Mutant) -> None:
    m.judge = lambda query, documents, scores: scores[np.minimum(np.arange(len(scores)), 9)]


@reranker("scores of a request spread from 0 to 1")
def _(m: Mutant) -> None:
    m.judge = lambda query, documents, scores: (scores - scores.min()) / max(np.ptp(scores), 1e-9)


@reranker("yes and no swapped")
def _(m: Mutant) -> None:
    m.judge = lambda query, documents, scores: 1 - scores


@reranker("instruction ignored")
def _(m: Mutant) -> None:
    m.template, m.hears = "instruction", False


@reranker("scores rounded to two digits")
def _(m: Mutant) -> None:
    m.judge = lambda query, documents, scores: scores.round(2)


@reranker("scores in sorted order")
def _(m: Mutant) -> None:
    m.judge = lambda query, documents, scores: np.sort(scores)[::-1]


@reranker("pair read the wrong way round")
def _(m: Mutant) -> None:
    template = TEMPLATES["qwen3"]

    def turned(query: str, document: str) -> tuple[str, str]:
        bare = document.removeprefix(template.document("").partition("<|im_end|>")[0]).partition("<|im_end|>")[0]
        head, _, question = query.rpartition("<Query>: ")
        return f"{head}<Query>: {bare}\n", template.document(question.rstrip("\n"))

    m.prompt = turned


@reranker("long documents scored 0")
def _(m: Mutant) -> None:
    m.judge = lambda query, documents, scores: np.where([len(d) > 1200 for d in documents], 0.0, scores)


@reranker("head not loaded")
def _(m: Mutant) -> None:
    m.judge = lambda query, documents, scores: np.full_like(scores, 0.5)


# -- nothing wrong -------------------------------------------------------------------------------------------------------------


@encoder("sound", sound=True)
def _(m: Mutant) -> None:
    pass


def in_format(m: Mutant, dtype: torch.dtype) -> None:
    """Weights and every layer's output in a format, sums in float32 and in an order that the batch decides, as vLLM does."""

    def hook(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return (output * (1 + 1e-4 * torch.randn_like(output))).to(dtype).float()

    def change(net: torch.nn.Module) -> None:
        for parameter in net.parameters():
            parameter.data = parameter.data.to(dtype).float()
        for module in net.modules():
            if isinstance(module, (torch.nn.Linear, torch.nn.LayerNorm, torch.nn.Embedding)):
                module.register_forward_hook(hook)

    m.change_net(change)
    m.remembers = False


@encoder("float16", sound=True)
def _(m: Mutant) -> None:
    in_format(m, torch.float16)


@encoder("bfloat16", sound=True)
def _(m: Mutant) -> None:
    in_format(m, torch.bfloat16)


@encoder("bfloat16, written in bfloat16", sound=True)
def _(m: Mutant) -> None:
    in_format(m, torch.bfloat16)
    m.answer = lambda texts, vectors: torch.tensor(vectors).bfloat16().float().numpy()


@encoder("batches of two", sound=True)
def _(m: Mutant) -> None:
    m.remembers, m.max_batch = False, 2


@encoder("texts computed in another order", sound=True)
def _(m: Mutant) -> None:
    m.remembers = False
    forward = m._forward
    m._forward = lambda prompts: forward(prompts[::-1])[::-1]  # type: ignore[method-assign]


@encoder("two servers", sound=True)
def _(m: Mutant) -> None:
    turns = itertools.cycle([False, True])
    forward = m._forward
    m.remembers = False
    m._forward = lambda prompts: forward(prompts) if next(turns) else np.concatenate([forward([p]) for p in prompts])  # type: ignore[method-assign]


@encoder("restarted, with a newer version", sound=True)
def _(m: Mutant) -> None:
    m.version = "0.33.1"
    m.remembers = False


@encoder("some requests answered with 503", sound=True)
def _(m: Mutant) -> None:
    m.status = lambda: 503 if m.requests % 7 == 0 else None


@reranker("sound reranker", sound=True)
def _(m: Mutant) -> None:
    pass


@reranker("sound reranker with its own template", sound=True)
def _(m: Mutant) -> None:
    m.template = "instruction"


@reranker("reranker in bfloat16", sound=True)
def _(m: Mutant) -> None:
    in_format(m, torch.bfloat16)
