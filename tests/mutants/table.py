"""Writes docs/mutants.md: which fault is found by whom. ``python tests/mutants/table.py``; a quarter of an hour.

``--without DETECTOR`` leaves a column out (parity takes most of the time); names of servers print their rows only.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parent))

import torch
from detectors import DETECTORS, Said
from faults import CASES, Case

torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
PAGE = Path(__file__).resolve().parents[2] / "docs" / "mutants.md"
HEAD = """# Which faults of a server are found, and by whom

Each row is the demo's server with the real weights of all-MiniLM-L6-v2 (as a reranker: the same vectors behind Qwen3's
template) and one fault; `tests/mutants/faults.py` has each in a few lines. *check*: exit status 1 of `evalscope-vacc check`;
*before a run*: a warning in the log, or a stop; *parity*: exit status 1 of `evalscope-vacc parity --dtype auto` against the
weights (a reranker: against a sound one's scores); *store*: whether the texts that the store asks again differ by more than
1e-3. Codes are those of `--json`. An empty cell: nothing said. This page is written by `nox -s mutants`
(`-- --without parity` leaves that column out).

"""


def row(case: Case) -> tuple[list[str], dict[str, float]]:
    said: dict[str, Said] = {}
    for name, detector in DETECTORS.items():
        said[name] = detector(case)
        print(
            f"{case.name:50s} {name:14s} {said[name].wrong!s:6s} {said[name].seconds:5.1f} s",
            *said[name].codes,
            flush=True,
        )
    cells = [case.name, *(", ".join(one.codes) if one.wrong else "" for one in said.values())]
    return cells, {name: one.seconds for name, one in said.items()}


Row = tuple[Case, list[str], dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without", choices=list(DETECTORS), action="append", default=[])
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    for name in arguments.without:
        del DETECTORS[name]
    names = arguments.names
    found: list[Row] = []
    for case in CASES:
        if not names or case.name in names:
            found.append((case, *row(case)))
            if not names:
                # what is there stays when the rest is interrupted
                PAGE.write_text(page_of(found), encoding="utf-8")
    print(page_of(found))


def page_of(found: list[Row]) -> str:
    columns = ["server", *DETECTORS]
    page = HEAD
    if len(found) < len(CASES):
        page += f"The run that wrote this ended after {len(found)} of {len(CASES)} servers.\n\n"
    for title, sound in (("Faults", False), ("Nothing wrong", True)):
        rows = [cells for case, cells, _ in found if case.sound == sound]
        table = [columns, ["---"] * len(columns), *rows]
        page += f"## {title}: {len(rows)}\n\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in table) + "\n"
    faults = [cells for case, cells, _ in found if not case.sound]
    nobody = [cells[0] for cells in faults if not any(cells[1:])]
    times = {name: sorted(seconds[name] for _, _, seconds in found) for name in DETECTORS}
    page += f"Found by somebody: {len(faults) - len(nobody)} of {len(faults)}. By nobody: {'; '.join(nobody) or 'none'}.\n\n"
    shown = "; ".join(
        f"{name} {list_[len(list_) // 2]:.0f} s (at most {list_[-1]:.0f} s)" for name, list_ in times.items()
    )
    page += f"Time of each on two cores: {shown}.\n"
    return page


if __name__ == "__main__":
    main()
