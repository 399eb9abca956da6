"""Writes the folders of runs the way the hosts and this package do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HOSTILE = "<script>window.broken = 1</script><img src=x onerror='window.broken = 2'>\"'&\u2028</pre>"
MODEL = "Qwen/Qwen3-Embedding-0.6B"
KEY = "sk-very-secret-0123456789"
COUNTS = {
    "instruction": "", "texts": 2000, "unique": 1900, "stored": 0, "cut": 3, "tokens": 40000, "requests": 63,
    "retries": 0, "seconds": 20.0, "busy": 0.97,
}  # fmt: skip


def write_results(
    folder: Path,
    scores: Mapping[tuple[str, str, str], tuple[str, float]],
    *,
    model: str = "vacc/Qwen3-Embedding-0.6B",
    cross_encoder: bool = False,
) -> Path:
    """Writes result files as MTEB does; scores by task, split and subset."""
    place = folder / "results" / model.replace("/", "__") / "served-1234abcd"
    place.mkdir(parents=True, exist_ok=True)
    meta = {
        "name": model,
        "revision": "served-1234abcd",
        "experiment_kwargs": None,
        "model_type": ["cross-encoder" if cross_encoder else "dense"],
    }
    (place / "model_meta.json").write_text(json.dumps(meta))
    settings = {"task": "x", "version": {"mteb": "2.26.24", "torch": "2.9.0", "transformers": "5.0.0"}}
    (place / "run_settings.jsonl").write_text(json.dumps(settings) + "\n")
    tasks: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for (task, split, subset), (metric, score) in scores.items():
        entry = {metric: score, "main_score": score, "hf_subset": subset, "languages": ["eng-Latn"]}
        tasks.setdefault(task, {}).setdefault(split, []).append(entry)
    revisions = published_revisions()
    for task, splits in tasks.items():
        content = {
            "task_name": task, "mteb_version": "2.26.24", "dataset_revision": revisions.get(task, "rev1"), "scores": splits,
            "evaluation_time": 1.0, "kg_co2_emissions": None, "date": 1_760_000_000.0,
        }  # fmt: skip
        (place / f"{task.replace('/', '_')}.json").write_text(json.dumps(content))
    return folder


def write_evidence(
    folder: Path,
    usage: Sequence[Mapping[str, Any]],
    samples: Sequence[Mapping[str, Any]],
    *,
    model: str = "vacc/Qwen3-Embedding-0.6B",
    config: Mapping[str, Any] | None = None,
    server: Mapping[str, Any] | None = None,
) -> None:
    """Writes what a run leaves in ``vacc``."""
    place = folder / "vacc"
    place.mkdir(parents=True, exist_ok=True)
    values = {
        "name": model,
        "instruction_profile": "qwen-official",
        "max_tokens": 8192,
        "max_concurrency": 16,
        **(config or {}),
    }
    facts = {"server": "http://127.0.0.1:8000", "version": "0.32.0", "max_model_len": 32768, "tokenize": True}
    server_entry = {"name": model, "servers": [{**facts, **(server or {})}]}
    (place / "config.json").write_text(json.dumps({"models": [values]}))
    (place / "server.json").write_text(json.dumps({"models": [server_entry]}))
    (place / "usage.json").write_text(json.dumps({"tasks": [{"model": model, **entry} for entry in usage]}))
    lines = [json.dumps({"model": model, **sample}) for sample in samples]
    (place / "sent_samples.jsonl").write_text("\n".join(lines) + "\n")


def published_scores() -> dict[tuple[str, str, str], tuple[str, float]]:
    """Qwen3-Embedding-0.6B's published scores on the English benchmark."""
    from evalscope_vacc.results.benchmarks import benchmark
    from evalscope_vacc.results.published import get

    english = benchmark("MTEB(eng, v2)")
    assert english is not None
    wanted = {(t.name, split, subset, t.metric) for t in english.tasks for split in t.splits for subset in t.subsets}
    reference = get(MODEL).reference()
    return {
        row.key: (row.metric, row.score)
        for row in reference.rows
        if (*row.key, row.metric) in wanted and row.conditions == reference.conditions
    }


def published_revisions() -> dict[str, str]:
    """Dataset revisions of the published scores."""
    from evalscope_vacc.results.published import get

    return {row.task: row.dataset_revision for row in get(MODEL).reference().rows if row.dataset_revision}


def usage_of(scores: Mapping[tuple[str, str, str], Any]) -> Iterator[dict[str, Any]]:
    for i, (task, split, subset) in enumerate(scores):
        sides = ("query", "document") if i % 4 == 0 else ("",)
        for j, side in enumerate(sides):
            texts = 800 + 700 * ((i * 7 + j) % 9)
            seconds = texts / (180 + 55 * ((i + j) % 5))
            yield {
                **COUNTS, "task": task, "split": split, "subset": subset, "side": side, "texts": texts,
                "unique": texts - 11 * (i % 3), "tokens": texts * 24, "requests": texts // 32, "seconds": seconds,
                "busy": 0.85 + 0.03 * ((i + j) % 5),
            }  # fmt: skip


def samples_of(scores: Mapping[tuple[str, str, str], Any]) -> Iterator[dict[str, Any]]:
    for task, split, subset in scores:
        for i in range(2):
            text = f"Sentence {i} of {task}: a person is slicing an onion."
            yield {"task": task, "split": split, "subset": subset, "side": "", "text": text, "tokens": 14}


def task_config(folder: Path, key: str = "***") -> None:
    (folder / "configs").mkdir()
    content = {
        "evalscope_version": "1.14.1",
        "eval_config": {
            "tool": "mteb",
            "models": [
                {
                    "model_type": "vacc_api", "model_name": "Qwen3-Embedding-0.6B", "api_base": "http://127.0.0.1:8000/v1",
                    "model_name_or_path": "Qwen3-Embedding-0.6B", "api_key": key, "dimensions": None,
                }
            ],
            "eval": {"task_names": ["STSBenchmark"], "output_folder": "./outputs/x", "limits": None},
        },
    }  # fmt: skip
    # YAML is a superset of JSON
    (folder / "configs" / "task_config.yaml").write_text(json.dumps(content))
