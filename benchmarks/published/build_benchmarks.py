"""Writes the definitions and sizes of the benchmarks into the package, from the installed MTEB.

    python benchmarks/published/build_benchmarks.py

The lists are those of MTEB 2.26; run it with that version (the script says which one it found).
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from collect import write_compressed

from evalscope_vacc.results.files import packaged_folder

BENCHMARKS = ("MTEB(eng, v2)", "MTEB(cmn, v1)", "MTEB(Multilingual, v2)", "MTEB(Code, v1)")
# the columns of table 4 of the Qwen3-Embedding report: retrieval tasks of a benchmark, or tasks by name
COLUMNS: dict[str, tuple[str, str]] = {
    "MTEB-R": ("MTEB(eng, v2)", "Retrieval"),
    "CMTEB-R": ("MTEB(cmn, v1)", "Retrieval"),
    "MMTEB-R": ("MTEB(Multilingual, v2)", "Retrieval"),
    "MLDR": ("MultiLongDocRetrieval", ""),
    "MTEB-Code": ("MTEB(Code, v1)", "Retrieval"),
    "FollowIR": ("MTEB(Multilingual, v2)", "InstructionReranking"),
}
MANY = 2000  # a task with more subsets (FloresBitextMining: 41,412) is kept with their number alone

FEW = 60  # sizes of more subsets are kept as one: an estimate needs no more


def main() -> None:
    """Collects and writes both files."""
    import mteb

    defined: dict[str, dict[str, Any]] = {}
    for name in BENCHMARKS:
        tasks = {task.metadata.name: task for task in mteb.get_benchmark(name).tasks}
        defined[name] = {"tasks": {t: entry(tasks[t]) for t in sorted(tasks)}, "measures": ["Mean(Task)", "Mean(Type)"]}
    for column, (source, kind) in COLUMNS.items():
        if kind:
            part = {t: e for t, e in defined[source]["tasks"].items() if e[0] == kind}
        else:
            task = mteb.get_task(source)
            part = {source: entry(task)}
        defined[column] = {"tasks": part, "measures": ["Mean(Task)"]}
    every = mteb.get_tasks(exclude_superseded=False, exclude_private=False, modalities=["text"])
    table = {t.metadata.name: [t.metadata.type, t.metadata.main_score] for t in every}
    head = {"mteb": version("mteb")}
    folder = packaged_folder()
    write_compressed(
        folder / "_benchmarks.json.gz", {**head, "benchmarks": defined, "tasks": dict(sorted(table.items()))}
    )
    every = sorted(every, key=lambda task: str(task.metadata.name))
    sizes = {t.metadata.name: statistics(t) for t in every if Path(t.metadata.descriptive_stat_path).is_file()}
    write_compressed(folder / "_statistics.json.gz", {**head, "tasks": sizes})
    print(f"MTEB {head['mteb']}: {len(defined)} benchmarks, {len(table)} tasks, sizes of {len(sizes)}")


def entry(task: Any) -> list[Any]:
    """Returns type, metric, splits, subsets, and the number of subsets."""
    subsets = list(task.hf_subsets or ["default"])
    kept = [] if len(subsets) > MANY else subsets
    return [task.metadata.type, task.metadata.main_score, list(task.eval_splits), kept, len(subsets)]


def statistics(task: Any) -> dict[str, Any]:
    """Returns what each side of each split and subset holds: [texts, distinct texts, characters].

    MTEB ships these counts with every task. What a classifier is trained on and how many texts a clustering takes are
    settings of the task, and are applied here.
    """
    data = json.loads(Path(task.metadata.descriptive_stat_path).read_text(encoding="utf-8"))
    sizes: dict[str, Any] = {}
    for split in task.metadata.eval_splits:
        whole = data.get(split)
        if whole is None:
            continue
        parts = whole.get("hf_subset_descriptive_stats") or {"default": whole}
        if len(parts) > FEW:
            parts = {"*": whole}
        train = data.get("train") or {}
        trained = train.get("hf_subset_descriptive_stats") or {"default": train}
        sizes[split] = {subset: sides(task, part, trained.get(subset) or {}) for subset, part in parts.items()}
    found = {"chars_per_token": chars_per_token(task), "sizes": sizes}
    langs = task.metadata.eval_langs
    if isinstance(langs, dict) and len(langs) <= FEW:
        found["languages"] = {s: sorted({lang.split("-")[0] for lang in codes}) for s, codes in langs.items()}
    return found


def sides(task: Any, part: dict[str, Any], train: dict[str, Any]) -> dict[str, list[int]]:
    """Picks the statistics of each text column, as many of them as MTEB embeds."""
    kept: dict[str, list[int]] = {}
    for key, value in part.items():
        if not key.endswith("_statistics") or not isinstance(value, dict) or "total_text_length" not in value:
            continue
        average = value["average_text_length"]
        count = round(value["total_text_length"] / average) if average else part["num_samples"]
        most = clustered(task, count)
        share = most / count if count else 1
        side = key.removesuffix("_statistics").removesuffix("_text")
        kept[side] = [most, round(value["unique_texts"] * share), round(value["total_text_length"] * share)]
    labels = (part.get("label_statistics") or {}).get("unique_labels")
    if labels and getattr(task, "samples_per_label", None) and task.metadata.type.endswith("lassification"):
        there = train.get("num_samples") or 10**9
        texts = min(there, task.n_experiments * task.samples_per_label * labels)
        average = ((train or part).get("text_statistics") or {}).get("average_text_length", 0)
        kept["train"] = [texts, texts, round(texts * average)]
    ranked = part.get("top_ranked_statistics")
    if ranked:
        kept["pairs"] = [ranked["num_top_ranked"], 0, 0]
    return kept


def clustered(task: Any, count: int) -> int:
    """A clustering embeds a part of its texts, unless it is of the older kind."""
    if task.metadata.type != "Clustering" or not hasattr(task, "max_documents_per_cluster"):
        return count
    fraction, most = task.max_fraction_of_documents_to_embed, task.max_document_to_embed
    return min(count, int(fraction * count) if fraction is not None else most or count)


def chars_per_token(task: Any) -> float:
    """A rule of thumb for the vocabularies of the models that the catalog knows; the estimate says so."""
    if "Programming" in (task.metadata.domains or []):
        return 3.2
    known = {"Latn": 4.2, "Hans": 1.6, "Hant": 1.6, "Jpan": 1.6, "Kore": 1.6}
    values = [known.get(script, 2.5) for script in scripts_of(task)]
    return round(sum(values) / len(values), 2)


def scripts_of(task: Any) -> list[str]:
    """Returns the script of each language of each subset."""
    langs = task.metadata.eval_langs
    flat = [lang for subset in langs.values() for lang in subset] if isinstance(langs, dict) else list(langs)
    return [lang.rsplit("-", 1)[-1] for lang in flat] or ["Latn"]


if __name__ == "__main__":
    main()
