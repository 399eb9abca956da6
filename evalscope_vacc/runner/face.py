"""What a person sees during a run: one line for each finished task, and a progress line."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.cells import cell_len

from evalscope_vacc.checks.findings import Report, State
from evalscope_vacc.config import ModelConfig
from evalscope_vacc.hosts.logs import ROOT
from evalscope_vacc.names import served_name
from evalscope_vacc.progress import Watcher, Work
from evalscope_vacc.results.estimate import Estimate
from evalscope_vacc.runner.output import Output
from evalscope_vacc.runner.reference import Expected, scores_of
from evalscope_vacc.view.words import Words, count, many, percent, points, rate

LOGS = "logs"
PIPE_EVERY_S = 60.0
# an end that is not nearer than this is not told yet
_TELLS_FROM = 0.01


class Face(Watcher):
    """Is told of every step of a run, and shows none of them here.

    Args:
        output: What hosts and libraries print, where that is captured: it goes to the run's logs, without secrets.
    """

    def __init__(self, output: Output | None = None) -> None:
        self._output = output

    def checking(self, models: Sequence[ModelConfig]) -> None:
        """The servers are about to be checked."""
        if self._output is not None:
            self._output.secrets = [*self._output.secrets, *(secret for model in models for secret in model.secrets)]

    def templates(self, of: Mapping[str, str]) -> None:
        """Models get the templates that their published scores were made with."""

    def checked(self, report: Report) -> None:
        """One model's servers were checked."""

    def chosen(self, estimate: Estimate | None, left_out: Sequence[str]) -> None:
        """The tasks are known; ``left_out`` did not fit into the budget."""

    def unpacks(self, archive: Path, folder: Path) -> None:
        """An archive of data is about to be unpacked, once."""

    def begins(self, folder: Path, *, going_on: bool, expected: Expected) -> None:  # noqa: ARG002 -- told to who shows it
        """The run's folder is known; ``going_on`` with what an earlier start left there."""
        if self._output is not None:
            self._output.keep_in(folder / LOGS)

    def over(self) -> None:
        """Nothing moves any more."""


class _AtWork:
    """Progress of one task since it began.

    Attributes:
        position: In the plan.
        side: Of the current call of MTEB.
        done: Texts of that call that have their answer.
        total: Texts of that call, or None.
    """

    def __init__(self, position: int) -> None:
        self.position = position
        self.side, self.done = "", 0
        self.total: int | None = None
        self._began = time.monotonic()
        self._before = self._call = (0, 0, 0)  # texts, sent ones and tokens

    def moved(self, side: str, done: int, total: int | None, sent: int, tokens: int) -> None:
        """An answer came; see :meth:`evalscope_vacc.progress.Watcher.moved`."""
        if side != self.side or done < self.done:
            # another call of MTEB
            self._before = self._sums
        self.side, self.done, self.total = side, done, total
        self._call = (done, sent, tokens)

    @property
    def _sums(self) -> tuple[int, int, int]:
        texts, sent, tokens = (a + b for a, b in zip(self._before, self._call, strict=True))
        return texts, sent, tokens

    @property
    def texts(self) -> int:
        """Texts that have their answer."""
        return self._sums[0]

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    @property
    def rates(self) -> tuple[float, float]:
        """Texts and tokens sent per second."""
        _, sent, tokens = self._sums
        seconds = max(self.seconds, 1e-6)
        return sent / seconds, tokens / seconds


class Progress:
    """How far a run is, by the texts that its tasks are estimated to have.

    Args:
        work: The plan.
        sizes: (model, task) to texts or pairs; a task without counts as much as the others on average.

    Attributes:
        at_work: The tasks at work, by position, in the order in which they began.
    """

    def __init__(self, work: Sequence[Work], sizes: Mapping[tuple[str, str], int]) -> None:
        self.work = work
        self.at_work: dict[int, _AtWork] = {}
        known = [size for size in sizes.values() if size] or [1]
        mean = math.fsum(known) / len(known)
        self._weights = [float(_size(sizes, one) or mean) for one in work]
        self._began = time.monotonic()
        self._done = self._found = 0.0

    def began(self, position: int) -> None:
        """The work at a position begins."""
        self.at_work[position] = _AtWork(position)

    def moved(self, position: int | None, *moved: Any) -> None:
        """An answer came, for the work at a position or the one that began last."""
        task = self.at_work.get(next(reversed(self.at_work), -1) if position is None else position)
        if task is not None:
            task.moved(*moved)

    def ended(self, position: int) -> _AtWork:
        """The work at a position ended, or was not begun; returns how far it was."""
        task = self.at_work.pop(position, None) or _AtWork(position)
        self._done += self._weights[position]
        if not task.texts:
            # it was there already: says nothing of how long the rest takes
            self._found += self._weights[position]
        return task

    @property
    def rates(self) -> tuple[float | None, float | None]:
        """Texts and tokens sent per second in the tasks at work."""
        rates = [task.rates for task in self.at_work.values()]
        texts, tokens = (math.fsum(rate[which] for rate in rates) for which in (0, 1))
        return texts or None, tokens or None

    @property
    def share(self) -> float:
        """Of the whole run, 0 to 1."""
        return (self._done + self._part()) / math.fsum(self._weights)

    @property
    def left_s(self) -> float | None:
        """Seconds that the rest will take; None before that can be said."""
        whole = math.fsum(self._weights)
        made = self._done + self._part() - self._found
        if made < _TELLS_FROM * whole:
            return None
        return (time.monotonic() - self._began) / made * (whole - self._done - self._part())

    def _part(self) -> float:
        return math.fsum(min(self._weights[task.position], task.texts) for task in self.at_work.values())


def _size(sizes: Mapping[tuple[str, str], int], work: Work) -> int | None:
    name = served_name(work.model)
    return next((n for (model, task), n in sizes.items() if task == work.task and model in (name, work.model)), None)


class TerminalFace(Face):
    """Shows a run on a terminal or a pipe.

    Args:
        output: Has the terminal.
        words: The language.
    """

    def __init__(self, output: Output, words: Words) -> None:
        from rich.console import Console

        super().__init__(output)
        self._words = words
        self._console = Console(file=output.terminal, highlight=False)
        self._live: Any = None
        self._progress: Progress | None = None
        self._sizes: dict[tuple[str, str], int] = {}
        self._expected: Expected | None = None
        self._told = time.monotonic()
        self._said: list[str] = []

    def warn(self, text: str) -> None:
        """Shows a warning of this package, once."""
        if not any(said.endswith(text) or text.endswith(said.partition("  ")[2] or said) for said in self._said):
            self.say(f"{self._words('state_warning')}  {text}", "yellow")

    def say(self, text: str, style: str = "") -> None:
        """Shows a line that stays."""
        self._said.append(text)
        # what goes to a file is never broken inside a sentence
        self._console.print(text, style=style, markup=False, soft_wrap=not self._console.is_terminal)

    def checking(self, models: Sequence[ModelConfig]) -> None:
        """Names the servers."""
        super().checking(models)
        for model in models:
            self.say(self._words("run_checking", model=model.model_name, servers=", ".join(model.servers)))

    def templates(self, of: Mapping[str, str]) -> None:
        """Names them."""
        for model, template in of.items():
            self.say(self._words("run_template", model=model, template=template))

    def checked(self, report: Report) -> None:
        """Shows errors and warnings, and how many checks passed."""
        styles: Mapping[State, str] = {"wrong": "bold red", "warning": "yellow"}
        for state, style in styles.items():
            for finding in report.having(state):
                self.say(f"{self._words(f'state_{state}')}  {finding.line(self._words)}", style)
        passed = len(report.having("ok"))
        self.say(self._words("run_checked", passed=passed, time=self._words.duration(report.seconds)))

    def chosen(self, estimate: Estimate | None, left_out: Sequence[str]) -> None:
        """Says how much there is to do, and how long it will take."""
        words = self._words
        if estimate is not None and estimate.tasks:
            self._sizes = {(task.model, task.task): task.count for task in estimate.tasks}
            texts, tokens = (sum(getattr(task, name) for task in estimate.tasks) for name in ("count", "tokens"))
            about = words("run_about", time=words.duration(estimate.seconds)) if estimate.seconds else ""
            self.say(words("run_estimate", tasks=len(estimate.tasks), texts=count(texts), tokens=many(tokens)) + about)
        if estimate is not None and estimate.unknown:
            self.say(words("run_unknown_sizes", tasks=words.some(estimate.unknown)))
        if left_out:
            self.say(words("run_left_out", tasks=words.some(left_out, 10)))

    def unpacks(self, archive: Path, folder: Path) -> None:
        """Names both."""
        self.say(self._words("run_unpacks", archive=archive, folder=folder))

    def lacks(self, tasks: Mapping[str, str], fetching: str) -> None:
        """Names the tasks that cannot be done, before the first one that can."""
        lines = [self._words("run_lacks", task=task, why=why) for task, why in tasks.items()]
        for line in (*lines, self._words("run_fetching", command=fetching)):
            if line not in self._said:  # with --allow-partial the plan says it, and the run
                self.say(line, "yellow")

    def begins(self, folder: Path, *, going_on: bool, expected: Expected) -> None:
        """Names the folder."""
        super().begins(folder, going_on=going_on, expected=expected)
        self._expected = expected
        self.say(self._words("run_going_on" if going_on else "run_folder", folder=folder))

    def planned(self, folder: Path, work: Sequence[Work]) -> None:
        """Begins to count."""
        if self._output is not None:
            self._output.keep_in(folder / LOGS)
        self._progress = Progress(work, self._sizes)

    def began(self, position: int) -> None:
        """Shows the task that is at work."""
        if self._progress is None:
            return
        self._progress.began(position)
        if self._console.is_terminal and self._live is None:
            from rich.live import Live

            self._live = Live(
                console=self._console, get_renderable=self._line, transient=True, refresh_per_second=4,
                redirect_stdout=False, redirect_stderr=False,
            )  # fmt: skip
            self._live.start()

    def moved(
        self, side: str, done: int, total: int | None, sent: int, tokens: int, *, position: int | None = None
    ) -> None:
        """Moves the line; on a pipe it is said anew once a minute."""
        if self._progress is None:
            return
        self._progress.moved(position, side, done, total, sent, tokens)
        if not self._console.is_terminal and time.monotonic() - self._told >= PIPE_EVERY_S:
            self._told = time.monotonic()
            self.say(self.text())

    def ended(self, position: int, results: Sequence[Any], why: str) -> None:
        """Shows the line of a task that is done."""
        progress = self._progress
        if progress is None:
            return
        task = progress.ended(position)
        words, work = self._words, progress.work[position]
        head = f"[{position + 1}/{len(progress.work)}] {work.task}" + (f" ({work.stage})" if work.stage else "")
        if why:
            self.say(f"{head}  {words('v_failed')}{words('colon')}{' '.join(why.split())}", "red")
        else:
            parts = [head, *self._scores(work, results)]
            texts, _ = task.rates
            parts += (
                [f"{rate(texts)} {words('per_second')}"]
                if texts
                else [words("run_was_there")]
                if not task.texts
                else []
            )
            self.say("  ".join([*parts, words.duration(task.seconds)]))
        self._told = time.monotonic()

    def _scores(self, work: Work, results: Sequence[Any]) -> list[str]:
        scores = scores_of(results)
        if not scores:
            return []
        mine = math.fsum(scores.values()) / len(scores)
        theirs = self._expected.mean(work.task, scores) if self._expected else None
        if theirs is None:
            return [percent(mine)]
        return [percent(mine), self._words("run_reference", score=percent(theirs), points=points(mine - theirs))]

    def over(self) -> None:
        """Takes the moving line away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def text(self, width: int | None = None) -> str:
        """Returns the progress line: tasks at work, rates, share of the run, and time left.

        Args:
            width: Columns that there are; a line that is longer does without the rates, and then without the later tasks.
        """
        progress, words = self._progress, self._words
        if progress is None or not progress.at_work:
            return ""
        heads = [self._head(progress, task) for task in progress.at_work.values()]
        texts, tokens = progress.rates
        rates = [f"{rate(texts)} {words('per_second')}"] if texts else []
        rates += [f"{rate(tokens)} {words('run_tokens_per_second')}"] if tokens else []
        left = words("run_left", time=_coarse(progress.left_s, words)) if progress.left_s is not None else ""
        share = words("run_share", share=f"{100 * progress.share:.0f}")
        line = ""
        shorter = [(len(heads), kept) for kept in range(len(rates), -1, -1)]
        for shown, kept in [*shorter, *((shown, 0) for shown in range(len(heads) - 1, 0, -1))]:
            parts = ("  ".join(heads[:shown]), words("comma").join(rates[:kept]), share, left)
            line = " · ".join(part for part in parts if part)
            if width is None or cell_len(line) <= width:
                break
        return line

    def _head(self, progress: Progress, task: _AtWork) -> str:
        """One task of the moving line."""
        side = self._words(f"side_{task.side}") if task.side else ""
        of = (count(task.done) + (f"/{count(task.total)}" if task.total else "")) if task.done else ""
        parts = (f"[{task.position + 1}/{len(progress.work)}]", progress.work[task.position].task, side, of)
        return " ".join(part for part in parts if part)

    def _line(self) -> Any:
        from rich.text import Text

        return Text(self.text(self._console.width), no_wrap=True, overflow="ellipsis")


def _coarse(seconds: float, words: Words) -> str:
    """A duration that nobody should take to the second."""
    if seconds < 60:
        return words.duration(math.ceil(seconds / 10) * 10 if seconds > 10 else math.ceil(seconds))
    minutes = math.ceil(seconds / 60)
    return words("run_minutes", minutes=minutes) if minutes < 120 else words.duration(minutes * 60)


class _Warnings(logging.Handler):
    """Hands this package's warnings to the face; what becomes of a task, it is told by the run itself."""

    def __init__(self, face: TerminalFace) -> None:
        super().__init__(logging.WARNING)
        self._face = face

    def emit(self, record: logging.LogRecord) -> None:
        """Shows one."""
        if record.name != "evalscope_vacc.hosts.run":
            self._face.warn(record.getMessage())


@contextmanager
def shows_warnings(face: TerminalFace) -> Iterator[TerminalFace]:
    """Inside the block the face shows this package's warnings, which the hosts' log has, too."""
    ours, handler = logging.getLogger(ROOT), _Warnings(face)
    ours.addHandler(handler)
    try:
        yield face
    finally:
        ours.removeHandler(handler)
        face.over()
