"""Writes docs/mutants.md: which fault is found by whom. ``python tests/mutants/table.py``; three hours of one core.

``--without DETECTOR`` leaves a column out (the scores and parity take most of the time); ``--resume`` keeps the rows that an
interrupted run left in build/mutants.jsonl; names of servers make their rows again, and keep the others.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "servers"))

import torch
from detectors import DETECTORS, NOTHING, Said
from faults import CASES, Case
from hub_mirror import hub_mirror

torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "mutants.md"
ROWS = ROOT / "build" / "mutants.jsonl"
HEAD = """# Which faults of a server are found, and by whom

Each row is the demo's server with the real weights of all-MiniLM-L6-v2 (as a reranker: the same vectors behind Qwen3's
template) and one fault; `tests/mutants/faults.py` has each in a few lines. *check*: exit status 1 of `evalscope-vacc check`;
*scores*: what `evalscope-vacc run --tasks STSBenchmark` says where the check found nothing, and where that passes
`--tasks SciFact`, which together are the preset `smoke`; the largest difference from the published score, in points, stands
beside it also where it is within the tolerance; *before a run*: a warning in the log, or a stop; *parity*: exit status 1 of
`evalscope-vacc parity --dtype auto` against the weights (a reranker: against a sound one's scores); *store*: whether the texts
that the store asks again differ by more than 1e-3. Codes are those of `--json`. An empty cell: nothing said. This page is
written by `nox -s mutants` (`-- --without parity` leaves that column out; `-- --without scores NAME` makes a row again but for
its scores).

"""


Row = dict[str, Said]


def row(case: Case, url: str, without: Collection[str]) -> Row:
    said: Row = {}
    for name, detector in DETECTORS.items():
        if name in without:
            continue
        # what the check finds is not evaluated, and no task that is small enough has a reranker's published score
        needless = name == "scores" and (case.keys or said["check"].wrong)
        said[name] = NOTHING if needless else detector(case, url) if name == "scores" else detector(case)
        print(
            f"{case.name:50s} {name:14s} {said[name].wrong!s:6s} {said[name].seconds:5.1f} s",
            *said[name].codes,
            flush=True,
        )
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without", choices=list(DETECTORS), action="append", default=[])
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    ROWS.parent.mkdir(exist_ok=True)
    if not (arguments.resume or arguments.names):
        ROWS.unlink(missing_ok=True)
    todo = arguments.names or [case.name for case in CASES if case.name not in rows_so_far()]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with hub_mirror(ROOT.parent / "shared", port) as url:
        for case in CASES:
            if case.name in todo:
                made = json.dumps(
                    [case.name, {name: asdict(said) for name, said in row(case, url, arguments.without).items()}]
                )
                # another process may be at other rows
                with ROWS.open("a", encoding="utf-8") as rows:
                    rows.write(made + "\n")
                PAGE.write_text(page_of(rows_so_far()), encoding="utf-8")
    print(page_of(rows_so_far()))


def rows_so_far() -> dict[str, Row]:
    """What build/mutants.jsonl has of each server; a later line replaces what it has of an earlier one."""
    found: dict[str, Row] = {}
    for line in ROWS.read_text(encoding="utf-8").splitlines() if ROWS.exists() else []:
        case, said = json.loads(line)
        found.setdefault(case, {}).update({name: Said(**values) for name, values in said.items()})
    return found


def page_of(found: dict[str, Row]) -> str:
    asked = [name for name in DETECTORS if any(name in said for said in found.values())]
    columns = ["server", *asked]
    there = [case for case in CASES if case.name in found]
    page = HEAD
    if len(there) < len(CASES):
        page += f"The run that wrote this ended after {len(there)} of {len(CASES)} servers.\n\n"
    if left_out := [name for name in DETECTORS if name not in asked]:
        page += f"The run that wrote this left out: {', '.join(left_out)}.\n\n"
    for title, sound in (("Faults", False), ("Nothing wrong", True)):
        rows = [
            [case.name, *(cell(name, found[case.name].get(name, NOTHING)) for name in asked)]
            for case in there
            if case.sound == sound
        ]
        table = [columns, ["---"] * len(columns), *rows]
        page += f"## {title}: {len(rows)}\n\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in table) + "\n"
    faults = [case.name for case in there if not case.sound]
    nobody = [name for name in faults if not any(said.wrong for said in found[name].values())]
    unfound = "; ".join(
        f"{name} ({cell('scores', found[name].get('scores', NOTHING)) or 'no scores'})" for name in nobody
    )
    page += f"Found by somebody: {len(faults) - len(nobody)} of {len(faults)}. By nobody: {unfound or 'none'}.\n\n"
    times = {
        name: sorted(said[name].seconds for said in found.values() if name in said and said[name].seconds)
        for name in asked
    }
    shown = "; ".join(
        f"{name} {ran[len(ran) // 2]:.0f} s (at most {ran[-1]:.0f} s)" for name, ran in times.items() if ran
    )
    page += f"Time of each on two cores: {shown}.\n"
    return page


def cell(name: str, said: Said) -> str:
    if name == "scores" and said.codes:
        return ("wrong: " if said.wrong else "") + ", ".join(said.codes)
    return ", ".join(said.codes) if said.wrong else ""


if __name__ == "__main__":
    main()
