"""The walk of a text in CONTRIBUTING.md is the one that a text takes."""

from __future__ import annotations

import importlib
import re
import sys
import threading
from operator import attrgetter
from pathlib import Path
from typing import Any

from served_model import ServedModel

import evalscope_vacc
from evalscope_vacc import VaccEncoder

ROOT = Path(__file__).resolve().parents[2]


def walk() -> list[tuple[str, str]]:
    """File and name of each step."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    part = text.partition("<!-- walk -->")[2].partition("<!-- end -->")[0]
    return re.findall(r"^\d+\. `(\S+\.py)` `(\S+)`", part, re.MULTILINE)


def code_of(file: str, name: str) -> Any:
    module = importlib.import_module("evalscope_vacc." + file.removesuffix(".py").replace("/", "."))
    return attrgetter(name)(module).__code__


def test_a_text_passes_the_calls_that_are_written_down_in_their_order() -> None:
    steps = walk()
    assert 8 <= len(steps) <= 12
    wanted = [code_of(*step) for step in steps]
    entered: list[Any] = []

    def note(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code in wanted and frame.f_code not in entered:
            entered.append(frame.f_code)

    with ServedModel() as server:
        model = VaccEncoder(server.name, api_base=server.base, store="off", preflight="off")
        model.open()
        threading.setprofile(note)
        sys.setprofile(note)
        try:
            model.encode(["a text"])
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]
        model.close()
    names = {code: f"{file} {name}" for code, (file, name) in zip(wanted, steps, strict=True)}
    # generators are entered when they are pulled: the loop asks the engine first, which pulls the rest
    assert sorted(names[code] for code in entered) == sorted(names.values())
    assert Path(evalscope_vacc.__file__).parent.name == "evalscope_vacc"
