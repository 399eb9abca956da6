"""Which pairs of hosts are refused, with what message: the check alone, and at a run in a new process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from evalscope_vacc.hosts.versions import check, installed

NEWEST = {"python": "3.11.7", "evalscope": "1.14.1", "mteb": "2.26.24", "transformers": "5.23.0", "datasets": "4.8.4"}
OLDEST = {"python": "3.11.7", "evalscope": "1.3.0", "mteb": "1.38.20", "transformers": "4.57.6", "datasets": "3.6.0"}


@pytest.mark.parametrize(
    "found",
    [
        NEWEST,
        {**NEWEST, "evalscope": "1.8.1", "mteb": "2.7.0"},
        OLDEST,
        {**OLDEST, "evalscope": "1.8.0", "python": "3.12.1"},
        {**NEWEST, "python": "3.14.0"},
    ],
)
def test_pairs_that_work_are_not_complained_about(found: dict[str, str | None]) -> None:
    assert check(found) is None


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({**NEWEST, "mteb": None}, "mteb not installed: pip install mteb"),
        ({**OLDEST, "evalscope": "1.2.0"}, "EvalScope 1.2.0 is older than 1.3.0: pip install 'evalscope>=1.3'"),
        (
            {**OLDEST, "mteb": "2.7.0"},
            (
                "EvalScope 1.3.0 was made for mteb 1.38.20 and does not work with mteb 2.7.0: "
                "pip install 'mteb==1.38.20', or a newer EvalScope: pip install 'evalscope>=1.8.1'"
            ),
        ),
        (
            {**NEWEST, "mteb": "1.38.20"},
            "EvalScope 1.14.1 needs mteb 2.7 or later and finds 1.38.20: pip install 'mteb>=2.7,<3'",
        ),
        (
            {**OLDEST, "transformers": "5.0.0"},
            "mteb 1.38.20 (of EvalScope 1.3.0) needs transformers below 5 and finds 5.0.0: pip install 'transformers<5'",
        ),
        (
            {**OLDEST, "datasets": "4.0.0"},
            "mteb 1.38.20 (of EvalScope 1.3.0) needs datasets below 4 and finds 4.0.0: pip install 'datasets<4'",
        ),
        (
            {**OLDEST, "python": "3.13.1"},
            "mteb 1.38.20 does not work on Python 3.13.1: use Python 3.10 to 3.12, or EvalScope 1.8.1 and later",
        ),
    ],
)
def test_pairs_that_cannot_work_are_refused_with_what_to_install(found: dict[str, str | None], message: str) -> None:
    assert check(found) == message


def test_what_is_installed_here_works() -> None:
    assert check() is None
    assert installed()["evalscope"]


def test_a_run_on_evalscope_1_3_with_transformers_5_is_refused_before_a_host_is_imported(tmp_path: Path) -> None:
    for name, version in {"evalscope": "1.3.0", "mteb": "1.38.20", "transformers": "5.0.0"}.items():
        folder = tmp_path / "site" / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    entry = {"model_type": "vacc_api", "model_name": "m", "api_base": "http://127.0.0.1:9"}
    config = {"eval_backend": "RAGEval", "eval_config": {"tool": "MTEB", "model": [entry], "eval": {"tasks": ["STSB"]}}}
    (tmp_path / "run.json").write_text(json.dumps(config))
    code = (
        "import sys, evalscope_vacc\n"
        "try:\n    evalscope_vacc.run(sys.argv[1])\n"
        "except Exception as error:\n    print(type(error).__name__, error, 'evalscope' in sys.modules)"
    )
    path = os.pathsep.join(filter(None, [str(tmp_path / "site"), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run.json")],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.strip() == (
        "HostError mteb 1.38.20 (of EvalScope 1.3.0) needs transformers below 5 and finds 5.0.0: "
        "pip install 'transformers<5' False"
    ), done.stderr[-2000:]
