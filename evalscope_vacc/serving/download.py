"""Downloads a model for serving, with the client of the hub: that one resumes, checks sums and shows its progress."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import importlib
import inspect
import json
import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from evalscope_vacc import catalog
from evalscope_vacc.errors import (
    ConfigError,
    HostError,
    RequestRefusedError,
    ServerError,
    ServerFaultError,
    ServerUnreachableError,
    VaccError,
)
from evalscope_vacc.files import write_whole
from evalscope_vacc.redact import clean, public_url

HUBS = ("huggingface", "modelscope")

#: Written beside the weights, so that a second model is not mixed into the folder.
MARKER = ".evalscope-vacc.json"

#: Kept free beside the files themselves, for the clients' notes and the file system's own.
RESERVE_BYTES = 64 * 2**20

# Other programs' copies of the same weights, up to five times what a server reads, and pictures.
_NOT_SERVED = [
    *("onnx/*", "openvino/*", "coreml/*", "gguf/*", "imgs/*", "images/*", "assets/*"),
    *("*.onnx", "*.onnx_data", "*.h5", "*.ot", "*.msgpack", "*.tflite", "*.gguf", "*.mlmodel", "*.zip"),
    *(".gitattributes", ".gitignore", "*.DS_Store"),
]
_PICKLED = "pytorch_model*.bin*"


@dataclasses.dataclass(frozen=True)
class Download:
    """What is about to be downloaded.

    Attributes:
        hub: "huggingface" or "modelscope".
        endpoint: The mirror that was given, or None for the hub that its own client chooses.
        where: Address of the hub, to be shown.
        repository: Name on the hub.
        revision: Revision that is asked for: a commit where the hub tells one.
        folder: Where the files go.
        sizes: Bytes of each file that serving needs, by its path; 0 where the hub does not tell.
        ignored: Patterns of the files that it does not need, for the hub's client.
        left_out: How many those are.
    """

    hub: str
    endpoint: str | None
    where: str
    repository: str
    revision: str
    folder: Path
    sizes: dict[str, int]
    ignored: list[str]
    left_out: int

    def missing(self) -> dict[str, int]:
        """Returns the sizes of the files that are not in the folder, or not with their whole size."""
        found = {}
        for path, size in self.sizes.items():
            here = self.folder / path
            if not here.is_file() or here.stat().st_size != size:
                found[path] = size
        return found

    def run(self) -> None:
        """Downloads the files; what came stays when it fails, and a second call goes on from there.

        Raises:
            HostError: The disk has too little space, or the installed client is too old for an endpoint.
            ServerError: The hub failed or refused, or a file is not as long as it lists.
        """
        _check_space(self.folder, sum(self.missing().values()))
        # first: an interrupted download must not let another model in
        about = {"hub": self.hub, "repository": self.repository, "revision": self.revision}
        write_whole(self.folder / MARKER, json.dumps(about, indent=1) + "\n")
        snapshot_download = _client(self.hub)
        options: dict[str, Any] = {}
        if self.endpoint is not None:
            if "endpoint" not in inspect.signature(snapshot_download).parameters:
                raise HostError("the installed modelscope takes no address of a mirror: pip install -U modelscope")
            options = {"endpoint": self.endpoint, "token": _no_token(self.hub)}
        with _plain_errors(self.where, self.repository, self.revision):
            snapshot_download(
                self.repository,
                revision=self.revision,
                local_dir=str(self.folder),
                ignore_patterns=self.ignored,
                **options,
            )
        # the clients trust their own notes about a file that was changed since
        wrong = [path for path, size in self.missing().items() if size]
        if wrong:
            raise ServerError(
                f"{self.repository} in {self.folder} is not whole: {', '.join(wrong)} not of the size that the hub "
                "lists. Delete what is there of it and run the same command again"
            )


def prepare(
    model: str,
    hub: str = "huggingface",
    *,
    endpoint: str | None = None,
    to: Path | None = None,
    revision: str | None = None,
) -> Download:
    """Asks a hub for the files of a model.

    Args:
        model: A model of the catalog, or ``organisation/name``.
        hub: "huggingface" or "modelscope".
        endpoint: A mirror of the hub; the user's token is not sent there.
        to: Where the files go; by default a folder of the model's name here.
        revision: Branch, tag or commit; by default the hub's newest.

    Raises:
        ConfigError: The model, hub or endpoint is unknown, or the folder holds another model.
        ServerError: The hub cannot be reached, refuses, or lists no model files.
    """
    if hub not in HUBS:
        raise ConfigError(f"hub {hub!r} is not one of {', '.join(HUBS)}")
    endpoint = None if endpoint is None else _checked_endpoint(endpoint)
    repository = repository_of(model, hub)
    folder = Path(repository.rpartition("/")[2]) if to is None else to.expanduser()
    _check_folder(folder, repository)
    where, commit, sizes = _listed(hub, endpoint, repository, revision)
    ignored = list(_NOT_SERVED)
    if any(fnmatch(path, "*.safetensors") and "/" not in path for path in sizes):
        ignored.append(_PICKLED)  # the same weights again
    wanted = {path: size for path, size in sizes.items() if not any(fnmatch(path, pattern) for pattern in ignored)}
    if "config.json" not in wanted:
        raise ServerError(f"{where} lists no config.json for {repository}: vLLM cannot serve it")
    left_out = len(sizes) - len(wanted)
    return Download(hub, endpoint, where, repository, commit, folder, wanted, ignored, left_out)


def repository_of(model: str, hub: str) -> str:
    """Returns the repository that ``model`` means on ``hub``.

    A name with an organisation that is not the catalog's is taken as it is written.

    Raises:
        ConfigError: A name without organisation that the catalog does not know.
    """
    entry = catalog.find(model)
    written = model.strip("/")
    known = [] if entry is None else [name.casefold() for name in (entry.huggingface, entry.modelscope) if name]
    if written.count("/") == 1 and all(written.split("/")) and written.casefold() not in known:
        return written
    return catalog.get(model).hub_name(hub)


def _checked_endpoint(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise ConfigError(f"endpoint {public_url(endpoint)!r}: give an address such as https://hf-mirror.com")
    return endpoint.rstrip("/")


def _listed(hub: str, endpoint: str | None, repository: str, revision: str | None) -> tuple[str, str, dict[str, int]]:
    """Returns the hub's address, the revision to ask for, and the sizes of the repository's files."""
    token = None if endpoint is None else _no_token(hub)
    if hub == "huggingface":
        from huggingface_hub import HfApi

        api = HfApi(endpoint=endpoint, token=token)
        with _plain_errors(api.endpoint, repository, revision):
            info = api.model_info(repository, revision=revision, files_metadata=True, timeout=30)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        where, commit = api.endpoint, info.sha or revision or "main"
    else:
        from modelscope.hub.api import HubApi

        client: Any = HubApi(endpoint=endpoint, token=token)
        where, commit = str(client.endpoint), revision or "master"
        with _plain_errors(where, repository, revision):
            rows = client.get_model_files(repository, revision=commit, recursive=True)
        listed = {str(row.get("Path") or row["Name"]): row.get("Size") or 0 for row in rows}
        # the clients differ in whether they say what a folder is; git knows folders only as parts of paths
        folders = {str(parent) for path in listed for parent in PurePosixPath(path).parents}
        sizes = {path: size for path, size in listed.items() if path not in folders}
    for path in sizes:
        parts = PurePosixPath(path).parts
        if not parts or parts[0] == "/" or ".." in parts or "\\" in path or not path.isprintable():
            raise ServerError(f"the hub lists the file {path!r}, whose path is not safe; nothing was downloaded")
    return public_url(where), commit, sizes


def _client(hub: str) -> Any:
    module = {"huggingface": "huggingface_hub", "modelscope": "modelscope.hub.snapshot_download"}[hub]
    return importlib.import_module(module).snapshot_download


def _no_token(hub: str) -> Any:
    """Returns what tells a hub's client to send none, not even one that it finds by itself."""
    return False if hub == "huggingface" else ""


def _check_folder(folder: Path, repository: str) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; give a folder with --to")
    try:
        holds = str(json.loads((folder / MARKER).read_text(encoding="utf-8"))["repository"])
    except (OSError, ValueError, KeyError, TypeError):
        # put there by other means: only the folder's name can tell
        holds = folder.resolve().name if (folder / "config.json").is_file() else repository
    if holds.rpartition("/")[2].casefold() != repository.rpartition("/")[2].casefold():
        raise ConfigError(f"{folder} holds another model already, {holds}; give {repository} its own folder with --to")


def _check_space(folder: Path, to_get: int) -> None:
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if to_get and free < to_get + RESERVE_BYTES:
        raise HostError(
            f"{there} has {free / 1e9:.2f} GB free, the download needs {(to_get + RESERVE_BYTES) / 1e9:.2f} GB; free "
            "some space, or choose a folder on another disk with --to"
        )


@contextlib.contextmanager
def _plain_errors(where: str, repository: str, revision: str | None) -> Iterator[None]:
    """Turns whatever a hub's client raises into one of our errors, with the reason and what to do next."""
    try:
        yield
    except Exception as error:
        raise _plain_error(error, public_url(where), repository, revision) from error


def _plain_error(error: Exception, where: str, repository: str, revision: str | None) -> VaccError:
    seen = clean(f"{type(error).__name__}: {error}", limit=300).replace("\n", " ")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HostError(f"the disk is full: {seen}")
    status = _status(error)
    if status in (401, 403, 404) or any(word in type(error).__name__ for word in ("NotExist", "NotFound")):
        at = f" at revision {revision}" if revision else ""
        return RequestRefusedError(
            f"{where} has no model {repository}{at}, or does not let us see it. Check the name, the revision and the "
            f"token, or try the other hub with --from. ({seen})",
            server=where,
            status=status,
        )
    if status is not None:
        return ServerFaultError(f"{where} answered {status} for {repository}. ({seen})", server=where, status=status)
    if "Offline" in type(error).__name__:
        return ServerUnreachableError(
            f"{where} was not contacted: HF_HUB_OFFLINE is set; unset it. ({seen})", server=where
        )
    return ServerUnreachableError(
        f"{where} cannot be reached, or the connection broke; the same command continues where it stopped. If this "
        "machine cannot reach it at all, use a mirror (--endpoint https://hf-mirror.com, or the variable HF_ENDPOINT) "
        f"or the other hub (--from modelscope). ({seen})",
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
