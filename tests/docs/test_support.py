"""The table of what works where says what the sessions of the hosts reported, and nothing else."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("support_table", ROOT / "docs" / "support.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


support = load()


@pytest.fixture(scope="module")
def recorded() -> list[dict[str, Any]]:
    hosts: list[dict[str, Any]] = json.loads(support.RECORD.read_text(encoding="utf-8"))
    return hosts


@pytest.mark.parametrize(("name", "language"), support.FILES.items())
def test_the_table_is_the_recorded_one(name: str, language: int, recorded: list[dict[str, Any]]) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert support.with_table(text, support.table(recorded, language)) == text, "run: python docs/support.py"


def test_every_host_of_the_sessions_is_recorded(recorded: list[dict[str, Any]]) -> None:
    assert [host["evalscope"] for host in recorded] == list(support.TESTED_BY)
    pinned = (ROOT / "constraints.txt").read_text()
    assert f"evalscope=={recorded[0]['evalscope']}\n" in pinned
    assert f"mteb=={recorded[0]['mteb']}\n" in pinned
    sessions = (ROOT / "noxfile.py").read_text()
    for host in recorded[1:]:
        assert f'"{host["evalscope"]}"' in sessions
        assert f'"{host["mteb"]}"' in sessions


def test_every_mark_of_the_tests_is_a_row_and_every_row_has_a_test(recorded: list[dict[str, Any]]) -> None:
    marks = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        marks |= set(
            re.findall(r"^@pytest\.mark\.shows\(\"([^\"]+)\"\)", file.read_text(encoding="utf-8"), re.MULTILINE)
        )
    assert marks == set(support.SHOWN)
    for host in recorded:
        assert set(host["shows"]) <= marks


TESTS = """
import pytest

@pytest.mark.shows("encoder")
def test_passes(): pass

@pytest.mark.shows("encoder")
def test_is_skipped(): pytest.skip("not here")

@pytest.mark.shows("stored")
def test_passes_too(): pass

@pytest.mark.shows("stored")
def test_fails(): raise ValueError

@pytest.mark.shows("ragas")
def test_cannot_run(): pytest.skip("not here")

@pytest.fixture
def broken(): raise ValueError

@pytest.mark.shows("pages")
def test_cannot_start(broken): pass

def test_of_something_else(): raise ValueError
"""


@pytest.mark.slow
def test_a_cell_says_yes_only_where_a_test_passed_and_none_failed(tmp_path: Path) -> None:
    (tmp_path / "test_marked.py").write_text(TESTS)
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path)]
    command += ["-p", "no:cacheprovider", f"--junitxml={report}", str(tmp_path / "test_marked.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    (host,) = support.record([report])
    cells = {
        mark: support.cell(host["shows"].get(mark), 0) for mark in ("encoder", "stored", "ragas", "pages", "texts")
    }
    assert cells == {"encoder": "yes", "stored": "no", "ragas": "–", "pages": "no", "texts": "–"}
    assert host["mteb"]
    # reports of the same host add up, and replace what was known of it; other hosts stay
    known = [{**host, "evalscope": "1.0.0"}, {**host, "mteb": "0", "shows": {"texts": {"passed": 9}}}]
    both = support.record([report, report], known)
    assert [(h["evalscope"], h["mteb"]) for h in both] == [(host["evalscope"], host["mteb"]), ("1.0.0", host["mteb"])]
    assert both[0]["shows"]["encoder"] == {"passed": 2, "failed": 0, "skipped": 2}
    assert "texts" not in both[0]["shows"]
