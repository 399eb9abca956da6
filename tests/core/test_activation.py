"""The hooks take effect whichever is imported first, cost other processes nothing, and never break Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# a package of the seam's name, so that the finder can be watched without the seconds that the real one takes
FAKE = """
def get_model_meta(model_name, revision=None, *args, **kwargs):
    return ("host", model_name)
"""


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A stand-in for MTEB with its one seam module; the real hosts are in tests/hosts."""
    models = tmp_path / "mteb" / "models"
    models.mkdir(parents=True)
    (tmp_path / "mteb" / "__init__.py").write_text("from mteb.models import get_model_meta\n")
    (models / "__init__.py").write_text("from mteb.models.get_model_meta import get_model_meta\n")
    (models / "get_model_meta.py").write_text(FAKE)
    return tmp_path


def python(code: str, *paths: Path, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EVALSCOPE_VACC")}
    environment["PYTHONPATH"] = os.pathsep.join(str(p) for p in (*paths, ROOT))
    return subprocess.run(
        [sys.executable, "-c", code], env=environment | env, capture_output=True, text=True, timeout=120, check=False
    )


HOOKED = "print(getattr(mteb.get_model_meta, '__evalscope_vacc__', False), mteb.get_model_meta('other/model'))"


def test_a_seam_imported_after_us_is_hooked(host: Path) -> None:
    done = python(f"import evalscope_vacc, mteb; {HOOKED}", host)
    assert done.stdout.split(maxsplit=1) == ["True", "('host', 'other/model')\n"], done.stderr


def test_a_seam_imported_before_us_is_hooked_too(host: Path) -> None:
    # -S: no .pth of the environment may have been there first
    code = f"import sys; sys.path += {[str(p) for p in sys.path if p]!r}; import mteb, evalscope_vacc; {HOOKED}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(host), str(ROOT)))}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.startswith("True"), done.stderr


def test_twice_is_the_same_as_once(host: Path) -> None:
    code = (
        "import evalscope_vacc, sys, mteb; before = mteb.get_model_meta, len(sys.meta_path)\n"
        "evalscope_vacc.activate(); evalscope_vacc.activate()\n"
        "print(before == (mteb.get_model_meta, len(sys.meta_path)))"
    )
    assert python(code, host).stdout == "True\n"


def test_the_switch_turns_every_hook_off(host: Path) -> None:
    done = python(f"import evalscope_vacc, mteb; {HOOKED}", host, EVALSCOPE_VACC_DISABLE="1")
    assert done.stdout.startswith("False"), done.stderr


def test_a_seam_module_looks_ordinary_afterwards(host: Path) -> None:
    code = (
        "import evalscope_vacc, mteb, sys, inspect; m = sys.modules['mteb.models.get_model_meta']\n"
        "print(type(m.__loader__).__name__, m.__spec__.loader is m.__loader__, 'host' in inspect.getsource(m))"
    )
    assert python(code, host).stdout == "SourceFileLoader True True\n"


def test_a_broken_hook_leaves_the_host_working_and_says_so(host: Path) -> None:
    code = (
        "import evalscope_vacc.hosts.autoload as a\n"
        "a.SEAMS['mteb.models.get_model_meta'] = ('evalscope_vacc.no_such_module', 'hook')\n"
        "import mteb; print(mteb.get_model_meta('x'))"
    )
    done = python(code, host)
    assert done.stdout == "('host', 'x')\n"
    assert "could not be hooked" in done.stderr


@pytest.mark.parametrize("code", ["pass", "import evalscope_vacc"])
def test_nothing_heavy_is_imported(code: str) -> None:
    heavy = ("typing", "requests", "pydantic", "torch", "mteb", "evalscope", "pluggy", "importlib.util", "urllib3")
    shown = python(
        f"import sys; before = set(sys.modules); {code}; import evalscope_vacc; "
        f"print(sorted(set({heavy!r}) & (set(sys.modules) - before)))"
    )
    assert shown.stdout == "[]\n", shown.stderr


def test_the_pth_line_survives_a_broken_install(tmp_path: Path) -> None:
    (tmp_path / "evalscope_vacc").mkdir()
    (tmp_path / "evalscope_vacc" / "__init__.py").write_text("raise RuntimeError('broken')")
    line = (ROOT / "evalscope_vacc.pth").read_text()
    assert line.startswith("import "), "site runs only lines that begin so"
    (tmp_path / "mteb.py").write_text("alive = True")
    done = subprocess.run(
        [sys.executable, "-S", "-c", line + "\nimport mteb; print('alive')"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "alive\n", done.stderr


def test_the_pth_line_imports_nothing_until_a_host_is_imported(host: Path) -> None:
    line = (ROOT / "evalscope_vacc.pth").read_text()
    code = (
        f"import sys; before = set(sys.modules); exec({line!r}); print(sorted(set(sys.modules) - before))\n"
        f"sys.path[:0] = [{str(host)!r}, {str(ROOT)!r}]; import mteb; {HOOKED}"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path += {[p for p in sys.path if p]!r}\n{code}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.split(maxsplit=1) == ["[]", "True ('host', 'other/model')\n"], done.stderr


def test_the_installed_distribution_activates_by_itself(host: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(host)!r}); import mteb; {HOOKED}"
    environment = {k: v for k, v in os.environ.items() if k != "EVALSCOPE_VACC_DISABLE"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert done.stdout.startswith("True"), f"install the package (an editable install will do): {done.stderr}"
