"""Plugins: ours comes in like everybody's, and a broken one does not take the others with it."""

from __future__ import annotations

import logging
from importlib.metadata import EntryPoint
from typing import ClassVar

import pytest

from evalscope_vacc import hookspecs
from evalscope_vacc.errors import ConfigError
from evalscope_vacc.plugins import Plugins, plugins

GROUP = "evalscope_vacc"
OURS = EntryPoint("vacc_api", "evalscope_vacc.builtin", GROUP)


class Good:
    """Uses every hook."""

    @hookspecs.hookimpl
    def register_model_types(self, register):
        register("other_api", lambda mapping: ("other", mapping))

    @hookspecs.hookimpl
    def register_instruction_profiles(self, register):
        register("shouting", lambda **options: ("profile", options))

    @hookspecs.hookimpl
    def register_rerank_templates(self, register):
        register("plain", "template")

    @hookspecs.hookimpl
    def register_dialects(self, register):
        register("mine", "dialect")

    @hookspecs.hookimpl
    def register_catalog_entries(self, register):
        register("my-model", "entry")


class Raises:
    @hookspecs.hookimpl
    def register_model_types(self, register):
        register("half", lambda mapping: mapping)
        raise RuntimeError("this plugin is broken")


class Thief:
    @hookspecs.hookimpl
    def register_model_types(self, register):
        register("vacc_api", lambda mapping: "stolen")


class Unknown:
    @hookspecs.hookimpl
    def register_model_typos(self, register):
        """No such hook."""


class Counts:
    called: ClassVar[list[str]] = []

    @hookspecs.hookimpl
    def register_model_types(self, register):
        self.called.append("model")
        register("counted", lambda mapping: mapping)

    @hookspecs.hookimpl
    def register_catalog_entries(self, register):
        self.called.append("catalog")
        register("counted", "entry")


class Late(Counts):
    @hookspecs.hookimpl
    def register_catalog_entries(self, register):
        raise RuntimeError("catalog is broken")


good, raises, thief, unknown, counts, late = Good(), Raises(), Thief(), Unknown(), Counts(), Late()


def entry(name: str, value: str | None = None) -> EntryPoint:
    return EntryPoint(name, value or f"{__name__}:{name}", GROUP)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entry points load by module name; pytest's importlib mode does not put this module there."""
    import sys
    from types import ModuleType

    module = ModuleType(__name__)
    module.__dict__.update(good=good, raises=raises, thief=thief, unknown=unknown, counts=counts, late=late)
    monkeypatch.setitem(sys.modules, __name__, module)


def test_our_own_model_type_comes_in_through_the_entry_point() -> None:
    assert "vacc_api" in plugins().model_types()
    assert plugins().manager.has_plugin("vacc_api")


def test_every_hook_is_collected() -> None:
    both = Plugins([OURS, entry("good")])
    assert set(both.model_types()) == {"vacc_api", "other_api"}
    assert both.instruction_profiles()["shouting"](a=1) == ("profile", {"a": 1})
    assert both.rerank_templates() == {"plain": "template"}
    assert both.dialects() == {"mine": "dialect"}
    assert both.catalog_entries() == {"my-model": ("entry", "good")}


def test_every_hook_is_called_once_however_often_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(Counts, "called", called)
    found = Plugins([entry("counts")])
    for _ in range(3):
        assert set(found.model_types()) == {"counted"}
        assert set(found.catalog_entries()) == {"counted"}
    assert called == ["model", "catalog"]


def test_a_plugin_of_which_one_hook_breaks_is_left_out_whole() -> None:
    found = Plugins([OURS, entry("late")])
    assert set(found.model_types()) == {"vacc_api"}
    assert "catalog is broken" in found.broken["late"]


def test_every_hook_has_a_test() -> None:
    """Whoever adds a hook adds it to ``Good`` above."""
    specified = {name for name in vars(hookspecs) if name.startswith("register_")}
    assert specified == {name for name in vars(Good) if name.startswith("register_")}


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (EntryPoint("gone", "no_such_module_of_anybody", GROUP), "ModuleNotFoundError"),
        (EntryPoint("raises", f"{__name__}:raises", GROUP), "this plugin is broken"),
        (EntryPoint("thief", f"{__name__}:thief", GROUP), "registered twice"),
        (EntryPoint("unknown", f"{__name__}:unknown", GROUP), "register_model_typos"),
    ],
    ids=lambda value: value.name if isinstance(value, EntryPoint) else None,
)
def test_a_broken_plugin_is_reported_and_left_out(
    broken: EntryPoint, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = Plugins([broken, OURS, entry("good")])
        kinds = found.model_types()
    assert set(kinds) == {"vacc_api", "other_api"}
    assert kinds["vacc_api"].__module__ == "evalscope_vacc.builtin"
    assert why in found.broken[broken.name]
    assert broken.name in caplog.text


def test_a_plugin_can_be_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALSCOPE_VACC_BLOCK_PLUGINS", "good, other")
    assert set(Plugins([OURS, entry("good")]).model_types()) == {"vacc_api"}


def test_an_unknown_model_type_names_the_nearest_one_and_the_broken_plugin() -> None:
    found = Plugins([OURS, EntryPoint("gone", "no_such_module_of_anybody", GROUP)])
    with pytest.raises(ConfigError, match=r"did you mean 'vacc_api'\?.*plugin gone is left out"):
        found.model_type("vac_api")
