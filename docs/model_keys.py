"""The tables of a model's keys, from the marks in ``evalscope_vacc/config.py``: whole on the site, short in the READMEs.

python docs/model_keys.py      rewrites the tables
"""

from __future__ import annotations

import re
from pathlib import Path

from evalscope_vacc import config

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("docs/reference/keys.md", "docs/reference/keys.zh.md")
READMES = ("README.md", "README.zh-CN.md")
HEADINGS = (("key", "default", "meaning"), ("参数", "默认值", "含义"))
START, END = "<!-- keys -->\n", "<!-- end -->"


def table(language: int, *, short: bool = False) -> str:
    """Returns the table in English (0) or Chinese (1); the short one leaves out what a key means."""
    rows = [HEADINGS[language]]
    for name, mark in config.keys().items():
        spelled = f"`{mark.group}.{name}`" if mark.group else f"`{name}`"
        rows.append((spelled, _default(name, mark, language), (mark.meaning, mark.chinese)[language]))
    lines = [f"| {' | '.join(row[: 2 if short else 3])} |" for row in rows]
    lines.insert(1, "|---" * (2 if short else 3) + "|")
    return "\n".join(lines) + "\n"


def _default(name: str, mark: config.Key, language: int) -> str:
    field = config.ModelConfig.model_fields[name]
    if field.is_required():
        return "–"
    if mark.environment:
        return f"`${mark.environment}`"
    value = field.get_default(call_default_factory=True)
    shown = f"`{str(value).lower() if isinstance(value, bool) else value}`"
    if value is None or value in ("", (), {}):
        shown = mark.otherwise[language]
    return (("catalog, else ", "内置模型表，否则：")[language] if mark.catalog else "") + shown


def with_table(text: str, made: str) -> str:
    """Returns a document with its table replaced."""
    pattern = re.compile(re.escape(START) + ".*?" + re.escape(END), re.DOTALL)
    return pattern.sub(lambda _: START + made + END, text, count=1)


def main() -> None:
    """Rewrites every table."""
    for files, short in ((PAGES, False), (READMES, True)):
        for language, name in enumerate(files):
            path = ROOT / name
            text = path.read_text(encoding="utf-8")
            path.write_text(with_table(text, table(language, short=short)), encoding="utf-8")


if __name__ == "__main__":
    main()
