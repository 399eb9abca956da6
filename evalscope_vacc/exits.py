"""How a command ends: one line for an error of ours, and an exit status that says which kind."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from evalscope_vacc.errors import ConfigError, RunInterrupted, VaccError

DEBUG_VARIABLE = "EVALSCOPE_VACC_DEBUG"


@contextmanager
def ends_in_one_line() -> Iterator[None]:
    """An error of ours inside the block ends the process: 2 for a configuration that cannot be used, 130 for Ctrl-C, else 1.

    With ``EVALSCOPE_VACC_DEBUG`` in the environment the exception is raised instead.
    """
    try:
        yield
    except (VaccError, KeyboardInterrupt) as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        _end(error)


def _end(error: VaccError | KeyboardInterrupt) -> NoReturn:
    from rich.console import Console

    if isinstance(error, (KeyboardInterrupt, RunInterrupted)):
        # from here on another Ctrl-C ends the process at once
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if isinstance(error, KeyboardInterrupt):
        error = RunInterrupted()
    message = str(error) or type(error).__name__
    Console(stderr=True, highlight=False).print(f"error: {message}", style="bold red", markup=False, soft_wrap=True)
    if isinstance(error, RunInterrupted):
        _leave(130)
    sys.exit(2 if isinstance(error, ConfigError) else 1)


def _leave(status: int) -> NoReturn:
    """Ends the process without unloading the hosts' thousands of modules, which takes seconds."""
    atexit._run_exitfuncs()  # noqa: SLF001 -- the only way to have them run before os._exit()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
