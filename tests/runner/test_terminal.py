"""What a person sees while a run goes on: on terminals of two widths, and through a pipe."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from evalscope_vacc.progress import Work
from evalscope_vacc.results.estimate import Estimate, TaskEstimate
from evalscope_vacc.results.model import Reference, Row, Run
from evalscope_vacc.runner import face as faces
from evalscope_vacc.runner.output import captured
from evalscope_vacc.runner.reference import Expected
from evalscope_vacc.view.words import Words

faces.PIPE_EVERY_S = 0.1
row = Row(Run("m", "", "", None), "SciFact", "test", "default", "ndcg_at_10", 0.6451)
sizes = [TaskEstimate("minilm", task, "", "texts", 5483, 10**6, 60.0) for task in ("SciFact", "AnOtherTaskWithALongName")]
with captured() as output, faces.shows_warnings(faces.TerminalFace(output, Words(sys.argv[1]))) as face:
    print("a library says something")
    face.chosen(Estimate(tuple(sizes), (), ()), ())
    face.begins(Path("run"), going_on=False, expected=Expected((Reference("m", (row,)),)))
    face.planned(Path("run"), [Work("vacc/minilm", one.task) for one in sizes])
    face.began(0)
    for done in range(0, 5184, 640):
        time.sleep(0.15)
        face.moved("document", done, 5183, done, 70 * done)
    score = {"hf_subset": "default", "main_score": 0.6431}
    face.ended(0, [SimpleNamespace(scores={"test": [score]})], "")
    face.began(1)
    for done in (10, 20, 30):
        time.sleep(0.3)
        face.moved("", done, None, done, 0)
    face.ended(1, [], "the server died")
print("the end")
"""
LINE = r"\[1/2\] SciFact document [\d,]+/5,183"
FINISHED = r"\[1/2\] SciFact  64\.31  \(reference 64\.51, −0\.200\)  [\d,]+ texts/s  [\d.]+ s"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(tmp_path: Path, columns: int, language: str = "en") -> str:
    pexpect = pytest.importorskip("pexpect")
    # the terminal says how wide it is, not the one in which the tests run
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    child = pexpect.spawn(
        sys.executable, ["-c", SCRIPT, language], cwd=tmp_path, dimensions=(24, columns), encoding="utf-8", timeout=60,
        env={**environment, "TERM": "xterm-256color"},
    )  # fmt: skip
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0, child.before
    return str(child.before)


@pytest.mark.parametrize("columns", [80, 120])
def test_the_moving_line_fits_a_terminal_and_leaves_the_finished_tasks(tmp_path: Path, columns: int) -> None:
    shown = on_a_terminal(tmp_path, columns)
    states = [part.strip() for part in re.split(r"[\r\n]+", _ESCAPES.sub("", shown)) if part.strip()]
    moving = [state for state in states if re.match(LINE + " ·", state)]
    assert len(moving) >= 3, states
    assert all(len(state) <= columns for state in states), [state for state in states if len(state) > columns]
    assert any(re.search(r"· run \d+ % · about .* left$", state) for state in moving), moving
    has_rates = [state for state in moving if "texts/s, " in state and "tokens/s" in state]
    assert bool(has_rates) == (columns == 120), moving
    assert any(re.fullmatch(FINISHED, state) for state in states), states
    assert any("AnOtherTaskWithALongName  failed: the server died" in state for state in states)
    assert states[-1] == "the end"
    assert "a library says something" not in shown
    assert "a library says something" in (tmp_path / "run" / "logs" / "console.log").read_text()


def test_the_moving_line_in_chinese(tmp_path: Path) -> None:
    shown = _ESCAPES.sub("", on_a_terminal(tmp_path, 80, "zh"))
    assert re.search(r"\[1/2\] SciFact 文档 [\d,]+/5,183 · .*总进度 \d+ % · 约剩", shown), shown


def test_through_a_pipe_every_line_is_whole_and_nothing_moves(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "en"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert "\x1b" not in done.stderr
    assert "\r" not in done.stderr
    lines = done.stderr.splitlines()
    assert sum(bool(re.match(LINE + " ·", line)) for line in lines) >= 3
    assert any(re.fullmatch(FINISHED, line) for line in lines), lines
    assert done.stdout == "the end\n"


def test_two_tasks_at_work_share_the_line_and_each_has_its_own_rate(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from evalscope_vacc.progress import Work
    from evalscope_vacc.runner.face import TerminalFace
    from evalscope_vacc.runner.output import Output
    from evalscope_vacc.view.words import Words

    shown = io.StringIO()
    face = TerminalFace(Output(shown, shown=False), Words("en"))
    face.planned(tmp_path, [Work("m", "Large"), Work("m", "Small")])
    face.began(1)
    face.began(0)
    face.moved("document", 640, 5000, 640, 0, position=0)
    face.moved("", 10, 20, 10, 0, position=1)
    assert face.text().startswith("[2/2] Small 10/20  [1/2] Large document 640/5,000 · ")
    assert face.text(50).startswith("[2/2] Small 10/20 · "), "the later ones are left out where the line is too long"
    score = {"hf_subset": "default", "main_score": 0.5}
    face.ended(1, [SimpleNamespace(scores={"test": [score]})], "")
    face.moved("document", 1280, 5000, 1280, 0)
    assert face.text().startswith("[1/2] Large document 1,280/5,000 · ")
    face.ended(0, [], "its worker process was killed (SIGKILL)")
    assert face.text() == ""
    lines = shown.getvalue().splitlines()
    assert lines[0].startswith("[2/2] Small  50.00  ")
    assert " texts/s  " in lines[0]
    assert lines[1] == "[1/2] Large  failed: its worker process was killed (SIGKILL)"
