"""The example plugin, installed for real and used through its entry point."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from served_model import ServedModel

SOURCE = Path(__file__).resolve().parents[1] / "example_plugin"

USE = """
import json, sys
from evalscope_vacc import load_model
from evalscope_vacc.config import configure
from evalscope_vacc.plugins import plugins
base = sys.argv[1]
model = load_model({"model_type": "polite_api", "model_name": "Example-Embedding", "api_base": base, "store": "off"})
model.encode(["hello"], show_progress_bar=False)
config = configure({"model_name": "example/example-embedding", "api_base": base})
print(json.dumps({
    "types": sorted(plugins().model_types()), "templates": sorted(plugins().rerank_templates()),
    "max_tokens": config.max_tokens, "profile": config.instruction_profile, "dialect": model.served.config.dialect,
    "embedded": model.embed_query("what?") == model.embed_query("what?"),
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the plugin installed by pip, to be put before the environment's own packages."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(target), str(SOURCE)], check=True, timeout=300)
    yield target


def test_an_installed_plugin_is_found_and_used(installed: Path) -> None:
    with ServedModel("Example-Embedding") as server:
        done = subprocess.run(
            [sys.executable, "-c", USE, server.base],
            env={**os.environ, "PYTHONPATH": str(installed)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert server.texts()[-1] == "SOMETHING! what?"
    found = json.loads(done.stdout)
    assert found["types"] == ["polite_api", "vacc_api"]
    assert found["templates"] == ["qwen3-by-another-name"]
    assert (found["max_tokens"], found["profile"], found["dialect"]) == (77, "shouting", "polite")
    assert found["embedded"]


def test_a_blocked_plugin_is_not(installed: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed), "EVALSCOPE_VACC_BLOCK_PLUGINS": "example"}
    code = "from evalscope_vacc.plugins import plugins; print(sorted(plugins().model_types()))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "['vacc_api']", done.stderr
