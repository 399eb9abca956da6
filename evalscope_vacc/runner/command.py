"""A run as a command: what the hosts print goes to the log, its face to the error output, its answer to the output."""

from __future__ import annotations

import json
from pathlib import Path

from evalscope_vacc.errors import RunFailed
from evalscope_vacc.hosts.bundle import used
from evalscope_vacc.hosts.collector import paused
from evalscope_vacc.hosts.entry import run
from evalscope_vacc.hosts.run_result import RunResult
from evalscope_vacc.hosts.spelling import Count
from evalscope_vacc.hosts.workers import of_a_command
from evalscope_vacc.progress import watched
from evalscope_vacc.runner.act import act
from evalscope_vacc.runner.config import secrets_of
from evalscope_vacc.runner.face import Face, TerminalFace, shows_warnings
from evalscope_vacc.runner.options import Options
from evalscope_vacc.runner.output import captured
from evalscope_vacc.task_file import read_rageval
from evalscope_vacc.view.document import show as show_document
from evalscope_vacc.view.document import write_out
from evalscope_vacc.view.listings import scores
from evalscope_vacc.view.machine import to_json
from evalscope_vacc.view.words import Words


def evaluate(
    config: Path,
    words: Words,
    *,
    data: Path | None = None,
    workers: Count | None = None,
    verbose: bool = False,
    as_json: bool = False,
) -> None:
    """Runs EvalScope's file with the face of a run, and prints its scores, the finished ones where a task failed.

    Args:
        config: EvalScope's RAGEval file, or a whole task file.
        words: The language.
        data: Folder or archive of ``prefetch`` that all data come from.
        workers: Worker processes, instead of ``eval.workers``.
        verbose: Show what hosts and libraries print, too.
        as_json: Print the scores as JSON.

    Raises:
        RunFailed: A task failed; what was finished is printed.
        VaccError: As :func:`evalscope_vacc.run`.
    """
    failure: RunFailed | None = None
    result: object = None
    with captured(shown=verbose) as output, shows_warnings(TerminalFace(output, words)) as face, watched(face):
        output.secrets = secrets_of(config)
        try:
            with of_a_command(), paused(read_rageval(config)), used(data, face.unpacks):
                result = run(config, workers=workers)
        except RunFailed as error:
            failure, result = error, error.result
    if isinstance(result, RunResult):
        if as_json:
            found = {"output_folder": str(result.output_folder), "results": result.rows(), "failed": result.failed}
            write_out(json.dumps(found, ensure_ascii=False) + "\n")
        else:
            show_document(scores(result.rows(), result.output_folder, words))
    if failure is not None:
        raise failure


def show(options: Options, *, quiet: bool = False, verbose: bool = False, as_json: bool = False) -> int:
    """Does the whole act and prints its answer; returns the exit status.

    Args:
        options: What was asked for.
        quiet: Print only the verdict.
        verbose: Show what hosts and libraries print, too.
        as_json: Print the answer as JSON instead.

    Raises:
        VaccError: As :func:`evalscope_vacc.verify`.
    """
    words = Words(options.lang)
    with captured(shown=verbose) as output, of_a_command(), paused():
        output.secrets = [options.key or ""]
        if quiet:
            answer = act(options, Face(output))
        else:
            with shows_warnings(TerminalFace(output, words)) as face:
                answer = act(options, face)
    if as_json:
        write_out(to_json(answer.to_json(words)))
    elif quiet:
        write_out(answer.headline(words) + "\n")
    else:
        show_document(answer.document(words))
    return answer.exit_status
