"""The plan of a run, without a host: who does what, in which stage, and what is reranked."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.hosts.plan import Item, Kind, Plan, PlannedModel, PlannedTask, Stored, make_plan

OUT = Path("/run")
RETRIEVAL = PlannedTask("SciFact", "Retrieval", "retrieval")
RERANKING = PlannedTask("AskUbuntu", "Reranking", "candidates")
FIXED = PlannedTask("AskUbuntu", "Reranking", "own candidates only")
STS = PlannedTask("STSB", "STS", "other")
ENCODER, RERANKER = PlannedModel("vacc/enc", reranks=False), PlannedModel("vacc/rank", reranks=True)
FILE = Stored(Path("p.json"), "01234567")


def brief(plan: Plan) -> list[tuple[str, str, str]]:
    return [(item.name, item.stage, item.task) for item in plan.items]


def test_an_encoder_alone_does_every_task_in_one_stage() -> None:
    plan = make_plan([ENCODER], [RETRIEVAL, RERANKING, STS], OUT)
    assert brief(plan) == [("vacc/enc", "", name) for name in ("SciFact", "AskUbuntu", "STSB")]
    assert {(item.out, item.predictions, item.first) for item in plan.items} == {(OUT, OUT / "predictions", None)}


def test_a_retrieval_task_with_both_kinds_of_models_takes_two_stages() -> None:
    # the order of the entries decides nothing
    plan = make_plan([RERANKER, ENCODER], [STS, RETRIEVAL, RERANKING], OUT)
    assert brief(plan) == [
        ("vacc/enc", "stage1", "SciFact"),
        ("vacc/enc", "stage1", "STSB"),
        ("vacc/rank", "stage2", "AskUbuntu"),
        ("vacc/rank", "stage2", "SciFact"),
    ]
    first, second = plan.items[0], plan.items[3]
    assert first.feeds
    assert second.after == 0
    assert second.first == OUT / "stage1" / "predictions" / "SciFact_predictions.json"
    assert second.out == OUT / "stage2"


def test_without_a_retrieval_task_each_kind_does_its_own_in_one_stage() -> None:
    plan = make_plan([ENCODER, RERANKER], [STS, RERANKING], OUT)
    assert brief(plan) == [("vacc/enc", "", "STSB"), ("vacc/rank", "", "AskUbuntu")]


@pytest.mark.parametrize("task", [RETRIEVAL, RERANKING])
def test_stored_predictions_stand_in_for_a_first_stage(task: PlannedTask) -> None:
    model = PlannedModel("vacc/rank", reranks=True, stored=((task.name, FILE),))
    plan = make_plan([model], [task], OUT)
    assert brief(plan) == [("vacc/rank", "", task.name)]
    assert (plan.items[0].first, plan.items[0].after) == (FILE.path, None)
    assert plan.stored == ((task.name, FILE),)


@pytest.mark.parametrize(
    ("models", "tasks", "message"),
    [
        ([RERANKER], [STS], "STSB is a STS task, which no cross-encoder can do"),
        ([RERANKER], [RETRIEVAL], "SciFact is a Retrieval task and there is no encoder"),
        ([PlannedModel("r", True, (("SciFact", FILE),))], [RERANKING], "has SciFact, which eval.task_names does not"),
        ([PlannedModel("r", True, (("AskUbuntu", FILE),))], [FIXED], "brings its own candidates"),
        (
            [
                PlannedModel("r", True, (("SciFact", FILE),)),
                PlannedModel("s", True, (("SciFact", Stored(Path("q"), "f")),)),
            ],
            [RETRIEVAL],
            "name different predictions, p.json and q",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(models: Any, tasks: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan(models, tasks, OUT)


@pytest.mark.parametrize(
    ("feeds", "given_", "again"),
    [
        (False, {}, False),
        (True, {}, True),
        (True, {"has_predictions": True}, False),
        (False, {"overwrite": True}, True),
        (False, {"other_server": True}, True),
    ],
)
def test_what_is_evaluated_again(feeds: bool, given_: dict[str, bool], again: bool) -> None:
    item = Item(0, "vacc/enc", "SciFact", "stage1", OUT, OUT / "predictions", feeds)
    assert item.again(**{"overwrite": False, "other_server": False, "has_predictions": False, **given_}) is again


tasks = st.lists(
    st.builds(PlannedTask, st.text("abcdef", min_size=1, max_size=3), st.just("X"), st.sampled_from(get_args(Kind))),
    min_size=1,
    max_size=6,
    unique_by=lambda task: task.name,
)


@given(st.lists(st.booleans(), min_size=1, max_size=5), tasks)
def test_every_task_is_done_by_everybody_who_can_and_no_two_share_a_file(kinds: list[bool], asked: list[Any]) -> None:
    models = [PlannedModel(f"vacc/m{number}", reranks) for number, reranks in enumerate(kinds)]
    try:
        plan = make_plan(models, asked, OUT)
    except ConfigError:
        assert all(kinds), "only cross-encoders alone can lack something"
        return
    assert pickle.loads(pickle.dumps(plan)) == plan
    encoders, rerankers = kinds.count(False), kinds.count(True)
    for task in asked:
        done = [kinds[item.model] for item in plan.items if item.task == task.name]
        first_stage = task.kind == "retrieval" and rerankers
        assert done.count(False) == (0 if rerankers and "candidates" in task.kind else encoders)
        assert done.count(True) == (encoders * rerankers if first_stage else rerankers * ("candidates" in task.kind))
    for position, item in enumerate(plan.items):
        assert item.after is None or item.after < position
        if item.after is not None:
            made = plan.items[item.after]
            assert made.task == item.task
            assert made.feeds
            assert item.first == (made.predictions or OUT) / f"{item.task}_predictions.json"
    files = [(item.predictions, item.task, item.first) for item in plan.items if item.predictions is not None]
    assert len(set(files)) == len(files)
