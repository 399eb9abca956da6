"""Which versions of the hosts work together, checked at run time: our own bounds must not change what is installed."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("evalscope", "mteb", "sentence-transformers", "transformers", "datasets", "torch", "pydantic")


def installed() -> dict[str, str | None]:
    """Returns the versions of Python and of the packages that matter, None where one is missing."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def check(found: dict[str, str | None] | None = None) -> str | None:
    """Returns what is wrong with the installed pair and how to mend it, or None.

    Args:
        found: As :func:`installed` returns; default the running environment.
    """
    from packaging.version import Version

    found = installed() if found is None else found
    missing = [name for name in ("evalscope", "mteb") if not found.get(name)]
    if missing:
        return f"{' and '.join(missing)} not installed: pip install {' '.join(missing)}"
    evalscope, mteb = Version(found["evalscope"] or "0"), Version(found["mteb"] or "0")
    python = Version(found.get("python") or "0")
    legacy = evalscope < Version("1.8.1")
    if evalscope < Version("1.3"):
        return f"EvalScope {evalscope} is older than 1.3.0: pip install 'evalscope>=1.3'"
    if legacy and mteb >= Version("2"):
        return (
            f"EvalScope {evalscope} was made for mteb 1.38.20 and does not work with mteb {mteb}: "
            "pip install 'mteb==1.38.20', or a newer EvalScope: pip install 'evalscope>=1.8.1'"
        )
    if not legacy and mteb < Version("2.7"):
        return f"EvalScope {evalscope} needs mteb 2.7 or later and finds {mteb}: pip install 'mteb>=2.7,<3'"
    if legacy:
        if python >= Version("3.13"):
            return (
                f"mteb {mteb} does not work on Python {python}: use Python 3.10 to 3.12, or EvalScope 1.8.1 and later"
            )
        for name, bound in (("transformers", "5"), ("datasets", "4")):
            have = found.get(name)
            if have and Version(have) >= Version(bound):
                return (
                    f"mteb {mteb} (of EvalScope {evalscope}) needs {name} below {bound} and finds {have}: "
                    f"pip install '{name}<{bound}'"
                )
    return None
