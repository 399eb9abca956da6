"""Makes text that came from outside, or that may hold a secret, fit to be printed, logged or written.

Server messages and texts are hostile input: a control character in them could repaint a terminal, and some servers
repeat the request, its headers or an address with its password in their errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit, urlunsplit

MASK = "***"

_USER_INFO = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/@]+@")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[^\s\"',;}]+")
# C0 and C1 controls except tab and newline, the bidirectional overrides, and the line separators of Unicode
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def clean(text: str, secrets: Iterable[str] = (), limit: int = 2000) -> str:
    """Returns ``text`` without secrets and control characters, at most ``limit`` characters long.

    Args:
        text: Anything that is to be printed, logged, or put into an exception.
        secrets: Exact strings to mask; the longest are masked first, so that one inside another leaves nothing.
        limit: Characters kept; a cut is marked with an ellipsis.
    """
    for secret in sorted({s for s in secrets if s}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = _USER_INFO.sub(rf"\g<scheme>{MASK}@", text)
    text = _BEARER.sub(rf"\1 {MASK}", text)
    text = _CONTROL.sub(lambda m: f"\\x{ord(m.group()):02x}", text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def public_url(url: str) -> str:
    """Returns ``url`` without user information, query and fragment."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    if parts.port is not None:
        host = f"{host}:{parts.port}"
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
