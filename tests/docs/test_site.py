"""The documentation's site: it builds without a warning, its links lead somewhere, and what it tells a reader to type works."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
import yaml
from served_model import ServedModel

from evalscope_vacc.catalog import find
from evalscope_vacc.config import keys, read_keys

tomllib = pytest.importorskip("tomllib", reason="the site is built with Python 3.11 or later")
ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
sys.path.append(str(DOCS))
import pages  # noqa: E402 -- a script of the repository, not of a package

CHINESE = sorted(DOCS.rglob("*.zh.md"))
ENGLISH = [path.with_name(path.name.replace(".zh.md", ".md")) for path in CHINESE]
# sources of generated pages, read in the repository
NOT_PAGES = {"mutants.md"}
CHINESE_TEXTS = [
    ROOT / "README.zh-CN.md",
    DOCS / "commands.zh.toml",
    DOCS / "support.py",
    ROOT / "evalscope_vacc" / "config.py",
    ROOT / "evalscope_vacc" / "view" / "messages.toml",
]
GUIDES = [DOCS / "start.md", *sorted(path for path in (DOCS / "guide").glob("*.md") if ".zh." not in path.name)]
BELOW = "/some-folder/"
SHOWN_ONLY = ("text",)


class Block(NamedTuple):
    """A code block of a page."""

    language: str
    title: str
    code: str
    not_run: str  # the reason, where the page gives one


def blocks(path: Path) -> list[Block]:
    found = re.finditer(
        r"^(?:<!-- not run: (?P<reason>.+?) -->\n)?```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<code>.*?)^```$",
        path.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    return [Block(f["language"], f["title"] or "", f["code"], f["reason"] or "") for f in found]


def name(path: Path) -> str:
    return path.relative_to(DOCS).as_posix()


def without_comments(code: str) -> str:
    return re.sub(r"(^|\s+)#.*$", "", code, flags=re.MULTILINE)


def test_every_page_is_there_in_both_languages() -> None:
    english = {path for path in DOCS.rglob("*.md") if ".zh." not in path.name} - {DOCS / name for name in NOT_PAGES}
    assert english == set(ENGLISH)


@pytest.mark.parametrize("path", CHINESE, ids=name)
def test_both_languages_have_the_same_code_and_the_same_sections(path: Path) -> None:
    other = path.with_name(path.name.replace(".zh.md", ".md"))
    mine, theirs = ([block._replace(code=without_comments(block.code)) for block in blocks(p)] for p in (path, other))
    assert mine == theirs
    for pattern in (r"^(#+) ", r"<!-- generated: (\w+) -->"):
        assert re.findall(pattern, path.read_text(encoding="utf-8"), re.MULTILINE) == re.findall(
            pattern, other.read_text(encoding="utf-8"), re.MULTILINE
        )


@pytest.mark.parametrize("path", [*CHINESE, *CHINESE_TEXTS], ids=lambda path: path.name)
def test_chinese_texts_use_the_words_of_chinese_engineers(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.findall(
        "词元|挂钩|嵌入模型|向量模型|编码模型|重排模型|内置目录|模型的键|由何测试|如何重复|占比", text
    )


@pytest.mark.parametrize("path", [*ENGLISH, *CHINESE], ids=name)
def test_pages_for_users_name_no_tests(path: Path) -> None:
    if path.stem.split(".")[0] != "proof":
        assert not re.findall(r"\btest_\w+", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("language", [0, 1])
def test_generated_pages_have_every_command_key_and_finding(language: int) -> None:
    import typer

    from evalscope_vacc.checks import CHECKS
    from evalscope_vacc.cli.app import app

    root: Any = typer.main.get_command(app)
    context = root.make_context("evalscope-vacc", [], resilient_parsing=True)
    text = pages.commands(language)
    for path, command in pages.leaves(root, context, "evalscope-vacc"):
        section = text[text.index(f"\n{path} ") :].partition("\n## ")[0]
        for param in command.params:
            assert param.opts[-1] in section or param.param_type_name == "argument" or "--help" in param.opts, path
    for key in keys():
        assert f"| `{key}` |" in pages.key_marks(language), key
    found = re.findall(r"^## (\S+) ", pages.findings(language), re.MULTILINE)
    assert found == list(CHECKS)


def test_every_chinese_sentence_of_the_commands_belongs_to_one_of_help() -> None:
    text, chinese = pages.commands(0), pages.commands(1)
    for english, said in tomllib.loads((DOCS / "commands.zh.toml").read_text(encoding="utf-8")).items():
        assert english in text or pages._plain(english) in text, english
        assert said in chinese or pages._plain(said) in chinese, said


def test_every_test_of_the_proof_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", pages.support_proof(0) + pages.host_proof(0))
    assert len(named) > 20
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), test


def commands(path: Path) -> Iterator[list[str]]:
    """The arguments of every call of our command on a page."""
    for block in blocks(path):
        code = block.code.replace("\\\n", " ")
        lines = code.splitlines() if block.language == "sh" else re.findall(r"(?:run: |- )(evalscope-vacc .*)", code)
        for line in lines:
            words = shlex.split(line, comments=True)
            if words and words[0] == "evalscope-vacc":
                yield words[1:]


@pytest.mark.parametrize("path", ENGLISH, ids=name)
def test_every_command_of_a_page_is_understood(path: Path) -> None:
    import typer

    from evalscope_vacc.cli.app import app

    root: Any = typer.main.get_command(app)
    for words in commands(path):
        rest, command, context = list(words), root, root.make_context("evalscope-vacc", [], resilient_parsing=True)
        while hasattr(command, "list_commands"):
            command = command.get_command(context, rest[0])
            assert command is not None, words
            rest = rest[1:]
        command.make_context(words[0], rest)  # raises what the user would read


@pytest.mark.parametrize("path", ENGLISH, ids=name)
def test_every_model_entry_of_a_page_has_keys_that_exist(path: Path) -> None:
    for block in blocks(path):
        content = yaml.safe_load(block.code) if block.language == "yaml" else None
        for entry in (content or {}).get("models", []):
            assert read_keys(entry)


@pytest.mark.parametrize("path", GUIDES, ids=name)
def test_every_block_of_a_guide_is_run_or_says_why_not(path: Path) -> None:
    for block in blocks(path):
        assert block.not_run or block.language in ("sh", "python", "yaml", *SHOWN_ONLY), block.code
        assert block.title or block.language != "yaml", "a configuration needs a file name"


def strings_of_the_package() -> str:
    """Every text of the package, those with blanks in one piece."""
    found = []
    for path in (ROOT / "evalscope_vacc").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            found.append("{}".join(str(part.value) for part in parts if isinstance(part, ast.Constant)))
    return "\n".join(found)


@pytest.mark.parametrize("name", ["trouble.md", "trouble.zh.md"])
def test_the_messages_that_a_page_quotes_are_said(name: str) -> None:
    text = (DOCS / "guide" / name).read_text(encoding="utf-8")
    quoted = re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)
    assert len(quoted) >= 4
    said = strings_of_the_package()
    for message in quoted:
        for fragment in re.split(r"'\w'|…", message):
            assert fragment.strip(" ;") in said, message


def test_the_plugin_of_the_guide_registers_what_it_says() -> None:
    (block,) = [block for block in blocks(DOCS / "guide" / "plugin.md") if block.language == "python"]
    namespace: dict[str, Any] = {}
    exec(block.code, namespace)
    entries: dict[str, Any] = {}
    namespace["register_catalog_entries"](entries.__setitem__)
    profiles: dict[str, Any] = {}
    namespace["register_instruction_profiles"](profiles.__setitem__)
    assert entries["our-embedder"].profile in profiles
    profile = profiles["support-desk"]()
    assert profile.prefix(None, "query") == "Find the answer to this ticket: "
    assert profile.prefix(None, "document") == ""


# as a reader types it


class Typed:
    """A folder in which the blocks of one page are run, in their order.

    Servers on the loopback address stand in for those that the page names, and take five rows of each task.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        shutil.copy(ROOT / "docs" / "examples" / "evalscope-1.3" / "embedding.py", folder)
        shutil.copy(ROOT.parent / "shared" / "facts" / "task_prompts.json", folder)

    def served(self, model: str, kind: str = "encoder") -> str:
        known = find(model)
        size = (known.dimensions if known else None) or 16
        return self._stack.enter_context(ServedModel(model, kind=kind, dimensions=size)).base

    def run(self, block: Block) -> str:
        if block.language == "yaml":
            (self.folder / block.title).write_text(self._configuration(block.code))
            return ""
        if block.title:
            (self.folder / block.title).write_text(block.code)
        # what is served under the name that the page uses beside an address
        code = re.sub(r"http://127\.0\.0\.1:8000(?=\S* .*vacc/([\w-]+))", lambda f: self.served(f[1]), block.code)
        command = ["bash", "-euo", "pipefail", "-c", code] if block.language == "sh" else [sys.executable, "-c", code]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "VACC_HOME": str(self.folder / "home")}
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=500, check=False
        )
        assert done.returncode == 0, f"{block.code}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def _configuration(self, code: str) -> str:
        config = yaml.safe_load(code)
        for entry in config["models"]:
            kind = "cross-encoder" if entry.get("is_cross_encoder") else "encoder"
            given = entry["api_base"]
            addresses = [self.served(entry["model_name"], kind) for _ in ([given] if isinstance(given, str) else given)]
            entry.update(api_base=addresses, store="off", preflight="off")
        config["eval"]["limits"] = 5
        return yaml.safe_dump(config)


@pytest.mark.slow
@pytest.mark.host
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "path", [path for path in GUIDES if any(not block.not_run for block in blocks(path))], ids=name
)
def test_the_blocks_of_a_guide_run_in_their_order(path: Path, hub: str, tmp_path: Path) -> None:
    pytest.importorskip("mteb", minversion="2.7")
    with ExitStack() as stack:
        typed = Typed(tmp_path, stack)
        for block in blocks(path):
            if not block.not_run and block.language not in SHOWN_ONLY:
                typed.run(block)


# the site itself


class Page(HTMLParser):
    """What a page has and where it leads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {value for key in ("id", "name") if (value := given.get(key))}
        if tag == "a" and given.get("href"):
            self.links.append(str(given["href"]))
        loaded = given.get("src") or (given.get("href") if tag == "link" and given.get("rel") == "stylesheet" else None)
        if loaded:
            self.loaded.append(loaded)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("mkdocs", "material", "mkdocs_static_i18n", "mkdocstrings"):
        pytest.importorskip(module, reason="needs the extra `docs`")
    folder = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    environment["SITE_URL"] = f"https://example.org{BELOW}"  # as pages of a repository are published: below a folder
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.slow
def test_every_link_and_anchor_of_the_site_leads_somewhere(site: Path) -> None:
    read = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(read) == 2 * len(ENGLISH)
    for path, page in read.items():
        for link in page.links + page.loaded:
            address, anchor = urldefrag(link)
            if urlsplit(address).scheme:
                assert link in page.links, f"{path}: loads {link}"
                continue
            address = address.replace(BELOW, f"{site}/", 1) if address.startswith(BELOW) else address
            target = (path.parent / unquote(address)).resolve() if address else path
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{path}: {link}"
            if anchor and target in read:
                assert unquote(anchor) in read[target].anchors, f"{path}: {link}"


@pytest.mark.slow
def test_no_generated_part_is_left_out(site: Path) -> None:
    for path in site.rglob("*.html"):
        assert "<!-- generated:" not in path.read_text(encoding="utf-8"), path
