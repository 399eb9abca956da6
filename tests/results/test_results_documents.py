"""The outputs: golden files, and names that are hostile.

``UPDATE_GOLDEN=1 pytest tests/results/test_results_documents.py`` writes the files anew; look at the difference.
"""

from __future__ import annotations

import ast
import csv
import io
import os
import re
import string
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from evalscope_vacc.results.judge import compare
from evalscope_vacc.results.model import (
    Aggregate,
    ComparedRow,
    Comparison,
    Conditions,
    Interval,
    MeanRow,
    Reason,
    Reference,
    Results,
    Row,
    Run,
    TaskState,
    Verdict,
)
from evalscope_vacc.results.noise import Noise
from evalscope_vacc.view.comparison import document, headline
from evalscope_vacc.view.document import to_markdown, to_terminal
from evalscope_vacc.view.machine import to_csv, to_json, to_junit, to_mapping
from evalscope_vacc.view.words import Words, messages

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
            Results(ours, problems=(Reason.of("unreadable", text="results/Broken.json cannot be read as JSON"),)),
            reference,
            noise=Noise(dtype="float32"),
            paired=lambda mine, _, __: tested if mine.task == "SciFact" else None,
        )
    ]


def example_verdict(**options: Any) -> Verdict:
    """The example with tasks that failed and were not run, a warning and causes."""
    tasks = tuple(TaskState("vacc/minilm", row.task, "judged") for c in example() for row in c.rows if row.judged)
    lacking = (
        TaskState("vacc/minilm", "Mine", "no reference"),
        TaskState("vacc/minilm", "NFCorpus", "failed", Reason.of("error", text="the data set is not there")),
        TaskState("vacc/minilm", "TwentyNewsgroups", "not run"),
        TaskState("vacc/minilm", "XQuADRetrieval", "not run", Reason.of("lacks", parts="validation · zh")),
    )
    warnings = (
        Reason.of("at_chance", tasks=("TwentyNewsgroups",)),
        Reason.of("all_equal", tasks=("A", "B"), value=0.5),
    )
    causes = (Reason.of("unrecorded_there", setting="max_tokens", ours=16), Reason.of("server_changed", model="minilm"))
    comparisons = tuple(replace(comparison, causes=causes) for comparison in example())
    return Verdict(comparisons, tasks + lacking, True, warnings, **options)


def terminal(verdict: Verdict, width: int, lang: str = "en") -> str:
    return to_terminal(document(verdict, Words(lang)), width)


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize(
    "name", ["compare.json", "compare.csv", "compare.md", "compare.xml", "compare.80.txt", "compare.120.txt"]
)
def test_outputs_are_those_of_the_golden_files(golden: Path, name: str, lang: str) -> None:
    verdict, words = example_verdict(), Words(lang)
    text = {
        "compare.json": lambda: to_json(to_mapping(verdict, words)),
        "compare.csv": lambda: to_csv(verdict, words),
        "compare.md": lambda: to_markdown(document(verdict, words)),
        "compare.xml": lambda: to_junit(verdict, words),
        "compare.80.txt": lambda: terminal(verdict, 80, lang),
        "compare.120.txt": lambda: terminal(verdict, 120, lang),
    }[name]()
    stem, _, suffix = name.rpartition(".")
    file = golden / f"{stem}.{lang}.{suffix}"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_people_read_the_name_that_is_served(lang: str) -> None:
    for text in (terminal(example_verdict(), 120, lang), to_markdown(document(example_verdict(), Words(lang)))):
        assert "minilm · served-1234abcd" in text
        assert "vacc/" not in text.replace("evalscope-vacc/", "")


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
        notes=(Reason.of("unreadable", text=name),),
        run=name,
    )
    mean = MeanRow(name, "Mean(Task)", 1, 2, 0.1, "not judged")
    return Verdict((Comparison(name, "", "", None, (row,), (mean,), runs=(name,)),))


def test_hostile_names_stay_text_in_every_format() -> None:
    verdict, words = hostile(), Words()
    assert "[bold]<script>" in terminal(verdict, 400)
    markdown = to_markdown(document(verdict, words))
    assert "<script>" not in markdown
    (table_row,) = [line for line in markdown.splitlines() if line.startswith("| =cmd") and "matches" in line]
    heads = next(line for line in markdown.splitlines() if line.startswith("| Task"))
    assert table_row.replace("\\|", "").count("|") == heads.count("|")
    (_, cells) = list(csv.reader(io.StringIO(to_csv(verdict, words))))
    assert cells[1].startswith("'=cmd")
    assert to_mapping(verdict, words)["comparisons"][0]["rows"][0]["task"].startswith("=cmd")
    hostile_task = TaskState("\x00\ud800]]>", "<a&b>", "failed", Reason.of("error", text="\x1b[2J ]]> &"))
    root = ET.fromstring(to_junit(Verdict(verdict.comparisons, (hostile_task,)), words))
    assert [case.get("name") for case in root.iter("testcase")] == ["<a&b>"]


def test_every_name_of_the_row_is_in_the_terminals_table() -> None:
    shown = terminal(Verdict(tuple(example())), 200)
    for word in ("STS14", "test", "en", "cosine_spearman", "72.34", "72.36", "−0.020", "99.97 %"):
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
    comparison = Comparison("r", "", "", None, (row,))
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
    said = headline(comparison, Verdict((comparison,)), Words())
    assert said.startswith("FAIL: 2 of 6 scores are below org/minilm (1 above it): STS15 · test has no score, ")


def test_no_word_is_broken_however_narrow_the_terminal() -> None:
    wide = set(terminal(example_verdict(), 10_000).split())
    for width in (20, 40, 60, 80):
        assert set(terminal(example_verdict(), width).split()) <= wide


def test_without_a_terminal_nothing_is_cut_or_wrapped() -> None:
    shown = to_terminal(document(example_verdict(), Words()))
    assert max(map(len, shown.splitlines())) > 120
    assert "Share" in shown


def test_junit_has_a_case_a_task_and_the_counts() -> None:
    for partial, errors, skipped in ((False, 3, 1), (True, 1, 3)):
        root = ET.fromstring(to_junit(example_verdict(allow_partial=partial), Words()))
        suite = root.find("testsuite")
        assert suite is not None
        counted = {p.get("name"): p.get("value") for p in suite.iter("property")}
        assert {name: counted[name] for name in ("asked", "judged", "failed", "not_run", "no_reference")} == {
            "asked": "10", "judged": "6", "failed": "1", "not_run": "2", "no_reference": "1",
        }  # fmt: skip
        assert [suite.get(name) for name in ("tests", "errors", "skipped")] == ["10", str(errors), str(skipped)]
        failure = next(case for case in suite.iter("testcase") if case.get("name") == "SciFact").find("failure")
        assert failure is None, "within the noise of its queries"
        failure = next(case for case in suite.iter("testcase") if case.get("name") == "STS14").find("failure")
        assert failure is not None
        assert failure.get("message", "").startswith(
            "STS14 · test · en: Ours 79.00, Reference 80.00, Points −1.000, Allowed ±0.05"
        )


# -- the catalogue -----------------------------------------------------------------------------------------------------


def test_every_message_is_in_both_languages_with_the_same_blanks() -> None:
    def blanks(text: str) -> set[tuple[str, str | None]]:
        return {(name, form) for _, name, form, _ in string.Formatter().parse(text) if name}

    assert len(messages()) > 500
    assert {code: said for code, said in messages().items() if len(said) != 2 or not all(said)} == {}
    assert [code for code, (english, chinese) in messages().items() if blanks(english) != blanks(chinese)] == []


def test_every_code_stands_once_and_is_used() -> None:
    package = Path(document.__code__.co_filename).parents[1]
    lines = (package / "view" / "messages.toml").read_text(encoding="utf-8").splitlines()
    assert sum(" = [" in line for line in lines) == len(messages())
    source = "".join(path.read_text(encoding="utf-8") for path in (*package.rglob("*.py"), *package.rglob("*.j2")))
    named = {name.replace(" ", "_") for name in re.findall(r"""["']([\w ]+)["']""", source)}
    built = ("v_", "f_", "m_", "col_", "word_", "title_", "n_", "answer_", "setting_", "demo_", "tolerance_",
             "kind_", "state_", "what_", "language_", "found_", "before_", "run_file_", "side_", "characters_")  # fmt: skip
    # those with a dot are findings, which tests/checks holds against what is made
    unused = [code for code in messages() if code not in named and not code.startswith(built) and "." not in code]
    assert unused == []


def test_every_reason_that_is_made_has_a_sentence() -> None:
    package = Path(document.__code__.co_filename).parents[1]
    source = "".join(path.read_text(encoding="utf-8") for path in (package / "results").glob("*.py"))
    source += "".join(path.read_text(encoding="utf-8") for path in (package / "checks").glob("*.py"))
    made = set(re.findall(r"""Reason(?:\.of)?\(\s*"(\w+)\"""", source)) | set(
        re.findall(r'because\("[\w ]+", "(\w+)"', source)
    )
    assert len(made) > 25
    assert made <= messages().keys()


def test_no_pattern_reads_a_sentence_of_our_own() -> None:
    """Patterns are for names, metrics and addresses: a sentence has a blank between two words."""
    package = Path(document.__code__.co_filename).parents[1]
    for path in (*(package / "results").glob("*.py"), *(package / "view").glob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(call, ast.Call) and ast.unparse(call.func).startswith("re.")):
                continue
            for argument in call.args:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    assert not re.search(r"[a-z]{2} [a-z]{2}", argument.value), f"{path}: {argument.value}"
