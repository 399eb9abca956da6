"""Reads servers' error messages, whatever their shape, and maps them to our errors.

vLLM alone has four shapes (0.9.2 to 0.33.0), OpenAI, text-embeddings-inference, infinity and proxies add theirs:

* ``{"object": "error", "message": …}`` (vLLM up to 0.10.0)
* ``{"error": {"message": …, "type": …, "param": …, "code": …}}``
* ``{"error": "Unauthorized"}``
* ``{"detail": "Not Found"}`` or FastAPI's list of ``{"loc", "msg"}``
* a page of HTML, plain text, nothing
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable
from typing import Any

from evalscope_vacc.errors import (
    AuthenticationError,
    BadAnswerError,
    EngineDeadError,
    InputTooLongError,
    ModelNotServedError,
    RequestRefusedError,
    ServerError,
    ServerFaultError,
    ServerTimeoutError,
)
from evalscope_vacc.redact import clean
from evalscope_vacc.wire.messages import Answer

# The server, or a gateway before it, takes no requests at the moment, whatever they hold.
BUSY_STATUS = frozenset({429, 502, 503, 504})
# A fault that may be over next time; 424 is text-embeddings-inference's fault of the backend.
FAULT_STATUS = frozenset({408, 424, 500})
# Refusals that may be about a single item, or about the size of the request; and faults that one item may cause.
SPLITTABLE_STATUS = frozenset({400, 413, 422, 424, 500})

# Up to vLLM 0.17 a validation error repeats the whole request, so a message is cut.
MESSAGE_LIMIT = 600

# the wordings of vLLM 0.9.2 to 0.33.0, then those of text-embeddings-inference and OpenAI
_TOO_LONG = re.compile(
    r"maximum context length|context length is only|longer than the maximum model length"
    r"|maximum embedding input length|`?inputs`? must have less than \d+ tokens|maximum input length"
    r"|maximum allowed (?:token|input) ?length|string_above_max_length"
    r"|too large to process|max(?:imum)? context size|exceed_context_size"
    r"|should have at most \d+ characters",
    re.IGNORECASE,
)
# asking to cut to more tokens than the model takes is a wrong request, not a long text
_NOT_TOO_LONG = re.compile(r"truncate_prompt_tokens", re.IGNORECASE)
_TOKEN_LIMIT = re.compile(
    r"(?:context length|model length|input length|maximum length (?:is|of)|max(?:imum)? context size|max_model_len"
    r"|current batch size|must have less than)\D{0,24}?(\d{2,7})",
    re.IGNORECASE,
)
# DashScope, SiliconFlow, Gemini, text-embeddings-inference, FastAPI's list of items; never a number of tokens
_BATCH_LIMIT = re.compile(
    r"batch[ _]?size\D{0,60}?(?:\d+\D{0,20})?(?:larger|greater|more|exceed\w*|maximum|at most|limit)\D{0,40}?(\d+)"
    r"|maximum (?:allowed )?batch size\D{0,20}?(\d+)"
    r"|(?:at most|maximum of|no more than|up to|limit of)\s*(\d+)\s*"
    r"(?:requests|inputs?|items|texts|documents|elements|contents|strings)",
    re.IGNORECASE,
)
_OF_SIZE = re.compile(r"\btokens?\b|\bbytes?\b|payload|body|entity|too large|\bMB\b|\bKB\b", re.IGNORECASE)
# how long services ask to be left alone, in the text
_DURATION = r"(\d+(?:\.\d+)?)\s*(ms|milli|h|m|s|)"
_RETRY_IN = re.compile(
    rf"(?:retry|try again|wait)(?: again)?(?: after| in| for)\D{{0,20}}?((?:{_DURATION}[a-z]*\s*)+)", re.I
)
# retries do not help: the account is empty
_NO_QUOTA = re.compile(r"insufficient[_ ](?:quota|balance)|exceeded your current quota|arrear|billing", re.IGNORECASE)
_ENGINE_DEAD = re.compile(
    r"EngineCore encountered an issue|EngineDeadError|Engine (?:loop|core) (?:is|has) (?:dead|died|not running)",
    re.IGNORECASE,
)
_NO_MODEL = re.compile(
    r"model\b.*(?:does not exist|not found|not available|is not served|unknown)|model_not_found",
    re.IGNORECASE | re.DOTALL,
)
# infinity and LiteLLM
_INVALID_MODEL = re.compile(r"invalid model\b|model_not_found", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_HIDDEN = re.compile(r"<(script|style)\b.*?</\1>|<!--.*?-->", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^>]*>")


def read_error(status: int, body: bytes, content_type: str = "") -> str:
    """Returns the server's own message out of an answer that is not a success, or "" where it has none.

    Args:
        status: HTTP status of the answer.
        body: Its body, of any shape.
        content_type: Its Content-Type, where known.

    Returns:
        The message on one or more lines; not yet cleaned of secrets or control characters, not shortened.
    """
    text = body[:1_000_000].decode("utf-8", errors="replace").strip()
    if not text:
        return ""
    if text[0] in '{["':
        try:
            message = error_message(json.loads(text))
        except (ValueError, RecursionError):
            message = None
        if message is not None:
            return message
    if "html" in content_type.lower() or re.match(r"<!doctype html|<html|<head|<body|<\?xml", text, re.IGNORECASE):
        return _from_html(text, status)
    return text


def error_message(document: Any) -> str | None:
    """Returns the message of a JSON document that carries an error, or None where it carries none.

    Also for answers with status 200: up to 0.14, vLLM sends errors with it.
    """
    if not isinstance(document, dict):
        return document if isinstance(document, str) else None
    error = document.get("error")
    if isinstance(error, dict):
        return _words(error.get("message")) or _words(error) or "an error without a message"
    if isinstance(error, str) and error:
        return error
    if error:
        return _words(error)
    if "detail" in document:
        return _from_detail(document["detail"])
    if document.get("object") == "error" or ("message" in document and "data" not in document):
        return _words(document.get("message")) or "an error without a message"
    return None


def is_engine_dead(message: str) -> bool:
    """Whether these words say that the server's engine died: nothing but its restart helps."""
    return _ENGINE_DEAD.search(message) is not None


def seconds_asked_for(message: str) -> float | None:
    """Returns the seconds after which these words ask to try again, or None where they name none."""
    found = _RETRY_IN.search(message)
    return None if found is None else read_duration(found.group(1))


def read_duration(text: str) -> float | None:
    """Returns the seconds of "55 seconds", "6m0s", "1.2s", "20ms" or a number; None where there is none."""
    parts = re.findall(_DURATION, text.lower())
    factors = {"ms": 0.001, "milli": 0.001, "h": 3600, "m": 60}
    return sum(float(number) * factors.get(unit, 1) for number, unit in parts) if parts else None


def is_out_of_quota(message: str) -> bool:
    """Whether these words say that an account is empty, rather than that it asks too often."""
    return _NO_QUOTA.search(message) is not None


def batch_limit(error: ServerError) -> int | None:
    """Returns how many items a request may hold by the words of a refusal, or None where they do not say."""
    found = _BATCH_LIMIT.search(error.server_message)
    named = next((int(number) for number in found.groups() if number), 0) if found is not None else 0
    return named or None


def is_about_size(error: ServerError) -> bool:
    """Whether a refusal is about the bytes or tokens of a request rather than the number of its items."""
    return error.status == 413 or _OF_SIZE.search(error.server_message) is not None


def token_limit(message: str) -> int | None:
    """Returns how many tokens a text may have by the words of a refusal, or None where they do not say."""
    found = _TOKEN_LIMIT.search(message)
    return None if found is None else int(found.group(1))


def is_missing_route(error: ServerError) -> bool:
    """Whether a refusal means that the server has no such endpoint (as opposed to no such model)."""
    return error.status in {404, 405, 501} and not isinstance(error, ModelNotServedError)


def refusal(
    status: int,
    message: str,
    *,
    server: str,
    path: str,
    describe: str = "",
    secrets: Iterable[str] = (),
    location: str = "",
) -> ServerError:
    """Returns the error for an answer whose status is not 2xx.

    Args:
        status: HTTP status.
        message: The server's words, as :func:`read_error` found them.
        server: Address as it may be printed.
        path: What was asked.
        describe: What the request carried.
        secrets: Strings to mask.
        location: Where a redirection points to.
    """
    words = clean(message, secrets, MESSAGE_LIMIT)
    said = words and f": {words}"
    about = f" for {describe}" if describe else ""
    where = f"{server}{path}"
    fields: dict[str, Any] = {"server": server, "status": status, "server_message": words, "path": path}
    if is_engine_dead(message):
        return EngineDeadError(
            f"The engine of {server} died{about} (HTTP {status}{said}). Restart the server and run again.", **fields
        )
    if status in {401, 403}:
        return AuthenticationError(
            f"{server} refuses the key (HTTP {status}{said}). Check api_key, or the variable that it names.", **fields
        )
    if (status == 404 and _NO_MODEL.search(message)) or (status == 400 and _INVALID_MODEL.search(message)):
        return ModelNotServedError(
            f"{server} does not serve this model (HTTP {status}{said}). model_name has to be what the server was started "
            "with (--served-model-name); /v1/models lists it.",
            **fields,
        )
    if status in SPLITTABLE_STATUS and _TOO_LONG.search(message) and not _NOT_TOO_LONG.search(message):
        limit = token_limit(message)
        key = f"max_tokens: {limit}" if limit else "max_tokens"
        todo = f"Set {key}, or leave truncate at 'cut'."
        return InputTooLongError(
            f"{where} refuses {describe or 'a text'} as too long (HTTP {status}{said}). {todo}", **fields
        )
    if 300 <= status < 400:
        target = clean(location.partition("?")[0], secrets, 200)  # its query may hold a key
        return RequestRefusedError(
            f"{where} redirects to {target or 'another address'} (HTTP {status}). Redirections are not followed: they "
            "would carry the key away. Put the final address into api_base.",
            **fields,
        )
    if status == 408:
        return ServerTimeoutError(f"{where} gave up waiting for the request{about} (HTTP 408{said}).", **fields)
    if status in {424, 429} or status >= 500:
        return ServerFaultError(f"{where} failed{about} (HTTP {status}{said}).", **fields)
    hint = " The server has no such endpoint; is api_base the server's root?" if status in {404, 405} else ""
    return RequestRefusedError(f"{where} refuses the request{about} (HTTP {status}{said}).{hint}", **fields)


def _words(value: Any) -> str:
    if isinstance(value, str):
        return value
    if not value:
        return ""
    try:
        return json.dumps(value, ensure_ascii=False)[:MESSAGE_LIMIT]
    except (ValueError, RecursionError):
        return ""


def _from_detail(detail: Any) -> str:
    if not isinstance(detail, list):
        return _words(detail) or "an error without a message"
    lines = []
    for part in detail:
        if isinstance(part, dict) and isinstance(part.get("msg"), str):
            loc = part.get("loc")
            place = ".".join(str(step) for step in loc) if isinstance(loc, list) else ""
            lines.append(f"{place}: {part['msg']}" if place else part["msg"])
        else:
            lines.append(_words(part))
    return "; ".join(line for line in lines if line) or "an error without a message"


def _from_html(text: str, status: int) -> str:
    title = _TITLE.search(text)
    body = _TAG.sub(" ", _HIDDEN.sub(" ", text[:50_000]))
    if title is not None and title.group(1).strip():
        body = title.group(1)
    words = " ".join(html.unescape(body).split())
    return f"a page of HTML: {words[:200]}" if words else f"a page of HTML (HTTP {status})"


def with_context(error: ServerError, answer: Answer, path: str, secrets: Iterable[str], about: str = "") -> ServerError:
    """Returns what a reader of answers raised with server and path named, and secrets masked.

    Args:
        error: As it was raised; one that already names its server keeps its words.
        answer: What was read.
        path: What was asked.
        secrets: Strings that the server knows and may have repeated.
        about: What the request held.
    """
    secrets = tuple(secrets)
    words = clean(str(error), secrets)
    if error.server and words == str(error):
        return error
    fields: dict[str, Any] = {
        "server": answer.server,
        "status": answer.status,
        "server_message": clean(error.server_message, secrets, MESSAGE_LIMIT),
        "path": path,
    }
    if isinstance(error, BadAnswerError):
        fields.update(retryable=error.retryable, item=error.item)
    if not error.server:
        words = f"{answer.server}{path} gave a wrong answer{f' for {about}' if about else ''}: {words}"
    return type(error)(words, **fields)
