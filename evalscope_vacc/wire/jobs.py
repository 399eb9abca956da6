"""One request's way through a run, and the error that its answer may turn out to be."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from urllib3.util import Retry

from evalscope_vacc.errors import BadAnswerError, ServerError
from evalscope_vacc.redact import clean
from evalscope_vacc.wire.messages import Answer, Request
from evalscope_vacc.wire.refusals import MESSAGE_LIMIT
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


def named(error: ServerError, job: Job, answer: Answer, secrets: Iterable[str]) -> ServerError:
    """Returns an error of the caller's ``handle`` with server, path and items named, and secrets masked.

    Args:
        error: As ``handle`` raised it; one that already names its server keeps its words.
        job: The request.
        answer: Its answer.
        secrets: Strings that the server knows and may have repeated.
    """
    secrets = tuple(secrets)
    words = clean(str(error), secrets)
    if error.server and words == str(error):
        return error
    about = f" for {job.request.describe}" if job.request.describe else ""
    fields: dict[str, Any] = {
        "server": answer.server,
        "status": answer.status,
        "server_message": clean(error.server_message, secrets, MESSAGE_LIMIT),
        "path": job.request.path,
    }
    if isinstance(error, BadAnswerError):
        fields.update(retryable=error.retryable, item=error.item)
    if not error.server:
        words = f"{answer.server}{job.request.path} gave a wrong answer{about}: {words}"
    return type(error)(words, **fields)
