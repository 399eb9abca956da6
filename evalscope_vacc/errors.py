"""One tree of exceptions: everything that this package raises on purpose is a :class:`VaccError`.

A message says what was seen, where, and what to do next. It never holds a secret: whoever builds one from a server's
answer or an address passes it through :mod:`evalscope_vacc.redact` first.
"""

from __future__ import annotations


class VaccError(Exception):
    """Root of the tree."""


class ConfigError(VaccError):
    """A key, value or file of the configuration cannot be used.

    Not a ``ValueError`` on purpose: raised inside a pydantic validator of a host, a ``ValueError`` would be wrapped into
    a ``ValidationError`` that repeats the whole input, API key included.
    """


class NoAddressError(ConfigError):
    """The address of a served model is not known."""


class HostError(VaccError):
    """EvalScope or MTEB is of a version, or in a state, that cannot work here."""


class PluginError(VaccError):
    """A plugin is broken, or a name is provided by none or by two of them."""


class TextError(VaccError):
    """The exact text to send cannot be made."""


class TextTooLongError(TextError):
    """A text is longer than the limit and may not, or cannot, be cut."""


class DataError(VaccError):
    """The data of a task cannot be loaded."""


class StoreError(VaccError):
    """Stored vectors or scores cannot be used."""


class ResultError(VaccError):
    """Result files cannot be read or compared."""


class RunFailed(VaccError):  # noqa: N818 -- how a run ended
    """One or more tasks of a run failed; the message says which and why, and what was finished.

    Attributes:
        result: The results of the finished tasks, as :func:`evalscope_vacc.run` returns them; None where there are none.
    """

    def __init__(self, message: str = "", result: object = None) -> None:
        super().__init__(message)
        self.result = result


class RunInterrupted(VaccError):  # noqa: N818 -- how a run ended
    """A run was stopped by the user; finished requests are kept."""

    def __init__(
        self,
        message: str = "stopped by the user; finished requests are kept. Run the same command again to continue.",
    ) -> None:
        super().__init__(message)


class ServerError(VaccError):
    """A server could not be reached, refused a request, or gave a wrong answer.

    Attributes:
        server: Address without user information, as it may be printed.
        status: HTTP status, or None where there was no answer.
        server_message: The server's own words, cleaned for printing, or "".
        path: The path that was asked, such as "/v1/embeddings".
    """

    def __init__(
        self, message: str, *, server: str = "", status: int | None = None, server_message: str = "", path: str = ""
    ) -> None:
        super().__init__(message)
        self.server = server
        self.status = status
        self.server_message = server_message
        self.path = path


class ServerUnreachableError(ServerError):
    """There was no connection, or it broke, and neither retries nor waiting helped."""


class ServerTimeoutError(ServerUnreachableError):
    """The server did not answer in ``timeout_s``, and the retries are used up."""


class RequestRefusedError(ServerError):
    """The server answered 4xx: the request is wrong and is not retried."""


class AuthenticationError(RequestRefusedError):
    """401 or 403: the key is missing or wrong."""


class ModelNotServedError(RequestRefusedError):
    """The server does not serve a model of this name."""


class InputTooLongError(RequestRefusedError):
    """A text is longer than the server's maximum length."""


class ServerFaultError(ServerError):
    """5xx or 429 that outlasted the retries, or the wait for the server; or an item that stops the server."""


class EngineDeadError(ServerFaultError):
    """The server's engine died; nothing but its restart helps."""


class BadAnswerError(ServerError):
    """A 2xx answer with wrong content: count, order, size, a number that is not finite, or an error in its body.

    Attributes:
        retryable: The answer was damaged on its way or written by something in between (broken JSON, a proxy's page):
            asking again may help. Wrong content of a well-formed answer is not: a server that gives it once is not
            to be trusted with the next.
        item: Position of the wrong item within the request, where it is known.
    """

    def __init__(
        self,
        message: str,
        *,
        server: str = "",
        status: int | None = None,
        server_message: str = "",
        path: str = "",
        retryable: bool = False,
        item: int | None = None,
    ) -> None:
        super().__init__(message, server=server, status=status, server_message=server_message, path=path)
        self.retryable = retryable
        self.item = item


class NotFiniteError(BadAnswerError):
    """An answer with NaN or infinity in it."""
