"""One command from a served model to a verdict, on the older line of hosts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "checks"))
from sound_server import SoundServer

import evalscope_vacc
from evalscope_vacc.runner.answer import Answer

pytestmark = [
    pytest.mark.host,
    pytest.mark.usefixtures("legacy_host", "hub"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.timeout(900),
]


@pytest.fixture
def server() -> Iterator[SoundServer]:
    with SoundServer("minilm") as served:
        yield served


@pytest.fixture
def finished(server: SoundServer, tmp_path: Path) -> Answer:
    return evalscope_vacc.verify(server.base, tasks=("STSBenchmark",), against="none", work_dir=tmp_path)


def test_a_run_is_complete_and_leaves_what_it_leaves_on_the_newer_line(finished: Answer, tmp_path: Path) -> None:
    assert (finished.verdict, finished.exit_status) == ("complete", 0)
    assert finished.results is not None
    assert [(row.task, row.split, row.metric) for row in finished.results.rows] == [
        ("STSBenchmark", "test", "cosine_spearman")
    ]
    run = finished.files["run"]
    assert (tmp_path / "latest").resolve() == run
    assert json.loads((run / "vacc" / "run.json").read_text())["finished"] is True
    assert "STSBenchmark" in finished.files["page"].read_text()
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["eval"]["task_names"] == ["STSBenchmark"]


def test_another_run_is_judged_by_it(server: SoundServer, finished: Answer, tmp_path: Path) -> None:
    again = evalscope_vacc.verify(
        server.base, tasks=("STSBenchmark",), against=str(finished.files["run"]), work_dir=tmp_path
    )
    assert (again.verdict, again.exit_status) == ("pass", 0)
    assert again.counts["judged"] == 1


@pytest.mark.parametrize(("name", "tasks"), [("MTEB(eng, v2)", 41), ("MTEB(cmn, v1)", 31), ("MTEB-Code", 12)])
def test_a_benchmark_is_known_by_its_name_and_what_lacks_of_it_is_said(
    server: SoundServer, tmp_path: Path, name: str, tasks: int
) -> None:
    found = evalscope_vacc.verify(server.base, benchmarks=(name,), against="none", work_dir=tmp_path)
    assert (found.verdict, found.exit_status, found.tasks) == ("incomplete", 3, tasks)
    assert "does not have its data set" in next(iter(found.lacking.values()))
    assert not list(tmp_path.iterdir())


def test_a_benchmark_that_mteb_does_not_know_is_refused_with_the_nearest(server: SoundServer, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"benchmarks": ("MTEB(eng, v3)",), "against": "none", "work_dir": tmp_path}
    with pytest.raises(evalscope_vacc.errors.ConfigError, match=r"did you mean 'MTEB\(eng, v[12]\)'"):
        evalscope_vacc.verify(server.base, **asked)
