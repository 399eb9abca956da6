"""The proposals of patches/: each applies to the installed host, where the entry point alone then gives the model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from served_model import ServedModel

PATCHES = Path(__file__).resolve().parents[2] / "patches"
pytestmark = [pytest.mark.host, pytest.mark.timeout(1200)]


def fits(name: str) -> bool:
    """Whether a proposal is for the release of the host that is installed here."""
    package, wanted = name.split("-")
    try:
        return f"{version(package)}.".startswith(f"{wanted}.")
    except PackageNotFoundError:
        return False


# each environment has one release of each host: what is for another one is tried there (noxfile.py)
FOR_EVALSCOPE = [name for name in ("evalscope-1.3.0", "evalscope-1.14.1") if fits(name)]


def patched(name: str, folder: Path) -> dict[str, str]:
    """Applies a proposal to a copy of the installed host; the environment in which Python imports that copy."""
    package, wanted = name.split("-")
    if not fits(name):
        pytest.skip(f"{name}.diff is for {package} {wanted}, which is not installed here")
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    shutil.copytree(
        spec.submodule_search_locations[0], folder / package, ignore=shutil.ignore_patterns("__pycache__", "web")
    )
    git = shutil.which("git")
    if git is None:
        pytest.skip("needs git")
    # below a checkout, as nox's folders are, git would take the paths for that checkout's and skip them without a word
    alone = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.resolve().parent)}
    subprocess.run([git, "apply", "-v", str(PATCHES / f"{name}.diff")], cwd=folder, env=alone, check=True)
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "EVALSCOPE_VACC_DISABLE": "1"}


def run(code: str, environment: dict[str, str], tmp: Path, **values: Any) -> subprocess.CompletedProcess[str]:
    """Runs code in a new process with our hooks off, which it proves first."""
    start = (
        "import json, sys\n"
        "assert not any(type(f).__module__.startswith('evalscope_vacc') for f in sys.meta_path)\n"
        f"values = json.loads({json.dumps(json.dumps(values))})\n"
    )
    work = tmp / "work"
    work.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-c", start + code], env=environment, cwd=work, capture_output=True, text=True, check=False
    )


def printed(done: subprocess.CompletedProcess[str]) -> list[Any]:
    """What the code printed as its result."""
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    result: list[Any] = json.loads(line.removeprefix("RESULT "))
    return result


@pytest.fixture
def encoder() -> Iterator[ServedModel]:
    with ServedModel("some-encoder") as server:
        yield server


EVALSCOPE = """
import evalscope
from evalscope.run import run_task
assert evalscope.__file__.startswith(values["folder"]), evalscope.__file__

def run(config):
    run_task({"work_dir": "out", "eval_backend": "RAGEval", "eval_config": config})

def refusal(config):
    try:
        run(config)
    except Exception as error:
        return str(error)

run(values["config"])
print("RESULT", json.dumps([refusal(values["nobody"]), refusal(values["unknown"])]))
"""


def config(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    evaluation = {"overwrite_results": True, "hub": "huggingface"}
    if name == "evalscope-1.3.0":
        return {"tool": "MTEB", "model": [entry], "eval": {"tasks": ["STSBenchmark"], **evaluation}}
    return {"tool": "MTEB", "models": [entry], "eval": {"task_names": ["STSBenchmark"], **evaluation}}


@pytest.mark.slow
@pytest.mark.parametrize("name", FOR_EVALSCOPE or ["evalscope-1.14.1"])
def test_a_patched_evalscope_loads_the_model_through_the_entry_point_alone(
    name: str, encoder: ServedModel, hub: str, tmp_path: Path
) -> None:
    environment = patched(name, tmp_path)
    entry = {
        "model_type": "vacc_api",
        "model_name": encoder.name,
        "api_base": encoder.base,
        "revision": "r1",
        "prompts": {"STS": "similar: "},
        "store": "off",
    }
    others = {
        "nobody": config(name, {"model_type": "nobody", "model_name": "m", "api_base": encoder.base}),
        "unknown": config(name, {"model_name": "m", "api_base": encoder.base, "max_tokens": 5}),
    }
    done = run(EVALSCOPE, environment, tmp_path, folder=str(tmp_path), config=config(name, entry), **others)
    nobody, unknown = printed(done)
    results = list((tmp_path / "work" / "out").rglob("STSBenchmark.json"))
    assert any("vacc__some-encoder" in str(path) for path in results), results
    # the plugin's own keys arrived, for a task without sides: EvalScope's prompts are for queries only
    texts = encoder.texts()
    with_prompt = [text for text in texts if text.startswith("similar: ")]
    assert len(with_prompt) > 2000
    assert len(texts) - len(with_prompt) < 10  # a few probes

    assert "No plugin provides model_type 'nobody'" in nobody
    assert "max_tokens" in unknown


MTEB = """
import mteb
assert mteb.__file__.startswith(values["folder"]), mteb.__file__
model = mteb.get_model(values["name"])
result = mteb.evaluate(model, mteb.get_task("STSBenchmark"), cache=None)
print("RESULT", json.dumps([model.mteb_model_meta.name, result[0].get_score()]))
"""


@pytest.mark.slow
def test_a_patched_mteb_finds_the_model_through_the_entry_point_alone(
    encoder: ServedModel, hub: str, tmp_path: Path
) -> None:
    environment = {**patched("mteb-2.26", tmp_path), "VACC_API_BASE": encoder.base}
    done = run(MTEB, environment, tmp_path, folder=str(tmp_path), name=f"vacc/{encoder.name}")
    name, score = printed(done)
    assert name == "vacc/some-encoder"
    assert -1 < score < 1
    assert len(encoder.texts()) > 2000
