"""What a run on the older line keeps for going on, and when it is dropped."""

from __future__ import annotations

from pathlib import Path

import pytest
from legacy_runs import main_scores, rageval
from loopback_server import Reply
from served_model import ServedModel

import evalscope_vacc
from evalscope_vacc.errors import RunFailed

pytestmark = [
    pytest.mark.usefixtures("legacy_host", "hub"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.timeout(900),
]


def test_a_failed_run_goes_on_where_it_was_and_a_finished_one_leaves_nothing(
    encoder: ServedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VACC_HOME", str(tmp_path / "home"))
    model = {"model_type": "vacc_api", "model_name": encoder.name, "api_base": encoder.base, "retries": 0}
    model["encode_kwargs"] = {"batch_size": 8}
    inner, answered = encoder.answer, []

    def gives_up(got, sock):
        if got.path == "/v1/embeddings" and len(got.json()["input"]) == 8:
            if len(answered) >= 10:
                return Reply.of({"error": "the key is over its limit"}, 401)
            answered.append(got.json()["input"])
        return inner(got, sock)

    encoder.answer = gives_up
    with pytest.raises(RunFailed, match="over its limit"):
        evalscope_vacc.run(rageval([model], tmp_path / "first", tasks=["STSBenchmark"], limits=100))
    assert list((tmp_path / "home" / "store").glob("*.sqlite"))
    encoder.answer = inner
    encoder.requests.clear()
    result = evalscope_vacc.run(rageval([model], tmp_path / "second", tasks=["STSBenchmark"], limits=100))
    assert main_scores(result)
    again = set(encoder.texts()) & {text for batch in answered for text in batch}
    # the model's workers may have been told of the end with answers under way
    assert len(again) <= 4 * 8
    assert not list((tmp_path / "home" / "store").glob("*.sqlite"))
