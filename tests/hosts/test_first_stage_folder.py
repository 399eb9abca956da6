"""A reranker is given the folder of an embedding run: the predictions of each task are found in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from served_model import ServedModel

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.hosts.first_stage import predictions_in

pytest.importorskip("mteb", minversion="2.7", reason="the newer line's tests")
RETRIEVAL = "VaccDemoRetrieval"


@pytest.mark.host
@pytest.mark.parametrize("named", [True, False], ids=["task named", "every retrieval task"])
def test_the_folder_of_a_run_is_enough(evaluate: Callable, tmp_path: Path, named: bool) -> None:
    with ServedModel("enc") as encoder, ServedModel("rank", kind="cross-encoder") as reranker:
        first = evaluate([{"model_name": "enc", "api_base": encoder.base}], [RETRIEVAL])
        second = {"model_name": "rank", "api_base": reranker.base, "is_cross_encoder": True}
        keys = {"embed_results": str(first.output_folder), **({"task_name": RETRIEVAL} if named else {})}
        result = evaluate([{**second, **keys}], [RETRIEVAL], top_k=5)
        assert result.rows()
        assert len(reranker.pairs()) == 80 * 5


@pytest.mark.host
def test_a_run_without_predictions_of_the_task_is_refused_before_anything_is_sent(
    evaluate: Callable, tmp_path: Path
) -> None:
    with ServedModel("rank", kind="cross-encoder") as reranker:
        entry = {
            "model_name": "rank",
            "api_base": reranker.base,
            "is_cross_encoder": True,
            "embed_results": str(tmp_path),
        }
        with pytest.raises(ConfigError, match=f"no predictions of {RETRIEVAL}"):
            evaluate([entry], [RETRIEVAL])
        assert reranker.pairs() == []


def test_a_second_stages_own_files_are_no_first_stage(tmp_path: Path) -> None:
    for place in ("stage1/predictions", "stage2/predictions", "candidates/0abc"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "T_predictions.json").write_text("{}")
    assert predictions_in(tmp_path, "T") == tmp_path / "stage1/predictions/T_predictions.json"


def test_a_file_of_mteb_1_is_found_and_two_are_refused(tmp_path: Path) -> None:
    (tmp_path / "T_en_predictions.json").write_text("{}")
    assert predictions_in(tmp_path, "T") == tmp_path / "T_en_predictions.json"
    (tmp_path / "T_zh_predictions.json").write_text("{}")
    with pytest.raises(ConfigError, match="more than one file"):
        predictions_in(tmp_path, "T")


def test_a_file_is_that_file(tmp_path: Path) -> None:
    file = tmp_path / "any.json"
    assert predictions_in(file, "T") == file
