"""What the `.pth` file costs a Python process that has nothing to do with us.

    python benchmarks/activation.py [--runs 101]

Starts `python -c pass` in turn with and without the line of the `.pth` file and prints the medians and their difference;
the aim is 1.5 ms at most. Each run is a process of its own, with -I -S, so that nothing else of the environment is in it.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[1])
PLAIN = "pass"
HOOKED = f"exec(open({str(Path(ROOT) / 'evalscope_vacc.pth')!r}).read())"


def once(code: str) -> float:
    """Seconds that one process takes."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
    return time.perf_counter() - start


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=101)
    runs = parser.parse_args().runs
    once(HOOKED)
    pairs = [(once(PLAIN), once(HOOKED)) for _ in range(runs)]
    plain, hooked = (statistics.median(times) * 1000 for times in zip(*pairs, strict=True))
    added = statistics.median((b - a) * 1000 for a, b in pairs)
    print(f"runs {runs}: without {plain:.2f} ms, with {hooked:.2f} ms; median of the differences {added:.2f} ms")


if __name__ == "__main__":
    main()
