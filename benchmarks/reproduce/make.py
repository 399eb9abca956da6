"""Writes the configurations of this folder and the tables of its README, from the package's own data.

    python benchmarks/reproduce/make.py [--check]

``--check`` writes nothing and exits with 1 when a file is not what would be written.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from evalscope_vacc.results import published
from evalscope_vacc.results.benchmarks import Benchmark, benchmark
from evalscope_vacc.results.estimate import Estimate, estimate
from evalscope_vacc.view.listings import estimate_mapping
from evalscope_vacc.view.words import Words

HERE = Path(__file__).parent
ENCODERS = ("Qwen3-Embedding-0.6B", "Qwen3-Embedding-4B", "Qwen3-Embedding-8B")
RERANKERS = {
    "Qwen3-Reranker-0.6B": "qwen3-evaluation",
    "Qwen3-Reranker-4B": "qwen3-evaluation",
    "Qwen3-Reranker-8B": "qwen3-evaluation",
    "bge-reranker-v2-m3": "none",
}
# what one command says: their models are in the catalog, and MTEB knows the benchmark
TABLES = ("MTEB(eng, v2)", "MTEB(cmn, v1)", "MTEB(Multilingual, v2)", "MTEB(Code, v1)")
COLUMNS = {
    "mteb-r": "MTEB-R",
    "cmteb-r": "CMTEB-R",
    "mmteb-r": "MMTEB-R",
    "mldr": "MLDR",
    "mteb-code": "MTEB-Code",
    "followir": "FollowIR",
}
# tasks of which the benchmark takes one language or one split; EvalScope would run them whole
LANGUAGES = {"mteb-r": ["eng"]}
# where the first stage of tasks that bring candidates of their own leaves its predictions
FIRST_STAGE = "outputs/followir-first"
RATES = {"texts_per_second": 500.0, "pairs_per_second": 100.0}
BEGIN, END = "<!-- tables: written by make.py -->", "<!-- end of tables -->"


def main() -> int:
    """Writes, or checks."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--check", action="store_true")
    check = options.parse_args().check
    wanted = files()
    wanted[HERE / "README.md"] = readme(wanted)
    wrong = [path for path, text in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    stale = [path for path in HERE.rglob("*.yaml") if path not in wanted]
    if check:
        for path in (*wrong, *stale):
            print(f"not up to date: {path.relative_to(HERE)}")
        return bool(wrong or stale)
    for path in stale:
        path.unlink()
    for path in wrong:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path], encoding="utf-8")
    print(f"{len(wanted)} files, {len(wrong)} written")
    return 0


def files() -> dict[Path, str]:
    """Returns every configuration by path."""
    found = {}
    for folder, name in COLUMNS.items():
        if own_candidates(known(name)):
            found[HERE / "rerank" / folder / "first-stage.yaml"] = first_stage(folder, known(name))
        for model, template in RERANKERS.items():
            found[HERE / "rerank" / folder / f"{model}.yaml"] = reranker(folder, known(name), model, template)
    return found


def own_candidates(bench: Benchmark) -> bool:
    """Whether MTEB would have a cross-encoder rerank what the tasks bring, a thousand documents a query."""
    return {task.type for task in bench.tasks} == {"InstructionReranking"}


def known(name: str) -> Benchmark:
    """Returns a benchmark that must be there."""
    found = benchmark(name)
    if found is None:
        raise SystemExit(f"{name} is not among the package's benchmarks")
    return found


def reranker(folder: str, bench: Benchmark, model: str, template: str) -> str:
    """Writes one reranker's configuration: in two stages, or on the predictions that a first command left."""
    limit = ["max_tokens: 8192"] if model.startswith("Qwen") else []
    keys = ["is_cross_encoder: true", f"rerank_template: {template}", *limit]
    body = ["tool: mteb", "models:"]
    first = ""
    if own_candidates(bench):
        first = f"evalscope-vacc eval benchmarks/reproduce/rerank/{folder}/first-stage.yaml"
        keys += ["model_kwargs:", "  embed_results:"]
        keys += [f"    {task.name}: {FIRST_STAGE}/predictions/{task.name}_predictions.json" for task in bench.tasks]
    else:
        body += entry(ENCODERS[0], 8000, ["instruction_profile: qwen-official", "max_tokens: 8192"])
    body += entry(model, 8001, keys)
    body += evaluation(folder, bench, top_k=100)
    how = f"the first 100 of Qwen3-Embedding-0.6B, template {template}, mteb 1.38.9"
    return finish(folder, bench, model, body, how, first=first)


def first_stage(folder: str, bench: Benchmark) -> str:
    """Writes the encoder's run, whose predictions lie where the rerankers' configurations look for them."""
    inner = ["tool: mteb", "models:"]
    inner += entry(ENCODERS[0], 8000, ["instruction_profile: qwen-official", "max_tokens: 8192"])
    inner += evaluation(folder, bench)
    body = ["eval_backend: RAGEval", f"work_dir: {FIRST_STAGE}", "no_timestamp: true", "eval_config:"]
    body += [f"  {line}" for line in inner]
    text = "\n".join(body) + "\n"
    head = [
        f"{ENCODERS[0]} on {bench.name}, whose first 100 the rerankers are given: {size(estimated(text))}.",
        f"Run:     evalscope-vacc eval benchmarks/reproduce/rerank/{folder}/first-stage.yaml",
    ]
    return "".join(f"# {line}\n" for line in head) + text


def entry(model: str, port: int, keys: list[str]) -> list[str]:
    """Returns one entry of ``models:``."""
    lines = ["model_type: vacc_api", f"model_name: {model}", f"api_base: http://127.0.0.1:{port}", *keys]
    lines += ["encode_kwargs:", "  batch_size: 32"]
    return [f"  {'- ' if i == 0 else '  '}{line}" for i, line in enumerate(lines)]


def evaluation(folder: str, bench: Benchmark, top_k: int | None = None) -> list[str]:
    """Returns ``eval:`` with the tasks, splits and languages of the benchmark."""
    lines = ["eval:", "  hub: huggingface", "  overwrite_results: false"]
    if top_k:
        lines.append(f"  top_k: {top_k}")
    if folder in LANGUAGES:
        lines.append(f"  languages: [{', '.join(LANGUAGES[folder])}]")
    splits = {task.name: task.splits for task in bench.tasks if set(task.splits) != set(default_splits(task.name))}
    if splits:
        lines.append("  splits:")
        lines += [f"    {name}: [{', '.join(names)}]" for name, names in sorted(splits.items())]
    return [*lines, "  task_names:", *(f"    - {task.name}" for task in bench.tasks)]


def default_splits(task: str) -> tuple[str, ...]:
    """Returns the splits that MTEB evaluates unless told otherwise."""
    from evalscope_vacc.results.estimate import task_parts

    return tuple(dict.fromkeys(split for split, _ in task_parts(task)))


def finish(folder: str, bench: Benchmark, model: str, body: list[str], how: str, *, first: str = "") -> str:
    """Puts the expected score and the size above the configuration."""
    text = "\n".join(body) + "\n"
    sized = estimated(text)
    scores = expected(model, bench)
    place = f"rerank/{folder}/{model}.yaml"
    head = [
        f"{model} on {bench.name}: {len(bench.tasks)} tasks, {size(sized)}.",
        f"Published: {scores} ({how}).",
        *([f"Before:  {first}"] if first else []),
        f"Run:     evalscope eval --eval-backend RAGEval --eval-config benchmarks/reproduce/{place}",
        f"Verdict: evalscope-vacc compare outputs/<time> --against {published.get(model).name}",
        f"Time:    evalscope-vacc estimate benchmarks/reproduce/{place} --texts-per-second N",
    ]
    return "".join(f"# {line}\n" for line in head) + text


def expected(model: str, bench: Benchmark) -> str:
    """Returns the published means in points."""
    means = [a for a in published.get(model).reference().aggregates if a.benchmark == bench.name and a.judged_by]
    shown = [f"{a.measure} {100 * a.value:.2f}" for a in means if a.measure in bench.measures]
    return ", ".join(shown)


def estimated(text: str) -> Estimate:
    """Estimates a configuration at the rates that the README names."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return estimate(path, **RATES)


def size(sized: Estimate) -> str:
    """Returns texts, pairs and tokens in words."""
    plain = estimate_mapping(sized, Words())
    parts = [f"{plain[unit]:,} {unit}" for unit in ("texts", "pairs") if plain[unit]]
    return f"{' and '.join(parts)}, about {plain['tokens'] / 1e6:,.0f} million tokens"


def readme(configurations: dict[Path, str]) -> str:
    """Returns the README with fresh tables."""
    path = HERE / "README.md"
    text = path.read_text(encoding="utf-8")
    start, stop = text.index(BEGIN) + len(BEGIN), text.index(END)
    lines = [
        "",
        "",
        "| Model and benchmark, or configuration | Published | Texts | Pairs | Tokens (M) | Time |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name in TABLES:
        for model in ENCODERS:
            config = {"models": [{"model_name": model}], "eval": {"benchmarks": [name]}}
            lines.append(row(f"{model}, `{name}`", expected(model, known(name)), estimate(config, **RATES)))
    for file, content in configurations.items():
        place = file.relative_to(HERE).as_posix()
        bench = known(COLUMNS[file.parent.name])
        scores = "" if file.stem == "first-stage" else expected(file.stem, bench)
        lines.append(row(f"[{place}]({place})", scores, estimated(content)))
    return text[:start] + "\n".join(lines) + "\n\n" + text[stop:]


def row(name: str, scores: str, sized: Estimate) -> str:
    """Returns one line of the table."""
    plain = estimate_mapping(sized, Words())
    numbers = [f"{plain[unit]:,}" if plain[unit] else "" for unit in ("texts", "pairs")]
    tokens = f"{plain['tokens'] / 1e6:,.0f}"
    return f"| {' | '.join((name, scores, *numbers, tokens, Words().duration(sized.seconds)))} |"


if __name__ == "__main__":
    sys.exit(main())
