"""What the page is made of: nothing from the network, nobody's markup, no secrets, both languages, large runs."""

from __future__ import annotations

import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_runs import COUNTS, HOSTILE, KEY, MODEL, published_scores, write_evidence, write_results
from typer import Typer
from typer.testing import CliRunner

from evalscope_vacc.cli.report import report
from evalscope_vacc.errors import ConfigError, ResultError
from evalscope_vacc.results.left import gather
from evalscope_vacc.results.model import ComparedRow
from evalscope_vacc.results.secrets import Cleaner
from evalscope_vacc.view.plot import MAX_DOTS, dot_plot, skylines
from evalscope_vacc.view.words import points


class _Markup(HTMLParser):
    """Collects the elements of a page, their addresses, and the text a reader sees."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [
            value or "" for name, value in attrs if name in {"src", "href", "srcset", "action", "poster"}
        ]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_refers_to_nothing_outside_itself(bad_run: Path, make_page) -> None:
    page = make_page(bad_run, against=MODEL)
    markup = _Markup(page)
    assert [a for a in markup.addresses if not a.startswith("#") and a != "data:,"] == []
    assert "@import" not in page
    assert "url(" not in page
    assert len(page.encode()) < 400_000


def test_hostile_words_are_text_wherever_they_stand(bad_run: Path, make_page) -> None:
    markup = _Markup(make_page(bad_run, against=MODEL))
    # one block of data, one script; nothing else came in
    assert markup.tags.count("script") == 2
    assert "img" not in markup.tags
    assert markup.handlers == []
    assert markup.text.count("<script>window.broken = 1</script>") >= 6


def test_no_secret_is_on_the_page(bad_run: Path, make_page) -> None:
    for lang in ("en", "zh"):
        page = make_page(bad_run, lang=lang, against=MODEL)
        assert KEY not in page
        assert "header-secret" not in page
        assert "pass-word" not in page
        assert "${VACC_API_KEY}" in page


def test_the_page_says_what_was_sent_and_how_to_repeat_it(good_run: Path, make_page) -> None:
    text = _Markup(make_page(good_run, against=MODEL)).text
    for words in (
        "Sentence 0 of STSBenchmark: a person is slicing an onion.",
        "qwen-official",
        "http://127.0.0.1:8000",
        "pip install evalscope==1.14.1 mteb==2.26.24 evalscope-vacc==",
        "model_name: Qwen3-Embedding-0.6B",
        "evalscope eval --eval-backend RAGEval --eval-config run.yaml",
        f"evalscope-vacc compare outputs/RUN --against {MODEL}",
        "No request was retried.",
    ):
        assert words in text
    assert "output_folder" not in text


def test_the_instruction_is_marked_in_the_sample(bad_run: Path, make_page) -> None:
    page = make_page(bad_run, against=MODEL)
    assert "<mark>Instruct: 给定一个网络搜索查询，检索相关段落\nQuery:</mark>什么是向量检索？" in page
    assert "shortened here; 3,009 characters were sent" in page


def test_published_scores_are_found_by_the_served_name(good_run: Path, make_page) -> None:
    assert "41 of 41 scores are as accurate as Qwen/Qwen3-Embedding-0.6B." in _Markup(make_page(good_run)).text


def test_another_run_is_a_reference_and_not_published(good_run: Path, bad_run: Path, make_page) -> None:
    text = _Markup(make_page(bad_run, against=str(good_run))).text
    assert "Reference" in text
    assert "Published" not in text


def test_nothing_of_the_comparison_stays_english_in_the_chinese_page(bad_run: Path, make_page) -> None:
    page = make_page(bad_run, lang="zh", against=MODEL)
    notes = re.findall(r'<li id="note-\d+">(.*?)</li>', page)
    assert notes
    assert [note for note in notes if not re.search("[\u4e00-\u9fff]", note)] == []
    assert "按数据类型确定容差" in page


def test_the_numbers_can_be_read_by_machines(bad_run: Path, make_page) -> None:
    page = make_page(bad_run, against=MODEL)
    block = re.search(r'<script type="application/json" id="numbers">(.*?)</script>', page, re.DOTALL)
    assert block is not None
    numbers = json.loads(block[1])
    assert numbers["verdict"] == "fail"
    rows = {row["task"]: row for row in numbers["comparisons"][0]["rows"]}
    assert rows["ArguAna"]["difference"] == pytest.approx(-0.0062, abs=1e-3)
    assert "source" not in rows["ArguAna"]


def test_a_run_of_which_only_results_are_left(tmp_path: Path, make_page) -> None:
    run = write_results(tmp_path / "run", {("MyOwnTask", "test", "default"): ("accuracy", 0.5)}, model="vacc/mine")
    text = _Markup(make_page(run)).text
    assert "There is no reference to compare these scores with." in text
    assert "no record of the run" in text
    assert "evalscope-vacc mteb run -m vacc/mine -t MyOwnTask" in text


def test_evidence_of_any_shape_makes_a_page(tmp_path: Path, make_page) -> None:
    run = write_results(tmp_path / "run", {("MyOwnTask", "test", "default"): ("accuracy", 0.5)}, model="vacc/mine")
    vacc = run / "vacc"
    vacc.mkdir()
    (vacc / "config.json").write_text(
        '{"models": [1, {"name": 2}, {"name": "vacc/mine", "headers": 5, "prompts": [[]]}]}'
    )
    (vacc / "server.json").write_text("[" * 100_000)
    strange = {"model": "m", "task": "t", "side": "", "texts": -5, "seconds": "x", "busy": 7, "retries": True}
    (vacc / "usage.json").write_text(
        json.dumps(
            {
                "tasks": [
                    strange,
                    {},
                    None,
                    {**strange, "seconds": 1e400},
                    {**strange, "texts": 1 << 59, "seconds": 5e-324},
                ]
            }
        )
    )
    (vacc / "sent_samples.jsonl").write_bytes(b'\xff\n{"a": 1}\n[]\n"x"\n')
    text = _Markup(make_page(run)).text
    assert "4 lines of sent_samples.jsonl are not samples" in text
    assert "server.json cannot be read as JSON" in text


def test_two_models_of_one_run_are_told_apart(tmp_path: Path, make_page) -> None:
    task = ("SciFact", "test", "default")
    write_results(tmp_path / "run" / "stage1", {task: ("ndcg_at_10", 0.5)}, model="vacc/first")
    write_results(tmp_path / "run" / "stage2", {task: ("ndcg_at_10", 0.6)}, model="vacc/second", cross_encoder=True)
    page = make_page(tmp_path / "run")
    text = _Markup(page).text
    assert "first + second" in text
    assert "vacc/second" in text
    assert page.count('data-verdict="no reference"') == 2


def test_each_models_verdict_says_whose_it_is(tmp_path: Path, make_page) -> None:
    task = ("SciFact", "test", "default")
    write_results(tmp_path / "run" / "stage1", {task: ("ndcg_at_10", 0.64508)}, model="vacc/first")
    write_results(tmp_path / "run" / "stage2", {task: ("ndcg_at_10", 0.6)}, model="vacc/second", cross_encoder=True)
    text = _Markup(make_page(tmp_path / "run", against="sentence-transformers/all-MiniLM-L6-v2")).text
    first, second = re.search(r"first[^:]*: 1 of 1 scores", text), re.search(r"second[^:]*: no score", text)
    assert first
    assert second


@pytest.mark.slow
def test_a_run_of_forty_thousand_subsets_stays_a_page(tmp_path: Path, make_page) -> None:
    scores = {("Flores", "devtest", f"aaa{i}-bbb"): ("f1", 0.5) for i in range(40_000)}
    run = write_results(tmp_path / "run", scores, model="vacc/mine")
    start = time.monotonic()
    page = make_page(run)
    assert time.monotonic() - start < 60
    assert len(page.encode()) < 5_000_000
    assert "37000 more rows are left out here" in page


def test_the_command(good_run: Path, tmp_path: Path) -> None:
    app = Typer()
    app.command()(report)
    output = tmp_path / "new" / "page.html"
    done = CliRunner().invoke(app, [str(good_run), "-o", str(output), "--lang", "zh", "--against", MODEL])
    assert done.exit_code == 0, done.output
    assert "page.html (" in done.output
    assert "得分一致" in output.read_text(encoding="utf-8")
    assert [path.name for path in output.parent.iterdir()] == ["page.html"]


def test_what_cannot_be_done_is_said(good_run: Path, tmp_path: Path) -> None:
    def call(run: Path = good_run, output: Path = tmp_path / "x.html", **given: object) -> None:
        values = {"lang": "en", "against": None, "dtype": None, "tolerance": None, "evidence": None, **given}
        report(run, output, **values)

    with pytest.raises(ConfigError, match=r"--lang 'fr' is not known; give one of en, zh"):
        call(lang="fr")
    with pytest.raises(ConfigError, match="no published scores are known"):
        call(against="nobody/knows")
    with pytest.raises(ConfigError, match="--evidence"):
        call(evidence=tmp_path / "missing")
    with pytest.raises(ResultError, match="no file or folder"):
        call(run=tmp_path / "missing")
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultError, match="cannot be written"):
        call(output=tmp_path / "file" / "x.html")


def test_secrets_are_masked_wherever_they_appear() -> None:
    cleaner = Cleaner([{"models": [{"api_key": KEY, "headers": {"X": "top-secret-header"}}]}])
    assert cleaner.text(f"said {KEY} and top-secret-header") == "said *** and ***"
    cleaned = cleaner.value(
        {
            "api_key": "x", "apiKey": 5, "HF_TOKEN": "hf", "max_tokens": 8192, "tokenizer": "path",
            "headers": {"A": "b"}, "key_file": "k", "api_base": "http://me:pw@host/v1?key=1", "other": "${NAME}",
            "password": "${NAME}",
        }
    )  # fmt: skip
    assert cleaned == {
        "api_key": "***", "apiKey": "***", "HF_TOKEN": "***", "max_tokens": 8192, "tokenizer": "path",
        "headers": {"A": "***"}, "key_file": "k", "api_base": "http://host/v1", "other": "${NAME}",
        "password": "${NAME}",
    }  # fmt: skip


_fractions = st.floats(-1, 1, allow_nan=False)


@given(st.lists(st.tuples(_fractions, st.floats(1e-4, 0.05)), min_size=1, max_size=200))
def test_dots_keep_their_order_and_their_side_of_the_band(pairs: list[tuple[float, float]]) -> None:
    rows = [
        ComparedRow(
            task=f"T{i % 7}", split="test", subset=str(i), metric="m", ours=0.5, reference=0.5, difference=difference,
            tolerance=tolerance, verdict="pass" if abs(difference) <= tolerance else "fail",
        )
        for i, (difference, tolerance) in enumerate(pairs)
    ]  # fmt: skip
    plot = dot_plot(rows)
    assert plot is not None
    for line in plot.lines:
        assert line.band is not None
        left, width = line.band
        assert left + width / 2 == pytest.approx(50, abs=0.01)
        assert [dot.x for dot in line.dots] == sorted(dot.x for dot in line.dots)
        assert all(0 <= dot.x <= 100 for dot in line.dots)
        smallest = min(row.tolerance or 0 for row in rows if row.task == line.task)
        for row in rows:
            if row.task == line.task and abs(row.difference or 0) <= smallest and len(line.dots) < MAX_DOTS:
                assert any(left - 0.01 <= dot.x <= left + width + 0.01 for dot in line.dots)
    assert [x for x, _ in plot.ticks] == sorted(x for x, _ in plot.ticks)


def test_the_outermost_of_many_dots_stay() -> None:
    rows = [
        ComparedRow(
            task="T", split="s", subset=str(i), metric="m", difference=i * 1e-5, tolerance=0.002, verdict="pass",
            ours=0.5, reference=0.5,
        )
        for i in range(-500, 501)
    ]  # fmt: skip
    plot = dot_plot(rows)
    assert plot is not None
    (line,) = plot.lines
    assert len(line.dots) == MAX_DOTS
    assert line.hidden == 1001 - MAX_DOTS
    assert (line.dots[0].title, line.dots[-1].title) == ("-500: \N{MINUS SIGN}0.500", "500: +0.500")


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.01234, "+1.234"), (-0.002, "\N{MINUS SIGN}0.200"), (-1e-9, "0.000"), (None, ""), (0.0, "0.000")],
)
def test_points_are_written_with_their_sign(value: float | None, written: str) -> None:
    assert points(value) == written


def test_the_skyline_covers_the_whole_time(good_run: Path) -> None:
    (sky,) = skylines(gather(good_run).speed)
    last = sky.blocks[-1]
    assert last.x + last.width == pytest.approx(1000, abs=0.1)
    assert max(block.height for block in sky.blocks) <= 100
    assert sum(block.speed.seconds for block in sky.blocks) == pytest.approx(sky.seconds)
    assert 0 < (sky.busy or 0) <= 1


def test_counts_of_several_subsets_add_up(tmp_path: Path) -> None:
    run = write_results(tmp_path / "run", {("T", "test", "a"): ("m", 0.5)}, model="vacc/mine")
    one = {**COUNTS, "task": "T", "split": "test", "side": "query", "busy": 1.0, "seconds": 1.0}
    usage = [{**one, "subset": "a"}, {**one, "subset": "b", "busy": 0.0, "seconds": 3.0, "cut": None}]
    write_evidence(run, usage, [], model="vacc/mine")
    (speed,) = gather(run).speed
    assert (speed.texts, speed.tokens, speed.cut, speed.busy) == (4000, 80000, None, 0.25)


def test_a_task_without_result_is_named(bad_run: Path) -> None:
    missing = [task.task for task in gather(bad_run).verdict.tasks if task.state == "not run"]
    assert missing == [HOSTILE.replace("\u2028", "\\x2028")]


def test_the_runs_of_these_tests_are_the_benchmark() -> None:
    assert len(published_scores()) == 41


# -- what was asked for, honest figures, configuration, links -----------------------------------------------------------


def test_the_headline_says_of_how_much_it_is(tmp_path: Path, make_page) -> None:
    run = write_results(
        tmp_path / "run", {("STSBenchmark", "test", "default"): ("cosine_spearman", 0.8203)}, model="vacc/m"
    )
    names = ("STSBenchmark", "SciFact", "LCQMC", "QBQTC")
    entries = [
        {"model": "vacc/m", "stage": "", "task": name, "splits": ["test"], "subsets": ["default"]} for name in names
    ]
    entries[1]["error"] = "the data set is not there"
    (run / "vacc").mkdir()
    (run / "vacc" / "asked.json").write_text(json.dumps({"tasks": entries}))
    for lang, words in (("en", "1 of 4 tasks"), ("zh", "4 个任务中完成了 1 个")):
        page = make_page(run, lang=lang, against="sentence-transformers/all-MiniLM-L6-v2")
        headline = re.search(r"<h2>(.*?)</h2>", page)
        assert headline is not None
        assert words in headline[1]
        assert "the data set is not there" in page
        numbers = re.search(r'id="numbers">(.*?)</script>', page, re.DOTALL)
        assert numbers is not None
        found = json.loads(numbers[1])
        assert [found[n] for n in ("asked", "judged", "failed", "not_run", "exit_status")] == [4, 1, 1, 2, 3]


def test_a_rate_is_of_what_was_sent_and_unknown_where_nothing_was(tmp_path: Path) -> None:
    run = write_results(tmp_path / "run", {("T", "test", "a"): ("m", 0.5)}, model="vacc/mine")
    one = {**COUNTS, "task": "T", "split": "test", "subset": "a", "texts": 2000, "unique": 1000, "seconds": 10.0}
    usage = [
        {**one, "side": "query", "stored": 600, "tokens": 8000},
        {**one, "side": "document", "stored": 1000, "tokens": 0, "seconds": 0.01},
        {**one, "side": "", "stored": 0, "tokens": None},
    ]
    write_evidence(run, usage, [], model="vacc/mine")
    speeds = gather(run).speed
    assert [(s.sent, s.rate, s.token_rate) for s in speeds] == [
        (400, 40.0, 800.0),
        (0, None, None),
        (1000, 100.0, None),
    ]


def test_the_configuration_shows_what_was_chosen_and_folds_the_rest(tmp_path: Path, make_page) -> None:
    run = write_results(tmp_path / "run", {("T", "test", "a"): ("m", 0.5)}, model="vacc/mine")
    origins = {"max_tokens": "written", "max_concurrency": "default", "instruction_profile": "catalog"}
    write_evidence(
        run, [], [], model="vacc/mine", config={"origins": origins, "max_concurrency": 16, "store": "resume"}
    )
    page = make_page(run)
    shown, _, folded = page.partition("keys have their default values</summary>")
    section = shown[shown.index('<section id="configuration">') :]
    assert "<dt>max_tokens</dt>" in section
    assert "<dt>instruction_profile</dt>" in section
    assert "<dt>max_concurrency</dt>" in folded
    assert "<dt>store</dt>" in folded


def test_a_clean_check_before_the_run_says_how_many(tmp_path: Path, make_page) -> None:
    run = write_results(tmp_path / "run", {("T", "test", "a"): ("m", 0.5)}, model="vacc/mine")
    write_evidence(run, [], [], model="vacc/mine")
    checks = {"kind": "ok", "size": "ok", "sanity": "ok"}
    content = {"models": [{"name": "vacc/mine", "preflight": [], "preflight_checks": checks}]}
    (run / "vacc" / "server.json").write_text(json.dumps(content))
    assert "passed, 3 checks" in _Markup(make_page(run)).text
    assert "通过，共 3 项" in _Markup(make_page(run, lang="zh")).text


def test_the_warnings_of_the_check_before_the_run_are_in_the_page_s_language(tmp_path: Path, make_page) -> None:
    run = write_results(tmp_path / "run", {("T", "test", "a"): ("m", 0.5)}, model="vacc/mine")
    write_evidence(run, [], [], model="vacc/mine")
    content = {"models": [{"name": "vacc/mine", "preflight": ["speed: slow"], "preflight_zh": ["speed：慢"]}]}
    (run / "vacc" / "server.json").write_text(json.dumps(content))
    english, chinese = _Markup(make_page(run)).text, _Markup(make_page(run, lang="zh")).text
    assert "speed: slow" in english
    assert "speed：慢" not in english
    assert "speed：慢" in chinese
    assert "speed: slow" not in chinese


def test_durations_are_chinese_in_the_chinese_page(good_run: Path, make_page) -> None:
    text = _Markup(make_page(good_run, lang="zh", against=MODEL)).text
    assert re.search(r"\d+ 分 \d\d 秒", text)
    assert not re.search(r"\d (min|s|h)\b", text)


def test_means_of_less_than_half_of_their_tasks_are_not_shown(good_run: Path, tmp_path: Path, make_page) -> None:
    assert "Benchmark means" in _Markup(make_page(good_run, against=MODEL)).text
    (key, score), *_ = published_scores().items()
    run = write_results(tmp_path / "run", {key: score})
    assert "Benchmark means" not in _Markup(make_page(run, against=MODEL)).text


def test_evalscopes_own_page_and_ours_link_to_each_other(tmp_path: Path) -> None:
    run = write_results(tmp_path / "run", {("T", "test", "a"): ("m", 0.5)}, model="vacc/mine")
    own = run / "reports" / "report.html"
    own.parent.mkdir()
    own.write_text("<html><body><h1>EvalScope</h1></body></html>", encoding="utf-8")
    for _ in range(2):
        report(run, tmp_path / "pages" / "mine.html", "en", None, dtype=None, tolerance=None, evidence=None)
    page = (tmp_path / "pages" / "mine.html").read_text(encoding="utf-8")
    assert 'href="../run/reports/report.html"' in page
    assert "evalscope[service]" in page
    theirs = _Markup(own.read_text(encoding="utf-8"))
    assert theirs.addresses == ["../../pages/mine.html"], "one link, however often the page is made"


def test_several_runs_are_laid_side_by_side(tmp_path: Path, make_page) -> None:
    scores = {("STSBenchmark", "test", "default"): ("cosine_spearman", 0.8203)}
    write_results(tmp_path / "run" / "a", scores, model="vacc/first")
    lower = {key: (metric, score - 0.001) for key, (metric, score) in scores.items()}
    write_results(tmp_path / "run" / "b", lower, model="vacc/second")
    page = make_page(tmp_path / "run", against="sentence-transformers/all-MiniLM-L6-v2")
    matrix = re.search(r'<table id="matrix">.*?</table>', page, re.DOTALL)
    assert matrix is not None
    assert _Markup(matrix[0]).text.count("▲") == 1
    assert "▼" in matrix[0]
