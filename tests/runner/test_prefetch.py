"""Data are fetched once, carried in one file, and used where no hub is: the scores are the same, or nothing is evaluated."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import minilm_runs
import pytest
from hub_mirror import hub_mirror
from loopback_server import LoopbackServer
from warm_process import WarmProcess

from evalscope_vacc.hosts import bundle

pytestmark = pytest.mark.host
pytest.importorskip("mteb", minversion="2.7", reason="the newer line's tests")

SMALL = ["STSBenchmark", "STSB"]
ROOT = Path(__file__).resolve().parents[2]
NOWHERE = "http://127.0.0.1:9"
Command = Callable[..., Any]


def environment(home: Path, endpoint: str) -> dict[str, str]:
    """Of a machine with nothing on it, that reaches a mirror and nothing else."""
    return {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home / "hf"),
        "VACC_HOME": str(home / "vacc"),
        "NO_PROXY": "127.0.0.1",
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }


@pytest.fixture(scope="module")
def carried(hub: str, warm: WarmProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small tasks in a file."""
    folder = tmp_path_factory.mktemp("carried")
    file = folder / "data.tar.zst"
    arguments = ["evalscope-vacc", "prefetch", "--tasks", ",".join(SMALL), "--to", str(file)]
    started = warm.start(arguments, folder, environment=environment(folder, hub))
    assert started.wait() == 0, started.output()
    said = started.output()
    assert "[1/3] STSBenchmark  1,379 rows" in said
    assert "[2/3] STSB  2,819 rows" in said
    assert re.search(rf"^2 tasks, \d+ files, 0\.\d MB: {file}$", said, re.MULTILINE), said
    assert not list(folder.glob("*.parts")), "what the file is made of is gone"
    assert not (folder / "hf").exists(), "the machine's own cache is left alone"
    return file


@pytest.fixture
def offline(command: Command, tmp_path: Path) -> Command:
    """Runs a command where nothing is cached and no hub is reached."""

    def run(*arguments: Any, **more: str) -> Any:
        return command(*arguments, **{**environment(tmp_path / "offline", NOWHERE), **more})

    return run


def changed(file: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The data of a file as a folder, with another manifest."""
    bundle.unpack(file, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_the_manifest_says_what_is_there(carried: Path) -> None:
    manifest, wrong = bundle.verify(carried)
    assert wrong == {}
    assert manifest.tasks["STSBenchmark"].model_dump() == {
        "dataset": "mteb/stsbenchmark-sts",
        "revision": "b0fddb56ed78048fa8b90373c8a3cfc37b684831",
        "subsets": ["default"],
        "splits": ["test"],
        "data": [
            {
                "configuration": "default",
                "revision": "b0fddb56ed78048fa8b90373c8a3cfc37b684831",
                "split": "test",
                "rows": 1379,
            }
        ],
    }
    assert not [name for name in manifest.files if "lock" in name or "cache-" in name or "token" in name]


@pytest.mark.slow
def test_a_run_needs_the_file_alone(carried: Path, offline: Command, model: LoopbackServer, tmp_path: Path) -> None:
    arguments = [model.base, "--tasks", ",".join(SMALL), "--against", "none", "--json"]
    done = offline(*arguments, "--data", carried)
    assert done.status == 0, done.output
    assert {row["task"] for row in done.json()["rows"]} == set(SMALL)
    assert f"Unpacking {carried} into" in done.output
    again = offline(model.base, "--tasks", "STSBenchmark", "--against", "none", VACC_DATA=str(carried))
    assert again.status == 0, again.output
    assert "Unpacking" not in again.output
    without = offline(*arguments)
    assert without.status == 3
    assert "evalscope-vacc prefetch --tasks STSBenchmark,STSB --to data.tar.zst" in without.output


def test_evalscope_s_file_runs_on_the_same_data_whatever_its_hub(
    carried: Path, offline: Command, model: LoopbackServer, tmp_path: Path
) -> None:
    entry = {"model_type": "vacc_api", "model_name": "minilm", "api_base": model.base}
    config = {"tool": "MTEB", "models": [entry], "eval": {"task_names": ["NFCorpus", "STSBenchmark"]}}
    (tmp_path / "c.json").write_text(json.dumps(config))
    done = offline("c.json", "--data", carried, command="eval")
    assert done.status == 1, done.output
    named = done.output.index(f"NFCorpus cannot be evaluated: {carried} does not hold its data")
    assert named < done.output.index("[2/2] STSBenchmark")
    assert f"evalscope-vacc prefetch --tasks NFCorpus --to {carried}" in done.output


def test_a_task_that_lacks_is_named_before_anything_is_evaluated(
    carried: Path, offline: Command, model: LoopbackServer, tmp_path: Path
) -> None:
    done = offline(model.base, "--tasks", "STSBenchmark,NFCorpus,SciFact", "--against", "none", "--data", carried)
    assert done.status == 3, done.output
    for task in ("NFCorpus", "SciFact"):
        assert f"{task} cannot be evaluated: {carried} does not hold its data" in done.output
    assert f"evalscope-vacc prefetch --tasks NFCorpus,SciFact --to {carried}" in done.output
    assert not (tmp_path / "outputs").exists()


def test_another_revision_than_the_task_s_is_refused(
    carried: Path, offline: Command, model: LoopbackServer, tmp_path: Path
) -> None:
    def other(manifest: dict[str, Any]) -> None:
        manifest["tasks"]["STSB"]["revision"] = "0123456789abcdef"

    folder = changed(carried, tmp_path / "data", other)
    done = offline(model.base, "--tasks", ",".join(SMALL), "--against", "none", "--data", folder)
    assert done.status == 3, done.output
    assert f"STSB cannot be evaluated: {folder} holds its data set mteb/STSB at 0123456789ab, and" in done.output
    assert f"the task is of mteb/STSB at {bundle.read_manifest(carried).tasks['STSB'].revision[:12]}" in done.output
    assert not (tmp_path / "outputs").exists()


def test_what_is_there_is_not_fetched_again(carried: Path, offline: Command, hub: str, tmp_path: Path) -> None:
    file = Path(shutil.copy(carried, tmp_path / "data.tar.zst"))
    arguments = ["--tasks", "STSBenchmark,LCQMC,NFCorpus", "--to", file, "--json"]
    done = offline(*arguments, command="prefetch", HF_ENDPOINT=hub)
    assert done.status == 1, done.output
    assert "[1/4] STSBenchmark  was there" in done.output
    assert "[2/4] LCQMC  12,500 rows" in done.output
    found = done.json()
    assert list(found["wrong"]) == ["NFCorpus"]
    assert "does not have its data set mteb/nfcorpus" in found["wrong"]["NFCorpus"]
    assert set(bundle.read_manifest(file).tasks) == {*SMALL, "LCQMC"}, "the rest is kept"


def test_what_was_stopped_goes_on_without_asking_for_what_came(carried: Path, offline: Command, tmp_path: Path) -> None:
    def unfinished(manifest: dict[str, Any]) -> None:
        manifest["files"] = {}

    changed(carried, tmp_path / "new.tar.zst.parts", unfinished)
    done = offline("--tasks", ",".join(SMALL), "--to", tmp_path / "new.tar.zst", "--lang", "zh", command="prefetch")
    assert done.status == 0, done.output
    assert done.output.count("已存在") == 2
    assert bundle.verify(tmp_path / "new.tar.zst")[1] == {}
    assert bundle.read_manifest(tmp_path / "new.tar.zst").files == bundle.read_manifest(carried).files
    assert not (tmp_path / "new.tar.zst.parts").exists()


@pytest.mark.slow
def test_a_configuration_s_languages_are_fetched_and_others_are_not_taken_for_there(
    offline: Command, model: LoopbackServer, hub: str, tmp_path: Path
) -> None:
    entry = {"model_type": "vacc_api", "model_name": "minilm", "api_base": model.base}
    evaluation = {"task_names": ["XQuADRetrieval"], "languages": ["eng"], "limits": 3, "hub": "modelscope"}
    config = tmp_path / "c.json"
    config.write_text(json.dumps({"tool": "MTEB", "models": [entry], "eval": evaluation}))
    done = offline(config, "--to", tmp_path / "data", command="prefetch", HF_ENDPOINT=hub)
    assert done.status == 0, done.output
    manifest, wrong = bundle.verify(tmp_path / "data")
    assert (manifest.tasks["XQuADRetrieval"].subsets, wrong) == (["en"], {})
    assert {row.configuration for row in manifest.tasks["XQuADRetrieval"].data} == {
        "en-corpus",
        "en-queries",
        "en-qrels",
    }
    done = offline("c.json", "--data", tmp_path / "data", command="eval")
    assert done.status == 0, done.output
    del evaluation["languages"]
    config.write_text(json.dumps({"tool": "MTEB", "models": [entry], "eval": evaluation}))
    done = offline("c.json", "--against", "none", "--data", tmp_path / "data")
    assert done.status == 3, done.output
    assert f"of its data {tmp_path / 'data'} lacks the subsets ar, de, el" in done.output


def test_a_hub_that_is_gone_is_said_at_once(offline: Command, tmp_path: Path) -> None:
    done = offline("--tasks", "SciFact,STSBenchmark", "--to", tmp_path / "new", command="prefetch")
    assert done.status == 1, done.output
    assert done.output.count("cannot be reached") >= 2
    assert "2 could not be fetched (SciFact, STSBenchmark): the same command tries again" in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--tasks A,B, --benchmark NAME or --preset NAME"),
        (["--preset", "huge"], "give one of smoke, quick, standard, full"),
        (["--tasks", "STSBenchmark", "--to", "data.zip"], "NAME.tar.zst"),
        (["--verify", "absent"], "there are no data in absent"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_line(offline: Command, arguments: list[str], said: str) -> None:
    done = offline(*arguments, command="prefetch")
    assert done.status == 2, done.output
    assert said in done.output


# -- the whole way, with real weights, in processes of their own ---------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_five_tasks_carried_in_a_file_score_as_in_process_and_nothing_but_the_model_is_asked(
    shared: Path, demo_server: str, tmp_path: Path
) -> None:
    tasks, file, connections = minilm_runs.TASKS, tmp_path / "data.tar.zst", tmp_path / "connections.txt"
    ours = [sys.executable, "-m", "evalscope_vacc"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with hub_mirror(shared, port) as url:
        online = {**os.environ, **environment(tmp_path / "online", url)}
        command = [*ours, "prefetch", "--tasks", ",".join(tasks), "--to", str(file)]
        done = subprocess.run(
            command, cwd=tmp_path, env=online, capture_output=True, text=True, timeout=600, check=False
        )
    assert done.returncode == 0, done.stderr[-4000:]
    shutil.rmtree(tmp_path / "online", ignore_errors=True)

    guarded = {
        **os.environ,
        **environment(tmp_path / "offline", online["HF_ENDPOINT"]),
        "VACC_TEST_CONNECTIONS": str(connections),
    }
    guarded["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests" / "servers" / "guard"), str(ROOT)])
    command = [*ours, "run", demo_server, "--model", "minilm", "--tasks", ",".join(tasks), "--against", "none"]
    command += ["--data", str(file)]
    done = subprocess.run(command, cwd=tmp_path, env=guarded, capture_output=True, text=True, timeout=3000, check=False)
    assert done.returncode == 0, done.stderr[-4000:]

    found = {}
    for path in (tmp_path / "outputs" / "latest" / "results").rglob("*.json"):
        if path.stem in tasks:
            for split, rows in json.loads(path.read_text())["scores"].items():
                found |= {(path.stem, split, row["hf_subset"]): row["main_score"] for row in rows}
    reference = {
        (name, row["split"], row["subset"]): row["in_process_score"]
        for name, rows in json.loads((shared / "data" / "reference_minilm.json").read_text())["tasks"].items()
        for row in rows
        if name in tasks
    }
    assert found.keys() == reference.keys()
    for where, score in reference.items():
        assert found[where] == pytest.approx(score, abs=1e-4), where

    server = demo_server.rpartition(":")[2].rstrip("/")
    lines = connections.read_text().splitlines()
    assert any(f"socket.connect ('127.0.0.1', {server})" in line for line in lines), "the guard saw the model"
    others = {line for line in lines if not line.endswith((f"('127.0.0.1', {server})", f"('127.0.0.1', '{server}')"))}
    assert not {line for line in others if "127.0.0.1" not in line or str(port) in line}, others
    assert not {line for line in others if line.startswith("socket.connect")}, others
