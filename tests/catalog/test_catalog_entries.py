from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalscope_vacc import catalog
from evalscope_vacc.errors import ConfigError

ROW = {
    "name": "tiny-embedding",
    "kind": "encoder",
    "huggingface": "us/tiny-embedding",
    "dimensions": 8,
    "max_tokens": 16,
    "model_limit": 32,
}


def test_the_catalog_holds_every_model_of_the_guides() -> None:
    guided = [e for e in catalog.entries() if not e.rules_only]
    facts = {e.name: (e.kind, e.layers, e.dimensions, e.max_tokens, e.model_limit) for e in guided}
    encoder, cross = "encoder", "cross-encoder"
    assert facts == {
        "Qwen3-Embedding-0.6B": (encoder, 28, 1024, 8192, 32768),
        "Qwen3-Embedding-4B": (encoder, 36, 2560, 8192, 32768),
        "Qwen3-Embedding-8B": (encoder, 36, 4096, 8192, 32768),
        "Qwen3-Reranker-0.6B": (cross, 28, None, 8192, 32768),
        "Qwen3-Reranker-4B": (cross, 36, None, 8192, 32768),
        "Qwen3-Reranker-8B": (cross, 36, None, 8192, 32768),
        "bge-m3": (encoder, 24, 1024, 8192, 8192),
        "bge-small-en-v1.5": (encoder, 12, 384, 512, 512),
        "bge-base-en-v1.5": (encoder, 12, 768, 512, 512),
        "bge-large-en-v1.5": (encoder, 24, 1024, 512, 512),
        "bge-small-zh-v1.5": (encoder, 4, 512, 512, 512),
        "bge-base-zh-v1.5": (encoder, 12, 768, 512, 512),
        "bge-large-zh-v1.5": (encoder, 24, 1024, 512, 512),
        "bge-reranker-v2-m3": (cross, 24, None, 8192, 8192),
        "bge-reranker-base": (cross, 12, None, 512, 512),
        "bge-reranker-large": (cross, 24, None, 512, 512),
        "all-MiniLM-L6-v2": (encoder, 6, 384, 256, 512),
    }


def test_qwen3_rows_say_how_their_text_is_made_and_how_they_are_spread() -> None:
    for entry in catalog.entries():
        if not entry.name.startswith("Qwen3-"):
            continue
        assert entry.tensor_parallel == ((2, 4, 8) if entry.name.endswith("-8B") else (1, 2, 4, 8))
        assert entry.max_concurrency == 4
        assert entry.instruction_aware
        if entry.is_cross_encoder:
            assert (entry.profile, entry.template, entry.template_family) == (None, "auto", "qwen3")
        else:
            assert (entry.profile, entry.template, entry.pooling) == ("qwen-official", None, "last")
            assert entry.matryoshka == (32, entry.dimensions)


def test_bge_v15_puts_its_instruction_before_queries_and_m3_before_nothing() -> None:
    english = {"query": "Represent this sentence for searching relevant passages: "}
    chinese = {"query": "为这个句子生成表示以用于检索相关文章："}
    for entry in catalog.entries():
        if not entry.name.startswith("bge") or entry.rules_only:
            continue
        wanted = english if "-en-" in entry.name else chinese if "-zh-" in entry.name else {}
        assert dict(entry.prompts) == wanted
        assert entry.profile == (None if entry.is_cross_encoder else "none")
        assert entry.template == ("none" if entry.is_cross_encoder else None)


@pytest.mark.parametrize(
    "spelling",
    [
        "Qwen3-Embedding-0.6B",
        "qwen3-embedding-0.6b",
        "Qwen/Qwen3-Embedding-0.6B",
        "QWEN/QWEN3-EMBEDDING-0.6B",
        "vacc/Qwen3-Embedding-0.6B",
        "vacc/Qwen/Qwen3-Embedding-0.6B",
        "/weights/Qwen3-Embedding-0.6B",
        "/weights/Qwen3-Embedding-0.6B/",
        "D:\\models\\Qwen3-Embedding-0.6B",
        "/cache/hub/models--Qwen--Qwen3-Embedding-0.6B/snapshots/c54f2e6e80b2d7b7",
        "/cache/modelscope/models/Qwen/Qwen3-Embedding-0___6B",
    ],
)
def test_a_served_name_is_found_however_it_is_spelled(spelling: str) -> None:
    entry = catalog.find(spelling)
    assert entry is not None
    assert entry.name == "Qwen3-Embedding-0.6B"


@pytest.mark.parametrize("name", ["", "/", "Qwen3-Embedding", "Qwen3-Embedding-0.6B-GGUF", "Qwen3-Embedding-0.6B/lora"])
def test_a_name_that_only_resembles_an_entry_is_not_found(name: str) -> None:
    assert catalog.find(name) is None


@given(st.sampled_from(catalog.entries()), st.text(alphabet="abc/-._XYZ ", max_size=12), st.data())
def test_neither_case_nor_what_stands_before_the_last_slash_matters(
    entry: catalog.Entry, before: str, data: st.DataObject
) -> None:
    flips = data.draw(st.lists(st.booleans(), min_size=len(entry.name), max_size=len(entry.name)))
    name = "".join(c.swapcase() if flip else c for c, flip in zip(entry.name, flips, strict=True))
    assert catalog.find(f"{before}/{name}") == entry


def test_get_names_the_nearest_models() -> None:
    with pytest.raises(
        ConfigError, match=r"'qwen3-embeding-4b' is not in the catalog; did you mean .Qwen3-Embedding-4B"
    ):
        catalog.get("qwen3-embeding-4b")
    with pytest.raises(ConfigError, match="evalscope-vacc models"):
        catalog.get("zzzzzz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a/b"}, "key 'name': String should match pattern '^[^/]+$', not 'a/b'"),
        ({"name": 3}, "key 'name'"),
        ({"kind": "bi-encoder"}, "row 1 (tiny-embedding): key 'kind': Input should be 'encoder' or 'cross-encoder'"),
        ({"dimensoins": 8}, "key 'dimensoins' is not known; did you mean 'dimensions'?"),
        ({"dimensions": "8"}, "key 'dimensions': Input should be a valid integer, not '8'"),
        ({"dimensions": True}, "key 'dimensions': Input should be a valid integer"),
        ({"dimensions": 0}, "key 'dimensions': Input should be greater than or equal to 1"),
        ({"dimensions": None}, "key 'dimensions': an encoder needs it"),
        ({"huggingface": "tiny"}, "key 'huggingface': String should match pattern"),
        ({"max_tokens": 64}, "key 'max_tokens': 64 is above model_limit 32"),
        ({"matryoshka": [4, 16]}, "key 'matryoshka': 4..16 is not within the 8 dimensions"),
        ({"matryoshka": [4]}, "matryoshka: key '1' is missing"),
        ({"instruction_template": "I: {}"}, "key 'instruction_template': there is no profile"),
        ({"template": "qwen3"}, "key 'template': rerank templates are for cross-encoders"),
        ({"kind": "cross-encoder"}, "key 'dimensions': a cross-encoder answers with scores"),
        ({"tensor_parallel": [2, 1]}, "key 'tensor_parallel': the numbers must rise"),
        ({"tensor_parallel": []}, "key 'tensor_parallel': Tuple should have at least 1 item"),
        ({"prompts": {"query": 1}}, "prompts: key 'query': Input should be a valid string"),
        ({"pooling": "max"}, "key 'pooling': Input should be 'last'"),
        ({"serve": {"hf_overrides": "[1]"}}, "serve: key 'hf_overrides': it must be the JSON text of an object"),
        ({"serve": {"hf_overrides": "{"}}, "serve: key 'hf_overrides': Expecting property name"),
        (
            {"serve": {"trust_remote": True}},
            "serve: key 'trust_remote' is not known; did you mean 'trust_remote_code'?",
        ),
        ({"serve": 1}, "key 'serve': Input should be a valid dictionary"),
        ({"instruction_aware": 1}, "key 'instruction_aware': Input should be a valid boolean"),
    ],
)
def test_a_wrong_row_is_refused_with_entry_and_key(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        catalog.entry_from_mapping({**ROW, **change}, where="row 1")
    assert str(caught.value).startswith("row 1")
    assert message in str(caught.value)


@pytest.mark.parametrize("key", ["kind", "huggingface", "max_tokens", "model_limit"])
def test_a_row_without_a_needed_key_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=f"key '{key}' is missing"):
        catalog.entry_from_mapping({k: v for k, v in ROW.items() if k != key}, where="row 1")


def test_a_catalog_file_is_refused_with_its_name() -> None:
    with pytest.raises(ConfigError, match=r"mine\.toml: not valid TOML"):
        catalog.load_entries("[[model", where="mine.toml")
    with pytest.raises(ConfigError, match=r"mine\.toml: holds \[\[model\]\] tables only, seen models"):
        catalog.load_entries("models = 1", where="mine.toml")
    twice = '[[model]]\nname="a"\nkind="encoder"\nhuggingface="b/a"\ndimensions=2\nmax_tokens=2\nmodel_limit=2\n'
    with pytest.raises(ConfigError, match=r"mine\.toml, model 2: A is there twice"):
        catalog.load_entries(twice + twice.replace('"a"', '"A"'), where="mine.toml")


class FromPlugin:
    """What `catalog` sees of the plugins."""

    def __init__(self, **rows: catalog.Entry) -> None:
        self.rows = rows

    def catalog_entries(self) -> dict[str, tuple[catalog.Entry, str]]:
        return {entry.name: (entry, plugin) for plugin, entry in self.rows.items()}


def test_a_plugins_model_is_found_and_says_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    found = FromPlugin(tiny=row_of())
    monkeypatch.setattr(catalog, "plugins", lambda: found)
    assert catalog.find("us/Tiny-Embedding") == catalog.get("TINY-embedding") == catalog.entries()[-1]
    assert catalog.get("tiny-embedding").source == "tiny"


def test_a_plugin_cannot_replace_a_model(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    found = FromPlugin(first=row_of(), second=row_of(name="BGE-M3"), third=row_of(dimensions=4, name="TINY-embedding"))
    monkeypatch.setattr(catalog, "plugins", lambda: found)
    assert catalog.get("bge-m3").huggingface == "BAAI/bge-m3"
    assert catalog.get("tiny-embedding").dimensions == 8
    assert "plugin second adds the model 'BGE-M3' to the catalog, which the built-in catalog describes" in caplog.text
    assert "plugin third adds the model 'TINY-embedding' to the catalog, which first describes" in caplog.text


def row_of(**changes: object) -> catalog.Entry:
    return catalog.entry_from_mapping({**ROW, **changes}, where="row 1")


def test_an_entry_becomes_plain_values() -> None:
    import json

    for entry in catalog.entries():
        plain = json.loads(json.dumps(entry.to_dict()))
        assert plain["name"] == entry.name
        again = {k: v for k, v in plain.items() if v is not None and k != "source"}
        again["serve"] = {k: v for k, v in plain["serve"].items() if v is not None}
        assert catalog.entry_from_mapping(again, where="again") == entry


def test_reading_the_catalog_imports_nothing_heavy() -> None:
    code = (
        "import sys, evalscope_vacc.catalog as c; c.find('bge-m3');"
        "print(sorted({'requests','torch','mteb','evalscope','numpy','typer','rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
