"""What a check found, typed: a code and its figures. What they mean in words stands in :mod:`.wording`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from evalscope_vacc.checks.wording import CHECKS, WORDS, State

_RANK: Mapping[State, int] = {"ok": 0, "warning": 1, "wrong": 2}


@dataclass(frozen=True)
class Finding:
    """The answer to one question about a server.

    Attributes:
        code: ``check.what``, a key of :data:`~evalscope_vacc.checks.wording.WORDS`.
        args: The figures and names that its words have places for; plain values, fit to be printed.
        server: The address, where a model has several.
        softened: Whether what is wrong is said as a warning, as before a run.
    """

    code: str
    args: Mapping[str, Any] = field(default_factory=dict)
    server: str = ""
    softened: bool = False

    @property
    def check(self) -> str:
        """A key of :data:`~evalscope_vacc.checks.wording.CHECKS`."""
        return self.code.partition(".")[0]

    @property
    def state(self) -> State:
        """How bad it is: with a warning scores may still be right; "wrong" makes them wrong, or there will be none."""
        state = WORDS[self.code].state
        return "warning" if self.softened and state == "wrong" else state

    @property
    def title(self) -> str:
        """The question."""
        return CHECKS[self.check]

    @property
    def seen(self) -> str:
        """What was observed."""
        return WORDS[self.code].seen.format_map(self.args)

    @property
    def meaning(self) -> str:
        """What follows from it for scores; "" where nothing does."""
        return WORDS[self.code].meaning.format_map(self.args)

    @property
    def action(self) -> str:
        """What to do; "" where nothing has to be done."""
        return WORDS[self.code].action.format_map(self.args)

    def soften(self) -> Finding:
        """The same, never more than a warning."""
        return replace(self, softened=True)

    def line(self) -> str:
        """Everything in one line, for a log."""
        where = f" ({self.server})" if self.server else ""
        rest = ". ".join(part for part in (self.seen, self.meaning, self.action) if part)
        return f"{self.check}{where}: {rest}"

    def to_json(self) -> dict[str, Any]:
        """Plain values, in words and as code and figures."""
        words = {
            name: getattr(self, name) for name in ("check", "state", "seen", "meaning", "action", "server", "title")
        }
        return {**words, "code": self.code, "args": dict(self.args)}


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

    def having(self, state: State) -> list[Finding]:
        """The findings of one state."""
        return [finding for finding in self.findings if finding.state == state]

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
            "findings": [finding.to_json() for finding in self.findings],
        }
