"""Hooks the hosts' seam modules as they are imported, without importing anything itself.

The wheel's ``.pth`` line, which runs in every Python process of an environment, installs a finder of five lines that
imports this module when ``evalscope`` or ``mteb`` is first imported; no other process opens a file for us. The finder
here is a plain class: deriving from ``importlib.abc`` classes would cost two milliseconds more.
"""

import os
import sys

DISABLE_VARIABLE = "EVALSCOPE_VACC_DISABLE"

# seam module -> where our hook for it lives; a hook gets the module when it has been executed
SEAMS = {
    "evalscope.backend.rag_eval.mteb.arguments": ("evalscope_vacc.hosts.evalscope", "hook_mteb_arguments"),
    "evalscope.backend.rag_eval.ragas.arguments": ("evalscope_vacc.hosts.evalscope", "hook_ragas_arguments"),
    "evalscope.backend.rag_eval.ragas.task_template": ("evalscope_vacc.hosts.evalscope", "hook_ragas_run"),
    "evalscope.backend.rag_eval.ragas.tasks.testset_generation": (
        "evalscope_vacc.hosts.evalscope",
        "hook_ragas_testset",
    ),
    "evalscope.backend.rag_eval.models": ("evalscope_vacc.hosts.evalscope", "hook_models"),
    "evalscope.backend.rag_eval.mteb.task_template": ("evalscope_vacc.hosts.evalscope", "hook_run"),
    "evalscope.cli.start_eval": ("evalscope_vacc.hosts.evalscope_cli", "hook_eval_command"),
    "evalscope.run": ("evalscope_vacc.hosts.folder", "hook_run"),
    "evalscope.config": ("evalscope_vacc.hosts.evalscope_legacy", "hook_config"),
    "evalscope.backend.rag_eval.backend_manager": ("evalscope_vacc.hosts.evalscope_legacy", "hook_backend_manager"),
    "mteb.models.get_model_meta": ("evalscope_vacc.hosts.mteb", "hook_get_model_meta"),
    "mteb.evaluate": ("evalscope_vacc.hosts.mteb", "hook_evaluate"),
    "mteb.models.overview": ("evalscope_vacc.hosts.mteb", "hook_get_model_meta"),
    "mteb.evaluation.MTEB": ("evalscope_vacc.hosts.mteb_legacy", "hook_evaluation"),
}


def disabled() -> bool:
    """Whether the user has switched every hook off."""
    return os.environ.get(DISABLE_VARIABLE, "").strip().lower() in {"1", "true", "yes", "on"}


def _apply(name: str, module) -> None:  # type: ignore[no-untyped-def]
    """Runs the hook of a seam module; a host must go on working whatever happens in it."""
    from importlib import import_module

    where, hook = SEAMS[name]
    try:
        getattr(import_module(where), hook)(module)
    except Exception as error:  # noqa: BLE001 -- see above
        print(  # noqa: T201 -- no logger of the host is set up yet
            f"evalscope-vacc: {name} could not be hooked ({type(error).__name__}: {error}), so it does not know "
            f"model_type: vacc_api. `evalscope-vacc version` shows which hosts are supported.",
            file=sys.stderr,
        )


class _Loader:
    """Stands in for a seam module's loader for the moment of its execution."""

    def __init__(self, loader) -> None:  # type: ignore[no-untyped-def]
        self._loader = loader

    def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
        return getattr(self._loader, name)

    def create_module(self, spec):  # type: ignore[no-untyped-def]
        return self._loader.create_module(spec)

    def exec_module(self, module) -> None:  # type: ignore[no-untyped-def]
        # the real loader again, before anybody looks: pickling, resources and reloads see an ordinary module
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _apply(module.__name__, module)


class _Finder:
    """Finds the seam modules only; every other name costs one look into a dictionary."""

    def __init__(self) -> None:
        self._busy = set()  # type: ignore[var-annotated]

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]  # noqa: ARG002
        if name not in SEAMS or name in self._busy:
            return None
        from importlib.util import find_spec

        self._busy.add(name)
        try:
            spec = find_spec(name)
        finally:
            self._busy.discard(name)
        if spec is not None and spec.loader is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
        return spec


def activate() -> None:
    """Hooks EvalScope and MTEB now: seam modules already imported at once, the others when they are.

    Calling it again changes nothing. With ``EVALSCOPE_VACC_DISABLE=1`` it does nothing.
    """
    if disabled():
        return
    # by name: after a reload, or beside a second copy of the package, the class is another one
    if not any(type(finder).__name__ == "_Finder" and type(finder).__module__ == __name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
        for name in SEAMS:
            module = sys.modules.get(name)
            if module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False):
                _apply(name, module)
