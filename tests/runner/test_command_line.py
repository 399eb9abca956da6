"""What the program says of itself."""

from __future__ import annotations

from typer.testing import CliRunner

from evalscope_vacc import __version__
from evalscope_vacc.cli.app import app


def test_the_version_is_an_option() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0
    assert done.stdout == f"evalscope-vacc {__version__}\n"


def test_shells_can_complete_its_commands() -> None:
    assert "--install-completion" in CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).stdout
    environment = {"_EVALSCOPE_VACC_COMPLETE": "complete_bash", "COMP_WORDS": "evalscope-vacc est", "COMP_CWORD": "1"}
    done = CliRunner().invoke(app, [], env=environment, prog_name="evalscope-vacc")
    assert "estimate" in done.stdout.split()
