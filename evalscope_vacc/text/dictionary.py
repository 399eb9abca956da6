"""Dictionaries of instructions: reading one, and fetching the published one into the user's cache.

The published dictionary (Qwen's task prompts, as the vendor of the hardware distributes them) is not part of this
package: it is read from the path that the user names, or from the cache after ``evalscope-vacc prompts fetch``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evalscope_vacc.errors import (
    BadAnswerError,
    ConfigError,
    RequestRefusedError,
    ServerError,
    ServerFaultError,
    ServerUnreachableError,
)
from evalscope_vacc.files import read_bounded, write_whole
from evalscope_vacc.paths import cache_folder
from evalscope_vacc.redact import clean, public_url

logger = logging.getLogger(__name__)

Dictionary = Mapping[str, "str | Mapping[str, str]"]
"""Task name to instruction, or to one instruction per side (``query``, ``document``)."""

PUBLISHED_NAME = "task_prompts.json"
_PATH = f"nlp/text2vec/qwen3/vllm/{PUBLISHED_NAME}"
PUBLISHED_URLS = (
    f"https://raw.githubusercontent.com/Vastai/VastModelZOO/43aff36/{_PATH}",
    # a content delivery network for files on GitHub, at an address that is reached from China, too
    f"https://gcore.jsdelivr.net/gh/Vastai/VastModelZOO@68605dd903e01b757b9f49db26210e61c82e6180/{_PATH}",
)
PUBLISHED_SHA256 = "c9493103f173d53b1d0a40e42789863af2ce2d5de022a0e075c390229791bfd2"
"""Of the published file, byte for byte."""
PUBLISHED_CONTENT = "8395a369dfdcd9e5dee36ebbd063d6369eaab59c1d1234892a3e30c7f2b0f23e"
"""`content_digest` of that file: a reformatted copy is still the published dictionary."""

METADATA = "metadata"
"""The word that, in place of a path, means: use the tasks' own metadata."""

MAX_BYTES = 4 * 1024 * 1024
_SIDES = {"query": "query", "document": "document", "passage": "document"}


def default_dictionary_path(cache_dir: Path | None = None) -> Path:
    """Returns where the fetched dictionary is kept, whether or not it is there.

    Args:
        cache_dir: The package's folder; default ``$VACC_HOME``, else the user's cache.
    """
    return (cache_dir or cache_folder()) / "prompts" / f"qwen3-task-prompts-{PUBLISHED_SHA256[:8]}.json"


def load_dictionary(path: str | os.PathLike[str]) -> dict[str, str | dict[str, str]]:
    """Reads a dictionary of instructions.

    The file is a JSON object: task name to text, or to an object with the keys ``query`` and ``document`` (MTEB called
    it ``passage`` up to 1.38.35; both are read, ``document`` is returned). Of a key that occurs twice, the last text
    counts, as Python's reader takes it; the published file has such keys.

    Args:
        path: The file, at most 4 MiB; ``~`` is the user's home.

    Raises:
        ConfigError: The file is missing, too large, not JSON, or holds something else than instructions. The message
            names the file and the line or key.
    """
    file = Path(path).expanduser()
    try:
        raw = read_bounded(file, MAX_BYTES)
    except FileNotFoundError:
        raise ConfigError(f"instruction_dict_path: {file} does not exist; {_ways_on()}") from None
    except OSError as error:
        raise ConfigError(f"instruction_dict_path: {file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"instruction_dict_path: {file} is not a dictionary of instructions: {error}") from None
    return parse_dictionary(raw, f"instruction_dict_path: {file}")


def parse_dictionary(raw: bytes, where: str) -> dict[str, str | dict[str, str]]:
    """Reads the bytes of a dictionary of instructions; ``where`` opens each error message.

    Raises:
        ConfigError: As `load_dictionary`.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where} is not UTF-8 at byte {error.start}; save it as UTF-8") from error
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{where} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from error
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"{where} is not a dictionary of instructions: {clean(str(error), limit=200)}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: expected a JSON object of task names, found {_kind(content)}")
    if not content:
        raise ConfigError(f"{where} holds no task; `instruction_dict_path: metadata` does without a dictionary")
    return {task: _entry(task, value, where, text) for task, value in content.items()}


def _entry(task: str, value: Any, where: str, text: str) -> str | dict[str, str]:
    if isinstance(value, str):
        return value
    name = clean(task, limit=80)
    place = f"{where}, line {_line(text, task)}: {name!r}"
    if not isinstance(value, dict):
        raise ConfigError(f"{place} is {_kind(value)}; expected a text, or an object with the keys query and document")
    sides: dict[str, str] = {}
    for key, instruction in value.items():
        side = _SIDES.get(key)
        if side is None:
            raise ConfigError(
                f"{place} has the key {clean(key, limit=80)!r}; expected query and document (or passage, its old name)"
            )
        if not isinstance(instruction, str):
            raise ConfigError(f"{place}, key {key!r} is {_kind(instruction)}; expected a text")
        if sides.setdefault(side, instruction) != instruction:
            raise ConfigError(f"{place} gives document and passage, which mean the same side, different texts")
    return sides


def _line(text: str, key: str) -> int:
    """Returns the line of a key's last appearance, which is the one that counts; 1 where it is spelled with escapes."""
    quoted = "|".join(re.escape(json.dumps(key, ensure_ascii=ascii_only)) for ascii_only in (True, False))
    found = list(re.finditer(rf"(?:{quoted})\s*:", text))
    return text.count("\n", 0, found[-1].start()) + 1 if found else 1


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
    }
    return kinds.get(type(value), type(value).__name__)


def content_digest(dictionary: Dictionary) -> str:
    """Returns the sha256, in hex, of what a dictionary says, however its file is laid out."""
    plain = {task: entry if isinstance(entry, str) else dict(entry) for task, entry in dictionary.items()}
    canonical = json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def find_dictionary(path: str | None, cache_dir: Path | None = None) -> dict[str, str | dict[str, str]] | None:
    """Returns the dictionary that a configuration means, or None for the word ``metadata``.

    Args:
        path: ``instruction_dict_path`` as given; None means the fetched one.
        cache_dir: As in `default_dictionary_path`.

    Raises:
        ConfigError: No dictionary is there, or it cannot be used.
    """
    if path is not None:
        return None if path == METADATA else load_dictionary(path)
    cached = default_dictionary_path(cache_dir)
    if not cached.is_file():
        raise ConfigError(f"the profile qwen-official needs Qwen's task prompts, and there are none here: {_ways_on()}")
    dictionary = load_dictionary(cached)
    if content_digest(dictionary) != PUBLISHED_CONTENT:
        raise ConfigError(
            f"{cached} is not the published dictionary any more; `evalscope-vacc prompts fetch` renews it, and a "
            "dictionary of your own is named by `model_kwargs.instruction_dict_path`"
        )
    return dictionary


def _ways_on() -> str:
    return (
        "run `evalscope-vacc prompts fetch` once (it downloads the published dictionary), or set "
        "`model_kwargs.instruction_dict_path` to a copy of it, or to the word `metadata` to use the tasks' own "
        "instructions, which gives scores that differ from the published ones"
    )


def published_urls() -> tuple[str, ...]:
    """Returns where the published dictionary is looked for: at the mirror that ``HF_ENDPOINT`` names, then elsewhere."""
    mirror = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    return (*([f"{mirror}/Vastai/VastModelZOO/resolve/main/{_PATH}"] if mirror else []), *PUBLISHED_URLS)


def fetch(
    url: str | None = None,
    *,
    sha256: str = PUBLISHED_SHA256,
    destination: Path | None = None,
    timeout_s: float = 30.0,
) -> Path:
    """Downloads the published dictionary into the user's cache and returns its path.

    Nothing is written unless the bytes have the expected sha256; a reader never sees half a file.

    Args:
        url: Where the file is; None tries `published_urls` in turn.
        sha256: Hex digest that the file must have.
        destination: File to write; default `default_dictionary_path`.
        timeout_s: Seconds without a byte after which an address is given up.

    Raises:
        ServerUnreachableError: No answer.
        RequestRefusedError, ServerFaultError: An answer other than 200.
        BadAnswerError: Too large, or not the expected bytes.
        ConfigError: The file cannot be written.
    """
    destination = destination or default_dictionary_path()
    failures: list[ServerError] = []
    for address in published_urls() if url is None else (url,):
        try:
            content = _download(address, sha256.lower(), timeout_s)
        except ServerError as error:
            failures.append(error)
            continue
        parse_dictionary(content, public_url(address))
        _write_at_once(destination, content)
        return destination
    last = failures[-1]
    raise type(last)(
        f"{'; '.join(map(str, failures))}. Nothing was kept. Name another address with --url or a mirror with "
        f"HF_ENDPOINT, or get the file {PUBLISHED_NAME} (sha256 {sha256}) elsewhere, copy it here and set "
        "model_kwargs.instruction_dict_path to it",
        server=last.server,
        status=last.status,
    ) from last


def _download(url: str, sha256: str, timeout_s: float) -> bytes:
    import requests

    shown = public_url(url)
    content = bytearray()
    try:
        # an address that cannot be reached at all must not keep the others waiting
        with requests.get(url, stream=True, timeout=(min(timeout_s, 10), timeout_s)) as answer:
            status = answer.status_code
            if status != 200:
                kind = ServerFaultError if status >= 500 else RequestRefusedError
                raise kind(f"{shown} answered {status}", server=shown, status=status)
            for block in answer.iter_content(64 * 1024):
                content += block
                if len(content) > MAX_BYTES:
                    sent = f"{shown} sent more than {MAX_BYTES // 1024**2} MiB"
                    raise BadAnswerError(sent, server=shown, status=status)
    except requests.RequestException as error:
        reason = type(error).__name__  # its own words repeat the address twice
        raise ServerUnreachableError(f"{shown} cannot be downloaded ({reason})", server=shown) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise BadAnswerError(
            f"{shown} is not the expected file, its sha256 is {found[:16]}…: a proxy may have answered in its place",
            server=shown,
            status=status,
        )
    return bytes(content)


def _write_at_once(destination: Path, content: bytes) -> None:
    try:
        write_whole(destination, content)
    except OSError as error:
        raise ConfigError(f"{destination} cannot be written: {error}; set VACC_HOME to a folder that can") from error
