"""Makes the documentation's pictures from real runs: what the terminal shows, and the page in both languages.

    python docs/pictures.py http://127.0.0.1:8000 --tasks STSBenchmark      and further options of `evalscope-vacc run`

Needs chromium, for the pictures of the page. ``throughput.svg`` comes from ``benchmarks/throughput.py --plot``.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURES = Path(__file__).resolve().parent / "pictures"
COLUMNS = 100
SUFFIXES = {"en": "", "zh": ".zh"}
# what moves the cursor or clears a line; colours stay
CONTROL = re.compile(r"\x1b\[[\d;?]*[A-Zahl-ln-z]|\r")
# the line that moves
MOVING = re.compile(r"\[\d+/\d+\] [^·]* · ")
FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def terminal(arguments: list[str], folder: Path) -> str:
    """Runs the command and returns what a terminal shows at its end."""
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    environment["VACC_HOME"] = str(folder / "home")
    done = subprocess.run(
        ["evalscope-vacc", *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False,
    )  # fmt: skip
    lines = CONTROL.sub("", done.stdout).replace(f"{folder}/", "").split("\n")
    return "\n".join(line.rstrip() for line in lines if line.strip() and not MOVING.search(line))


def draw(shown: str, title: str, path: Path) -> None:
    """Writes a terminal as SVG, with the fonts of the machine on which it is looked at."""
    console = Console(record=True, width=COLUMNS + 8, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(shown))
    svg = console.export_svg(title=title, unique_id="terminal")
    path.write_text(FONTS.sub("", svg), encoding="utf-8")


def photograph(page: Path, path: Path) -> None:
    """Writes the beginning of a page as PNG."""
    browser = shutil.which("chromium") or "chromium"
    command = [browser, "--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1080,1250"]
    subprocess.run([*command, f"--screenshot={path}", page.as_uri()], check=True, capture_output=True)


def main(arguments: list[str]) -> None:
    """Makes every picture."""
    PICTURES.mkdir(exist_ok=True)
    command = ["run", *arguments]
    for language, suffix in SUFFIXES.items():
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            shown = terminal([*command, "--lang", language, "--report", "page.html"], folder)
            if language == "en":  # in SVG, Chinese characters have not twice the width of Latin ones
                draw(shown, f"evalscope-vacc {' '.join(command)}", PICTURES / "terminal.svg")
            photograph(folder / "page.html", PICTURES / f"page{suffix}.png")
            print(shown)


if __name__ == "__main__":
    main(sys.argv[1:])
