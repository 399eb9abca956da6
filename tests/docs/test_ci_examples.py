"""The examples for continuous integration: valid files, and commands that the program understands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from evalscope_vacc.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples" / "ci").glob("*.yml"))


def lines(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [line for item in items for line in lines(item)]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_commands_of_an_example_are_understood(path: Path) -> None:
    found = [line for line in lines(yaml.safe_load(path.read_text())) if line.startswith("evalscope-vacc ")]
    assert found
    for line in found:
        _, name, *arguments = shlex.split(line)
        command = get_command(app).commands[name]  # type: ignore[attr-defined]
        given = command.make_context(name, arguments).params
        assert given["junit"]
        assert given["budget"] == "10m"


def test_both_systems_have_an_example() -> None:
    assert [path.name for path in EXAMPLES] == ["github-actions.yml", "gitlab-ci.yml"]


def test_the_image_holds_what_the_build_reads_and_runs_without_root() -> None:
    text = (ROOT / "Dockerfile").read_text()
    named = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
    copied = {name for group in named for name in group.split()}
    allowed = {
        line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    assert text.index("USER vacc") < text.index("ENTRYPOINT")
    assert text.count("\nFROM ") == 2
    assert "docker build" in (ROOT / ".github" / "workflows" / "release.yml").read_text()
