"""The keys of a served model: every one of them, both spellings, errors that name the key and never a secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from evalscope_vacc.config import ModelConfig, configure, read_keys, spellings
from evalscope_vacc.endpoints import endpoint_config
from evalscope_vacc.errors import ConfigError, VaccError

BASE = {"model_name": "some-model", "api_base": "http://127.0.0.1:8000/v1"}


def test_defaults_are_the_documented_ones() -> None:
    config = configure(BASE)
    assert (config.max_concurrency, config.timeout_s, config.retries, config.wait_for_server_s) == (4, 300, 5, 600)
    assert (config.instruction_profile, config.rerank_template, config.dialect) == ("none", "none", "auto")
    assert (config.store, config.preflight, config.truncate, config.verify) == ("resume", True, "cut", True)
    assert config.batch_size is None
    assert config.bases == ("http://127.0.0.1:8000",)
    assert config.revision.startswith("served-")
    assert len(config.revision) == len("served-") + 8


@pytest.mark.parametrize("name", ["Qwen3-Embedding-0.6B", "qwen/QWEN3-embedding-0.6b"])
def test_a_name_that_the_catalog_knows_brings_its_values_and_says_so(name: str) -> None:
    config = configure({**BASE, "model_name": name})
    assert (config.instruction_profile, config.max_tokens) == ("qwen-official", 8192)
    assert any(note.startswith("instruction_profile: qwen-official (catalog") for note in config.notes)


def test_what_is_written_wins_over_the_catalog() -> None:
    written = {"instruction_profile": "mteb", "max_tokens": 512, "max_concurrency": 9}
    config = configure({**BASE, "model_name": "Qwen3-Embedding-0.6B", **written})
    assert (config.instruction_profile, config.max_tokens, config.max_concurrency) == ("mteb", 512, 9)


def test_a_dictionary_without_a_profile_means_qwens_rules() -> None:
    config = configure({**BASE, "model_kwargs": {"instruction_dict_path": "tasks.json"}})
    assert config.instruction_profile == "qwen-official"


def test_the_catalogs_reranker_is_one_without_saying_so() -> None:
    config = configure({**BASE, "model_name": "Qwen3-Reranker-0.6B"})
    assert config.is_cross_encoder
    assert config.rerank_template == "auto"


def test_flat_keys_are_lifted_into_their_group() -> None:
    config = configure({**BASE, "batch_size": 7, "instruction_template": "I: {}\nQ:"})
    assert (config.batch_size, config.instruction_template) == (7, "I: {}\nQ:")


@pytest.mark.parametrize(
    ("key", "near"),
    [("max_concurency", "max_concurrency"), ("apibase", "api_base"), ("Dialect", "dialect"), ("timeout", "timeout_s")],
)
def test_an_unknown_key_names_the_nearest(key: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown key '{key}': did you mean '{near}'"):
        configure({**BASE, key: 1})


def test_an_unknown_key_of_a_group_names_the_nearest_there() -> None:
    with pytest.raises(ConfigError, match=r"'model_kwargs.instruction_dict': did you mean 'instruction_dict_path'"):
        configure({**BASE, "model_kwargs": {"instruction_dict": "x"}})


@pytest.mark.parametrize("key", ["api_key", "headers", "max_tokens", "encode_kwargs", "verify"])
def test_a_value_of_the_wrong_kind_names_the_key_and_not_the_value(key: str) -> None:
    with pytest.raises(ConfigError) as raised:
        configure({**BASE, "api_key": "sekret-1", key: ["sekret-2"]})
    assert key in str(raised.value)
    assert "sekret" not in str(raised.value)


def test_references_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sekret")
    monkeypatch.setenv("MY_HOST", "10.0.0.7")
    config = configure(
        {**BASE, "api_key": "${MY_KEY}", "api_base": "http://${MY_HOST}:1/v1", "headers": {"A": "${MY_KEY}"}}
    )
    assert config.api_key == "sekret"
    assert config.headers == {"A": "sekret"}
    assert config.bases == ("http://10.0.0.7:1",)


def test_a_reference_to_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match="NO_SUCH_VARIABLE_HERE is not set"):
        configure({**BASE, "api_key": "${NO_SUCH_VARIABLE_HERE}"})


@pytest.mark.parametrize("key", ["EMPTY", ""])
def test_empty_means_no_key(key: str) -> None:
    assert configure({**BASE, "api_key": key}).api_key is None


def test_the_environment_gives_what_the_entry_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VACC_API_BASE", "http://a:1,http://b:2/v1")
    monkeypatch.setenv("VACC_API_KEY", "from-env")
    config = configure({"model_name": "m"})
    assert config.bases == ("http://a:1", "http://b:2")
    assert config.api_key == "from-env"


def test_no_address_says_how_to_give_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VACC_API_BASE", raising=False)
    with pytest.raises(ConfigError, match="VACC_API_BASE"):
        configure({"model_name": "m"})


def test_secrets_are_in_no_rendering() -> None:
    config = configure(
        {
            **BASE,
            "api_base": "http://user:passw0rd@h:1",
            "api_key": "sekret",
            "headers": {"X": "hidden"},
        }
    )
    shown = repr(config).replace(repr(config.bases), "") + json.dumps(config.public())
    assert not any(secret in shown for secret in ("sekret", "hidden", "passw0rd"))
    assert {"sekret", "hidden", "passw0rd"} <= set(config.secrets)


def test_max_seq_length_means_max_tokens() -> None:
    assert configure({**BASE, "max_seq_length": 128}).max_tokens == 128
    with pytest.raises(ConfigError, match="they mean the same"):
        configure({**BASE, "max_seq_length": 128, "max_tokens": 64})


def test_dimensions_above_the_models_are_refused() -> None:
    with pytest.raises(ConfigError, match="has 1024"):
        configure({**BASE, "model_name": "Qwen3-Embedding-0.6B", "dimensions": 2048})


def test_stored_predictions_come_in_two_spellings() -> None:
    lists = configure({**BASE, "model_kwargs": {"task_name": ["A", "B"], "embed_results": ["a.json", "b.json"]}})
    mapping = configure({**BASE, "model_kwargs": {"embed_results": {"A": "a.json", "B": "b.json"}}})
    assert lists.embed_results == mapping.embed_results == {"A": "a.json", "B": "b.json"}


def test_a_task_list_of_another_length_is_an_error() -> None:
    with pytest.raises(ConfigError, match="2 tasks and embed_results 1 files"):
        configure({**BASE, "model_kwargs": {"task_name": ["A", "B"], "embed_results": ["a.json"]}})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*spellings(), "nonsense"]) | st.text(max_size=10), values))
def test_whatever_is_written_only_our_errors_come_out(entry: dict[str, object]) -> None:
    try:
        keys = read_keys(entry)
    except VaccError:
        return
    assert isinstance(keys, ModelConfig)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"batch_size": "sekret"}, "the model entry: batch_size: it must be a valid integer"),
        ({"encode_kwargs": ["sekret"]}, "the model entry: encode_kwargs: expected a mapping, found list"),
        ({"model_kwargs": {"batch_size": 3}}, "'model_kwargs.batch_size': write batch_size into encode_kwargs"),
        ({"encode_kwargs": {"max_tokens": 3}}, "'encode_kwargs.max_tokens': write max_tokens beside encode_kwargs"),
        ({"batch_size": 3, "encode_kwargs": {"batch_size": 4}}, "batch_size and encode_kwargs.batch_size differ"),
        ({"max_tokens": 0}, "max_tokens: it must be greater than 0"),
        ({"retries": -1, "timeout_s": 0}, "timeout_s: it must be greater than 0; retries: it must be"),
        ({"api_base": 5}, "api_base: it must be a list"),
        ({"headers": "sekret"}, "headers: it must be a mapping"),
        ({"task_name": "A"}, "embed_results: it has no file for A"),
        ({"truncate": "sekret"}, "truncate: it must be 'cut' or 'error'"),
        ({"qqq": "sekret", "zzz": 1}, "unknown key 'qqq'; unknown key 'zzz'; the keys are api_base, api_key, batch_"),
        ({"notes": ["sekret"]}, "unknown key 'notes'"),
    ],
)
def test_a_mistake_is_one_line_that_says_where_and_what_and_no_value(entry: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        configure({**BASE, **entry})
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "sekret" not in str(raised.value)


def test_a_model_cannot_be_changed() -> None:
    config = configure({**BASE, "batch_size": 2})
    with pytest.raises(ValueError, match="frozen"):
        config.batch_size = 3


def test_a_key_of_a_later_source_wins_however_either_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VACC_HOME", str(tmp_path))
    written = 'api_base = "http://a:1"\nbatch_size = 2\nmodel_kwargs = {instruction_template = "{}: "}\n'
    (tmp_path / "endpoints.toml").write_text(f'[endpoints."vacc/m"]\n{written}')
    options = {"encode_kwargs": {"batch_size": 5}, "instruction_template": "I: {}"}
    config = endpoint_config("vacc/m", options)
    assert (config.batch_size, config.instruction_template, config.bases) == (5, "I: {}", ("http://a:1",))
    with pytest.raises(ConfigError, match="endpoint 'vacc/m': encode_kwargs: expected a mapping"):
        endpoint_config("vacc/m", {"encode_kwargs": 5})


@pytest.mark.parametrize(
    "wrong",
    [{"timeout_s": 0}, {"timeout_s": float("nan")}, {"retries": -1}, {"wait_for_server_s": -1}, {"max_concurrency": 0}],
)
def test_a_number_that_cannot_be_meant_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))}: it must be greater than"):
        configure({"model_name": "m", "api_base": "http://h", **wrong})


SENTENCE = "Given a web search query, retrieve relevant passages that answer the query"


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"model_name": "our-own"}, "its texts are sent without a prefix; write prompts"),
        ({"model_name": "our-own", "is_cross_encoder": True, "rerank_template": "auto"}, "write the template"),
        ({"model_name": "Qwen3-Reranker-0.6B", "is_cross_encoder": False}, "write is_cross_encoder: true"),
        ({"model_name": "bge-m3", "is_cross_encoder": True}, "write is_cross_encoder: false"),
        ({"model_name": "bge-m3", "max_seq_length": 512}, "were measured at 8192: write max_tokens: 8192"),
        ({"model_name": "bge-reranker-v2-m3", "rerank_template": "qwen3"}, "was trained with no template"),
        ({"model_name": "e5-base-v2", "instruction_profile": "mteb"}, "was trained with prefixes of its own: leave"),
        ({"model_name": "bge-m3", "instruction_profile": "qwen-official"}, "with no prefix"),
        ({"model_name": "mxbai-rerank-base-v2", "rerank_template": "qwen3"}, "trained with mxbai-rerank-v2"),
        ({"model_name": "bge-m3", "pooling_mode": "mean"}, "pooling_mode is mean, and bge-m3 was trained with cls"),
        ({"model_name": "Qwen3-Embedding-4B", "prompt": SENTENCE}, 'or write it as "Instruct: …'),
        ({"model_name": "Qwen3-Reranker-4B", "prompt": SENTENCE}, "leave it out: a template brings its instruction"),
        (
            {"model_name": "ours", "is_cross_encoder": True, "prompt": SENTENCE},
            "rerank_template: qwen3 for a fine-tuned",
        ),
        ({"model_name": "ours", "prompts": {"query": "为这个句子生成表示以用于检索"}}, "prompts[query] is a sentence"),
    ],
)
def test_what_contradicts_the_catalog_or_was_chosen_by_nobody_is_one_warning(
    keys: dict[str, object], says: str
) -> None:
    (warning,) = configure({"api_base": "http://a", **keys}).warnings
    assert says in warning
    assert "\n" not in warning


@pytest.mark.parametrize(
    "keys",
    [
        {"model_name": "our-own", "instruction_profile": "none"},
        {"model_name": "our-own", "prompts": {"query": "q: "}},
        {"model_name": "our-own", "is_cross_encoder": True},
        {"model_name": "bge-m3"},
        {"model_name": "bge-m3", "max_tokens": 8192},
        {"model_name": "bge-m3", "instruction_dict_path": "metadata"},
        {"model_name": "Qwen3-Embedding-0.6B", "instruction_profile": "mteb"},
        {"model_name": "e5-base-v2", "instruction_profile": "none"},
        {"model_name": "Qwen3-Reranker-4B", "rerank_template": "qwen3-evaluation"},
        {"model_name": "Qwen3-Embedding-4B", "prompt": f"Instruct: {SENTENCE}\nQuery:"},
        {"model_name": "Qwen3-Embedding-4B", "pooling_mode": "lasttoken", "prompt": ""},
        {"model_name": "ours", "prompts": {"query": "为这个句子生成表示以用于检索相关文章："}},
        {"model_name": "ours", "prompts": {"query": f"{SENTENCE}: ", "document": "passage: "}},
    ],
)
def test_what_somebody_chose_or_the_catalog_says_is_no_warning(keys: dict[str, object]) -> None:
    assert configure({"api_base": "http://a", **keys}).warnings == ()


def test_keys_about_weights_are_dropped_wherever_they_stand_and_named_in_one_line() -> None:
    config = configure(
        {
            **BASE,
            "model_name": "bge-m3",
            "pooling_mode": "cls",
            "trust_remote_code": True,
            "model_kwargs": {"torch_dtype": "auto", "attn_implementation": "sdpa"},
            "encode_kwargs": {"batch_size": 8, "normalize_embeddings": True},
        }
    )
    (note,) = [note for note in config.notes if "not used" in note]
    assert note.startswith(
        "attn_implementation, normalize_embeddings, pooling_mode, torch_dtype, trust_remote_code: not"
    )
    assert (config.warnings, config.batch_size) == ((), 8)


def test_a_key_that_would_change_scores_is_not_taken_for_one_about_weights() -> None:
    for keys in (
        {"encode_kwargs": {"precision": "int8"}},
        {"similarity_fn_name": "dot"},
        {"model_kwargs": {"lora": "x"}},
    ):
        with pytest.raises(ConfigError, match="unknown key"):
            configure({**BASE, **keys})


def test_the_configuration_of_low_scores_says_why_they_are_low() -> None:
    """What QwenLM/Qwen3-Embedding #103 ran: 512 tokens, and an instruction's sentence as the reranker's prompt."""
    shared = {"api_base": "http://a", "max_seq_length": 512, "model_kwargs": {"torch_dtype": "auto"}}
    encoder = configure({**shared, "model_name_or_path": "/data/models/Qwen3-Embedding-4B", "is_cross_encoder": False})
    (short,) = encoder.warnings
    assert "max_tokens is 512, but the scores of Qwen3-Embedding-4B were measured at 8192" in short
    for name in ("/data/models/Qwen3-Reranker-0.6B", "/data/models/mmarco-finetune"):
        reranker = configure({**shared, "model_name_or_path": name, "is_cross_encoder": True, "prompt": SENTENCE})
        assert any("prompt is a sentence that goes directly before the text" in line for line in reranker.warnings)
        assert any("torch_dtype: not used" in note for note in reranker.notes)


@pytest.mark.parametrize(
    ("written", "key", "value"),
    [("store: off", "store", "off"), ("preflight: off", "preflight", False), ("preflight: on", "preflight", True)],
)
def test_words_that_yaml_reads_as_true_and_false_mean_what_the_documentation_says(
    written: str, key: str, value: object
) -> None:
    entry = yaml.safe_load(f"{{model_name: m, api_base: http://127.0.0.1:9, {written}}}")
    assert getattr(configure(entry), key) == value
