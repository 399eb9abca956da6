"""The READMEs' table of a model's keys, from the marks in ``evalscope_vacc/config.py``.

python docs/model_keys.py      rewrites the tables
"""

from __future__ import annotations

import re
from pathlib import Path

from evalscope_vacc import config

ROOT = Path(__file__).resolve().parents[1]
FILES = ("README.md", "README.zh-CN.md")
HEADINGS = ("| key | default | meaning |", "| 键 | 默认值 | 含义 |")
START, END = "<!-- keys -->\n", "<!-- end -->"


def table(language: int) -> str:
    """Returns the table in English (0) or Chinese (1)."""
    rows = [
        f"| `{f'{mark.group}.' if mark.group else ''}{name}` | {_default(name, mark, language)} "
        f"| {(mark.meaning, mark.chinese)[language]} |"
        for name, mark in config.keys().items()
    ]
    return "\n".join([HEADINGS[language], "|---|---|---|", *rows]) + "\n"


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
    return (("catalog, else ", "目录，否则：")[language] if mark.catalog else "") + shown


def main() -> None:
    """Rewrites both tables."""
    for language, name in enumerate(FILES):
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        pattern = re.compile(re.escape(START) + ".*?" + re.escape(END), re.DOTALL)
        path.write_text(pattern.sub(lambda _: START + table(language) + END, text, count=1), encoding="utf-8")  # noqa: B023


if __name__ == "__main__":
    main()
