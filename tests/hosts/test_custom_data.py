"""Retrieval data in a folder: what is read is what was written, and what cannot be used is named by file, line and _id."""

from __future__ import annotations

import csv
import gzip
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from evalscope_vacc.cli.app import app
from evalscope_vacc.errors import ConfigError
from evalscope_vacc.hosts.custom_data import CustomData, custom_tasks, data_folders, read_folder

Rows = list[dict[str, Any]]
CORPUS: Rows = [{"_id": f"d{i}", "title": "", "text": f"document {i}"} for i in range(6)]
QUERIES: Rows = [{"_id": f"q{i}", "text": f"query {i}"} for i in range(3)]
QRELS: Rows = [{"query-id": f"q{i}", "corpus-id": f"d{i}", "score": 1} for i in range(3)]


def lines(rows: Rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write(folder: Path, corpus: Rows = CORPUS, queries: Rows = QUERIES, qrels: Rows = QRELS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("corpus", corpus), ("queries", queries), ("qrels", qrels)):
        (folder / f"{name}.jsonl").write_bytes(lines(rows))
    return folder


def changed(rows: Rows, at: int, **change: Any) -> Rows:
    """The rows with one of them changed; a key with the value ... is left out."""
    row = {key: value for key, value in {**rows[at], **change}.items() if value is not ...}
    return [*rows[:at], row, *rows[at + 1 :]]


def texts(data: CustomData) -> tuple[dict[str, str], dict[str, str], dict[str, dict[str, int]]]:
    (part,) = data.parts
    return dict(part.corpus), dict(part.queries), {query: dict(found) for query, found in part.relevant.items()}


def separated(path: Path, rows: Rows, delimiter: str) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def parquet(path: Path, rows: Rows) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def beir(folder: Path) -> None:
    write(folder)
    (folder / "qrels.jsonl").unlink()
    separated(folder / "qrels" / "test.tsv", QRELS, "\t")


def compressed(folder: Path) -> None:
    write(folder)
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress((folder / "corpus.jsonl").read_bytes()))
    (folder / "corpus.jsonl").unlink()


def comma(folder: Path) -> None:
    for name, rows in (("corpus", CORPUS), ("queries", QUERIES), ("qrels", QRELS)):
        separated(folder / f"{name}.csv", rows, ",")


def flat_parquet(folder: Path) -> None:
    for name, rows in (("corpus", CORPUS), ("queries", QUERIES), ("qrels", QRELS)):
        parquet(folder / f"{name}.parquet", rows)


def hub_parquet(folder: Path) -> None:
    parquet(folder / "corpus" / "corpus-00000-of-00002.parquet", CORPUS[:2])
    parquet(folder / "corpus" / "corpus-00001-of-00002.parquet", CORPUS[2:])
    parquet(folder / "queries" / "queries-00000-of-00001.parquet", QUERIES)
    parquet(folder / "default" / "test-00000-of-00001.parquet", QRELS)
    parquet(folder / "default" / "train-00000-of-00001.parquet", QRELS[:1])


def both_judgements(folder: Path) -> None:
    write(folder)
    separated(folder / "qrels" / "test.tsv", QRELS, "\t")


@pytest.mark.parametrize(
    "layout", [write, beir, compressed, comma, flat_parquet, hub_parquet, both_judgements], ids=lambda f: f.__name__
)
def test_every_layout_gives_the_same_texts(layout: Callable[[Path], object], tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    layout(folder)
    data = read_folder(folder, ["test"])
    assert data.errors == []
    assert texts(data) == (
        {f"d{i}": f"document {i}" for i in range(6)},
        {f"q{i}": f"query {i}" for i in range(3)},
        {f"q{i}": {f"d{i}": 1} for i in range(3)},
    )


@pytest.mark.parametrize("prefixed", [True, False])
def test_languages_are_subsets(prefixed: bool, tmp_path: Path) -> None:
    for language in ("en", "zh"):
        folder = write(tmp_path / language, corpus=[{**row, "text": f"{language} {row['text']}"} for row in CORPUS])
        if prefixed:
            for file in list(folder.iterdir()):
                file.rename(tmp_path / f"{language}-{file.name}")
            folder.rmdir()
    data = read_folder(tmp_path)
    assert data.subsets == ["en", "zh"]
    assert [part.corpus["d0"] for part in data.parts] == ["en document 0", "zh document 0"]


def test_splits_have_the_judgements_of_their_own_file(tmp_path: Path) -> None:
    beir(tmp_path)
    separated(tmp_path / "qrels" / "dev.tsv", QRELS[:1], "\t")
    found = {part.split: sorted(part.queries) for part in read_folder(tmp_path).parts}
    assert found == {"dev": ["q0"], "test": ["q0", "q1", "q2"]}
    (part,) = read_folder(tmp_path, ["dev"]).parts
    assert part.split == "dev"
    with pytest.raises(ConfigError, match=r"judgements of dev, test, not of 'train': write eval_splits"):
        read_folder(tmp_path, ["train"])


def test_a_title_goes_before_the_text_and_ids_may_be_numbers(tmp_path: Path) -> None:
    rows = changed(changed(CORPUS, 1, title="Wings"), 0, _id=7)
    write(tmp_path, corpus=rows, qrels=[{"query-id": "q0", "corpus-id": 7, "score": 2.0}])
    corpus, _, relevant = texts(read_folder(tmp_path))
    assert corpus["d1"] == "Wings document 1"
    assert relevant == {"q0": {"7": 2}}


# table, row, change, what is said; the line is that of the row
ERRORS: list[tuple[str, int, dict[str, Any], str]] = [
    ("corpus", 3, {"text": None}, "corpus.jsonl, line 4, _id 'd3': the text is null"),
    ("corpus", 3, {"text": ...}, "corpus.jsonl, line 4, _id 'd3': the text is missing"),
    ("corpus", 3, {"text": 5}, "corpus.jsonl, line 4, _id 'd3': the text is a number"),
    ("corpus", 3, {"text": ["a"]}, "corpus.jsonl, line 4, _id 'd3': the text is a list"),
    ("corpus", 3, {"title": 5}, "corpus.jsonl, line 4, _id 'd3': the title is a number"),
    ("corpus", 3, {"_id": None}, "corpus.jsonl, line 4: the _id is null"),
    ("corpus", 3, {"_id": ...}, "corpus.jsonl, line 4: the _id is missing"),
    ("corpus", 3, {"_id": ""}, "corpus.jsonl, line 4: the _id is empty"),
    ("corpus", 3, {"_id": True}, "corpus.jsonl, line 4: the _id is true or false"),
    ("corpus", 3, {"_id": "d\ud83d"}, "corpus.jsonl, line 4: the _id holds half of a surrogate pair"),
    ("corpus", 3, {"_id": "d1"}, "corpus.jsonl, line 4, _id 'd1': the _id occurs twice, with different texts"),
    ("queries", 1, {"text": None}, "queries.jsonl, line 2, _id 'q1': the text is null"),
    ("qrels", 1, {"corpus-id": "d9"}, "qrels.jsonl, line 2, _id 'q1': the judged document is not in the corpus: d9"),
    ("qrels", 1, {"score": 0.5}, "qrels.jsonl, line 2, _id 'q1': the score is not a whole number: 0.5"),
    ("qrels", 1, {"score": float("nan")}, "qrels.jsonl, line 2, _id 'q1': the score is not a whole number: nan"),
    ("qrels", 1, {"score": -1}, "qrels.jsonl, line 2, _id 'q1': the score is negative: -1"),
    ("qrels", 1, {"score": "high"}, "qrels.jsonl, line 2, _id 'q1': the score is not a number: 'high'"),
    ("qrels", 1, {"score": None}, "qrels.jsonl, line 2, _id 'q1': the score is not a number: null"),
    (
        "qrels",
        1,
        {"query-id": "q0", "corpus-id": "d0", "score": 2},
        "qrels.jsonl, line 2, _id 'q0': the document is judged",
    ),
]


def with_change(table: str, row: int, change: dict[str, Any], folder: Path) -> Path:
    rows = {"corpus": CORPUS, "queries": QUERIES, "qrels": QRELS}
    return write(folder, **{**rows, table: changed(rows[table], row, **change)})


@pytest.mark.parametrize(("table", "row", "change", "said"), ERRORS, ids=[said for *_, said in ERRORS])
def test_a_row_that_cannot_be_used_is_named(
    table: str, row: int, change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    data = read_folder(with_change(table, row, change, tmp_path))
    assert str(data.errors[0]).startswith(said)
    with pytest.raises(ConfigError) as raised:
        data.check("Mine")
    assert said in str(raised.value).splitlines()[-1]


COUNTED: list[tuple[str, int, dict[str, Any], str]] = [
    ("corpus", 3, {"title": None}, "corpus.jsonl, line 4, _id 'd3': the title is null"),
    (
        "corpus",
        3,
        {"text": "half \ud83d emoji"},
        "corpus.jsonl, line 4, _id 'd3': half of a surrogate pair in the text",
    ),
    ("corpus", 3, {"text": ""}, "corpus.jsonl, line 4, _id 'd3': the text is empty"),
    ("corpus", 3, {**CORPUS[2]}, "corpus.jsonl, line 4, _id 'd2': the row occurs twice"),
    ("qrels", 2, {"query-id": "q1", "corpus-id": "d5"}, "queries.jsonl, line 3, _id 'q2': the query has no judgement"),
    ("qrels", 2, {"score": 0}, "queries.jsonl, line 3, _id 'q2': no document is relevant"),
    ("qrels", 2, {"query-id": "q9"}, "qrels.jsonl, line 3, _id 'q9': the judged query is not among the queries"),
    ("qrels", 2, {"score": ...}, "qrels.jsonl, line 3, _id 'q2': the judgement has no score: it is 1"),
]


@pytest.mark.parametrize(("table", "row", "change", "said"), COUNTED, ids=[said for *_, said in COUNTED])
def test_what_a_reader_must_only_know_is_counted(
    table: str, row: int, change: dict[str, Any], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = with_change(table, row, change, tmp_path)
    assert any(line.startswith(said) for line in read_folder(folder).counted())
    (task,) = custom_tasks([{"name": "Mine", "data_path": str(folder)}], is_known=lambda _: False, default="")
    assert task.data.errors == []
    assert f"Mine: {said}" in caplog.text


def test_half_a_surrogate_pair_is_read_as_the_replacement_character(tmp_path: Path) -> None:
    write(tmp_path, corpus=changed(CORPUS, 0, text="half \ud83d emoji, whole \U0001f600"))
    assert texts(read_folder(tmp_path))[0]["d0"] == "half \ufffd emoji, whole \U0001f600"


def test_many_rows_of_one_kind_are_counted_in_one_line(tmp_path: Path) -> None:
    write(tmp_path, corpus=[{**row, "title": None} for row in CORPUS])
    (line,) = [line for line in read_folder(tmp_path).counted() if "title" in line]
    assert line.startswith(
        "corpus.jsonl: the title is null: the document has none (6 rows, the first is corpus.jsonl, line 1"
    )


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    write(tmp_path)
    separated(tmp_path / "qrels" / "test.tsv", QRELS, "\t")
    expected = texts(read_folder(tmp_path))
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        path = tmp_path / name
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    data = read_folder(tmp_path)
    assert texts(data) == expected
    assert [fault.file for fault in data.faults if "byte order mark" in fault.kind] == [
        "corpus.jsonl",
        "queries.jsonl",
        "qrels/test.tsv",
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"_id": "x", "text": "cut', "corpus.jsonl, line 7: the line is not JSON"),
        (b'["x"]', "corpus.jsonl, line 7: the line is not a JSON object: a list"),
        (b'{"_id": "x", "text": "\xff"}', "corpus.jsonl, line 7: the bytes are not UTF-8"),
        (b"[" * 200_000, "corpus.jsonl, line 7: the line is not JSON"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_and_the_others_are_read(data: bytes, said: str, tmp_path: Path) -> None:
    write(tmp_path)
    with (tmp_path / "corpus.jsonl").open("ab") as stream:
        stream.write(data + b'\n\n{"_id": "last", "text": "the end"}\n')
    found = read_folder(tmp_path)
    assert str(found.errors[0]).startswith(said)
    assert found.parts[0].corpus["last"] == "the end"


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("corpus.jsonl", b"", "corpus.jsonl: the file has no rows"),
        ("corpus.parquet", b"PAR1", "corpus.parquet: the file cannot be read"),
        ("corpus.jsonl.gz", b"\x1f\x8b\x08nothing", "corpus.jsonl.gz: the file cannot be read"),
        ("corpus.csv", b'_id,text\nd0,"a" b\n', "corpus.csv, line 2: the row cannot be read"),
        ("corpus.csv", b"_id,text\nd0,a,b\n", "corpus.csv, line 2: the row has more fields than the header"),
        ("corpus.csv", b"_id,text\nd0,\xff\n", "corpus.csv, line 2, _id 'd0': the bytes are not UTF-8"),
        ("corpus.csv", b"_id,text\nd0\n", "corpus.csv, line 2, _id 'd0': the text is null"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(name: str, data: bytes, said: str, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "corpus.jsonl").unlink()
    (tmp_path / name).write_bytes(data)
    assert str(read_folder(tmp_path).errors[0]).startswith(said)


def test_judgements_in_two_forms_must_be_the_same(tmp_path: Path) -> None:
    both_judgements(tmp_path)
    assert read_folder(tmp_path).errors == []
    separated(tmp_path / "qrels" / "test.tsv", QRELS[:2], "\t")
    assert "differ from those of the other file: qrels/test.tsv" in str(read_folder(tmp_path).errors[0])


def test_what_published_data_sets_hold_is_kept_and_counted_in_a_copy_of_one(tmp_path: Path) -> None:
    odd = [
        {"query-id": "q0", "corpus-id": "d5", "score": -1},
        {"query-id": "q0", "corpus-id": "absent", "score": 1},
        {"query-id": "q0", "corpus-id": "d4", "score": 0.5},
    ]
    data = read_folder(write(tmp_path, qrels=[*QRELS, *odd]), published=True)
    assert [fault.kind for fault in data.errors] == ["the score is not a whole number"]
    assert texts(data)[2]["q0"] == {"d0": 1, "d5": -1, "absent": 1}
    assert len(data.counted()) == 2
    assert len(read_folder(tmp_path).errors) == 3


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "no corpus: expected corpus.jsonl.*found nothing"),
        (["corpus.jsonl"], "no queries"),
        (["corpus.jsonl", "queries.jsonl"], "no qrels"),
        (["corpus.jsonl", "corpus.csv", "queries.jsonl", "qrels.jsonl"], "several files for the corpus"),
    ],
)
def test_a_folder_without_the_three_tables_is_refused(files: list[str], said: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"{}\n")
    with pytest.raises(ConfigError, match=said):
        read_folder(tmp_path)


def test_a_name_of_mteb_s_own_and_two_of_the_same_are_refused(tmp_path: Path) -> None:
    entry = {"name": "SciFact", "data_path": str(write(tmp_path))}
    with pytest.raises(ConfigError, match=r"SciFact is a task of MTEB.*eval.dataset_paths: \{SciFact"):
        custom_tasks([entry], is_known=lambda name: name == "SciFact", default="Mine")
    with pytest.raises(ConfigError, match="two tasks are named SciFact"):
        custom_tasks([entry, entry], is_known=lambda _: False, default="Mine")
    with pytest.raises(ConfigError, match="unknown key 'path'"):
        custom_tasks([{"path": str(tmp_path)}], is_known=lambda _: False, default="Mine")


# -- every row ----------------------------------------------------------------------------------------------------------

# halves of a surrogate pair among them
_text = st.text("aé \n\r\x00\u2028\ufeff\U0001f600\ud83d\ude00", max_size=5)
_anything = st.none() | st.booleans() | st.integers() | st.floats() | _text | st.lists(st.integers(), max_size=2)
_row = st.fixed_dictionaries(
    {}, optional={"_id": st.sampled_from("abc") | _anything, "title": _text | _anything, "text": _text | _anything}
)
_judgement = st.fixed_dictionaries(
    {},
    optional={
        "query-id": st.sampled_from("abc") | _anything,
        "corpus-id": st.sampled_from("abc") | _anything,
        "score": st.integers(-1, 3) | _anything,
    },
)


# on a busy machine
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(corpus=st.lists(_row, max_size=6), queries=st.lists(_row, max_size=4), qrels=st.lists(_judgement, max_size=5))
def test_the_reader_gives_what_was_written_or_names_the_row(corpus: Rows, queries: Rows, qrels: Rows) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = read_folder(write(folder, corpus, queries, qrels))
    (part,) = data.parts
    named = {(fault.file, fault.line) for fault in data.faults}
    ours = {"corpus.jsonl": corpus, "queries.jsonl": queries}
    for file, found in (("corpus.jsonl", part.corpus), ("queries.jsonl", part.queries)):
        for line, row in enumerate(ours[file], 1):
            if (file, line) in named:
                continue
            title = row.get("title", "") if file == "corpus.jsonl" else ""
            expected = f"{title} {row['text']}".strip() if title else row["text"]
            assert found[str(row["_id"])] == expected
    for line, row in enumerate(qrels, 1):
        if ("qrels.jsonl", line) not in named:
            assert part.relevant[str(row["query-id"])][str(row["corpus-id"])] == float(row["score"])
    for text in (*part.corpus.values(), *part.queries.values()):
        text.encode("utf-8")
    for line in (*data.report(), *data.counted()):
        line.encode("utf-8")


# -- the command --------------------------------------------------------------------------------------------------------


def one_of_each(folder: Path) -> Path:
    corpus = [*CORPUS, {"_id": "n", "text": None}, {"_id": "w", "text": 3}, {"_id": "h", "text": "\ud83d"}]
    corpus += [{"_id": "d1", "text": "another"}]
    qrels = [
        *QRELS,
        {"query-id": "q0", "corpus-id": "absent", "score": 1},
        {"query-id": "q0", "corpus-id": "d4", "score": 0.5},
        {"query-id": "q0", "corpus-id": "d5", "score": -2},
    ]
    write(folder, corpus, [*QUERIES, {"_id": "alone", "text": "nobody judged it"}], qrels)
    path = folder / "queries.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    return folder


def test_one_report_names_a_fault_of_every_kind(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["check-data", str(one_of_each(tmp_path / "bad"))])
    assert done.exit_code == 1
    for said in (
        "wrong: corpus.jsonl, line 7, _id 'n': the text is null",
        "wrong: corpus.jsonl, line 8, _id 'w': the text is a number",
        "counted: corpus.jsonl, line 9, _id 'h': half of a surrogate pair",
        "wrong: corpus.jsonl, line 10, _id 'd1': the _id occurs twice",
        "counted: queries.jsonl: the file begins with a byte order mark",
        "wrong: qrels.jsonl, line 4, _id 'q0': the judged document is not in the corpus: absent",
        "wrong: qrels.jsonl, line 5, _id 'q0': the score is not a whole number: 0.5",
        "wrong: qrels.jsonl, line 6, _id 'q0': the score is negative: -2",
        "counted: queries.jsonl, line 4, _id 'alone': the query has no judgement",
        "FAILED  6 rows cannot be used",
    ):
        assert said in done.output


def test_check_data_looks_at_every_folder_inside(tmp_path: Path) -> None:
    write(tmp_path / "good")
    for language in ("en", "zh"):
        write(tmp_path / "several" / language)
    assert [folder.name for folder in data_folders(tmp_path)] == ["good", "several"]
    assert CliRunner().invoke(app, ["check-data", str(tmp_path)]).exit_code == 0
    one_of_each(tmp_path / "bad")
    done = CliRunner().invoke(app, ["check-data", "--json", str(tmp_path)])
    assert done.exit_code == 1
    assert {Path(one["folder"]).name: (one["errors"], len(one["faults"])) for one in json.loads(done.output)} == {
        "bad": (6, 9),
        "good": (0, 0),
        "several": (0, 0),
    }


def test_a_folder_without_data_is_a_usage_error(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["check-data", str(tmp_path / "absent")])
    assert isinstance(done.exception, ConfigError)
    assert "there is no such folder" in str(done.exception)
