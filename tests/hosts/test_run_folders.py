"""The folder of a run: each run has one for itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.hosts import folder

OURS = {"tool": "mteb", "models": [{"model_type": "vacc_api"}], "eval": {}}


def begin(work_dir: Path, config: Any = OURS, **options: Any) -> Any:
    """EvalScope's beginning of a run, in the second in which all the runs of a test begin."""

    def setup_work_directory(task_cfg: Any) -> str:
        if task_cfg.use_cache:
            task_cfg.work_dir = task_cfg.use_cache
        elif not task_cfg.no_timestamp:
            task_cfg.work_dir = str(Path(task_cfg.work_dir) / "20260101_235959")
        return str(task_cfg.work_dir)

    module: Any = SimpleNamespace(setup_work_directory=setup_work_directory)
    folder.hook_run(module)
    given = {"use_cache": None, "no_timestamp": False, "work_dir": str(work_dir), "eval_config": config, **options}
    return module.setup_work_directory(SimpleNamespace(**given))


def test_runs_that_begin_in_the_same_second_get_folders_of_their_own(tmp_path: Path) -> None:
    names = [Path(begin(tmp_path)).name for _ in range(3)]
    assert names == ["20260101_235959", "20260102_000000", "20260102_000001"]
    assert all((tmp_path / name / "vacc").is_dir() for name in names)


def test_a_run_of_evalscopes_own_models_is_left_alone(tmp_path: Path) -> None:
    own = {**OURS, "models": [{"model_name_or_path": "m"}]}
    assert begin(tmp_path, own) == begin(tmp_path, own)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{"no_timestamp": True}, {"use_cache": True}])
def test_a_folder_that_another_run_is_writing_into_is_refused_until_its_end(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    if options.get("use_cache"):
        options = {"use_cache": str(tmp_path)}
    code = (
        "import sys; from pathlib import Path; from evalscope_vacc.hosts.folder import take_folder; "
        "print(take_folder(Path(sys.argv[1]), new=False), flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "True\n"
    with pytest.raises(ConfigError, match="another run is writing into"):
        begin(tmp_path, **options)
    other.communicate()
    assert begin(tmp_path, **options) == str(tmp_path)
    # the same process may use it again, as an earlier run of its own that failed may have
    assert begin(tmp_path, **options) == str(tmp_path)
    folder.give_back(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"work_dir: .*file/20260101_235959 cannot be written"):
        begin(tmp_path / "file")


def test_a_full_disk_is_seen_before_the_run(tmp_path: Path) -> None:
    folder.check_folder(tmp_path)
    assert not list(tmp_path.iterdir())
    # a limit on the size of a file is what a full disk is to a program
    code = (
        "import resource, signal, sys; from pathlib import Path; from evalscope_vacc.hosts.folder import check_folder; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); "
        "check_folder(Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "cannot be written: File too large" in done.stderr
    assert not list(tmp_path.iterdir())
