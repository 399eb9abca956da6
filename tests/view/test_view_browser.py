"""The page in a real browser: it draws, sorts, filters, switches theme and language, and runs nobody's scripts."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_runs import KEY, MODEL, write_results

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bad_page(bad_run: Path, make_page, tmp_path_factory: pytest.TempPathFactory) -> str:
    return _save(make_page(bad_run, against=MODEL), tmp_path_factory.mktemp("pages") / "bad.html")


@pytest.fixture(scope="module")
def good_page(good_run: Path, make_page, tmp_path_factory: pytest.TempPathFactory) -> str:
    return _save(make_page(good_run, against=MODEL), tmp_path_factory.mktemp("pages") / "good.html")


def _save(text: str, path: Path) -> str:
    path.write_text(text, encoding="utf-8")
    return path.as_uri()


def _column(browser, table: str, column: int) -> list[str]:
    return browser.run(
        "return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)].filter((row) => !row.hidden)"
        ".map((row) => row.cells[arguments[1]].dataset.value ?? row.cells[arguments[1]].textContent.trim())",
        table,
        column,
    )


def _click_head(browser, table: str, column: int) -> None:
    browser.run(
        "document.querySelectorAll(`#${arguments[0]} th`)[arguments[1]].querySelector('button').click()", table, column
    )


def test_the_page_of_a_good_run_has_no_console_errors_and_asks_for_nothing(browser, good_page: str) -> None:
    browser.open(good_page)
    assert browser.errors() == []
    assert browser.run("return performance.getEntriesByType('resource').map((entry) => entry.name)") == []
    assert (
        browser.run("return document.querySelector('.verdict h2').textContent")
        == "The scores match · 41 of 41 tasks finished"
    )
    assert browser.run("return document.querySelectorAll('.plot .dot').length") == 41
    browser.picture("report-wide")


def test_a_failed_run_says_so_first(browser, bad_page: str) -> None:
    browser.open(bad_page)
    assert browser.run("return document.querySelector('.verdict').className") == "verdict fail"
    shown = browser.run("return document.querySelector('.verdict').textContent")
    assert "2 of 41" in shown
    assert "43 of 44 tasks finished: 41 judged, 1 not run" in shown
    # the furthest below is on top, left of the band
    first = browser.run("return document.querySelector('.plot .row:not(.axis) .dot').className")
    assert first == "dot fail"
    browser.picture("report-failed")


def test_hostile_words_stay_words(browser, bad_page: str) -> None:
    browser.open(bad_page)
    assert browser.run("return window.broken ?? null") is None
    assert browser.run("return document.querySelectorAll('main script, main img').length") == 0
    assert browser.errors() == []
    shown = browser.run("return document.body.textContent")
    assert "<script>window.broken = 1</script>" in shown
    assert KEY not in browser.run("return document.documentElement.outerHTML")
    numbers = browser.run("return JSON.parse(document.getElementById('numbers').textContent)")
    assert numbers["verdict"] == "fail"
    assert any(row["task"].startswith("<script>") for row in numbers["comparisons"][0]["rows"])


def test_the_content_policy_stops_a_script_that_gets_in_all_the_same(browser, bad_page: str) -> None:
    browser.open(bad_page)
    browser.run(
        "const script = document.createElement('script'); script.textContent = 'window.broken = 3';"
        "document.body.append(script)"
    )
    assert browser.run("return window.broken ?? null") is None


def test_sorting_by_number_and_back(browser, bad_page: str) -> None:
    browser.open(bad_page)
    _click_head(browser, "score-table", 4)
    up = [float(value) for value in _column(browser, "score-table", 4) if value]
    assert up == sorted(up)
    assert up[0] == pytest.approx(-0.031, abs=2e-3)
    _click_head(browser, "score-table", 4)
    values = _column(browser, "score-table", 4)
    down = [float(value) for value in values if value]
    assert down == sorted(down, reverse=True)
    # rows without a difference are last in both directions
    assert values[-2:] == ["", ""]
    assert browser.run("return document.querySelector('#score-table th[aria-sort]').ariaSort") == "descending"


def test_sorting_the_speed_table(browser, bad_page: str) -> None:
    browser.open(bad_page)
    _click_head(browser, "speed-table", 8)
    retries = [int(value) for value in _column(browser, "speed-table", 8)]
    assert retries[0] == 17
    assert retries == sorted(retries, reverse=True)


def test_filtering_by_words_and_by_verdict(browser, bad_page: str) -> None:
    browser.open(bad_page)
    everything = len(_column(browser, "score-table", 0))
    box = browser.driver.find_element("id", "filter")
    box.send_keys("sts bench")
    assert _column(browser, "score-table", 0) == ["STSBenchmark test default"]
    assert browser.run("return document.getElementById('shown').textContent") == f"1 of {everything} shown"
    box.clear()
    box.send_keys("no such task")
    assert browser.run("return document.getElementById('none').hidden") is False
    box.clear()
    box.send_keys(" ")
    browser.run("document.querySelector('[data-verdict-filter=fail]').click()")
    assert len(_column(browser, "score-table", 0)) == 2


def test_a_phone_shows_everything_without_scrolling_sideways(browser, bad_page: str) -> None:
    browser.open(bad_page, width=390, height=844, phone=True)
    assert browser.run("return document.documentElement.scrollWidth") <= 390
    # nothing sticks out of its table either
    assert browser.run("return document.querySelector('#scores .wide').scrollWidth") <= 390
    assert browser.errors() == []
    browser.picture("report-phone")


def test_dark_follows_the_system_and_the_button(browser, good_page: str) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    browser.open(good_page, dark=True)
    dark = browser.run(ground)
    browser.picture("report-dark")
    browser.open(good_page)
    light = browser.run(ground)
    assert light == "rgb(255, 255, 255)" != dark
    browser.run("document.getElementById('theme').click(); document.getElementById('theme').click()")
    assert browser.run(ground) == dark
    browser.run("document.getElementById('theme').click()")
    assert browser.run(ground) == light


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(browser, bad_page: str, dark: bool) -> None:
    """WCAG's contrast of 4.5 to 1, for every text that is shown."""
    browser.open(bad_page, dark=dark)
    poor = browser.run(
        """
        const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
        const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
          .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
          .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
        const ground = (element) => {
          for (let at = element; at; at = at.parentElement) {
            const colour = parse(getComputedStyle(at).backgroundColor);
            if (colour.length === 3 || colour[3] > 0) return colour;
          }
          return [255, 255, 255];
        };
        const poor = [];
        for (const element of document.querySelectorAll("body *")) {
          if (["SCRIPT", "STYLE"].includes(element.tagName) || !element.checkVisibility()) continue;
          if (![...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
          const [a, b] = [light(parse(getComputedStyle(element).color)), light(ground(element))].sort((x, y) => y - x);
          if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(element.outerHTML.slice(0, 90));
        }
        return poor;
        """
    )
    assert poor == []


def test_chinese_renders(browser, bad_run: Path, make_page, tmp_path: Path) -> None:
    browser.open(_save(make_page(bad_run, lang="zh", against=MODEL), tmp_path / "zh.html"))
    assert browser.errors() == []
    assert browser.run("return document.documentElement.lang") == "zh-Hans"
    assert browser.run("return document.querySelector('.verdict h2').textContent").startswith("得分偏低")
    # a font that has no such character draws every one of them as the same box
    different = browser.run(
        """
        const draw = (text) => {
          const canvas = Object.assign(document.createElement("canvas"), { width: 40, height: 40 });
          const context = canvas.getContext("2d");
          context.font = `32px ${getComputedStyle(document.body).fontFamily}`;
          context.fillText(text, 2, 34);
          return [...context.getImageData(0, 0, 40, 40).data].join("");
        };
        return draw("分") !== draw("偏") && draw("偏") !== draw("低");
        """
    )
    assert different
    browser.picture("report-chinese")


def test_without_scripts_the_page_is_complete(browser, good_page: str) -> None:
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open(good_page)
        rows = browser.driver.find_elements("css selector", "#score-table tbody tr")
        assert len(rows) == 41
        assert all(row.is_displayed() for row in rows)
        # what needs a script is not offered
        assert not browser.driver.find_element("id", "filter").is_displayed()
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_run_without_reference_still_makes_a_page(browser, good_run: Path, make_page, tmp_path: Path) -> None:
    run = write_results(tmp_path / "run", {("MyOwnTask", "test", "default"): ("accuracy", 0.5)}, model="vacc/my-model")
    browser.open(_save(make_page(run), tmp_path / "page.html"))
    assert browser.errors() == []
    assert browser.run("return document.querySelector('.verdict h2').textContent") == "Nothing to compare"
    browser.picture("report-no-reference")
