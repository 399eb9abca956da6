"""Python's garbage collector rests while the hosts are imported.

EvalScope, MTEB and sentence-transformers are some ten thousand modules that are there to stay. The collector looks through all
of them again and again: a quarter of the ten seconds that the imports take, and two more at the end of the process.
"""

from __future__ import annotations

import atexit
import gc

_resting = False


def rest() -> None:
    """Lets the collector rest until :func:`work` is called, and has it leave out at the end what is there by then."""
    global _resting  # noqa: PLW0603 -- a process has one collector
    if gc.isenabled():
        _resting = True
        gc.disable()
        atexit.register(gc.freeze)


def work() -> None:
    """Lets it work again, where it rests because of us; what has been imported is left out from now on."""
    global _resting  # noqa: PLW0603 -- a process has one collector
    if _resting:
        _resting = False
        gc.freeze()
        gc.enable()
