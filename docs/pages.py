"""The site's generated parts: MkDocs calls this hook as it builds (``mkdocs.yml``).

A page says ``<!-- generated: NAME -->`` where the text of the function ``NAME`` belongs. Commands come from the Typer
application, marks of keys from ``config.py``, findings from the catalogue of messages, tolerances from the code that applies
them, the Python API from docstrings, proof from ``proof.toml``, recorded reports and the tests' marks. The tables that a
reader also wants in the repository are written into their pages: ``model_keys.py``, ``support.py``.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomllib
import typer

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE)]

import support  # noqa: E402 -- a script of this folder

import evalscope_vacc  # noqa: E402
from evalscope_vacc import config as model_config  # noqa: E402
from evalscope_vacc.cli.app import app  # noqa: E402

if TYPE_CHECKING:
    from mkdocs.structure.pages import Page

MARK = re.compile(r"<!-- generated: (\w+) -->")
CHINESE = "[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef“”]"
Row = tuple[str, str, tuple[str, ...]]


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Puts the generated parts in their places."""
    language = int(page.file.src_uri.endswith(".zh.md"))
    if language:
        # a line's end would become a blank between two Chinese characters
        markdown = re.sub(rf"(?<={CHINESE})\n *(?={CHINESE})", "", markdown)
    return MARK.sub(lambda found: GENERATED[found[1]](language), markdown)


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(heads), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _plain(text: str) -> str:
    """Text that Markdown reads as it is, in one cell."""
    text = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    # after a word, a brace may begin an attribute list
    return text if "`" in text else text.replace("{", "&#123;")


# commands


def commands(language: int) -> str:
    """Every command with its arguments and options, as ``--help`` has them."""
    root: Any = typer.main.get_command(app)
    context = root.make_context("evalscope-vacc", [], resilient_parsing=True)
    return "\n".join(_command(name, command, language) for name, command in leaves(root, context, "evalscope-vacc"))


def leaves(group: Any, context: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every command below a group, with the words that call it."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if hasattr(command, "list_commands"):
            yield from leaves(command, context, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _command(name: str, command: Any, language: int) -> str:
    heads = (("", "default", "meaning"), ("", "默认值", "含义"))[language]
    params = [param for param in command.params if not getattr(param, "hidden", False) and "--help" not in param.opts]
    usage = " ".join([name, *(_metavar(param) for param in params if _is_argument(param)), "[OPTIONS]"])
    said = [_said(" ".join(part.split()), language) for part in (command.help or "").split("\n\n")]
    rows = [(_spelled(param), _default_of(param), _plain(_said(param.help or "", language))) for param in params]
    title = name.removeprefix("evalscope-vacc ")
    return "\n\n".join([f"## {title}", f"```text\n{usage}\n```", *said, _table(heads, rows) if rows else ""]) + "\n"


def _is_argument(param: Any) -> bool:
    return bool(param.param_type_name == "argument")


def _metavar(param: Any) -> str:
    return str(param.metavar or param.name.upper())


def _spelled(param: Any) -> str:
    if _is_argument(param):
        return f"`{_metavar(param)}`"
    names = ", ".join(f"`{name}`" for name in (*param.opts, *param.secondary_opts))
    return names if param.is_flag or not param.metavar else f"{names} `{param.metavar}`"


def _default_of(param: Any) -> str:
    value = getattr(param.default, "value", param.default)
    return f"`{value}`" if isinstance(value, (str, int, float)) and value not in (False, "") else ""


def _said(text: str, language: int) -> str:
    """The Chinese sentence for an English one of ``--help``, where ``commands.zh.toml`` has it."""
    if not language:
        return text
    known: dict[str, str] = tomllib.loads((HERE / "commands.zh.toml").read_text(encoding="utf-8"))
    return known.get(text, text)


# keys


def key_marks(language: int) -> str:
    """What else follows from the value of a key."""
    heads, yes, partly = (
        (("key", "also spelled", "short name", "changes answers", "hidden"), "yes", "user name and password in it"),
        (("参数", "其他写法", "短名", "影响应答", "隐藏"), "是", "其中的用户名和密码"),
    )[language]
    rows = [
        (
            f"`{name}`",
            ", ".join(f"`{older}`" for older in mark.older),
            f"`{mark.name}`" if mark.name else "",
            yes if mark.answers or mark.name else "",
            {"value": yes, "address": partly, "": ""}[mark.hide],
        )
        for name, mark in model_config.keys().items()
    ]
    return _table(heads, rows)


# findings and tolerances


def findings(language: int) -> str:
    """Every finding of ``check``, in its own words."""
    heads, states = (
        (("code", "state", "seen", "meaning", "what to do"), {"ok": "ok", "warning": "warning", "wrong": "**wrong**"}),
        (("代码", "状态", "观察到", "对得分的影响", "处理"), {"ok": "正常", "warning": "警告", "wrong": "**错误**"}),
    )[language]
    parts = []
    for check, question, rows in _catalogue(language):
        table = _table(heads, ((f"`{code}`", states[state], *map(_plain, said)) for code, state, said in rows))
        parts.append(f"## {check} {{ #{check} }}\n\n{question}\n\n{table}")
    return "\n".join(parts)


def _catalogue(language: int) -> Iterator[tuple[str, str, list[Row]]]:
    """Every check with its question and its findings: code, state, and what is seen, meant and to be done."""
    from evalscope_vacc.checks.findings import CHECKS
    from evalscope_vacc.messages import messages, states

    said = {code: words[language] for code, words in messages().items()}
    for check in CHECKS:
        seen = [code for code in said if code.startswith(f"{check}.") and code.endswith(".seen")]
        names = [code.removesuffix(".seen") for code in seen]
        rows = [
            (
                name,
                states().get(name, "ok"),
                tuple(said.get(f"{name}.{part}", "") for part in ("seen", "meaning", "action")),
            )
            for name in names
        ]
        yield check, said[f"{check}.title"], rows


def parity_thresholds(language: int) -> str:
    """What parity allows, by number format."""
    from evalscope_vacc.checks.tolerance import THRESHOLDS

    heads = (
        ("dtype", "1 − cosine", "a number of a vector", "overlap@10, at least", "a score", "Kendall's tau, at least"),
        ("数据类型", "1 − 余弦", "向量的单个数值", "overlap@10 下限", "得分", "Kendall's tau 下限"),
    )[language]
    rows = [(name, *(f"{value:g}" for value in (t.least, t.absolute, t.overlap, t.score, t.tau)))
            for name, t in THRESHOLDS.items()]  # fmt: skip
    return _table(heads, rows)


def score_tolerances(language: int) -> str:
    """What a score may differ by, by number format."""
    from evalscope_vacc.results import noise

    points, share = f"{100 * noise.HALF:g}", f"{100 * noise.QUANTISED_SHARE:g} %"
    heads, rows = (
        (
            ("dtype of the served weights", "tolerance"),
            [
                ("float32", f"{100 * noise.FLOAT32:g} points"),
                ("float16, bfloat16", f"{points} points"),
                ("int8, fp8, int4", f"{share} of the reference score"),
            ],
        ),
        (
            ("部署权重的数据类型", "容差"),
            [
                ("float32", f"{100 * noise.FLOAT32:g} 分"),
                ("float16、bfloat16", f"{points} 分"),
                ("int8、fp8、int4", f"参考得分的 {share}"),
            ],
        ),
    )[language]
    return _table(heads, rows)


# Python API


def python_api(_: int) -> str:
    """Every public name, from its docstring."""
    where: dict[str, str] = evalscope_vacc._WHERE  # noqa: SLF001 -- where the public names are defined
    documented = [name for name in evalscope_vacc.__all__ if name in where and name not in ("__version__", "hookimpl")]
    return "\n".join(f"::: {where[name]}.{name}\n" for name in documented)


# support and proof


def _hosts() -> list[dict[str, Any]]:
    hosts: list[dict[str, Any]] = json.loads(support.RECORD.read_text(encoding="utf-8"))
    return hosts


def support_proof(language: int) -> str:
    """Which tests show each row of the support table, and how many passed with each host."""
    heads = (
        ("what", "tests", "tests passed, by EvalScope version"),
        ("内容", "测试", "各 EvalScope 版本通过的测试数"),
    )[language]
    tests = _marked_tests()
    rows = [
        (
            names[language],
            "<br>".join(tests[mark]),
            "<br>".join(f"{host['evalscope']}: {host['shows'].get(mark, {}).get('passed', 0)}" for host in _hosts()),
        )
        for mark, names in support.SHOWN.items()
    ]
    return _table(heads, rows)


def _marked_tests() -> dict[str, list[str]]:
    """The tests that carry each mark ``shows``."""
    tests = defaultdict(list)
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            for mark in getattr(node, "decorator_list", ()):
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.shows":
                    tests[ast.literal_eval(mark.args[0])].append(f"`{file.relative_to(ROOT)}::{node.name}`")
    return tests


def check_proof(language: int) -> str:
    """Which tests show each finding."""
    heads = (("finding", "tests"), ("检查项", "测试"))[language]
    return _table(heads, _proofs("findings"))


def host_proof(language: int) -> str:
    """Which tests show what the guide's configuration means here."""
    heads = (("key", "tests"), ("参数", "测试"))[language]
    return _table(heads, _proofs("guide"))


def proofs(part: str) -> dict[str, list[str]]:
    """What pages say, and the tests that show it."""
    shown: dict[str, list[str]] = tomllib.loads((HERE / "proof.toml").read_text(encoding="utf-8"))[part]
    return shown


def _proofs(part: str) -> Iterator[tuple[str, str]]:
    for what, tests in proofs(part).items():
        yield what if "`" in what or " " in what else f"`{what}`", "<br>".join(f"`{test}`" for test in tests)


def faults(_: int) -> str:
    """The tables that ``nox -s mutants`` wrote, one level deeper."""
    text = (HERE / "mutants.md").read_text(encoding="utf-8")
    return re.sub(r"^## ", "### ", text[text.index("\n## ") + 1 :], flags=re.MULTILINE)


GENERATED: dict[str, Callable[[int], str]] = {
    function.__name__: function
    for function in (
        commands, key_marks, findings, parity_thresholds, score_tolerances, python_api, support_proof, check_proof,
        host_proof, faults,
    )
}  # fmt: skip
