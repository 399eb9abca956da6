"""The evidence of a run: what was sent, to which server, and how it went.

A folder with four small files: ``config.json`` (every value in force, without secrets), ``server.json`` (what the server
said of itself), ``sent_samples.jsonl`` (the first exact strings per task, split and side) and ``usage.json`` (counts and
seconds per task). Several models of one run share the folder; each entry names its model.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from evalscope_vacc.files import write_whole
from evalscope_vacc.paths import cache_folder

SAMPLES = 3
Where: TypeAlias = tuple[str, str, str, str, str]
"""Where a text was sent: model, task, split, subset and side."""
_SUMS = (
    "texts", "unique", "stored", "empty", "requests", "retries", "waited", "seconds", "cut", "at_limit", "tokens",
)  # fmt: skip
SHORTEST = 1e-6  # seconds; below, a rate says nothing


def new_run_folder() -> Path:
    """A folder for a run that no host gave one; never in the current folder."""
    return cache_folder() / "runs" / f"{time.strftime('%Y%m%d_%H%M%S')}-{secrets.token_hex(3)}" / "vacc"


@dataclass
class TaskUsage:
    """Counts of one task on one model.

    Attributes:
        texts: Texts, or pairs, that the task asked for.
        unique: Different ones among them; the others were answered from those.
        stored: How many of the different ones came from the store.
        empty: How many of the different ones were empty.
        cut: How many of the different ones were longer than the limit; None where nobody counted.
        at_limit: Texts of answers whose every text had as many tokens as the limit allows, by the server's own counts:
            where ``cut`` is None, it is at least about this. None where the server or the limit is silent.
        tokens: Tokens that the server counted; None where it does not say.
        requests: Requests answered.
        retries: Requests that were retried.
        waited: Seconds in which nothing was sent because the servers took no requests (429, 503 …).
        seconds: Wall-clock seconds inside the model.
        busy: Share of the network time in which every slot was busy, 0 to 1.
    """

    model: str
    task: str
    split: str
    subset: str
    side: str
    instruction: str = ""
    texts: int = 0
    unique: int = 0
    stored: int = 0
    empty: int = 0
    cut: int | None = 0
    at_limit: int | None = None
    tokens: int | None = None
    requests: int = 0
    retries: int = 0
    waited: float = 0.0
    seconds: float = 0.0
    busy: float | None = None

    @property
    def sent(self) -> int:
        """Texts, or pairs, that went to the server: neither repeated ones nor those from the store."""
        return max(0, self.unique - self.stored)

    @property
    def rate(self) -> float | None:
        """Texts, or pairs, sent per second inside the model; None where none was sent, or the time is not known."""
        return self.sent / self.seconds if self.sent and self.seconds > SHORTEST else None

    @property
    def token_rate(self) -> float | None:
        """Tokens per second; None where nobody counted them."""
        return self.tokens / self.seconds if self.tokens and self.sent and self.seconds > SHORTEST else None

    def plus(self, other: TaskUsage) -> TaskUsage:
        """Adds counts up: one that is not known makes the sum unknown; ``busy`` is weighted by the seconds."""
        sums: dict[str, Any] = {}
        for name in _SUMS:
            mine, theirs = getattr(self, name), getattr(other, name)
            sums[name] = None if mine is None or theirs is None else mine + theirs
        known = [(part.busy, part.seconds) for part in (self, other) if part.busy is not None and part.seconds > 0]
        whole = sum(seconds for _, seconds in known)
        return replace(other, **sums, busy=sum(busy * part for busy, part in known) / whole if whole else None)

    def line(self) -> str:
        """One line for people; the rates are of what was sent."""
        rate = "none sent" if self.rate is None else f"{self.rate:,.0f} sent/s"
        side = f" {self.side}" if self.side else ""
        parts = [
            f"{self.task} [{self.split}/{self.subset}]{side}: {self.texts:,} texts in {self.seconds:.1f} s ({rate})",
            f"{self.requests:,} requests",
        ]
        if self.tokens is not None:
            each = "" if self.token_rate is None else f" ({self.token_rate:,.0f}/s)"
            parts.append(f"{self.tokens:,} tokens{each}")
        if self.unique != self.texts:
            parts.append(f"{self.texts - self.unique:,} repeated")
        if self.stored:
            parts.append(f"{self.stored:,} from the store")
        if self.empty:
            parts.append(f"{self.empty:,} empty")
        if self.cut:
            parts.append(f"{self.cut:,} cut to the limit")
        if self.cut is None:
            parts.append(
                f"at least {self.at_limit:,} cut to the limit or just as long (set tokenizer to count all of them)"
                if self.at_limit
                else "cut texts not counted (set tokenizer to count them)"
            )
        if self.retries:
            parts.append(f"{self.retries:,} retries")
        if self.waited >= 1:
            parts.append(f"waited {self.waited:,.0f} s for servers that took no requests")
        if self.busy is not None:
            parts.append(f"all slots busy {self.busy:.0%} of the time")
        return ", ".join(parts)


@dataclass
class Evidence:
    """Writes the four files. Every method may be called from any thread, and any number of times."""

    folder: Path
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _seen: dict[Where, int] = field(default_factory=dict, repr=False)
    _usage: dict[tuple[str, ...], TaskUsage] = field(default_factory=dict, repr=False)

    def config(self, model: str, values: Mapping[str, Any]) -> None:
        """Records the values in force for one model."""
        self._merge("config.json", model, values)

    def server(self, model: str, facts: Mapping[str, Any]) -> None:
        """Records what a model's server said of itself."""
        self._merge("server.json", model, facts)

    def samples(self, where: Where, sent: Sequence[str | tuple[str, str]], tokens: Sequence[int | None] = ()) -> None:
        """Adds exact strings (or pairs) to the samples until there are three from there."""
        with self._lock:
            have = self._seen.get(where, 0)
            lines = []
            for position, item in enumerate(sent[: SAMPLES - have]):
                entry: dict[str, Any] = dict(zip(("model", "task", "split", "subset", "side"), where, strict=True))
                if isinstance(item, str):
                    entry["text"] = item
                else:
                    entry["text_1"], entry["text_2"] = item
                entry["tokens"] = tokens[position] if position < len(tokens) else None
                lines.append(json.dumps(entry, ensure_ascii=False))
            if lines:
                self.folder.mkdir(parents=True, exist_ok=True)
                with (self.folder / "sent_samples.jsonl").open("a", encoding="utf-8") as file:
                    file.write("\n".join(lines) + "\n")
                self._seen[where] = have + len(lines)

    def wants(self, where: Where) -> bool:
        """Whether samples from there are still missing; making them costs a little."""
        return self._seen.get(where, 0) < SAMPLES

    def usage(self, counts: TaskUsage) -> None:
        """Adds counts; calls for the same task, split, subset and side add up."""
        key = (counts.model, counts.task, counts.split, counts.subset, counts.side)
        with self._lock:
            self._usage[key] = self._usage[key].plus(counts) if key in self._usage else replace(counts)
            own = {row.model for row in self._usage.values()}
            try:
                known = json.loads((self.folder / "usage.json").read_text(encoding="utf-8"))["tasks"]
            except (OSError, ValueError, KeyError, TypeError):
                known = []
            others = [row for row in known if isinstance(row, dict) and row.get("model") not in own]
            self._write("usage.json", {"tasks": [*others, *map(asdict, self._usage.values())]})

    def _merge(self, name: str, model: str, values: Mapping[str, Any]) -> None:
        with self._lock:
            path = self.folder / name
            try:
                known = json.loads(path.read_text(encoding="utf-8"))["models"]
            except (OSError, ValueError, KeyError, TypeError):
                known = []
            kept = [entry for entry in known if isinstance(entry, dict) and entry.get("name") != model]
            self._write(name, {"models": [*kept, {"name": model, **values}]})

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        text = json.dumps(content, ensure_ascii=False, indent=1, default=str)
        write_whole(self.folder / name, f"{text}\n")
