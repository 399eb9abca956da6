"""What a model's texts get by the catalog is what mteb's own class of that model puts before them in process."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import pytest

from evalscope_vacc import catalog
from evalscope_vacc.catalog import Entry
from evalscope_vacc.config import configure
from evalscope_vacc.models.tasks import side_of, task_info
from evalscope_vacc.text.instructions import make_rules

pytestmark = pytest.mark.host

WITH_SIDES = {"Retrieval", "Reranking", "InstructionRetrieval", "InstructionReranking"}
ENCODERS = [entry for entry in catalog.entries() if entry.rules_only and not entry.is_cross_encoder]
# mteb's registry has no class for them: the same rule as the model that they are made of
WITHOUT_CLASS = {
    "gte-large-en-v1.5": "gte-base-en-v1.5",
    "jina-embeddings-v4-vllm-retrieval": "jina-embeddings-v4",
    "jina-embeddings-v4-vllm-text-matching": "jina-embeddings-v4",
    "jina-embeddings-v4-vllm-code": "jina-embeddings-v4",
}
# mteb has its instructions and leaves out the template that the card puts around them
WITH_THE_CARDS_TEMPLATE = {"stella_en_400M_v5", "stella_en_1.5B_v5"}


@pytest.fixture(scope="module")
def tasks() -> list[Any]:
    """Three tasks of each type that text models meet, each with its own metadata."""
    mteb = pytest.importorskip("mteb", minversion="2.7")
    names = ("MTEB(eng, v2)", "MTEB(cmn, v1)", "MTEB(Multilingual, v2)", "MTEB(Code, v1)")
    by_type: dict[str, dict[str, Any]] = {}
    for name in names:
        for task in mteb.get_benchmark(name).tasks:
            by_type.setdefault(task.metadata.type, {})[task.metadata.name] = task.metadata
    assert len(by_type) >= 10
    return [metadata for found in by_type.values() for metadata in list(found.values())[:3]]


class Heard:
    """Stands where sentence-transformers would have the weights: keeps each text as the model would read it."""

    def __init__(self, prompts: dict[str, str]) -> None:
        self.prompts = prompts
        self.texts: list[str] = []

    def encode(self, texts: list[str], *, prompt: str | None = None, prompt_name: str | None = None, **_: Any) -> Any:
        import numpy as np

        before = prompt if prompt is not None else self.prompts[prompt_name] if prompt_name else ""
        self.texts += [before + text for text in texts]
        return np.ones((len(texts), 4), np.float32)

    def encode_query(self, texts: list[str], **kwargs: Any) -> Any:
        return self._of_side(texts, ("query",), **kwargs)

    def encode_document(self, texts: list[str], **kwargs: Any) -> Any:
        return self._of_side(texts, ("document", "passage", "corpus"), **kwargs)

    def _of_side(self, texts: list[str], names: tuple[str, ...], *, prompt: str | None = None, **kwargs: Any) -> Any:
        # as SentenceTransformer does it: without a prompt, the first of its own that has one of these names
        name = next((name for name in names if name in self.prompts), None) if prompt is None else None
        return self.encode(texts, prompt=prompt, prompt_name=name, **kwargs)

    def encode_text(self, texts: list[str], *, prompt_name: str, **_: Any) -> Any:
        # jina-embeddings-v4's own code: the two prefixes that it has
        return self.encode(texts, prompt={"query": "Query: ", "passage": "Passage: "}[prompt_name])

    def set_pooling_include_prompt(self, *_: Any, **__: Any) -> None:
        pass


class Inputs(list[Any]):
    """What mteb's classes read of a data loader beside its batches."""

    dataset = SimpleNamespace(features={"text": None})


def model_of_mteb(name: str, heard: Heard, monkeypatch: pytest.MonkeyPatch, template: str | None) -> Any:
    """mteb's class of a model, made as mteb makes it, but for the weights."""
    import sentence_transformers
    from mteb.models.get_model_meta import MODEL_REGISTRY

    meta = MODEL_REGISTRY[name]
    if meta.loader.__name__ == "JinaV4Wrapper":
        model = meta.loader.__new__(meta.loader)
        model.model, model.vector_type = heard, "single_vector"
        model.model_prompts = meta.loader_kwargs["model_prompts"]
        return model
    own = meta.loader_kwargs.get("model_prompts")
    heard.prompts = own if own is not None else heard.prompts
    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", lambda *_, **__: heard)
    extra = {"instruction_template": template} if template is not None else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return meta.loader(name, revision=meta.revision, **meta.loader_kwargs, **extra)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("entry", ENCODERS, ids=lambda entry: entry.name)
def test_the_texts_are_those_that_mteb_makes_in_process(
    entry: Entry, tasks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mteb.types import PromptType

    config = configure({"model_name": entry.name, "api_base": "http://localhost"})
    rules = make_rules(config)
    heard = Heard(dict(entry.prompts))
    repository = catalog.get(WITHOUT_CLASS.get(entry.name, entry.name)).huggingface
    template = "Instruct: {instruction}\nQuery: " if entry.name in WITH_THE_CARDS_TEMPLATE else None
    model = model_of_mteb(repository, heard, monkeypatch, template)
    for metadata in tasks:
        for side in ("query", "document") if metadata.type in WITH_SIDES else (None,):
            prompt_type = None if side is None else PromptType(side)
            heard.texts.clear()
            model.encode(
                Inputs([{"text": ["x"]}]), task_metadata=metadata, hf_split="t", hf_subset="d", prompt_type=prompt_type
            )
            sent = rules.prefix(task_info(metadata), side_of(prompt_type)).text + "x"
            assert [sent] == heard.texts, (metadata.name, side)


def test_every_rule_says_where_it_is_written() -> None:
    for entry in catalog.entries():
        if entry.rules_only:
            assert entry.rules_from, entry.name


def test_a_models_own_template_surrounds_the_instructions_of_a_profile_but_is_not_sent_without_one() -> None:
    def template(**keys: object) -> str | None:
        return configure({"model_name": "e5-mistral-7b-instruct", "api_base": "http://a", **keys}).instruction_template

    assert template() == template(instruction_profile="mteb") == "Instruct: {}\nQuery: "
    assert template(instruction_profile="none") is None
    assert template(instruction_template="I: {} ") == "I: {} "


@pytest.mark.parametrize("name", ["e5-mistral-7b-instruct", "multilingual-e5-base", "mxbai-rerank-base-v2"])
def test_a_models_own_rule_is_no_part_of_a_results_name(name: str) -> None:
    from evalscope_vacc.models.meta import experiment_kwargs

    config = configure({"model_name": name, "api_base": "http://a"})
    assert experiment_kwargs(config) == {}
    if config.instruction_template:
        same = configure({"model_name": name, "api_base": "http://a", "instruction_template": "Instruct: {}\nQuery: "})
        other = configure({"model_name": name, "api_base": "http://a", "instruction_template": "I: {}"})
        assert experiment_kwargs(same) == {} != experiment_kwargs(other)
