"""A small server with real weights, a small data set of our own writing, and the command that tries both together.

Nothing here is needed to evaluate a served model: it is what ``evalscope-vacc demo`` and the tests run on.
"""

from __future__ import annotations

from evalscope_vacc.demo.process import DemoServer

__all__ = ["DemoServer"]
