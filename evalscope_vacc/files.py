"""Writes whole files, reads files of unknown origin within a size limit, and sends what is printed to a file."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields the name of a file to write, which takes the place of ``path`` when the block ends without an error.

    A reader of ``path`` finds the old content or the new one, also after the process was killed.

    Raises:
        OSError: The folder cannot be made or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # not made of the name of `path`, which may be as long as a name may be
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        yield part
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file at once, text as UTF-8; its folder is made where it is missing.

    Raises:
        OSError: It cannot be written.
    """
    with replacing(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def read_bounded(path: Path, limit: int, opened: Callable[..., Any] = Path.open) -> bytes:
    """Reads a file of at most ``limit`` bytes.

    Args:
        path: The file.
        limit: Bytes that it may have, of what ``opened`` reads of it.
        opened: Opens it; ``gzip.open`` for a compressed file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is larger.
    """
    with opened(path, "rb") as file:
        content: bytes = file.read(limit + 1)
    if len(content) > limit:
        size = f"{limit >> 20:,} MiB" if limit >= 1 << 20 else f"{limit:,} bytes"
        raise ValueError(f"it is larger than {size}")
    return content


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file of this package."""
    content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    return content


@contextmanager
def printed_into(descriptor: int) -> Iterator[None]:
    """Sends what any library prints inside the block to an open file.

    Args:
        descriptor: Of the file or pipe; it stays open.
    """
    # on the level of file descriptors: loggers and progress bars keep the streams that they found when they started
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {number: os.dup(number) for number in (1, 2)}
    try:
        for number in kept:
            os.dup2(descriptor, number)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, original in kept.items():
            os.dup2(original, number)
            os.close(original)
