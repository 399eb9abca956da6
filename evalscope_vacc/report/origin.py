"""How a run came about: what EvalScope was given, which versions took part, when it ended."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evalscope_vacc.files import read_bounded
from evalscope_vacc.report.secrets import Cleaner
from evalscope_vacc.results.files import finite
from evalscope_vacc.results.rows import Results, Row

MAX_CONFIG_BYTES = 4 << 20
LEVELS = 8


def task_config(run: Path) -> dict[str, Any]:
    """Reads what EvalScope was run with, from ``<run>/configs``."""
    import yaml

    folder = run if run.is_dir() else run.parent
    for level in (folder, *folder.absolute().parents)[:LEVELS]:
        for path in sorted((level / "configs").glob("*.yaml"), reverse=True) if (level / "configs").is_dir() else ():
            try:
                content = yaml.safe_load(read_bounded(path, MAX_CONFIG_BYTES))
            except (OSError, ValueError, yaml.YAMLError, RecursionError):
                continue
            if isinstance(content, dict) and isinstance(content.get("eval_config"), dict):
                return content
    return {}


def repeat(task_config: Mapping[str, Any], cleaner: Cleaner) -> Mapping[str, Any] | None:
    """Makes the RAGEval file that would run this again: no key, nothing that was left unset, no output folder."""
    given = task_config.get("eval_config")
    if not isinstance(given, dict) or "eval" not in given:
        return None
    plain = _without_none(cleaner.value(given))
    for key in ("models", "model"):
        for model in plain.get(key) or () if isinstance(plain.get(key), list) else ():
            if isinstance(model, dict):
                if "api_key" in model:
                    model["api_key"] = "${VACC_API_KEY}"
                if model.get("model_name_or_path") == model.get("model_name"):
                    model.pop("model_name_or_path", None)
    if isinstance(plain.get("eval"), dict):
        plain["eval"].pop("output_folder", None)
    order = [key for key in ("tool", "models", "model", "eval") if key in plain]
    return {key: plain[key] for key in (*order, *(k for k in plain if k not in order))}


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value


def versions(results: Results, task_config: Mapping[str, Any], cleaner: Cleaner) -> dict[str, str]:
    """Names the versions of the hosts, of this package, and of what mteb notes beside its results."""
    from evalscope_vacc._version import __version__

    found: dict[str, str] = {}
    evalscope = task_config.get("evalscope_version")
    if isinstance(evalscope, str):
        found["evalscope"] = cleaner.text(evalscope, 60)
    scored = sorted({row.mteb_version for row in results.rows if row.mteb_version})
    if scored:
        found["mteb"] = ", ".join(cleaner.text(version, 60) for version in scored[:4])
    found["evalscope-vacc"] = __version__
    for folder in dict.fromkeys(Path(row.source).parent for row in results.rows if row.source):
        for name, version in _settings(folder).items():
            found.setdefault(cleaner.text(name, 60), cleaner.text(version, 60))
    return found


def _settings(folder: Path) -> dict[str, str]:
    """Reads the versions of other packages that mteb notes beside its results."""
    path = folder / "run_settings.jsonl"
    try:
        with path.open("rb") as file:
            first = json.loads(file.readline(1 << 20))
        versions = first.get("version") if isinstance(first, dict) else None
    except (OSError, ValueError, RecursionError):
        return {}
    items = versions.items() if isinstance(versions, dict) else ()
    return {str(name): version for name, version in items if isinstance(version, str) and name != "mteb"}


def finished(rows: Iterable[Row]) -> float | None:
    """Returns when the last task was finished, in seconds of the epoch."""
    dates: list[float] = []
    for source in {row.source for row in rows if row.source}:
        path = Path(source)
        try:
            dates.append(path.stat().st_mtime)
            noted = finite(json.loads(read_bounded(path, MAX_CONFIG_BYTES)).get("date"))
            if noted:
                dates[-1] = noted
        except (OSError, ValueError, RecursionError, AttributeError):
            continue
    return max(dates, default=None)
