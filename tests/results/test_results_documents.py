"""The outputs: golden files, and names that are hostile.

``UPDATE_GOLDEN=1 pytest tests/results/test_results_render.py`` writes the files anew; look at the difference.
"""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from evalscope_vacc.results import render
from evalscope_vacc.results.compare import ComparedRow, Comparison, Interval, MeanRow, compare
from evalscope_vacc.results.noise import Noise
from evalscope_vacc.results.rows import Aggregate, Conditions, Reference, Results, Row, Run
from evalscope_vacc.results.verdict import Verdict

RUN = Run("vacc/minilm", "served-1234abcd", "", "encoder")
THEIRS = Run("org/minilm", "abc", "", "encoder")


def example() -> list[Comparison]:
    """Every verdict once, with notes, a mean, and an interval."""

    def row(run: Run, task: str, score: float | None, **more: Any) -> Row:
        defaults = {"split": "test", "subset": "default", "metric": "cosine_spearman", "type": "STS"} | more
        return Row(run, task, score=score, source="results/x.json", **defaults)

    ours = (
        row(RUN, "STS12", 0.7234, mteb_version="2.26.24"),
        row(RUN, "STS13", 0.80011, mteb_version="2.26.24"),
        row(RUN, "STS14", 0.79, subset="en"),
        row(RUN, "STS15", None),
        row(RUN, "STS16", 0.9),
        row(RUN, "SICK-R", 0.5, conditions=Conditions(profile="none")),
        row(RUN, "Mine", 0.25),
        row(RUN, "SciFact", 0.6, metric="ndcg_at_10", type="Retrieval"),
    )
    theirs = (
        row(THEIRS, "STS12", 0.7236, mteb_version="1.12.75", dataset_revision="a" * 40),
        row(THEIRS, "STS13", 0.80011, mteb_version="1.12.75"),
        row(THEIRS, "STS14", 0.8, subset="en"),
        row(THEIRS, "STS15", 0.8),
        row(THEIRS, "STS16", 0.8),
        row(THEIRS, "SICK-R", 0.8, conditions=Conditions(profile="qwen-official")),
        row(THEIRS, "SciFact", 0.61, metric="ndcg_at_10", type="Retrieval"),
    )
    reference = Reference(
        "org/minilm", theirs, "encoder", "abc", "github:example/results@1234567 results/org__minilm/abc/",
        aggregates=(Aggregate("MTEB(eng, v2)", "Mean(Task)", 0.5642, source="card"),),
    )  # fmt: skip
    tested = Interval(low=-0.021, high=0.0009, p_value=0.074, queries=300)
    return [
        compare(
            Results(ours, problems=("results/Broken.json cannot be read as JSON",)),
            reference,
            noise=Noise(dtype="float32"),
            paired=lambda mine, _, __: tested if mine.task == "SciFact" else None,
        )
    ]


def terminal(verdict: Verdict, width: int) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, highlight=False, force_terminal=False)
    for part in render.to_rich(verdict, width):
        console.print(part)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["compare.json", "compare.csv", "compare.md", "compare.80.txt", "compare.120.txt"])
def test_outputs_are_those_of_the_golden_files(golden: Path, name: str) -> None:
    comparisons = Verdict(tuple(example()))
    text = {
        "compare.json": lambda: render.to_json(comparisons) + "\n",
        "compare.csv": lambda: render.to_csv(comparisons),
        "compare.md": lambda: render.to_markdown(comparisons),
        "compare.80.txt": lambda: terminal(comparisons, 80),
        "compare.120.txt": lambda: terminal(comparisons, 120),
    }[name]()
    if os.environ.get("UPDATE_GOLDEN"):
        golden.mkdir(exist_ok=True)
        (golden / name).write_text(text, encoding="utf-8")
    assert text == (golden / name).read_text(encoding="utf-8")


def hostile() -> Verdict:
    name = "=cmd|'x'!A1 [bold]<script>alert(1)</script> | `a`\n[/]"
    row = ComparedRow(
        name,
        "[red]",
        "default",
        "m",
        "pass",
        ours=0.1,
        reference=0.1,
        difference=0.0,
        tolerance=0.1,
        notes=(name,),
        run=name,
    )
    mean = MeanRow(name, "Mean(Task)", 1, 2, 0.1, "not judged")
    return Verdict((Comparison(name, "", "", "", (row,), (mean,), runs=(name,), counts={"pass": 1}),))


def test_hostile_names_stay_text_in_every_format() -> None:
    comparisons = hostile()
    shown = terminal(comparisons, 400)
    assert "[bold]<script>" in shown
    markdown = render.to_markdown(comparisons)
    assert "<script>" not in markdown
    (table_row,) = [line for line in markdown.splitlines() if line.startswith("| =cmd") and "pass" in line]
    assert table_row.replace("\\|", "").count("|") == len(render.ROW_HEADS) + 1
    (_, cells) = list(csv.reader(io.StringIO(render.to_csv(comparisons))))
    assert cells[1].startswith("'=cmd")
    assert json.loads(render.to_json(comparisons))["comparisons"][0]["rows"][0]["task"].startswith("=cmd")


def test_every_name_of_the_row_is_in_the_terminals_table() -> None:
    shown = terminal(Verdict(tuple(example())), 200)
    for word in ("STS14 · test · en", "cosine_spearman", "72.34", "72.36", "-0.020", "99.97 %"):
        assert word in shown


def test_a_share_just_below_a_mark_does_not_read_as_if_it_reached_it() -> None:
    row = ComparedRow(
        "T",
        "test",
        "default",
        "m",
        "pass",
        ours=0.998999,
        reference=1.0,
        difference=-0.001001,
        share=0.998999,
        mark="99 %",
    )
    comparison = Comparison("r", "", "", "", (row,), counts={"pass": 1})
    assert "99.89 %" in terminal(Verdict((comparison,)), 120)


def test_several_models_join_to_one_outcome() -> None:
    passed = compare(
        Results((Row(RUN, "T", "test", "default", "m", 0.5),)),
        Reference("r", (Row(THEIRS, "T", "test", "default", "m", 0.5),)),
    )
    failed = compare(
        Results((Row(RUN, "T", "test", "default", "m", 0.1),)),
        Reference("r", (Row(THEIRS, "T", "test", "default", "m", 0.5),)),
    )
    empty = compare(Results(()), Reference("r", ()))
    assert Verdict((passed, empty)).outcome == "pass"
    assert Verdict((passed, failed)).outcome == "fail"
    assert Verdict((empty,)).outcome == "nothing comparable"


def test_the_headline_names_the_worst_tasks_first() -> None:
    (comparison,) = example()
    headline = render.headline(comparison, Verdict((comparison,)))
    assert headline.startswith(
        "FAIL: 2 of 6 scores are below org/minilm (1 above it): STS15 has no score, STS14 en (test) -1.000 points"
    )
