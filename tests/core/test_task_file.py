"""The file of a run: what cannot be meant as it is written is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.task_file import read_config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "tool: mteb\neval:\n  top_k: 5\n  top_k: 6\n",
            "run.yaml: the key 'top_k' occurs twice, in lines 3 and 4: keep one",
        ),
        ('{"tool": "mteb", "tool": "ragas"}', "run.yaml: the key 'tool' occurs twice, in lines 1 and 1: keep one"),
        ("- a\n", "run.yaml: expected keys such as tool, models and eval, found list"),
        ("a: [\n", "run.yaml: cannot be read: "),
        ("a: !!python/object/apply:os.system ['true']", "run.yaml: cannot be read: "),
        ("[" * 5000, "run.yaml: cannot be read: "),
    ],
)
def test_a_mistake_is_one_line_with_the_files_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_config(path)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_merged_mapping_may_be_overridden(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b, y: 4}\nd: *b\n")
    found = read_config(path)
    assert (found["b"], found["c"], found["d"]) == ({"x": 3, "y": 2}, {"x": 3, "y": 4}, {"x": 3, "y": 2})
