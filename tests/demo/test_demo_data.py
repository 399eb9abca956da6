"""The demo data hangs together and is what its README says."""

from __future__ import annotations

from collections import Counter

import pytest

from evalscope_vacc.demo.rows import LABELS, LANGUAGES, qrels, read


def test_it_has_at_least_a_hundred_documents_and_forty_queries() -> None:
    assert sum(len(read("retrieval_corpus", language)) for language in LANGUAGES) >= 100
    assert sum(len(read("retrieval_queries", language)) for language in LANGUAGES) >= 40


@pytest.mark.parametrize("language", LANGUAGES)
def test_ids_and_texts_are_unique_and_judgements_point_to_them(language: str) -> None:
    documents, queries = read("retrieval_corpus", language), read("retrieval_queries", language)
    assert len({row["id"] for row in documents}) == len({row["text"] for row in documents}) == len(documents)
    assert len({row["id"] for row in queries}) == len({row["text"] for row in queries}) == len(queries)
    judged = qrels(language)
    assert set(judged) == {row["id"] for row in queries}
    assert {document for grades in judged.values() for document in grades} <= {row["id"] for row in documents}
    assert all(2 in grades.values() for grades in judged.values())
    assert {grade for grades in judged.values() for grade in grades.values()} == {1, 2}
    assert all(row["title"].strip() == row["title"] != "" for row in documents)


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_answer_stands_beside_near_misses(language: str) -> None:
    subjects = Counter(row["id"].rsplit("-", 1)[0] for row in read("retrieval_corpus", language))
    assert set(subjects.values()) == {4}
    for grades in qrels(language).values():
        assert len({document.rsplit("-", 1)[0] for document in grades}) == 1


def test_languages_are_what_they_say() -> None:
    for name in ("retrieval_corpus", "retrieval_queries", "classification"):
        for language in LANGUAGES:
            for row in read(name, language):
                assert any("一" <= letter <= "鿿" for letter in row["text"]) == (language == "zh"), row


@pytest.mark.parametrize("language", LANGUAGES)
def test_pairs_cover_the_scale(language: str) -> None:
    rows = read("sts", language)
    assert len(rows) >= 20
    assert len({(row["sentence1"], row["sentence2"]) for row in rows}) == len(rows)
    assert all(0 <= row["score"] <= 5 for row in rows)
    assert min(row["score"] for row in rows) == 0
    assert max(row["score"] for row in rows) == 5
    assert len({row["score"] for row in rows}) >= 10


@pytest.mark.parametrize("language", LANGUAGES)
def test_classes_are_balanced_and_test_messages_are_not_trained_on(language: str) -> None:
    rows = read("classification", language)
    counts = Counter((row["split"], row["label"]) for row in rows)
    assert all(counts["train", label] == 10 for label in LABELS)
    assert len({counts["test", label] for label in LABELS}) == 1
    assert counts["test", LABELS[0]] >= 4
    assert {row["label"] for row in rows} == set(LABELS)
    assert len({row["text"] for row in rows}) == len(rows)
