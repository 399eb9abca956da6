"""Served embedding and rerank models in an unmodified EvalScope and MTEB.

Importing this package hooks the hosts (see :func:`activate`) and nothing else: every other name is loaded when it is
first used. The ``.pth`` file imports it in every process that imports a host, so nothing may be imported here that
``python -c pass`` has not imported anyway; that is why even ``typing`` is missing.
"""

from evalscope_vacc.hosts.autoload import activate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from evalscope_vacc import errors
    from evalscope_vacc._version import __version__
    from evalscope_vacc.hookspecs import hookimpl
    from evalscope_vacc.hosts.entry import run
    from evalscope_vacc.models import load_model
    from evalscope_vacc.models.cross_encoder import VaccCrossEncoder
    from evalscope_vacc.models.encoder import VaccEncoder
    from evalscope_vacc.runner.act import verify

__all__ = [
    "VaccCrossEncoder",
    "VaccEncoder",
    "__version__",
    "activate",
    "errors",
    "hookimpl",
    "load_model",
    "run",
    "verify",
]

_WHERE = {
    "VaccCrossEncoder": "evalscope_vacc.models.cross_encoder",
    "VaccEncoder": "evalscope_vacc.models.encoder",
    "__version__": "evalscope_vacc._version",
    "hookimpl": "evalscope_vacc.hookspecs",
    "load_model": "evalscope_vacc.models",
    "run": "evalscope_vacc.hosts.entry",
    "verify": "evalscope_vacc.runner.act",
}


def __getattr__(name: str):  # type: ignore[no-untyped-def]
    from importlib import import_module

    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    if name == "errors":
        return import_module("evalscope_vacc.errors")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


activate()
