"""The table of what works where, from what the test sessions of each host reported.

    pytest … --junitxml=build/junit/NAME.xml      what the nox sessions do
    python docs/support.py build/junit/*.xml      records their results in support.json and rewrites the tables
    python docs/support.py                        rewrites the tables from support.json

A test that is evidence for a row has a mark: ``@pytest.mark.shows("two-stages")``. A cell is a yes where at least one such test
passed with that host and none failed; a dash where the reports have none.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

HERE = Path(__file__).resolve().parent
RECORD = HERE / "support.json"
START, END = "<!-- support -->\n", "<!-- end -->"
PACKAGES = ("python", "evalscope", "mteb", "transformers", "datasets")
OUTCOMES = ("passed", "failed", "skipped")

# mark -> what the table calls it, in English and Chinese, in the table's order
SHOWN = {
    "encoder": ("an encoder", "Embedding 模型"),
    "two-stages": ("an encoder and a cross-encoder in two stages", "Embedding 模型与 Reranker 模型两阶段"),
    "stored": ("a cross-encoder on stored predictions", "Reranker 模型重排已保存的预测"),
    "reranking": ("a cross-encoder on reranking tasks", "Reranker 模型用于 Reranking 任务"),
    "same-scores": (
        "the scores of the same weights in process, within 1e-4",
        "与同一权重在进程内的得分相差不超过 1e-4",
    ),
    "texts": ("the exact texts that MTEB's tasks want", "发送的文本与 MTEB 任务要求逐字一致"),
    "scripts": ("the scripts of docs/examples", "docs/examples 中的脚本"),
    "mteb-run": ("`mteb run -m vacc/NAME`", "`mteb run -m vacc/NAME`"),
    "ragas": ("embeddings for EvalScope's RAGAS tool", "为 EvalScope 的 RAGAS 工具提供向量"),
    "pages": ("runs in EvalScope's own pages", "在 EvalScope 自带页面中显示"),
}
FILES = {"docs/reference/support.md": 0, "docs/reference/support.zh.md": 1}
TESTED_BY = {
    "1.14.1": ("the test suite", "完整测试"),
    "1.8.1": ("`nox -s oldest`",) * 2,
    "1.8.0": ("`nox -s legacy`",) * 2,
    "1.3.0": ("`nox -s legacy`",) * 2,
}


def read_report(path: Path) -> dict[str, Any]:
    """Returns one session's host and, for every mark, how many tests passed, failed and were skipped."""
    suite = next(ET.parse(path).getroot().iter("testsuite"))
    versions = {p.get("name"): p.get("value") for p in suite.findall("properties/property")}
    if not versions.get("evalscope"):
        raise SystemExit(f"{path}: does not say which EvalScope it tested")
    shows: dict[str, dict[str, int]] = {}
    for case in suite.iter("testcase"):
        outcome = "failed" if case.find("failure") is not None or case.find("error") is not None else "passed"
        if case.find("skipped") is not None:
            outcome = "skipped"
        for mark in case.findall("properties/property"):
            if mark.get("name") == "shows":
                counts = shows.setdefault(str(mark.get("value")), dict.fromkeys(OUTCOMES, 0))
                counts[outcome] += 1
    return {**{name: versions.get(name) for name in PACKAGES}, "shows": shows}


def record(paths: Iterable[Path], known: Iterable[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """Returns the record of every host, the newest first; reports of a host add up, and replace what was known of it."""
    reported: dict[str, dict[str, Any]] = {}
    for path in paths:
        host = read_report(path)
        whole = reported.setdefault(host["evalscope"], {**host, "shows": {}})
        for mark, counts in host["shows"].items():
            before = whole["shows"].get(mark, dict.fromkeys(OUTCOMES, 0))
            whole["shows"][mark] = {outcome: before[outcome] + counts[outcome] for outcome in OUTCOMES}
    for host in reported.values():
        host["shows"] = dict(sorted(host["shows"].items()))
    hosts = {host["evalscope"]: dict(host) for host in known} | reported
    return sorted(hosts.values(), key=lambda host: [int(n) for n in host["evalscope"].split(".")], reverse=True)


def cell(counts: Mapping[str, int] | None, language: int) -> str:
    if counts is None or not counts["passed"] + counts["failed"]:
        return "–"
    return ("no", "否")[language] if counts["failed"] else ("yes", "是")[language]


def table(hosts: list[dict[str, Any]], language: int) -> str:
    """Returns the Markdown table, 0 in English and 1 in Chinese."""
    rows = [["EvalScope", *(host["evalscope"] for host in hosts)], ["---"] * (len(hosts) + 1)]
    rows.append(["MTEB", *(host["mteb"] for host in hosts)])
    rows.append(["transformers, datasets", *(f"{host['transformers']}, {host['datasets']}" for host in hosts)])
    rows.append(["Python", *(".".join(host["python"].split(".")[:2]) for host in hosts)])
    rows.append([("tested by", "测试方式")[language], *(TESTED_BY[host["evalscope"]][language] for host in hosts)])
    for mark, names in SHOWN.items():
        rows.append([names[language], *(cell(host["shows"].get(mark), language) for host in hosts)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows).replace("| --- |", "|---|").replace(" --- |", "---|")


def with_table(text: str, made: str) -> str:
    """Returns a page with its table replaced."""
    pattern = re.compile(f"(?<={re.escape(START)}).*?(?={re.escape(END)})", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise SystemExit(f"expected one {START.strip()} … {END}")
    return pattern.sub(lambda _: made, text)


def main(paths: list[Path]) -> None:
    hosts = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else []
    hosts = record(paths, hosts)
    RECORD.write_text(json.dumps(hosts, indent=1) + "\n", encoding="utf-8")
    for name, language in FILES.items():
        file = HERE.parent / name
        file.write_text(with_table(file.read_text(encoding="utf-8"), table(hosts, language)), encoding="utf-8")
    print(table(hosts, 0), end="")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
