"""The two model hubs, each through its own client: that one resumes, checks sums and shows progress."""

from __future__ import annotations

import contextlib
import errno
import glob
import inspect
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import urlsplit

from evalscope_vacc.errors import (
    ConfigError,
    HostError,
    RequestRefusedError,
    ServerFaultError,
    ServerUnreachableError,
    VaccError,
)
from evalscope_vacc.redact import clean, public_url
from evalscope_vacc.serving.files import RepoFile

HUBS = ("huggingface", "modelscope")


class Hub(Protocol):
    """Where models are downloaded from."""

    name: str
    endpoint: str

    def list_files(self, repository: str, revision: str | None) -> tuple[str, tuple[RepoFile, ...]]:
        """Returns the revision to ask for from now on, and the repository's files.

        Raises:
            ServerUnreachableError: The hub cannot be reached.
            RequestRefusedError: It has no such repository or revision, or does not show it to us.
        """
        ...

    def fetch(self, repository: str, revision: str, files: Sequence[RepoFile], folder: Path) -> None:
        """Downloads ``files`` into ``folder``; what is there already, whole or in part, is used.

        Raises:
            ServerUnreachableError: The connection broke; calling again goes on from there.
        """
        ...


def open_hub(name: str, endpoint: str | None = None) -> Hub:
    """Returns the hub ``name``, at ``endpoint`` where given (a mirror of it).

    A token of the user's goes to the hub's own address only (or the one that its environment variable names), never to
    an ``endpoint`` given here.

    Raises:
        ConfigError: There is no such hub, or the endpoint is no http(s) address.
    """
    if endpoint is not None:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ConfigError(f"endpoint {public_url(endpoint)!r}: give an address such as https://hf-mirror.com")
        endpoint = endpoint.rstrip("/")
    if name == "huggingface":
        return HuggingFace(endpoint)
    if name == "modelscope":
        return ModelScope(endpoint)
    raise ConfigError(f"hub {name!r} is not one of {', '.join(HUBS)}")


class HuggingFace:
    """huggingface.co or a mirror, through huggingface_hub."""

    name = "huggingface"

    def __init__(self, endpoint: str | None = None) -> None:
        from huggingface_hub import constants

        self.endpoint = endpoint or constants.ENDPOINT
        self._token = None if self.endpoint == constants.ENDPOINT else False

    def list_files(self, repository: str, revision: str | None) -> tuple[str, tuple[RepoFile, ...]]:
        """See :meth:`Hub.list_files`; the revision returned is a commit."""
        from huggingface_hub import HfApi

        with _plain_errors(self, repository, revision):
            info = HfApi(endpoint=self.endpoint, token=self._token).model_info(
                repository, revision=revision, files_metadata=True, timeout=30
            )
        files = tuple(RepoFile(file.rfilename, file.size) for file in info.siblings or ())
        return info.sha or revision or "main", files

    def fetch(self, repository: str, revision: str, files: Sequence[RepoFile], folder: Path) -> None:
        """See :meth:`Hub.fetch`."""
        from huggingface_hub import snapshot_download

        with _plain_errors(self, repository, revision):
            snapshot_download(
                repository,
                revision=revision,
                local_dir=folder,
                endpoint=self.endpoint,
                token=self._token,
                allow_patterns=[glob.escape(file.path) for file in files],
            )


class ModelScope:
    """modelscope.cn, through modelscope."""

    name = "modelscope"

    def __init__(self, endpoint: str | None = None) -> None:
        self._given = endpoint
        # what the client itself would use; for messages
        domain = os.environ.get("MODELSCOPE_DOMAIN", "").strip()
        own = os.environ.get("MODELSCOPE_ENDPOINT", "").strip() or domain or "https://modelscope.cn"
        self.endpoint = endpoint or (own if "://" in own else f"https://{own}")
        self._token = None if endpoint is None else ""  # "" is the client's "use none"

    def list_files(self, repository: str, revision: str | None) -> tuple[str, tuple[RepoFile, ...]]:
        """See :meth:`Hub.list_files`; the revision returned is a branch or tag, as the hub knows no more."""
        from modelscope.hub.api import HubApi

        revision = revision or "master"
        with _plain_errors(self, repository, revision):
            api = HubApi(endpoint=self._given, token=self._token)
            rows: list[dict[str, Any]] = api.get_model_files(repository, revision=revision, recursive=True)
        listed = {str(row.get("Path") or row["Name"]): _size(row.get("Size")) for row in rows}
        # the clients differ in whether they say what a folder is; git knows folders only as parts of paths
        folders = {str(parent) for path in listed for parent in PurePosixPath(path).parents}
        return revision, tuple(RepoFile(path, size) for path, size in listed.items() if path not in folders)

    def fetch(self, repository: str, revision: str, files: Sequence[RepoFile], folder: Path) -> None:
        """See :meth:`Hub.fetch`."""
        from modelscope.hub.snapshot_download import snapshot_download

        options: dict[str, Any] = {}
        with contextlib.ExitStack() as stack:
            if self._given is not None:
                if "endpoint" in inspect.signature(snapshot_download).parameters:
                    options = {"endpoint": self._given, "token": self._token}
                else:
                    stack.enter_context(_old_client_at(self._given))
            stack.enter_context(_plain_errors(self, repository, revision))
            snapshot_download(
                repository,
                revision=revision,
                local_dir=str(folder),
                allow_patterns=[glob.escape(file.path) for file in files],
                **options,
            )


@contextlib.contextmanager
def _old_client_at(endpoint: str) -> Iterator[None]:
    """Points a modelscope before 1.38, whose downloads take no address, at ``endpoint`` by its environment variable."""
    scheme, _, domain = endpoint.partition("://")
    if scheme != "https":
        raise HostError(
            f"the installed modelscope reaches https addresses only, not {endpoint}; `pip install -U modelscope`"
        )
    before = os.environ.get("MODELSCOPE_DOMAIN")
    os.environ["MODELSCOPE_DOMAIN"] = domain
    try:
        yield
    finally:
        if before is None:
            del os.environ["MODELSCOPE_DOMAIN"]
        else:
            os.environ["MODELSCOPE_DOMAIN"] = before


@contextlib.contextmanager
def _plain_errors(hub: Hub, repository: str, revision: str | None) -> Iterator[None]:
    """Turns whatever a hub's client raises into one of our errors, with the reason and what to do next."""
    try:
        yield
    except VaccError:
        raise
    except Exception as error:
        raise _plain_error(error, hub, repository, revision) from error


def _plain_error(error: Exception, hub: Hub, repository: str, revision: str | None) -> VaccError:
    where = public_url(hub.endpoint)
    seen = clean(f"{type(error).__name__}: {error}", limit=300).replace("\n", " ")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HostError(f"the disk is full: {seen}")
    status = _status(error)
    if status in (401, 403, 404) or "NotExist" in type(error).__name__ or "NotFound" in type(error).__name__:
        at = f" at revision {revision}" if revision else ""
        return RequestRefusedError(
            f"{where} has no model {repository}{at}, or does not show it to us. Check the name and the revision"
            f"{', and the token' if status in (401, 403) else ''}, or try the other hub with --from. ({seen})",
            server=where,
            status=status,
        )
    if status is not None:
        return ServerFaultError(f"{where} answered {status} for {repository}. ({seen})", server=where, status=status)
    if "Offline" in type(error).__name__:
        return ServerUnreachableError(f"{where} was not asked: HF_HUB_OFFLINE is set; unset it. ({seen})", server=where)
    return ServerUnreachableError(
        f"{where} cannot be reached, or the connection broke; the same command goes on where it stopped. If this"
        f" machine cannot reach it at all, give a mirror with --endpoint or the other hub with --from. ({seen})",
        server=where,
    )


def _status(error: BaseException | None) -> int | None:
    """Finds the HTTP status in an error of a hub's client, or in what caused it."""
    while error is not None:
        for holder in (getattr(error, "response", None), error):
            status = getattr(holder, "status_code", None)
            if isinstance(status, int) and status >= 400:
                return status
        error = error.__cause__
    return None


def _size(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
