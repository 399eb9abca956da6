"""Which files of a model repository serving needs, and whether a folder holds them whole."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from evalscope_vacc.errors import ServerError

# Other programs' copies of the same weights: up to five times what a server reads.
_OTHER_FOLDERS = {"onnx", "openvino", "coreml", "gguf", "imgs", "images", "assets", ".git"}
_OTHER_SUFFIXES = {".onnx", ".onnx_data", ".h5", ".ot", ".msgpack", ".tflite", ".gguf", ".mlmodel", ".zip"}
_OTHER_NAMES = {".gitattributes", ".gitignore", ".DS_Store"}

_TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
    "vocab.json",
)


@dataclasses.dataclass(frozen=True)
class RepoFile:
    """One file of a repository: its path there, and its size in bytes where the hub tells."""

    path: str
    size: int | None = None


def select_files(files: Iterable[RepoFile]) -> tuple[RepoFile, ...]:
    """Returns the files that a server needs, in the repository's order.

    Left out are other programs' weights (ONNX, OpenVINO, TensorFlow, Rust …), pictures, and PyTorch's pickled weights
    where the same are there as safetensors.

    Raises:
        ServerError: A path would lie outside the folder; no honest hub lists such a one.
    """
    files = tuple(files)
    for file in files:
        path = PurePosixPath(file.path)
        if (
            path.is_absolute()
            or ".." in path.parts
            or "\\" in file.path
            or not file.path.isprintable()
            or not file.path
        ):
            raise ServerError(f"the hub lists the file {file.path!r}, which cannot be meant; nothing was downloaded")
    has_safetensors = any(PurePosixPath(f.path).match("*.safetensors") and "/" not in f.path for f in files)

    def wanted(file: RepoFile) -> bool:
        path = PurePosixPath(file.path)
        if path.name in _OTHER_NAMES or path.suffix in _OTHER_SUFFIXES or _OTHER_FOLDERS & set(path.parts[:-1]):
            return False
        pickled = "/" not in file.path and path.name.startswith("pytorch_model") and ".bin" in path.suffixes
        return not (pickled and has_safetensors)

    return tuple(file for file in files if wanted(file))


def missing_bytes(folder: Path, files: Iterable[RepoFile]) -> int | None:
    """Returns how many bytes of ``files`` are not in ``folder`` yet, or None where the hub tells no sizes."""
    total = 0
    for file in files:
        if file.size is None:
            return None
        here = folder / file.path
        if not here.is_file() or here.stat().st_size != file.size:
            total += file.size
    return total


def faults(folder: Path, files: Sequence[RepoFile]) -> list[str]:
    """Returns what is wrong with a downloaded model, one sentence each; nothing when it is whole.

    Checked are presence and size of each file, the configuration, the list of weight files against the index, the
    length that each safetensors file says it has, and that there is a tokenizer. Contents are the hub client's
    business: it compares checksums.
    """
    found = []
    for file in files:
        path = folder / file.path
        if not path.is_file():
            found.append(f"{file.path} is missing")
        elif file.size is not None and path.stat().st_size != file.size:
            found.append(f"{file.path} has {path.stat().st_size} bytes, the hub says {file.size}")
    if _read_object(folder / "config.json") is None:
        found.append("config.json is missing or no JSON object")
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        found.append(f"there is no tokenizer (none of {', '.join(_TOKENIZERS)})")
    return found + _weight_faults(folder)


def _weight_faults(folder: Path) -> list[str]:
    found = []
    for index in sorted(folder.glob("*.index.json")):
        content = _read_object(index)
        shards = content.get("weight_map") if content is not None else None
        if not isinstance(shards, dict) or not shards:
            found.append(f"{index.name} lists no weight files")
            continue
        names = sorted({str(name) for name in shards.values()})
        found += [f"{name}, listed in {index.name}, is missing" for name in names if not (folder / name).is_file()]
    weights = sorted(folder.glob("*.safetensors"))
    found += [fault for path in weights if (fault := _safetensors_fault(path)) is not None]
    if not weights and not any(folder.glob("pytorch_model*.bin")):
        found.append("there are no weights (neither *.safetensors nor pytorch_model*.bin)")
    return found


def _safetensors_fault(path: Path) -> str | None:
    """Compares a file's length with its header: 8 bytes little-endian N, N bytes of JSON, then the tensors."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > size - 8:
            return f"{path.name} is cut off or no safetensors file"
        try:
            header = json.loads(stream.read(length))
            ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
            end = 8 + length + max(ends, default=0)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return f"{path.name} has a header that cannot be read"
    return None if end == size else f"{path.name} has {size} bytes, its header says {end}"


def _read_object(path: Path) -> dict[str, object] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
