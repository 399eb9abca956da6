"""Writes the published scores into the package.

    python benchmarks/published/build_published.py --facts FOLDER --results CHECKOUT

``FOLDER`` holds the collected facts as JSON (one file a model, the benchmark means, the constants of vLLM's tests);
``CHECKOUT`` is a checkout of embeddings-benchmark/results at f4cc6c8b3, for all-MiniLM-L6-v2. Every fact keeps its
source. What a run was configured with is stated only where its authors did: for Qwen's it is their evaluation code.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from collect import collect, write_compressed

from evalscope_vacc.results.benchmarks import benchmark, main_metric
from evalscope_vacc.results.files import packaged_folder
from evalscope_vacc.results.model import MEAN_OF_SUBSETS

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_TASKS = ("STSBenchmark", "STSB", "LCQMC", "XQuADRetrieval", "SciFact")
QWEN_ENCODER = {"profile": "qwen-official", "max_tokens": 8192, "dtype": "float16"}
QWEN_RERANKER = {
    "template": "qwen3-evaluation", "max_tokens": 8192, "top_k": 100, "first_stage": "Qwen/Qwen3-Embedding-0.6B",
}  # fmt: skip
BGE_RERANKER = {"template": "none", "top_k": 100, "first_stage": "Qwen/Qwen3-Embedding-0.6B"}
QWEN_EVALUATION = "github:QwenLM/Qwen3-Embedding evaluation/ (run settings: instructions, 8192 tokens, float16)"


def main() -> None:
    """Reads the facts and writes one file a model."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--facts", type=Path, required=True)
    options.add_argument("--results", type=Path, required=True)
    given = options.parse_args()
    models: dict[str, dict[str, Any]] = {}
    for path in sorted(given.facts.glob("*__*.json")):
        facts = json.loads(path.read_text(encoding="utf-8"))
        models[facts["model"]] = reranker(facts) if "aggregates" in facts else encoder(facts)
    models[MINILM], problems = collect(
        given.results, MINILM, tasks=MINILM_TASKS, revision="8b3219a92973c328a8e22fadcfa821b5dc75636a"
    )
    missing = set(MINILM_TASKS) - set(models[MINILM]["tasks"])
    if missing:
        raise SystemExit(f"not in the checkout: {sorted(missing)}")
    add_means(models, json.loads((given.facts / "benchmark_means.json").read_text(encoding="utf-8")))
    add_vllm(models, json.loads((given.facts / "vllm_ci_scores.json").read_text(encoding="utf-8")))
    add_vendor(models, json.loads((given.facts / "vacc_published.json").read_text(encoding="utf-8")))
    folder = packaged_folder()
    for old in folder.glob("[!_]*.json.gz"):
        old.unlink()
    for model, data in models.items():
        write_compressed(folder / f"{model.replace('/', '__', 1)}.json.gz", data)
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{len(models)} models, {size / 1024:.0f} KiB", *problems, sep="\n")


def blank(model: str, kind: str) -> dict[str, Any]:
    """Returns an entry without scores."""
    return {"format": 1, "model": model, "kind": kind, "revision": None, "source": "", "conditions": {}, "tasks": {}}


def encoder(facts: dict[str, Any]) -> dict[str, Any]:
    """Converts an encoder's scores by task, split and subset."""
    data = blank(facts["model"], "encoder")
    data["revision"] = facts["model_revision"]
    data["source"] = facts["source"]
    if facts["model"].startswith("Qwen/"):
        data["conditions"] = QWEN_ENCODER
        data["conditions_source"] = QWEN_EVALUATION
    for task, entry in facts["tasks"].items():
        kind, metric = main_metric(task, None, {})
        if not entry["metric"] and not kind:
            continue  # no task of MTEB's any more: a speed measurement, or withdrawn
        values = (entry["type"] or kind, entry["metric"] or metric, entry["mteb_version"], entry["dataset_revision"])
        data["tasks"][task] = [*values, entry["scores"]]
    return data


def reranker(facts: dict[str, Any]) -> dict[str, Any]:
    """Converts a reranker's means and, where the report has them, its scores on the tasks of Code v1."""
    data = blank(facts["model"], "cross-encoder")
    data["source"] = facts["source"]
    data["conditions"] = QWEN_RERANKER if facts["model"].startswith("Qwen/") else BGE_RERANKER
    data["conditions_source"] = QWEN_EVALUATION
    code = benchmark("MTEB(Code, v1)")
    splits = {task.name: task.splits for task in code.tasks} if code else {}
    data["rows"] = [
        {
            "task": task,
            # the report's table names no split: it is the benchmark's
            "split": splits[task][0],
            "subset": MEAN_OF_SUBSETS,
            "metric": entry["metric"],
            "score": entry["main_score"],
            "type": "Retrieval",
            "mteb_version": entry["mteb_version"],
            "conditions": data["conditions"],
            "source": entry["source"],
            "rounding": 5e-5,
        }
        for task, entry in facts["tasks"].items()
    ]
    data["aggregates"] = [
        aggregate(name, "Mean(Task)", value, facts["source"], facts["aggregates"]["protocol"])
        for name, value in facts["aggregates"]["values"].items()
    ]
    jina = facts.get("aggregates_jina", {"values": {}})
    data["aggregates"] += [
        aggregate(name, "Mean(Task)", value, jina["source"], "another first stage; listed, not compared", judged=False)
        for name, value in jina["values"].items()
    ]
    return data


def aggregate(
    benchmark_name: str, measure: str, percent: float, source: str, protocol: str = "", *, judged: bool = True
) -> dict[str, Any]:
    """Returns one published mean as a fraction; published with two decimals of a percent."""
    return {
        "benchmark": benchmark_name, "measure": measure, "value": round(percent / 100, 6), "rounding": 5e-5,
        "protocol": protocol, "source": source, "judged": judged,
    }  # fmt: skip


def add_means(models: dict[str, dict[str, Any]], means: dict[str, Any]) -> None:
    """Adds the means of the model cards."""
    for name, by_model in means.items():
        if not name.startswith("MTEB("):
            continue
        for model, values in by_model.items():
            models[model].setdefault("aggregates", []).extend(
                aggregate(name, measure, value, means["source"], means["note"]) for measure, value in values.items()
            )


def add_vllm(models: dict[str, dict[str, Any]], facts: dict[str, Any]) -> None:
    """Adds the constants of vLLM's own accuracy tests, each under the conditions of that test."""
    for part, kind in (("embed", "encoder"), ("rerank", "cross-encoder")):
        test = facts[part]
        for name, score in test["scores"].items():
            model, _, remark = name.partition(" (")
            data = models.setdefault(model, blank(model, kind))
            data["source"] = data["source"] or facts["source"]
            if kind == "encoder":
                conditions: dict[str, Any] = {"profile": "none"}
            else:
                templated = model.startswith("Qwen/")
                conditions = {"template": "qwen3" if templated else "none", "top_k": 10, "first_stage": "bm25s"}
            row = {
                "task": test["task"], "split": test["split"], "subset": "default", "metric": test["metric"],
                "score": score, "type": "STS" if kind == "encoder" else "Retrieval", "conditions": conditions,
                "source": f"{facts['source']} ({test['tolerance']}{'; ' + remark.rstrip(')') if remark else ''})",
            }  # fmt: skip
            data.setdefault("rows", []).append(row)


def add_vendor(models: dict[str, dict[str, Any]], facts: dict[str, Any]) -> None:
    """Adds what the accelerator's vendor published: measured on it, so listed and never a reference."""
    sets = {"BAAI/bge-m3": "STS12 test (seq len 512, BAAI/bge-m3)"}
    sets["BAAI/bge-reranker-v2-m3"] = (
        "msmarco-passage-ranking_dev first 100 rows, MAP@10-ish, BAAI/bge-reranker-v2-m3 512"
    )
    for model, key in sets.items():
        models[model]["listed"] = [
            {
                "what": f"{key.split(' (')[0]}, {how}",
                "values": value if isinstance(value, dict) else {"map": value},
                "source": facts["source"],
            }
            for how, value in facts[key].items()
        ]


if __name__ == "__main__":
    main()
