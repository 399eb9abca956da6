"""What a package index shows of the package: links that lead somewhere from there, and the same facts everywhere."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import evalscope_vacc

pytest.importorskip("hatchling", reason="builds the package")
ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "https://example.org/owner/name"


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def built(hook: ModuleType) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    hook.RepositoryLinks(str(ROOT), {}).update(metadata)
    return metadata


def test_a_release_has_absolute_links_and_project_urls(hook: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROJECT_URL", f"{ADDRESS}/")
    metadata = built(hook)
    text = metadata["readme"]["text"]
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert len(links) > 20
    assert all(link.startswith("https://") for link in links)
    for link in [*links, *metadata["urls"].values()]:
        path = link.partition("/HEAD/")[2]
        assert (ROOT / path).exists(), link
    assert all(f"{ADDRESS}/raw/" in link or "shields" in link for link in re.findall(r"!\[[^\]]*\]\((\S+)\)", text))


def test_a_build_that_knows_no_repository_names_none(hook: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROJECT_URL", raising=False)
    metadata = built(hook)
    assert metadata["readme"]["text"] == (ROOT / "README.md").read_text(encoding="utf-8")
    assert "urls" not in metadata


def test_an_address_and_an_anchor_stay_as_they_are(hook: ModuleType) -> None:
    text = "[a](#here) [b](https://x.example/y) [![c](d.svg)](e.md#f)"
    assert hook.absolute(text, "https://o") == (
        "[a](#here) [b](https://x.example/y) [![c](https://o/raw/HEAD/d.svg)](https://o/blob/HEAD/e.md#f)"
    )


def test_the_release_workflow_says_where_the_repository_is() -> None:
    assert "PROJECT_URL: ${{ github.server_url }}" in (ROOT / ".github" / "workflows" / "release.yml").read_text()


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == evalscope_vacc.__version__
    assert citation["license"] == "Apache-2.0"


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.name
)
def test_an_issue_form_has_what_the_host_wants(path: Path) -> None:
    form = yaml.safe_load(path.read_text())
    if path.name != "config.yml":
        assert {"name", "description", "body"} <= set(form)
        labels = [field["attributes"]["label"] for field in form["body"]]
        assert len(set(labels)) == len(labels)
