"""A mirror of MTEB's data sets on the loopback address."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def hub_mirror(shared: Path, port: int) -> Iterator[str]:
    """The address of a mirror that is there for as long as the block takes."""
    command = [sys.executable, str(shared / "tools" / "hubmirror" / "hubmirror.py")]
    command += ["--root", str(shared / "data" / "hub"), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as mirror:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(url)
            yield url
        finally:
            mirror.terminate()
            mirror.wait(10)


def _wait_for(url: str) -> None:
    for _ in range(100):
        try:
            urllib.request.urlopen(url, timeout=2)  # the mirror on the loopback address
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(f"the mirror at {url} did not start")
