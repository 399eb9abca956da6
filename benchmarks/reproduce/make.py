"""Writes the tables of this folder's README, from the package's own data.

    python benchmarks/reproduce/make.py [--check]

``--check`` writes nothing and exits with 1 when the README is not what would be written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evalscope_vacc.results import published
from evalscope_vacc.results.benchmarks import Benchmark, named
from evalscope_vacc.results.estimate import Estimate, estimate
from evalscope_vacc.view.listings import estimate_mapping
from evalscope_vacc.view.words import Words

README = Path(__file__).parent / "README.md"
ENCODERS = ("Qwen3-Embedding-0.6B", "Qwen3-Embedding-4B", "Qwen3-Embedding-8B")
RERANKERS = ("Qwen3-Reranker-0.6B", "Qwen3-Reranker-4B", "Qwen3-Reranker-8B", "bge-reranker-v2-m3")
TABLES = ("MTEB(eng, v2)", "MTEB(cmn, v1)", "MTEB(Multilingual, v2)", "MTEB(Code, v1)")
COLUMNS = ("MTEB-R", "CMTEB-R", "MMTEB-R", "MLDR", "MTEB-Code")
# its tasks bring candidates of their own, a thousand a query: the first stage is a run of its own
FOLLOWIR = "FollowIR"
RATES = {"texts_per_second": 500.0, "pairs_per_second": 100.0}
BEGIN, END = "<!-- tables: written by make.py -->", "<!-- end of tables -->"


def main() -> int:
    """Writes, or checks."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--check", action="store_true")
    check = options.parse_args().check
    text = README.read_text(encoding="utf-8")
    start, stop = text.index(BEGIN) + len(BEGIN), text.index(END)
    wanted = text[:start] + "\n".join(table()) + "\n\n" + text[stop:]
    if check:
        return int(text != wanted)
    README.write_text(wanted, encoding="utf-8")
    return 0


def table() -> list[str]:
    """Returns the lines of the table."""
    lines = [
        "",
        "",
        "| Models and benchmark | Published | Texts | Pairs | Tokens (M) | Time |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name in TABLES:
        lines += [row([encoder(model)], model, named(name)) for model in ENCODERS]
    for name in COLUMNS:
        lines += [row([encoder(ENCODERS[0]), reranker(model)], model, named(name)) for model in RERANKERS]
    followir = named(FOLLOWIR)
    lines.append(row([encoder(ENCODERS[0])], "", followir))
    stored = {"embed_results": {task.name: "outputs/RUN" for task in followir.tasks}}
    return [*lines, *(row([{**reranker(model), **stored}], model, followir) for model in RERANKERS)]


def encoder(model: str) -> dict[str, Any]:
    """Returns the entry of an encoder."""
    return {"model_name": model}


def reranker(model: str) -> dict[str, Any]:
    """Returns the entry of a reranker, as its published scores were made."""
    return {"model_name": model, "rerank_template": published.get(model).reference().conditions.template}


def row(models: Sequence[Mapping[str, Any]], judged: str, bench: Benchmark) -> str:
    """Returns one line of the table."""
    config = {"models": list(models), "eval": {"benchmarks": [bench.name], "top_k": 100}}
    sized: Estimate = estimate(config, **RATES)
    plain = estimate_mapping(sized, Words())
    numbers = [f"{plain[unit]:,}" if plain[unit] else "" for unit in ("texts", "pairs")]
    names = f"{judged or models[0]['model_name']}, `{bench.name}`"
    scores = expected(judged, bench) if judged else ""
    tokens = f"{plain['tokens'] / 1e6:,.0f}"
    return f"| {' | '.join((names, scores, *numbers, tokens, Words().duration(sized.seconds)))} |"


def expected(model: str, bench: Benchmark) -> str:
    """Returns the published means in points."""
    means = [a for a in published.get(model).reference().aggregates if a.benchmark == bench.name and a.judged_by]
    return ", ".join(f"{a.measure} {100 * a.value:.2f}" for a in means if a.measure in bench.measures)


if __name__ == "__main__":
    sys.exit(main())
