"""Sends what hosts and libraries print during a run to a log file, without secrets, and not to the terminal."""

from __future__ import annotations

import io
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from evalscope_vacc.files import printed_into
from evalscope_vacc.redact import clean

LOG = "console.log"
MAX_LINE = 100_000
# before the run has a folder, this much of what was printed is kept
MAX_KEPT = 4 << 20
_COLOUR = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
# a process that a library started may hold its end of the pipe open
_LAST_WORDS_S = 2.0


class Output:
    """What is printed while it is captured.

    Attributes:
        terminal: The error output as it was: what a person is to see meanwhile goes there.
        secrets: Exact strings to mask; may be given at any time.
    """

    def __init__(self, terminal: TextIO, *, shown: bool) -> None:
        self.terminal = terminal
        self.secrets: Sequence[str] = ()
        self.path: Path | None = None
        self._shown = shown
        self._kept = io.StringIO()
        self._file: TextIO | None = None
        self._lock = threading.Lock()

    def keep_in(self, folder: Path) -> None:
        """Writes all output, including what came before, to the log file in ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        with self._lock:
            if self._file is None:
                self.path = folder / LOG
                self._file = self.path.open("a", encoding="utf-8")
                self._file.write(self._kept.getvalue())
                self._file.flush()

    def line(self, raw: bytes) -> None:
        """Takes one line as it was printed; of a progress bar only its last state is kept."""
        text = _COLOUR.sub(b"", raw).rstrip(b"\r\n").rpartition(b"\r")[2].decode(errors="replace")
        with self._lock:
            said = clean(text, self.secrets, MAX_LINE) + "\n"
            if self._shown:
                self.terminal.write(said)
                self.terminal.flush()
            if self._file is not None:
                self._file.write(said)
                self._file.flush()
            elif self._kept.tell() < MAX_KEPT:
                self._kept.write(said)

    def close(self) -> None:
        """Closes the log."""
        with self._lock:
            if self._file is not None:
                self._file.close()


@contextmanager
def captured(*, shown: bool = False) -> Iterator[Output]:
    """Captures everything that is printed inside the block, by any library.

    Args:
        shown: Print it, too.
    """
    read, write = os.pipe()
    with os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace") as terminal:
        output = Output(terminal, shown=shown)
        reader = threading.Thread(target=_read, args=(read, output), name="console log", daemon=True)
        reader.start()
        try:
            with printed_into(write):
                os.close(write)
                yield output
        finally:
            reader.join(_LAST_WORDS_S)
            output.close()


def _read(pipe: int, output: Output) -> None:
    with os.fdopen(pipe, "rb") as lines:
        for raw in lines:
            output.line(raw)
