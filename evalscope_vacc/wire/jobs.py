"""One request's way through a run, and whether its refusal may be about one of its items."""

from __future__ import annotations

import itertools

from urllib3.util import Retry

from evalscope_vacc.errors import AuthenticationError, ModelNotServedError, RequestRefusedError, ServerError
from evalscope_vacc.wire.messages import Request
from evalscope_vacc.wire.refusals import SPLITTABLE_STATUS
from evalscope_vacc.wire.servers import Server


class Job:
    """One request and its history in this run."""

    __slots__ = ("avoid", "body", "due", "number", "request", "retry")
    _numbers = itertools.count()

    def __init__(self, request: Request, retry: Retry) -> None:
        self.request = request
        self.body: bytes | None = request.body()
        self.retry = retry
        self.avoid: Server | None = None
        self.due = 0.0
        self.number = next(self._numbers)

    def __lt__(self, other: Job) -> bool:
        return (self.due, self.number) < (other.due, other.number)


def may_be_one_item(error: ServerError) -> bool:
    """Whether a request may have been refused because of one of its items, so that the others would be taken."""
    return (
        isinstance(error, RequestRefusedError)
        and not isinstance(error, (AuthenticationError, ModelNotServedError))
        and error.status in SPLITTABLE_STATUS
    )
