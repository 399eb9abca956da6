"""What patches/README.md names as evidence is there, and docs/hosts.md has every key of the guide."""

from __future__ import annotations

import re
from pathlib import Path

from evalscope_vacc.config import spellings
from evalscope_vacc.hosts.spelling import EVAL_KEYS, OLDER_EVAL_KEYS

ROOT = Path(__file__).resolve().parents[2]


PATCHES = (ROOT / "patches" / "README.md").read_text(encoding="utf-8")


def test_every_file_and_test_that_is_named_exists() -> None:
    found = re.findall(r"`((?:hosts|text|models|tests)/[^`]+)`", PATCHES)
    assert len(found) > 15
    for given in found:
        path, _, test = given.partition("::")
        file = ROOT / path if path.startswith("tests/") else ROOT / "evalscope_vacc" / path
        assert file.exists(), given
        if test:
            assert re.search(rf"^def {re.escape(test)}\(", file.read_text(encoding="utf-8"), re.MULTILINE), given


def test_each_of_the_seven_edits_has_what_replaces_it_and_what_shows_it() -> None:
    rows = re.findall(r"^\| modify\.(\d) \|(.*)\|$", PATCHES, re.MULTILINE)
    assert [number for number, _ in rows] == list("1234567")
    for number, row in rows[:-1]:
        replaced, shown = row.split("|")[1:3]
        assert ".py`" in replaced, number
        assert "`tests/" in shown, number


def test_every_key_of_the_guide_is_in_the_table() -> None:
    text = (ROOT / "docs" / "hosts.md").read_text(encoding="utf-8")
    table = text[text.index("key by key") : text.index("## MTEB without")]
    keys = ["work_dir", "eval_backend", "tool", "model_name", "api_base", "api_key", "dimensions", "is_cross_encoder"]
    keys += ["encode_kwargs.batch_size", "model_kwargs.instruction_template", ".instruction_dict_path"]
    keys += ["model_kwargs.task_name", ".embed_results", "eval.tasks", "eval.top_k", "eval.verbosity", "eval.limits"]
    keys += ["eval.output_folder", "eval.overwrite_results", "eval.hub", "eval.dataset_path"]
    for key in keys:
        assert f"`{key}`" in table, key
    known = {
        *spellings(),
        *EVAL_KEYS,
        *OLDER_EVAL_KEYS,
        "tool",
        "work_dir",
        "eval_backend",
    }
    assert {key.rpartition(".")[2] for key in keys} <= known
