"""Whatever the rows: the order they come in does not matter, and unlike rows are never laid side by side."""

from __future__ import annotations

import json
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from evalscope_vacc.results.judge import compare
from evalscope_vacc.results.model import Conditions, Reference, Results, Row, Run, Verdict
from evalscope_vacc.view.comparison import document
from evalscope_vacc.view.document import to_markdown, to_terminal
from evalscope_vacc.view.machine import to_csv, to_json, to_junit, to_mapping
from evalscope_vacc.view.words import Words

_SCORES = st.one_of(st.none(), st.floats(-1, 1, allow_nan=False), st.sampled_from([0.5, 0.501, 0.51, 64.5]))
_CONDITIONS = st.builds(
    Conditions,
    profile=st.sampled_from([None, "none", "mteb"]),
    max_tokens=st.sampled_from([None, 16, 512]),
    limit=st.sampled_from([None, None, 5]),
    dtype=st.sampled_from([None, "float32", "float16"]),
    top_k=st.sampled_from([None, None, 10, 100]),
    first_stage=st.sampled_from([None, "1a2b3c4d", "vacc/a", "vacc/b", "Qwen/Qwen3-Embedding-0.6B"]),
)


def _rows(models: list[str]) -> st.SearchStrategy[list[Row]]:
    # real tasks, so that the means of benchmarks are computed, too
    row = st.builds(
        Row,
        run=st.builds(Run, model=st.sampled_from(models), kind=st.sampled_from([None, "encoder", "cross-encoder"])),
        task=st.sampled_from(["STS12", "SICK-R", "XQuADRetrieval"]),
        split=st.sampled_from(["test", "validation"]),
        subset=st.sampled_from(["default", "en", "zh"]),
        metric=st.sampled_from(["cosine_spearman", "ndcg_at_10"]),
        score=_SCORES,
        metrics=st.dictionaries(
            st.sampled_from(["cosine_spearman", "ndcg_at_10", "accuracy"]), st.floats(0, 1), max_size=2
        ),
        mteb_version=st.sampled_from([None, "1.38.9", "2.26.24"]),
        conditions=_CONDITIONS,
        source=st.sampled_from(["a", "b"]),
    )
    return st.lists(row, max_size=12)


def written(verdict: Verdict, words: Words) -> list[str]:
    shown = document(verdict, words)
    return [to_json(to_mapping(verdict, words)), to_csv(verdict, words), to_junit(verdict, words), to_markdown(shown),
            to_terminal(shown, 80)]  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(ours=_rows(["vacc/a", "vacc/b"]), theirs=_rows(["org/a"]), seed=st.integers(0, 2**16))
def test_the_order_of_the_rows_does_not_matter(ours: list[Row], theirs: list[Row], seed: int) -> None:
    shuffled, other = list(ours), list(theirs)
    random.Random(seed).shuffle(shuffled)
    random.Random(seed + 1).shuffle(other)
    first = compare(Results(tuple(ours)), Reference("r", tuple(theirs)))
    second = compare(Results(tuple(shuffled)), Reference("r", tuple(other)))
    assert first == second
    for language in ("en", "zh"):
        assert written(Verdict((first,)), Words(language)) == written(Verdict((second,)), Words(language))


@settings(max_examples=100, deadline=None)
@given(ours=_rows(["vacc/a"]), theirs=_rows(["org/a"]))
def test_unlike_rows_are_never_compared(ours: list[Row], theirs: list[Row]) -> None:
    reference = Reference("r", tuple(theirs), kind="encoder")
    comparison = compare(Results(tuple(ours)), reference)
    for compared in comparison.rows:
        if compared.difference is None:
            assert compared.verdict in {"no reference", "not judged", "fail"}
            continue
        same = [
            (mine, other)
            for mine in ours
            for other in theirs
            if mine.key == other.key == (compared.task, compared.split, compared.subset)
            and mine.value(compared.metric) == compared.ours
            and other.value(compared.metric) == compared.reference
            and not mine.conditions.conflicts(other.conditions)
            and mine.run.kind != "cross-encoder"
        ]
        assert same, compared
        assert max(abs(compared.ours), abs(compared.reference)) <= 1, "a score in percent was laid beside a fraction"
    for mean in comparison.means:
        assert mean.verdict == "not judged" or mean.tasks == mean.of
    json.loads(to_json(to_mapping(Verdict((comparison,)), Words())))
