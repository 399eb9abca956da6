"""The READMEs stay true: both languages say the same, and every example runs."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from served_model import ServedModel

from evalscope_vacc.config import keys

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "docs"))
import model_keys  # noqa: E402 -- a script of the repository, not of a package

FILES = ("README.md", "README.zh-CN.md")


def blocks(name: str, marker: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(rf"<!-- {marker}[^>]*-->\n```\w+\n(.*?)```\n<!-- end -->", text, re.DOTALL)


@pytest.mark.parametrize("marker", ["demo", "tests", "run", "example python"])
def test_both_languages_have_the_same_commands(marker: str) -> None:
    english, chinese = (blocks(name, marker) for name in FILES)
    assert english == chinese
    assert len(english) == 1


def test_both_languages_have_the_same_examples() -> None:
    english, chinese = (
        [yaml.safe_load(b) for b in blocks(name, "example (?:encoder|reranker|both)")] for name in FILES
    )
    assert english == chinese
    assert len(english) == 3


def test_ci_runs_the_readmes_test_command() -> None:
    assert "<!-- tests -->" in (ROOT / ".ci" / "run").read_text()


def test_the_tables_of_keys_are_what_the_configuration_says() -> None:
    """Else: ``python docs/model_keys.py`` rewrites them."""
    for files, short in ((model_keys.PAGES, False), (model_keys.READMES, True)):
        for language, name in enumerate(files):
            assert model_keys.table(language, short=short) in (ROOT / name).read_text(encoding="utf-8"), name


def test_every_key_has_a_row_in_both_languages() -> None:
    for language in (0, 1):
        rows = model_keys.table(language).splitlines()[2:]
        assert len(rows) == len(keys())
        for row, name in zip(rows, keys(), strict=True):
            spelling, default, meaning = re.fullmatch(r"\| `([\w.]+)` \| (.+) \| (.+) \|", row).groups()
            assert spelling.rpartition(".")[2] == name
            assert default.strip()
            assert meaning.strip()


@pytest.mark.parametrize("name", FILES)
def test_every_command_that_the_readme_names_exists(name: str) -> None:
    from evalscope_vacc.cli.app import app

    known = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    text = (ROOT / name).read_text(encoding="utf-8")
    named = set(re.findall(r"(?:`|^|bin/)evalscope-vacc ([a-z][a-z-]+)\b", text, re.MULTILINE))
    assert named <= known
    assert len(named) > 5


def test_the_commands_of_the_readme_are_understood() -> None:
    """What they do is shown by the tests of the commands, and by those of the site's pages."""
    from typer.main import get_command

    from evalscope_vacc.cli.app import app

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^evalscope-vacc .+", text, re.MULTILINE)
    assert len(lines) >= 4
    for line in lines:
        _, name, *arguments = shlex.split(line, comments=True)
        get_command(app).commands[name].make_context(name, arguments)


@pytest.mark.parametrize("name", FILES)
def test_links_lead_to_files(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / target).exists(), target
        if target.startswith("docs/"):
            assert (".zh." in target) == ("zh" in name), target


@pytest.mark.slow
@pytest.mark.host
def test_the_examples_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The three configurations and the Python lines, on small tasks, against servers at the addresses they name."""
    pytest.importorskip("mteb", minversion="2.7")
    from evalscope_vacc.demo.tasks import register

    register()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VACC_KEY", "some-key")
    encoder, reranker, both = (yaml.safe_load(b) for b in blocks("README.md", "example (?:encoder|reranker|both)"))
    (tmp_path / "task_prompts.json").write_text(json.dumps({"VaccDemoRetrieval": "Find the text"}))
    names = {"Qwen3-Embedding-0.6B": "encoder", "bge-m3": "encoder"}
    with _served(encoder, names) as first:
        result = _run(encoder, first, ["VaccDemoRetrieval", "VaccDemoSTS"])
        sent = first["Qwen3-Embedding-0.6B"].texts()
        assert any(text.startswith("Instruct: Find the text\nQuery:") for text in sent)
        predictions = result.output_folder / "predictions" / "VaccDemoRetrieval_predictions.json"
    kwargs = reranker["models"][0]["model_kwargs"]
    kwargs.update(task_name=["VaccDemoRetrieval"], embed_results=[str(predictions)])
    with _served(reranker, names) as second:
        assert _run(reranker, second, ["VaccDemoRetrieval"]).rows()
    with _served(both, names) as third:
        _use(both, third, ["VaccDemoRetrieval", "VaccDemoSTS"])
        (tmp_path / "both.yaml").write_text(yaml.safe_dump(both))
        (code,) = blocks("README.md", "example python")
        script = "from evalscope_vacc.demo.tasks import register\nregister()\n" + code
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "stage2 VaccDemoRetrieval" in done.stdout


class _served(dict):  # noqa: N801 -- reads as a function
    """Servers for the models of a configuration, by name."""

    def __init__(self, config: dict, names: dict[str, str]) -> None:
        super().__init__(
            (m["model_name"], ServedModel(m["model_name"], kind=names.get(m["model_name"], "cross-encoder")))
            for m in config["models"]
        )

    def __enter__(self):
        for server in self.values():
            server.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for server in self.values():
            server.stop()


def _use(config: dict, servers: dict[str, ServedModel], tasks: list[str]) -> None:
    for entry in config["models"]:
        entry["api_base"] = servers[entry["model_name"]].base
        entry.update(store="off", preflight="off")
    config["eval"]["task_names"] = tasks


def _run(config: dict, servers: dict[str, ServedModel], tasks: list[str]):
    from evalscope_vacc import run

    _use(config, servers, tasks)
    return run(config)
