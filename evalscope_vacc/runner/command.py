"""A run as a command: what the hosts print goes to the log, its face to the error output, its answer to the output."""

from __future__ import annotations

from evalscope_vacc.runner.act import act
from evalscope_vacc.runner.face import Face, TerminalFace
from evalscope_vacc.runner.options import Options
from evalscope_vacc.runner.output import captured
from evalscope_vacc.view.document import show as show_document
from evalscope_vacc.view.document import write_out
from evalscope_vacc.view.machine import to_json
from evalscope_vacc.view.words import Words


def show(options: Options, *, quiet: bool = False, verbose: bool = False, as_json: bool = False) -> int:
    """Does the whole act and prints its answer; returns the exit status.

    Args:
        options: What was asked for.
        quiet: Print the verdict's line only.
        verbose: Show what hosts and libraries print, too.
        as_json: Print the answer as JSON instead.

    Raises:
        VaccError: As :func:`evalscope_vacc.verify`.
    """
    words = Words(options.lang)
    with captured(shown=verbose) as output:
        output.secrets = [options.key or ""]
        answer = act(options, Face(output) if quiet else TerminalFace(output, words))
    if as_json:
        write_out(to_json(answer.to_json(words)))
    elif quiet:
        write_out(answer.headline(words) + "\n")
    else:
        show_document(answer.document(words))
    return answer.exit_status
