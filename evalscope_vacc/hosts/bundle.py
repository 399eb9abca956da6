"""Data to carry to a machine that reaches no hub: a folder, or an archive of it, that says what it holds.

The folder is a cache as the hub's libraries lay it (``datasets/``, ``hub/``) beside ``manifest.json``, which stands first in
an archive. Nothing in it is believed: an archive is unpacked once and each of its files is compared with its digest,
and a task is held against the revision, the subsets and the splits that the manifest has of it.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evalscope_vacc.errors import ConfigError, DataError
from evalscope_vacc.files import replacing, write_whole
from evalscope_vacc.hosts.hub_settings import cache_in, offline
from evalscope_vacc.paths import cache_folder
from evalscope_vacc.redact import clean
from evalscope_vacc.text.dictionary import default_dictionary_path

MANIFEST = "manifest.json"
PROMPTS = "prompts"
ARCHIVE = ".tar.zst"
_OTHER_ARCHIVES = (".tar", ".tgz", ".gz", ".zip", ".bz2", ".xz")
_BLOCK = 1 << 20
_MOST_NAMED = 10


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Rows(_Part):
    """One split of one configuration of a data set, as it was loaded."""

    configuration: str
    revision: str
    split: str
    rows: int


class TaskData(_Part):
    """The data of one task: the task's own words for them, and what came."""

    dataset: str
    revision: str
    subsets: list[str]
    splits: list[str]
    data: list[Rows]


class File(_Part):
    """One file."""

    bytes: int
    sha256: str


class Manifest(_Part):
    """What a folder of data holds.

    Attributes:
        tasks: Task to its data.
        files: Path within the folder to its file; none while the folder is being filled.
        hub: Where the data came from.
        versions: Of Python and the packages that laid the files.
        tokenizers: Names of tokenizers that are there, too.
        place: Where it was read; not part of the file.
    """

    format: Literal[1] = 1
    tasks: dict[str, TaskData] = {}
    files: dict[str, File] = {}
    hub: str = ""
    versions: dict[str, str | None] = {}
    tokenizers: list[str] = []
    place: Path = Field(Path(), exclude=True)

    @property
    def bytes(self) -> int:
        """Of all files together."""
        return sum(file.bytes for file in self.files.values())

    def write(self, folder: Path) -> None:
        """Writes it into its folder."""
        write_whole(folder / MANIFEST, self.model_dump_json(indent=1) + "\n")

    def lacks(self, task: Any) -> str:
        """Returns why a task cannot be evaluated on these data, or ""."""
        found, (path, revision) = self.tasks.get(task.metadata.name), source_of(task)
        if found is None:
            return f"{self.place} does not hold its data"
        if (found.dataset, found.revision) != (path, revision):
            return (
                f"{self.place} holds its data set {clean(found.dataset, limit=200)} at {clean(found.revision)[:12]}, "
                f"and the task is of {path} at {revision[:12]}"
            )
        for kind, wanted, there in (
            ("subsets", task.hf_subsets, found.subsets),
            ("splits", task.eval_splits, found.splits),
        ):
            missing = sorted(set(wanted or ()) - set(there))
            if missing:
                return f"of its data {self.place} lacks the {kind} {', '.join(missing[:_MOST_NAMED])}"
        return ""


def source_of(task: Any) -> tuple[str, str]:
    """Returns the name of a task's data set, and its revision, each "" where it has none."""
    dataset = getattr(task.metadata, "dataset", None) or {}
    return str(dataset.get("path") or ""), str(dataset.get("revision") or "")


_in_use: Manifest | None = None


def in_use() -> Manifest | None:
    """Returns what the data hold that this process is restricted to, if it is."""
    return _in_use


@contextmanager
def used(place: Path | None, unpacking: Callable[[Path, Path], None] = lambda *_: None) -> Iterator[None]:
    """Inside the block this process takes data from a folder or an archive alone, and asks no hub.

    Args:
        place: The folder or archive; None changes nothing.
        unpacking: Is told of the archive and the folder where it has to be unpacked first.

    Raises:
        ConfigError: There is none, or a file of it is not there or of another size.
        DataError: The archive is damaged.
    """
    global _in_use  # noqa: PLW0603 -- one for the process, as the libraries' settings are
    if place is None:
        yield
        return
    folder = place.absolute() if place.is_dir() else _unpacked(place, unpacking)
    manifest = read_manifest(folder, place)
    for name, file in manifest.files.items():
        if not (folder / name).is_file() or (folder / name).stat().st_size != file.bytes:
            raise ConfigError(
                f"{place}: {name} is missing or damaged: `evalscope-vacc prefetch --verify {place}` says more"
            )
    dictionary = default_dictionary_path()
    if not dictionary.is_file() and (folder / PROMPTS / dictionary.name).is_file():
        write_whole(dictionary, (folder / PROMPTS / dictionary.name).read_bytes())
    before = _in_use
    with cache_in(folder), offline():
        _in_use = manifest
        try:
            yield
        finally:
            _in_use = before


# -- files ---------------------------------------------------------------------------------------------------------------


def is_archive(path: Path) -> bool:
    """Whether a path names an archive and no folder.

    Raises:
        ConfigError: It names an archive of another kind.
    """
    if not path.is_dir() and path.name.endswith(_OTHER_ARCHIVES):
        raise ConfigError(f"{path}: an archive of data is named NAME{ARCHIVE}; any other name is a folder's")
    return path.name.endswith(ARCHIVE)


def read_manifest(path: Path, place: Path | None = None, *, unfinished: bool = False) -> Manifest:
    """Reads the manifest of a folder or of an archive.

    Args:
        path: Where it is.
        place: What messages call it; default ``path``.
        unfinished: Also of a folder that is still being filled.

    Raises:
        ConfigError: There is none, or it is unfinished.
        DataError: The archive is damaged.
    """
    place = place or path
    if not path.exists():
        raise ConfigError(f"there are no data in {place}: `evalscope-vacc prefetch --to {place}` fetches some")
    raw = b""
    if (path / MANIFEST).is_file():
        raw = (path / MANIFEST).read_bytes()
    elif path.is_file():
        with _readable(path), closing(_contents(path)) as contents:
            name, stream = next(contents, ("", io.BytesIO()))
            raw = stream.read() if name == MANIFEST else b""
    try:
        manifest = Manifest.model_validate_json(raw).model_copy(update={"place": place})
    except ValidationError:
        manifest = None
    if manifest is None or not all(map(_is_inside, manifest.files)):
        raise ConfigError(
            f"{place} has no {MANIFEST} that this version can read: `evalscope-vacc prefetch --to` writes it"
        )
    if not (manifest.files or unfinished):
        raise ConfigError(f"{place} was not filled to its end: run the same `evalscope-vacc prefetch` again")
    return manifest


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def verify(path: Path) -> tuple[Manifest, dict[str, str]]:
    """Compares every file of a folder or an archive with its digest.

    Returns:
        The manifest, and each file that is not so: "file missing", "file damaged" or "file unreadable".

    Raises:
        ConfigError: There is no manifest, or it is unfinished.
        DataError: The archive is damaged where no file of it can be named.
    """
    manifest = read_manifest(path)
    found: dict[str, File] = {}
    lost = "file missing"
    try:
        with _readable(path):
            found.update((name, file) for name, file in digests(path) if name in manifest.files)
    except DataError:
        lost = "file unreadable"  # behind a damaged place of an archive there is nothing to be had
    return manifest, {
        name: "file damaged" if name in found else lost
        for name, file in manifest.files.items()
        if found.get(name) != file
    }


def digests(path: Path) -> Iterator[tuple[str, File]]:
    """Yields each file of a folder or an archive, with its size and sha256."""
    for name, stream in _contents(path):
        if name != MANIFEST:
            digest, size = hashlib.sha256(), 0
            while block := stream.read(_BLOCK):
                digest.update(block)
                size += len(block)
            yield name, File(bytes=size, sha256=digest.hexdigest())


def pack(folder: Path, manifest: Manifest, path: Path) -> None:
    """Writes a folder's manifest and files into an archive, which is there when it is whole."""

    def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        return member

    with replacing(path) as part, _archive(part, "w") as archive:
        for name in (MANIFEST, *manifest.files):
            archive.add(folder / name, name, recursive=False, filter=anonymous)


def unpack(path: Path, folder: Path) -> None:
    """Unpacks an archive into a folder that is not there yet.

    Raises:
        ConfigError: There is no manifest, or it is unfinished.
        DataError: The archive is damaged, or a file is not what the manifest says.
    """
    manifest = read_manifest(path)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name[:16]}-", dir=folder.parent))
    try:
        # what the manifest does not name stays where it is; `extractall` is safe with Python 3.10.12 and 3.11.4 only
        with _readable(path):
            for name, stream in _contents(path):
                if name == MANIFEST or name in manifest.files:
                    (part / name).parent.mkdir(parents=True, exist_ok=True)
                    with (part / name).open("wb") as file:
                        shutil.copyfileobj(stream, file, _BLOCK)
        _, wrong = verify(part)
        if wrong:
            name, how = next(iter(wrong.items()))
            raise DataError(f"{path} is damaged: {len(wrong)} files are not as they were packed ({name}: {how})")
        try:
            part.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _unpacked(path: Path, unpacking: Callable[[Path, Path], None]) -> Path:
    """Returns the folder that an archive is unpacked in, named for what its manifest says of every file."""
    manifest = read_manifest(path)
    folder = cache_folder() / "data" / hashlib.sha256(manifest.model_dump_json().encode()).hexdigest()[:32]
    if not folder.exists():
        unpacking(path, folder)
        unpack(path, folder)
    return folder


def _contents(path: Path) -> Generator[tuple[str, IO[bytes]], None, None]:
    """Yields the files of a folder or an archive, where the manifest is the first; each is read before the next one."""
    if path.is_dir():
        for name in _listed(path):
            with (path / name).open("rb") as stream:
                yield name, stream
        return
    with _archive(path, "r") as archive:
        for member in archive:
            if (content := archive.extractfile(member)) is not None:
                yield member.name, content


def _listed(folder: Path) -> Iterator[str]:
    """The files that are carried: no locks, no half ones, and no second copy of a file."""
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        left_out = any(part.startswith(".") or part == "blobs" for part in name.parts)
        if file.is_file() and not left_out and file.suffix not in (".lock", ".incomplete") and str(name) != MANIFEST:
            yield name.as_posix()


@contextmanager
def _archive(path: Path, mode: Literal["r", "w"]) -> Iterator[tarfile.TarFile]:
    """Opens an archive to read or to write it, from its beginning to its end."""
    import zstandard

    how: Any = f"{mode}|"
    with (
        zstandard.open(path, f"{mode}b") as stream,
        tarfile.open(fileobj=stream, mode=how, dereference=True) as archive,
    ):
        yield archive


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raises a DataError where an archive that is read inside the block is damaged, or cannot be kept."""
    import zstandard

    try:
        yield
    except (tarfile.TarError, zstandard.ZstdError, EOFError, OSError) as error:
        raise DataError(f"{path} cannot be read and unpacked: {clean(str(error), limit=200)}") from None
