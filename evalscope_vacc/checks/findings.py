"""What a check found, typed: a code of the catalogue of messages, and its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from evalscope_vacc.messages import ENGLISH, Words, messages, states

State = Literal["ok", "warning", "wrong"]
STATES: tuple[State, ...] = ("ok", "warning", "wrong")

CHECKS: tuple[str, ...] = tuple(code.removesuffix(".title") for code in messages() if code.endswith(".title"))
"""Every question about a server, in the order of ``view/messages.toml``."""


@dataclass(frozen=True)
class Finding:
    """The answer to one question about a server."""

    code: str  # ``check.what``, as in the catalogue of messages; ``check.request`` where a request was refused
    # the figures, names and reasons that its words have places for; fit to be printed
    args: Mapping[str, Any] = field(default_factory=dict)
    server: str = ""  # the address, where a model has several
    softened: bool = False  # whether what is wrong is said as a warning, as before a run

    @property
    def check(self) -> str:
        """One of :data:`CHECKS`."""
        return self.code.partition(".")[0]

    @property
    def state(self) -> State:
        """How bad it is: with a warning scores may still be right; "wrong" makes them wrong, or there will be none."""
        bad: Any = states().get(self._name, "ok")
        state: State = bad
        return "warning" if self.softened and state == "wrong" else state

    def say(self, part: str, words: Words = ENGLISH) -> str:
        """Says what was ``seen``, its ``meaning`` for scores, or the ``action`` to take; "" where there is none."""
        code = f"{self._name}.{part}"
        return words(code, **self.args) if code in words else ""

    @property
    def seen(self) -> str:
        """What was observed."""
        return self.say("seen")

    @property
    def meaning(self) -> str:
        """What follows from it for scores."""
        return self.say("meaning")

    @property
    def action(self) -> str:
        """What to do."""
        return self.say("action")

    @property
    def _name(self) -> str:
        return "request" if self.code.endswith(".request") else self.code

    def line(self, words: Words = ENGLISH) -> str:
        """Everything in one line."""
        where = words("at_server", server=self.server) if self.server else ""
        said = (self.say(part, words) for part in ("seen", "meaning", "action"))
        return f"{self.check}{where}{words('colon')}{words('stop').join(part for part in said if part)}"


@dataclass(frozen=True)
class Report:
    """All findings about one model."""

    model: str  # served name
    servers: tuple[str, ...]  # addresses as they may be printed
    kind: str = ""  # "encoder", "cross-encoder", or "" where it could not be told
    findings: Sequence[Finding] = ()  # in the order of the checks
    seconds: float = 0.0  # what the check took

    @property
    def state(self) -> State:
        """The worst of all findings."""
        return max((finding.state for finding in self.findings), key=STATES.index, default="ok")

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
        return max(mine, key=lambda finding: STATES.index(finding.state), default=None)
