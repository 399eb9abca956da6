"""Downloads a model for serving: space first, then the hub's own client, then the list of files."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

from evalscope_vacc import catalog
from evalscope_vacc.catalog import Entry
from evalscope_vacc.errors import ConfigError, HostError, ServerError
from evalscope_vacc.serving.files import RepoFile, faults, missing_bytes, select_files
from evalscope_vacc.serving.hubs import Hub

#: Written beside the weights, so that a second model is not mixed into the folder.
MARKER = ".evalscope-vacc.json"

#: Kept free beside the files themselves, for the clients' notes and the file system's own.
RESERVE_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is about to be downloaded.

    Attributes:
        repository: Name on the hub.
        revision: Revision that is asked for: a commit where the hub tells one.
        folder: Where the files go.
        files: The files that serving needs.
        left_out: How many files of the repository it does not need.
        to_get: Bytes that are not there yet; an estimate from the catalog where the hub tells no sizes; 0 = unknown.
    """

    repository: str
    revision: str
    folder: Path
    files: tuple[RepoFile, ...]
    left_out: int
    to_get: int


def repository_of(model: str, hub: Hub) -> tuple[str, Entry | None]:
    """Returns the repository that ``model`` means on ``hub``, and the catalog's entry where it has one.

    A name with an organisation that is not the catalog's is taken as it is written.

    Raises:
        ConfigError: A name without organisation that the catalog does not know.
    """
    entry = catalog.find(model)
    written = model.strip("/")
    known = {name.casefold() for e in (entry,) if e is not None for name in (e.huggingface, e.modelscope) if name}
    if entry is not None and ("/" not in written or written.casefold() in known):
        return entry.hub_name(hub.name), entry
    if written.count("/") == 1 and all(written.split("/")):
        return written, None
    return catalog.get(model).hub_name(hub.name), entry


def plan(hub: Hub, model: str, folder: Path | None = None, revision: str | None = None) -> Plan:
    """Asks the hub for the files of ``model`` and compares them with ``folder`` and the disk.

    Args:
        hub: See :func:`evalscope_vacc.serving.hubs.open_hub`.
        model: A model of the catalog, or ``organisation/name``.
        folder: Where the files go; by default a folder of the model's name here.
        revision: Branch, tag or commit; by default the hub's newest.

    Raises:
        ConfigError: The model is unknown, or the folder holds another one.
        HostError: The disk has too little space; the message says how much is needed.
        ServerError: The hub cannot be reached, refuses, or lists no model files.
    """
    repository, entry = repository_of(model, hub)
    folder = Path(repository.rpartition("/")[2]) if folder is None else folder.expanduser()
    _check_folder(folder, repository)
    commit, listed = hub.list_files(repository, revision)
    files = select_files(listed)
    if not any(file.path == "config.json" for file in files):
        raise ServerError(f"{hub.endpoint} lists no config.json for {repository}: it is no model that vLLM could serve")
    to_get = missing_bytes(folder, files)
    if to_get is None:
        to_get = 0 if entry is None or entry.download_mb is None else entry.download_mb * 10**6
    _check_space(folder, to_get)
    return Plan(repository, commit, folder, files, len(listed) - len(files), to_get)


def download(hub: Hub, planned: Plan) -> None:
    """Downloads what :func:`plan` planned, and checks that it is whole.

    Raises:
        ServerError: The hub failed, or the files are not what it lists; what came stays, and a second call goes on.
    """
    planned.folder.mkdir(parents=True, exist_ok=True)
    marker = planned.folder / MARKER
    about = {"hub": hub.name, "repository": planned.repository, "revision": planned.revision}
    # first: an interrupted download must not let another model in
    marker.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    hub.fetch(planned.repository, planned.revision, planned.files, planned.folder)
    wrong = faults(planned.folder, planned.files)
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ServerError(
            f"{planned.repository} in {planned.folder} is not whole: {'; '.join(wrong[:5])}{more}."
            " Run the same command again to get what is missing"
        )


def _check_folder(folder: Path, repository: str) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; give a folder with --to")
    try:
        holds = json.loads((folder / MARKER).read_text(encoding="utf-8"))["repository"]
    except (OSError, ValueError, KeyError, TypeError):
        holds = None
        # put there by other means: only by its name can we tell that it may be the same
        if (folder / "config.json").is_file() and folder.resolve().name.casefold() != _basename(repository):
            holds = "another model"
    if holds is not None and _basename(str(holds)) != _basename(repository):
        raise ConfigError(f"{folder} holds {holds} already; give {repository} a folder of its own with --to")


def _basename(repository: str) -> str:
    return repository.rpartition("/")[2].casefold()


def _check_space(folder: Path, to_get: int) -> None:
    if to_get == 0:
        return
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < to_get + RESERVE_BYTES:
        raise HostError(
            f"{there} has {_gb(free)} free, the download needs {_gb(to_get + RESERVE_BYTES)}; free some space, or"
            " choose a folder on another disk with --to"
        )


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"
