"""What a run says at its end."""

from __future__ import annotations

from evalscope_vacc.results.model import Results, Row, Run
from evalscope_vacc.runner.answer import Answer
from evalscope_vacc.view.document import to_terminal
from evalscope_vacc.view.words import Words

ENCODER, RERANKER = Run("vacc/enc", "served-1", "", "encoder"), Run("vacc/rer", "served-2", "", "cross-encoder")


def answer(*runs: Run, left_out: tuple[str, ...] = ()) -> Answer:
    rows = tuple(Row(run, "SciFact", "test", "default", "ndcg_at_10", 0.5) for run in runs)
    return Answer("complete", 0, 3, results=Results(rows), left_out=left_out)


def test_what_does_not_fit_into_the_budget_is_in_the_first_line_and_in_json() -> None:
    said = answer(ENCODER, left_out=("ArguAna", "FiQA2018"))
    assert said.headline(Words()).endswith("; 2 of 5 tasks do not fit into the budget")
    assert to_terminal(said.document(Words())).splitlines()[0] == said.headline(Words())
    assert said.to_json(Words())["left_out"] == ["ArguAna", "FiQA2018"]
    assert "budget" not in answer(ENCODER).headline(Words())


def test_the_scores_of_two_stages_say_whose_they_are() -> None:
    two = to_terminal(answer(ENCODER, RERANKER).document(Words()))
    assert [line.split()[:2] for line in two.splitlines() if "ndcg" in line] == [["enc", "SciFact"], ["rer", "SciFact"]]
    one = to_terminal(answer(ENCODER).document(Words()))
    assert [line.split()[0] for line in one.splitlines() if "ndcg" in line] == ["SciFact"]
