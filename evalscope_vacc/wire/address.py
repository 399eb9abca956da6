"""Addresses of servers: one canonical form, what may be printed of it, and whether it lies on this network.

All spellings that users copy from model cards, SDKs and scripts mean the same server: ``http://h:8000``,
``http://h:8000/v1/``, ``http://h:8000/v1/rerank`` … The canonical form is the root, without ``/v1``; a path that a
reverse proxy puts in front of it is kept. An address that ends in another version (``/api/v3``,
``/v1beta/openai``) or in an Azure deployment is what OpenAI's client calls ``base_url``: endpoints follow it without
``/v1`` (:func:`endpoint`). A query (``?api-version=…``) goes with every request.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.redact import clean, public_url

_DEFAULT_PORTS = {"http": 80, "https": 443}
# what a user may have copied behind the root: an API version, an endpoint, or both
_ENDPOINT = re.compile(
    r"(?:/v[12])?/(?:embeddings|embed|rerank|score|pooling|classify|tokenize|detokenize|models|completions"
    r"|chat/completions|chat|health|version|metrics|docs)$|/v1$",
    re.IGNORECASE,
)
# what OpenAI's client would append an endpoint to, beside /v1: another version, alone or of a path of its own
_OWN_VERSION = re.compile(r"/v\d+(?:(?:alpha|beta|preview)\d*)?(?:/openai)?$|/openai/deployments/[^/]+$", re.IGNORECASE)
_ADDRESS = re.compile(r"(?:[a-z][a-z0-9+.-]*://\S+|(?:[\w.-]+|\[[0-9a-f:]+\]):\d+(?:/\S*)?)", re.IGNORECASE)
_SECRET_FIELD = re.compile(r"auth|key|token|secret|sig|password|credential", re.IGNORECASE)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?")
# names that are only given out on private networks (RFC 6761, RFC 6762, RFC 8375, ICANN's .internal)
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal", ".lan", ".home.arpa")


def is_address(text: str) -> bool:
    """Whether a command's argument is a server's address and not a file."""
    return not Path(text).exists() and _ADDRESS.fullmatch(text) is not None


def normalize_base(url: str) -> str:
    """Returns the root of a server's address.

    ``/v1`` and the names of endpoints are cut off, scheme and host are written in lower case, default ports, doubled
    and trailing slashes are dropped. User information and a query stay in the result, because the engine needs them;
    use :func:`public_base` for everything that is printed, logged or hashed.

    Args:
        url: Any usual spelling of the address, with ``http://`` or ``https://``.

    Raises:
        ConfigError: It is not an address of a server; the message holds no user information.
    """
    if not isinstance(url, str) or not url.strip():
        msg = "api_base is empty: give the address of the server, such as http://127.0.0.1:8000"
        raise ConfigError(msg)
    text = url.strip()
    shown = _shown(text)
    if re.search(r"[\x00-\x20\x7f\\]", text):
        raise ConfigError(f"api_base {shown!r} holds a space, a control character or a backslash")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ConfigError(
            f"api_base {shown!r} is not an address: check the port (1 to 65535) and, for IPv6, the brackets"
        ) from None
    scheme = parts.scheme.lower()
    if scheme not in _DEFAULT_PORTS or not parts.netloc:
        raise ConfigError(f"api_base {shown!r} needs http:// or https:// in front, such as http://127.0.0.1:8000")
    if parts.fragment:
        raise ConfigError(f"api_base {shown!r} must not have a fragment (#…)")
    if port == 0:
        raise ConfigError(f"api_base {shown!r} names port 0; give the port that the server listens on")
    host = _host(parts.hostname or "", shown)
    user_info, at, _ = parts.netloc.rpartition("@")
    shown_port = "" if port is None or port == _DEFAULT_PORTS[scheme] else f":{port}"
    path = re.sub(r"/{2,}", "/", parts.path).rstrip("/")
    path = _ENDPOINT.sub("", path).rstrip("/")
    query = quote(parts.query, safe="%=&+,;:@/?!$'()*[]~-._")
    return f"{scheme}://{user_info}{at}{host}{shown_port}{path}{'?' if query else ''}{query}"


def endpoint(base: str, path: str) -> str:
    """Returns the URL of an endpoint, without user information.

    Args:
        base: A normalised address.
        path: Behind a server's root, such as "/v1/embeddings"; where the address ends in a version of its own, that
            stands in place of ``/v1``. One that begins with "//" follows the host, whatever the address' path is.
    """
    parts = urlsplit(base)
    # a path may be written in percent-encoding, or without
    root = quote(re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", parts.path), safe="/%:@!$&'()*+,;=~-._")
    if path.startswith("//"):
        root, path = "", path[1:]
    elif _OWN_VERSION.search(root):
        path = re.sub(r"^/v1(?=/|$)", "", path)
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{urlsplit(public_base(base)).netloc}{root}{path}{query}"


def public_base(base: str) -> str:
    """Returns a normalised address without user information and query: the form for messages, files and hashes."""
    return public_url(base)


def query_secrets(base: str) -> tuple[str, ...]:
    """Returns what of an address' query may not be seen, as it is written and decoded."""
    fields = [field.partition("=") for field in urlsplit(base).query.split("&")]
    found = [value for name, _, value in fields if value and (_SECRET_FIELD.search(name) or len(value) >= 20)]
    return tuple(dict.fromkeys(form for value in found for form in (value, unquote(value))))


def user_info(base: str) -> tuple[str, str] | None:
    """Returns user and password of an address, percent-decoded, or None where it has none."""
    parts = urlsplit(base)
    if parts.username is None:
        return None
    return unquote(parts.username), unquote(parts.password or "")


def is_local(base: str) -> bool:
    """Whether a server lies on this machine or on a private network, judged by its address alone (no look-up).

    Such servers are reached directly: a proxy of the environment is meant for the world outside. Besides loopback,
    private and link-local addresses, these are names without a dot and names under suffixes that are reserved for
    private networks.
    """
    host = (urlsplit(base).hostname or "").rstrip(".")
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "." not in host or host.endswith(_LOCAL_SUFFIXES)
    return address.is_loopback or address.is_private or address.is_link_local or address.is_unspecified


def server_revision(bases: Iterable[str]) -> str:
    """Returns the revision of a served model that has no better one: its place.

    ``served-`` and the first 8 hexadecimal digits of the sha256 of the sorted, normalised addresses, one per line,
    without user information. It is a part of a result's name, so that the cached scores of another endpoint are never
    taken for those of this one.

    Args:
        bases: Addresses in any spelling; order and repetition do not matter.

    Raises:
        ConfigError: There is no address, or one is not an address.
    """
    public = sorted({public_base(normalize_base(base)) for base in bases})
    if not public:
        msg = "no api_base: a revision cannot be made without an address"
        raise ConfigError(msg)
    return "served-" + hashlib.sha256("\n".join(public).encode()).hexdigest()[:8]


def _host(host: str, shown: str) -> str:
    """Checks and writes a host: IPv6 compressed and in brackets, names in lower case and in ASCII."""
    if ":" in host:
        bare, percent, zone = host.partition("%")
        try:
            return f"[{ipaddress.IPv6Address(bare).compressed}{percent}{zone}]"
        except ValueError:
            raise ConfigError(f"api_base {shown!r}: {clean(host)!r} is not an IPv6 address") from None
    try:
        ascii_host = host.lower().encode("ascii" if host.isascii() else "idna").decode("ascii").rstrip(".")
    except UnicodeError:
        ascii_host = ""
    if not ascii_host or len(ascii_host) > 253 or not all(map(_LABEL.fullmatch, ascii_host.split("."))):
        raise ConfigError(f"api_base {shown!r}: {clean(host)!r} is not the name or address of a machine")
    return ascii_host


def _shown(text: str) -> str:
    """What may be printed of an address that could not be parsed: nothing before an @ and nothing after a ?."""
    scheme, sep, rest = text.partition("://")
    if not sep:
        scheme, rest = "", text
    rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    if "@" in rest:
        rest = "***@" + rest.rpartition("@")[2]
    return clean(scheme + sep + rest, limit=200)
