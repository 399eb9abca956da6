"""The hooks of the older line, on either line: who is left alone, and what a broken environment is told."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest

from evalscope_vacc.hosts import evalscope_legacy as legacy
from evalscope_vacc.hosts.entries import without_secrets


class Newer:
    """EvalScope 1.8.1's shape of the seam."""

    @staticmethod
    def run_mteb(config: Any) -> Any:
        return config

    def run(self) -> None: ...


class Older:
    """EvalScope 1.3.0's."""

    def __init__(self, config: Any) -> None:
        self.config_d = config

    @staticmethod
    def run_mteb(model_args: Any, eval_args: Any) -> Any:
        return model_args, eval_args

    def run(self) -> Any:
        self.config_d.pop("tool")
        return self.run_mteb(self.config_d["model"], self.config_d["eval"])


def test_a_newer_evalscope_is_left_as_it_is() -> None:
    before = dict(vars(Newer))
    legacy.hook_backend_manager(SimpleNamespace(RAGEvalBackendManager=Newer))  # type: ignore[arg-type]
    assert dict(vars(Newer)) == before


def test_entries_without_model_type_reach_evalscope_as_they_were_written() -> None:
    kind = type("Manager", (Older,), dict(vars(Older)))
    legacy.hook_backend_manager(SimpleNamespace(RAGEvalBackendManager=kind))  # type: ignore[arg-type]
    hooked = kind.run_mteb
    legacy.hook_backend_manager(SimpleNamespace(RAGEvalBackendManager=kind))  # type: ignore[arg-type]
    assert kind.run_mteb is hooked is not Older.run_mteb
    models, evaluation = [{"model_name": "m", "api_key": "k"}], {"tasks": ["STSB"]}
    config = {"tool": "mteb", "model": models, "eval": evaluation}
    given = kind(config).run()
    assert given[0] is models
    assert given[1] is evaluation
    assert "tool" not in config  # EvalScope's own doing


def test_what_is_shown_of_an_entry_has_no_secret_and_the_entry_keeps_them() -> None:
    entry = {
        "model_type": "vacc_api",
        "api_key": "sk-0123456789",
        "api_base": ["http://user:hunter22@h:8000/v1", "http://h:8001"],
        "headers": {"X-Token": "token-0123456789", "Y": "${Y_TOKEN}"},
    }
    before = repr(entry)
    shown = without_secrets(entry)
    assert not [s for s in ("sk-0123456789", "hunter22", "token-0123456789") if s in repr(shown)]
    assert shown["headers"]["Y"] == "${Y_TOKEN}"
    assert repr(entry) == before
    own = {"api_key": "sk-of-evalscope-itself"}
    assert without_secrets(own) is own


def test_missing_packages_are_named_with_the_command_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert legacy._lacking() == (
        "RAGEval needs packages that EvalScope does not install: pip install 'langchain-openai<0.4' oss2"
    )
