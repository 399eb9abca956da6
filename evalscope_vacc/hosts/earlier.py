"""Whether the server of a model is still the one that earned the scores that lie in a run's folder."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

Facts = list[tuple[Any, ...]]


class EarlierServers:
    """What an earlier run in the same folder wrote down of its servers.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before = _read(folder / "vacc" / "server.json")
        self._changed: dict[str, bool] = {}

    def changed(self, model: Any) -> bool:
        """Whether a model's server is another one; asks it, where there is something to compare with."""
        served = getattr(model, "served", None)
        before = self._before.get(served.name) if served is not None else None
        if served is None or before is None:
            return False
        if served.name in self._changed:
            return self._changed[served.name]
        model.open()
        self._changed[served.name] = before != _told(served.record)
        if self._changed[served.name]:
            # until a run gets to its end, some of the scores there are still those of the earlier server
            served.record_server(rescoring=True)
            logger.warning(
                "%s: the server's version, model, length or template has changed since the scores in %s: they are not "
                "reused",
                served.name,
                self._folder,
            )
        return self._changed[served.name]

    def all_scored_again(self, model: Any) -> None:
        """Notes that no score of another server is left."""
        if self._changed.get(model.served.name):
            model.served.record_server(rescoring=False)


def _told(record: Any) -> Facts:
    """The facts that a server stated about itself and that decide its answers."""
    told = [(s.get("version"), s.get("root"), s.get("max_model_len")) for s in record.get("servers", [])]
    wrapped = [
        (s.get("template"), s.get("takes_instruction"), s.get("prompt_tokens_short")) for s in record.get("rerank", [])
    ]
    return [*told, *wrapped, *([("rescoring",)] if record.get("rescoring") else [])]


def _read(path: Path) -> dict[str, Facts]:
    try:
        return {entry["name"]: _told(entry) for entry in json.loads(path.read_text(encoding="utf-8"))["models"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
