"""Runs of our own making, and a real browser to look at their pages with."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from report_runs import (
    COUNTS,
    HOSTILE,
    KEY,
    published_scores,
    samples_of,
    task_config,
    usage_of,
    write_evidence,
    write_results,
)

SCREENSHOTS = Path(__file__).resolve().parents[2] / "screenshots"


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores that the developer collected must not decide a test."""
    monkeypatch.setenv("VACC_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="session")
def good_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the English benchmark that scores what is published, to a hundredth of the tolerance or so."""
    folder = tmp_path_factory.mktemp("good") / "20260102_030405"
    scores = {
        key: (metric, score + (i % 7 - 3) * 2e-4) for i, (key, (metric, score)) in enumerate(published_scores().items())
    }
    write_results(folder, scores)
    write_evidence(folder, list(usage_of(scores)), list(samples_of(scores)), config={"api_key": "***"})
    task_config(folder)
    return folder


@pytest.fixture(scope="session")
def bad_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with low scores, a score above, an unknown task, retries, and hostile words everywhere."""
    folder = tmp_path_factory.mktemp("bad") / "20260102_040506"
    scores = published_scores()
    scores = {key: (metric, score + (i % 5 - 2) * 3e-4) for i, (key, (metric, score)) in enumerate(scores.items())}
    for position, change in ((0, -0.031), (3, -0.0062), (7, 0.0145)):
        key = list(scores)[position]
        scores[key] = (scores[key][0], scores[key][1] + change)
    scores[HOSTILE.replace("/", "_")[:60], "test", "default"] = ("accuracy", 0.5)
    scores["MyOwnTask", "test", "中文"] = ("accuracy", 0.25)
    write_results(folder, scores)
    usage = list(usage_of(scores))
    usage[4]["retries"] = 17
    usage[5]["instruction"] = "Instruct: 给定一个网络搜索查询，检索相关段落\nQuery:"
    usage.append(
        {**COUNTS, "task": HOSTILE, "split": "test", "subset": "default", "side": HOSTILE, "instruction": HOSTILE}
    )
    samples = list(samples_of(scores))
    where = {name: usage[5][name] for name in ("task", "split", "subset", "side")}
    samples += [
        {**where, "text": usage[5]["instruction"] + "什么是向量检索？", "tokens": 31},
        {**where, "text": HOSTILE, "tokens": None},
        {**where, "text_1": "query " + HOSTILE, "text_2": "document " + 3000 * "x", "tokens": 900},
    ]
    write_evidence(
        folder,
        usage,
        samples,
        config={"api_key": KEY, "headers": {"X-Route": "header-secret"}, "prompt": HOSTILE, "notes": [f"key {KEY}"]},
        server={
            "version": HOSTILE,
            "served": [HOSTILE, f"leaked {KEY}"],
            "server": "http://user:pass-word@host:8000/v1",
        },
    )
    task_config(folder, key=KEY)
    return folder


Make = Callable[..., str]


@pytest.fixture(scope="session")
def make_page() -> Make:
    """Writes the page of a run as the command does, and returns its text."""

    def make(run: Path, *, lang: str = "en", against: str | None = None, **options: Any) -> str:
        from evalscope_vacc.cli.report import report

        given = {"dtype": None, "tolerance": None, "evidence": None, **options}
        output = run.parent / f"page-{lang}-{'with' if against else 'without'}.html"
        report(run, output, lang, against, **given)
        return output.read_text(encoding="utf-8")

    return make


class Browser:
    """Chromium, driven by selenium; what the page logs is kept."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, url: str, *, width: int = 1280, height: int = 900, phone: bool = False, dark: bool = False) -> None:
        """Opens a page in a window of this size; nothing is left of the page before."""
        self.driver.get("about:blank")
        metrics = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get_log("browser")
        self.driver.get(url)

    def run(self, script: str, *arguments: Any) -> Any:
        """Runs a function body in the page."""
        return self.driver.execute_script(script, *arguments)

    def errors(self) -> list[str]:
        """What the console said since the page was opened, mere information left out."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in {"SEVERE", "WARNING"}]

    def picture(self, name: str, *, whole: bool = True) -> Path:
        """Saves a picture for people to look at."""
        import base64

        SCREENSHOTS.mkdir(exist_ok=True)
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole})
        if whole:
            size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 9000), "scale": 1}
            options = {"format": "png", "captureBeyondViewport": True, "clip": clip}
            shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", options)
        path = SCREENSHOTS / f"{name}.png"
        path.write_bytes(base64.b64decode(shot["data"]))
        return path


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A real Chromium without a window."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium (extra `test`)")
    chromium, chromedriver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("needs a browser: apt-get install chromium chromium-driver fonts-noto-cjk")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=chromedriver, log_output=subprocess.DEVNULL)
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_page_load_timeout(60)
    driver.set_script_timeout(60)
    try:
        yield Browser(driver)
    finally:
        driver.quit()
