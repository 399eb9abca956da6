"""A run that was stopped goes on where it was, and a changed model is never hidden."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from embedding_answers import vectors
from loopback_server import Reply
from served_model import ServedModel

from evalscope_vacc import VaccCrossEncoder, VaccEncoder
from evalscope_vacc.errors import StoreError, VaccError
from evalscope_vacc.store import files, listing, verify
from evalscope_vacc.store.table import Table

TEXTS = [f"text {i} " + "word " * (i % 11) for i in range(200)]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VACC_HOME", str(tmp_path / "home"))


@pytest.fixture
def server() -> Iterator[ServedModel]:
    with ServedModel() as served:
        yield served


def encoder(server: ServedModel, **options) -> VaccEncoder:
    return VaccEncoder(
        server.name, api_base=server.base, **{"batch_size": 4, "retries": 0, "preflight": "off", **options}
    )


def fail_after(server: ServedModel, requests: int) -> list[str]:
    """From then on the server refuses: a run stops in the middle. Returns the list of what is answered until then."""
    inner, count = server._answer, [0]
    answered: list[str] = []

    def answer(got, sock):
        if got.path in ("/v1/embeddings", "/v1/score"):
            count[0] += 1
            if count[0] > requests:
                return Reply.of({"error": {"message": "out of memory", "type": "X", "code": 400}}, 400)
            answered.extend(got.json().get("input") or got.json().get("text_2"))
        return inner(got, sock)

    server.answer = answer
    return answered


def test_a_stopped_run_sends_again_only_what_had_not_come(server: ServedModel) -> None:
    answered = fail_after(server, 30)
    first = encoder(server)
    with pytest.raises(VaccError):
        first.encode(TEXTS)
    first.close()
    server.requests.clear()
    server.answer = server._answer
    second = encoder(server, batch_size=8, max_concurrency=2)  # what changes no answer may change
    np.testing.assert_array_equal(second.encode(TEXTS), vectors(TEXTS))
    again = set(server.texts()) & set(answered)
    assert len(answered) > 100
    assert len(again) <= 4 * 4, "at most what was in flight when the run stopped"
    second.close()


def test_a_finished_task_leaves_nothing_behind(server: ServedModel) -> None:
    model = encoder(server)
    model.encode(TEXTS)
    model.finish()
    model.close()
    server.requests.clear()
    again = encoder(server)
    again.encode(TEXTS)
    again.close()
    assert len(server.texts()) == len(set(TEXTS))


def metadata(name: str) -> SimpleNamespace:
    return SimpleNamespace(name=name, type="STS", prompt=None)


def test_a_task_that_is_done_is_not_sent_again_before_the_run_is_done(server: ServedModel, tmp_path) -> None:
    first = encoder(server)
    first.encode(TEXTS[:50], task_metadata=metadata("One"))
    first.encode(TEXTS[50:80], task_metadata=metadata("Two"))
    first.close()  # killed, or another task failed
    server.requests.clear()
    second = encoder(server)
    np.testing.assert_array_equal(second.encode(TEXTS[:50], task_metadata=metadata("One")), vectors(TEXTS[:50]))
    second.encode(TEXTS[50:80], task_metadata=metadata("Two"))
    assert server.texts() == []
    second.finish()
    second.close()
    assert not list((tmp_path / "home").rglob("*.sqlite"))


def test_a_run_that_is_done_drops_what_an_earlier_process_left_of_its_tasks(server: ServedModel, tmp_path) -> None:
    first = encoder(server)
    first.encode(TEXTS[:5], task_metadata=metadata("One"))
    first.close()
    assert list((tmp_path / "home").rglob("*.sqlite"))
    second = encoder(server)  # the result of "One" was there already: only the other task is evaluated
    second.encode(TEXTS[:5], task_metadata=metadata("Two"))
    second.close()
    second.finish(["One", "Two"])
    assert not list((tmp_path / "home").rglob("*.sqlite"))


def test_reuse_keeps_vectors_for_other_runs_and_sizes(server: ServedModel) -> None:
    first = encoder(server, store="reuse")
    first.encode(TEXTS)
    first.finish()
    first.close()
    server.requests.clear()
    second = encoder(server, store="reuse", dimensions=8)
    out = second.encode(TEXTS)
    second.close()
    assert server.texts() == []
    cut = vectors(TEXTS)[:, :8]
    np.testing.assert_allclose(out, cut / np.linalg.norm(cut, axis=1, keepdims=True), rtol=1e-6)


def test_two_configurations_do_not_share_in_resume(server: ServedModel) -> None:
    first = encoder(server)
    first.encode(TEXTS[:10])
    first.close()
    server.requests.clear()
    other = encoder(server, max_tokens=500)
    other.encode(TEXTS[:10])
    other.close()
    assert len(server.texts()) == 10


def test_another_model_behind_the_same_address_is_detected(
    server: ServedModel, caplog: pytest.LogCaptureFixture
) -> None:
    first = encoder(server, store="reuse")
    first.encode(TEXTS[:20])
    first.close()
    server.requests.clear()

    inner = server._answer

    def other_weights(got, sock):
        if got.path != "/v1/embeddings":
            return inner(got, sock)
        from embedding_answers import embeddings

        request = got.json()
        answer = embeddings(request | {"input": [f"other weights {t}" for t in request["input"]]})
        return Reply.of(answer)

    server.answer = other_weights
    second = encoder(server, store="reuse")
    with caplog.at_level(logging.WARNING):
        out = second.encode(TEXTS[:20])
    second.close()
    assert "not this model's" in caplog.text
    np.testing.assert_array_equal(out, vectors([f"other weights {t}" for t in TEXTS[:20]]))


def test_scores_are_kept_like_vectors() -> None:
    with ServedModel(kind="cross-encoder") as server:
        queries, documents = ["q1"] * 40 + ["q2"] * 40, [f"d{i}" for i in range(80)]
        answered = fail_after(server, 22)  # 8 of the store's probe and 3 of the template's among them
        options = {"batch_size": 4, "retries": 0, "max_concurrency": 1, "preflight": "off"}
        first = VaccCrossEncoder(server.name, api_base=server.base, **options)
        with pytest.raises(VaccError):
            first.predict(queries, documents)
        first.close()
        server.requests.clear()
        server.answer = server._answer
        second = VaccCrossEncoder(server.name, api_base=server.base, **options)
        out = second.predict(queries, documents)
        second.close()
        assert np.isfinite(out).all()
        again = {document for _, document in server.pairs()} & set(answered)
        assert len(answered) > 30
        assert len(again) <= 4, "at most what was in flight when the run stopped"


def test_off_keeps_nothing(server: ServedModel, tmp_path) -> None:
    model = encoder(server, store="off")
    model.encode(TEXTS[:5])
    model.close()
    assert not list((tmp_path / "home").rglob("*.sqlite"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("may not mount a file system here")
    yield place
    subprocess.run(["umount", place], check=True)


def kept(disk: Path) -> int:
    """How many answers are in the files of a store."""
    count = 0
    for path in files(disk / "store"):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as reader:
            count += reader.execute("SELECT count(*) FROM answer WHERE length(key) = 16").fetchone()[0]
        reader.close()
    return count


def test_a_disk_that_fills_in_the_middle_of_a_run_costs_the_rest_of_the_store_and_no_score(
    server: ServedModel, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"batch_size": 32, "store": str(small_disk / "store")}
    texts = [f"text {i}" for i in range(2000)]
    inner = server._answer

    def answer(got, sock):
        if len(server.requests) == 40:
            until = time.monotonic() + 20
            while kept(small_disk) == 0 and time.monotonic() < until:
                time.sleep(0.05)
            with contextlib.suppress(OSError), (small_disk / "somebody else's").open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        return inner(got, sock)

    server.answer = answer
    first = encoder(server, **options)
    np.testing.assert_array_equal(first.encode(texts), vectors(texts))
    first.close()
    assert caplog.text.count("make room on its disk") == 1
    assert "The run continues" in caplog.text
    assert "were not kept" in caplog.text
    assert 0 < kept(small_disk) < 2000
    server.requests.clear()
    caplog.clear()
    second = encoder(server, **options)
    np.testing.assert_array_equal(second.encode(texts), vectors(texts))
    second.close()
    assert 0 < len(server.texts()) < 2000, caplog.text
    assert [verdict.damaged for verdict in map(verify, files(small_disk / "store"))] == [0]


def test_a_file_that_a_full_disk_does_not_let_go_is_not_locked_by_the_attempt(small_disk: Path) -> None:
    path = small_disk / "reuse-0123456789abcdef.sqlite"
    table = Table(path, {"model": "m"})
    table.put((bytes([n] * 16), bytes(64)) for n in range(200))
    with contextlib.suppress(OSError), (small_disk / "somebody else's").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    with pytest.raises(StoreError, match="make room on its disk"):
        table.remove()
    again = Table(path)
    assert again.count() == 200
    again.close()


def test_a_read_only_disk_is_said_and_the_run_goes_on_without_a_store(
    server: ServedModel, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    model = encoder(server, store=str(small_disk / "store"))
    for start in (0, 50):
        texts = TEXTS[start : start + 50]
        np.testing.assert_array_equal(model.encode(texts), vectors(texts))
    model.finish()
    model.close()
    assert caplog.text.count("cannot be made: Read-only file system") == 1
    assert caplog.text.count("The run continues without the store") == 1


def test_a_file_that_is_no_store_is_said_left_alone_and_the_run_goes_on(
    server: ServedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = encoder(server)
    first.encode(TEXTS[:5])
    first.close()
    (path,) = files(tmp_path / "home" / "store")
    path.write_text("something else\n" * 500)
    second = encoder(server)
    np.testing.assert_array_equal(second.encode(TEXTS[:5]), vectors(TEXTS[:5]))
    second.close()
    assert str(path) in caplog.text
    assert "The run continues without the store" in caplog.text
    assert path.read_text().startswith("something else")


def test_a_task_that_does_not_fit_is_said_once_before_its_first_text_is_sent(
    server: ServedModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    task = metadata("Large")
    task.descriptive_stats = {
        "test": {"num_samples": 10**15, "hf_subset_descriptive_stats": {"small": {"num_samples": 9}}}
    }
    model = encoder(server)
    model.encode(TEXTS[:5], task_metadata=task, hf_split="test", hf_subset="small")
    assert "again" not in caplog.text
    server.requests.clear()
    with caplog.at_level(logging.WARNING):
        inner = server._answer
        said: list[bool] = []

        def answer(got, sock):
            said.append("Large: to keep" in caplog.text)
            return inner(got, sock)

        server.answer = answer
        for start in (5, 10):
            model.encode(TEXTS[start : start + 5], task_metadata=task, hf_split="test", hf_subset="default")
    model.close()
    assert said
    assert all(said)
    assert caplog.text.count("Large: to keep") == 1
    assert "sends the other 9" in caplog.text


def test_a_task_that_is_known_by_its_name_alone_has_one_place(server: ServedModel, tmp_path: Path) -> None:
    model = encoder(server)
    for start in (0, 5):
        model.encode(TEXTS[start : start + 5], task_name="STSBenchmark")
    model.close()
    (kept,) = listing(tmp_path / "home" / "store")
    assert (kept.label.split(",")[0], kept.entries) == ("STSBenchmark", 10)


@pytest.mark.parametrize("key", [{"extra_body": {"mode": "strict"}}, {"raw_scores": True}])
def test_scores_asked_for_in_another_way_are_not_taken_from_the_store(key: dict) -> None:
    with ServedModel(kind="cross-encoder") as server:
        sent = []
        for keys in ({}, key, key):
            server.requests.clear()
            options = {
                "is_cross_encoder": True,
                "rerank_template": "none",
                "store": "reuse",
                "preflight": "off",
                **keys,
            }
            with contextlib.closing(VaccCrossEncoder(server.name, api_base=server.base, **options)) as model:
                model.predict(["q"] * 3, ["a", "b", "c"])
            sent.append(len([pair for pair in server.pairs() if pair[0] == "q"]))
    assert sent == [3, 3, 0]
