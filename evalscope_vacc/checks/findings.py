"""What a check found, typed: one finding a question, one report a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Literal

State = Literal["ok", "warning", "wrong"]
_RANK: Mapping[State, int] = MappingProxyType({"ok": 0, "warning": 1, "wrong": 2})

# docs/checks.md lists each of these with its test; a test holds the two together
CHECKS: Mapping[str, str] = MappingProxyType(
    {
        "reachable": "The server answers",
        "key": "The key is accepted",
        "model": "The model is served under this name",
        "version": "The server's version",
        "max-length": "The longest text that the server takes",
        "token-counts": "Tokens can be counted",
        "catalog": "The configuration agrees with the catalog",
        "kind": "Embedding model or cross-encoder",
        "answers": "Answers are complete",
        "finite": "Every number is finite",
        "dimensions": "The size of a vector",
        "norm": "The length of a vector",
        "repeat": "The same text twice gives the same",
        "batch": "Alone and in a batch give the same",
        "order": "Answers belong to their texts",
        "base64": "base64 and plain numbers agree",
        "truncation": "The server cuts when it is asked to",
        "end-token": "A text that was cut keeps its end-of-sequence token",
        "long-texts": "Texts past the limit",
        "prefix": "A prefix is put before a text once",
        "template": "The reranker's template is applied once",
        "instruction": "An instruction reaches the model",
        "sanity": "Obvious questions find their answers",
        "spread": "Scores differ",
        "grain": "Scores are finely graded",
        "servers-agree": "All servers serve the same weights",
        "concurrency": "Requests are worked on side by side",
        "speed": "Time of a request",
        "time": "Everything was checked in time",
    }
)


@dataclass(frozen=True)
class Finding:
    """The answer to one question about a server.

    Attributes:
        check: A key of :data:`CHECKS`.
        state: "ok"; "warning": look at it, scores may still be right; "wrong": scores will be wrong, or there will be none.
        seen: What was observed.
        meaning: What follows from it for scores; "" where nothing does.
        action: What to do; "" where nothing has to be done.
        server: The address, where a model has several.
    """

    check: str
    state: State
    seen: str
    meaning: str = ""
    action: str = ""
    server: str = ""

    @property
    def title(self) -> str:
        """The question."""
        return CHECKS[self.check]

    def line(self) -> str:
        """Everything in one line, for a log."""
        where = f" ({self.server})" if self.server else ""
        rest = ". ".join(part for part in (self.seen, self.meaning, self.action) if part)
        return f"{self.check}{where}: {rest}"


@dataclass(frozen=True)
class Report:
    """All findings about one model.

    Attributes:
        model: Served name.
        servers: Addresses as they may be printed.
        kind: "encoder", "cross-encoder", or "" where it could not be told.
        findings: In the order of the checks.
        seconds: What the check took.
    """

    model: str
    servers: tuple[str, ...]
    kind: str = ""
    findings: Sequence[Finding] = field(default_factory=tuple)
    seconds: float = 0.0

    @property
    def state(self) -> State:
        """The worst of all findings."""
        return max((finding.state for finding in self.findings), key=_RANK.__getitem__, default="ok")

    @property
    def exit_status(self) -> int:
        """1 where something is wrong, else 0."""
        return int(self.state == "wrong")

    def of(self, check: str) -> Finding | None:
        """The worst finding of one check, or None where it was not made."""
        mine = [finding for finding in self.findings if finding.check == check]
        return max(mine, key=lambda finding: _RANK[finding.state], default=None)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "model": self.model,
            "servers": list(self.servers),
            "kind": self.kind,
            "state": self.state,
            "seconds": round(self.seconds, 3),
            "findings": [{**asdict(finding), "title": finding.title} for finding in self.findings],
        }
