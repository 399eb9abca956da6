"""A run on a real Ray cluster of two nodes: the scores of one process, also where a node is killed in the middle."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from loopback_server import Got, Reply
from ray.cluster_utils import Cluster
from served_model import ServedModel

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
TASKS = ["VaccDemoSTS", "VaccDemoRetrieval", "VaccDemoClassification"]
SLOTS = 3
RUN = """
import json, sys
from pathlib import Path
import evalscope_vacc
from evalscope_vacc.demo.tasks import register
from evalscope_vacc.hosts.cluster import on_cluster
register()
with on_cluster(sys.argv[2] or None):
    result = evalscope_vacc.run(json.loads(Path(sys.argv[1]).read_text()))
print(json.dumps([[row["model"], row["task"], row["split"], row["subset"], row["main_score"]] for row in result.rows()]))
"""


class Slow(ServedModel):
    """Takes a moment for each request, so that a run has a middle."""

    def _answer(self, got: Got, sock: Any) -> Reply | None:
        if got.path == "/v1/embeddings":
            time.sleep(0.2)
        return super()._answer(got, sock)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield found
    found.shutdown()


@pytest.fixture
def encoders() -> Iterator[list[ServedModel]]:
    with Slow("one") as one, Slow("two") as two:
        yield [one, two]


def begin(folder: Path, encoders: list[ServedModel], address: str) -> subprocess.Popen[str]:
    entries = [
        {
            "model_type": "vacc_api", "model_name": server.name, "api_base": server.base, "max_concurrency": SLOTS,
            "encode_kwargs": {"batch_size": 4}, "store": "off", "preflight": False,
        }
        for server in encoders
    ]  # fmt: skip
    config = {"tool": "MTEB", "models": entries, "eval": {"task_names": TASKS, "hub": "huggingface"}}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    command = [sys.executable, "-c", RUN, str(folder / "config.json"), address]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=(folder / "log.txt").open("w"), text=True
    )


def started_by_ray() -> list[str]:
    done = subprocess.run(["pgrep", "-f", "ray::Remote"], capture_output=True, text=True, check=False)
    return done.stdout.split()


def rows(run: subprocess.Popen[str], folder: Path) -> list[Any]:
    out, _ = run.communicate(timeout=400)
    assert run.returncode == 0, (folder / "log.txt").read_text()[-5000:]
    return sorted(json.loads(out.splitlines()[-1]))


def test_a_killed_node_costs_nothing_but_time(cluster: Cluster, encoders: list[ServedModel], tmp_path: Path) -> None:
    expected = rows(begin(tmp_path / "here", encoders, ""), tmp_path / "here")
    assert len(expected) == 12, "two models, three tasks of two subsets"
    for encoder in encoders:
        encoder.requests.clear()
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    run = begin(tmp_path / "there", encoders, cluster.address)
    until = time.monotonic() + 200
    # some tasks are finished, and the rest is at work
    while not all(any(got.path == "/v1/embeddings" for got in encoder.requests) for encoder in encoders):
        assert run.poll() is None, (tmp_path / "there" / "log.txt").read_text()[-5000:]
        assert time.monotonic() < until
        time.sleep(0.05)
    assert len(started_by_ray()) == 2
    cluster.remove_node(node, allow_graceful=False)
    assert rows(run, tmp_path / "there") == expected, "every score once, and the same"
    assert "is begun again" in (tmp_path / "there" / "log.txt").read_text()
    assert all(encoder.most_in_flight <= SLOTS for encoder in encoders)
    usage = list((tmp_path / "there" / "outputs").rglob("usage.json"))
    assert len(usage) == 1, "one folder of evidence"


def test_a_cluster_that_is_not_there_is_an_error_of_one_line(encoders: list[ServedModel], tmp_path: Path) -> None:
    run = begin(tmp_path / "run", encoders, "127.0.0.1:9")
    run.wait(200)
    assert run.returncode == 1
    assert "ConfigError: --ray 127.0.0.1:9: " in (tmp_path / "run" / "log.txt").read_text()
    assert not ray.is_initialized()
