"""The command that serves a model: built as a list of arguments, never as a line for a shell to take apart."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from evalscope_vacc.catalog import Entry
from evalscope_vacc.errors import ConfigError
from evalscope_vacc.serving import images

Runtime = Literal["vacc-docker", "docker", "vllm"]
RUNTIMES: tuple[str, ...] = get_args(Runtime)

#: Where the container sees the weights, as in the vendor's guide.
MOUNT = "/weights/"
PLACEHOLDER = "/path/to/model"

# Encoders take the devices 0 and, where one does not hold the model, 1: a cross-encoder beside them never shares one.
_FIRST_RERANK_DEVICE = 2

_CONTAINER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", re.ASCII)
_IMAGE = re.compile(r"[a-z0-9][a-zA-Z0-9_./:-]*", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9:][A-Za-z0-9.:-]*", re.ASCII)
_ANY_HOST = ("0.0.0.0", "::")  # noqa: S104 - every address of a container, which the port is published from
_DEVICE = re.compile(r"\d{1,4}", re.ASCII)
_SIZE = re.compile(r"\d+[bkmgBKMG]?", re.ASCII)

# What the extra arguments may not say again: vLLM would take the last one, and we would believe the first.
_OURS: Mapping[str, str] = {
    "--port": "--port",
    "--host": "--host",
    "--served-model-name": "--served-model-name",
    "--tensor-parallel-size": "--tensor-parallel-size",
    "-tp": "--tensor-parallel-size",
    "--max-model-len": "--max-model-len",
    "--model": "MODEL or --weights",
    "--task": "--vllm-version",
    "--runner": "--vllm-version",
}


@dataclasses.dataclass(frozen=True)
class ServeOptions:
    """How a model is to be served; None means the catalog's or the guide's default.

    Attributes:
        runtime: "vacc-docker" (the accelerator vendor's image), "docker" (vLLM's own image) or "vllm" (installed here).
        weights: The model's folder, the folder that holds it, or (not "vacc-docker") None for the hub's copy.
        host: Address that the server listens on.
        port: Port of the server, inside the container and outside.
        devices: Numbers of the devices to use.
        tensor_parallel_size: Over how many devices one copy of the model is spread.
        served_model_name: Name that requests have to give.
        image: Repository of the container image.
        image_tag: Its tag.
        vllm_version: vLLM inside, where the tag does not tell, such as "0.10.1".
        max_model_len: Longest input, in tokens, that the server accepts.
        dimensions: A Matryoshka length that requests may ask for.
        container_name: Name of the container.
        shm_size: Shared memory of the container.
        force: Go on where the catalog says that the model does not run on so few devices.
        extra: Further arguments of ``vllm serve``.
    """

    runtime: str = "vacc-docker"
    weights: str | None = None
    host: str | None = None
    port: int | None = None
    devices: tuple[str, ...] | None = None
    tensor_parallel_size: int | None = None
    served_model_name: str | None = None
    image: str | None = None
    image_tag: str | None = None
    vllm_version: str | None = None
    max_model_len: int | None = None
    dimensions: int | None = None
    container_name: str | None = None
    shm_size: str = "256g"
    force: bool = False
    extra: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Command:
    """What is printed or run.

    Attributes:
        argv: Program and arguments.
        env: Variables to set beside the present ones.
        url: Where the server will answer on this machine.
        model: The name that it serves.
        container: The container's name, or None.
        notes: What the user should know, one sentence each.
        placeholder: Whether a path in it has to be filled in before it can run.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    url: str
    model: str
    container: str | None = None
    notes: tuple[str, ...] = ()
    placeholder: bool = False

    def shell(self) -> str:
        """Returns one line that a POSIX shell reads as exactly these arguments."""
        return " ".join(self._words())

    def lines(self) -> str:
        """Returns the same over several lines, an option with its value on each, to be read and pasted."""
        lines: list[list[str]] = [[]]
        for word in self._words():
            line = lines[-1]
            # an option is complete with its value; the image and the program after it belong to none
            complete = bool(line) and line[0].startswith("-") and (len(line) > 1 or "=" in line[0])
            if complete or word.startswith("-"):
                lines.append([])
            lines[-1].append(word)
        return " \\\n    ".join(map(" ".join, lines))

    def _words(self) -> list[str]:
        return [*(f"{key}={shlex.quote(value)}" for key, value in self.env.items()), *map(shlex.quote, self.argv)]


def build_command(entry: Entry, options: ServeOptions) -> Command:
    """Returns the command that serves ``entry`` as ``options`` say.

    The arguments of "vacc-docker" and their order are those of the vendor's guide (VastModelZOO,
    nlp/text2vec/qwen3/vllm and nlp/text2vec/bge/vllm).

    Raises:
        ConfigError: An option is malformed, or the combination cannot work; the message says why.
    """
    if options.runtime not in RUNTIMES:
        raise ConfigError(f"runtime {options.runtime!r} is not one of {', '.join(RUNTIMES)}")
    _check_extra(options.extra)
    if options.host is not None and not _HOST.fullmatch(options.host):
        raise ConfigError(f"host {options.host!r} is not a name or address of a machine")
    port = _port(options.port, entry)
    size, devices = _spread(entry, options)
    model = options.served_model_name or entry.name
    if model.startswith("-") or not model.isprintable():
        raise ConfigError(f"served model name {model!r}: it may not begin with '-' or hold control characters")
    plan = _Plan(entry, options, port, size, devices, model)
    return {"vacc-docker": plan.vacc_docker, "docker": plan.docker, "vllm": plan.vllm}[options.runtime]()


@dataclasses.dataclass(frozen=True)
class _Plan:
    """One checked combination, about to become a command."""

    entry: Entry
    options: ServeOptions
    port: int
    size: int
    devices: tuple[str, ...] | None
    model: str

    def vacc_docker(self) -> Command:
        options, entry = self.options, self.entry
        tag = images.check_tag(options.image_tag or images.VACC_TAG)
        version, notes = self._version(images.vacc_version(tag), tag)
        notes += self._tag_note(tag, images.VACC_NEWER)
        folder = _weights(options.weights, entry)
        devices = self.devices
        if devices is None:
            first = _FIRST_RERANK_DEVICE if entry.is_cross_encoder else 0
            devices = tuple(str(first + number) for number in range(self.size))
            notes += (
                f"It takes device {','.join(devices)}. No two services may share a device: --devices chooses others.",
            )
        argv = ["docker", "run", "-e", f"VACC_VISIBLE_DEVICES={','.join(devices)}"]
        argv += ["--privileged=true", f"--shm-size={self._shm_size()}", "--name", self._container()]
        argv += ["-v", f"{folder.parent}:{MOUNT}", "-p", f"{self.port}:{self.port}", "--ipc=host"]
        argv += [f"{self._image(images.VACC_IMAGE)}:{tag}", "vllm", "serve", f"{MOUNT}{folder.name}"]
        if entry.serve.trust_remote_code:
            argv.append("--trust-remote-code")
        argv += self._overrides("--hf_overrides")
        if self.size > 1 or options.tensor_parallel_size is not None or entry.serve.states_tensor_parallel:
            argv += ["--tensor-parallel-size", str(self.size)]
        argv += ["--enforce-eager", "--host", self._host(), "--port", str(self.port)]
        argv += _task(entry, version)
        argv += ["--served-model-name", self.model]
        if options.max_model_len is not None:
            argv += ["--max-model-len", str(self._max_model_len())]
        return self._command(argv, notes=(*notes, *folder.notes), folder=folder, container=self._container())

    def docker(self) -> Command:
        options = self.options
        tag = images.check_tag(options.image_tag or images.VLLM_TAG)
        version, notes = self._version(images.vllm_version(tag), tag)
        notes += self._tag_note(tag, images.VLLM_NEWER) + self._first_gpu_note()
        gpus = "all" if self.devices is None else f"device={','.join(self.devices)}"
        # docker reads the value as comma-separated fields: several devices are one field, so in quotes of its own
        argv = ["docker", "run", "--gpus", f'"{gpus}"' if "," in gpus else gpus, f"--shm-size={self._shm_size()}"]
        argv += ["--name", self._container()]
        folder = None
        if options.weights is None:
            # a volume of docker's keeps what the server downloads
            argv += ["-e", "HF_HOME=/hub", "-v", "evalscope-vacc-hub:/hub"]
            source = self.entry.huggingface
        else:
            folder = _weights(options.weights, self.entry)
            argv += ["-v", f"{folder.parent}:{MOUNT}"]
            source = f"{MOUNT}{folder.name}"
            notes += folder.notes
        argv += ["-p", f"{self.port}:{self.port}", "--ipc=host"]
        # what the image itself starts has changed between versions; the command inside has not
        argv += ["--entrypoint", "vllm", f"{self._image(images.VLLM_IMAGE)}:{tag}", "serve", source]
        argv += self._vllm_arguments(version, self._host())
        return self._command(argv, notes=notes, folder=folder, container=self._container())

    def vllm(self) -> Command:
        options = self.options
        for name in ("image", "image_tag", "container_name"):
            if getattr(options, name) is not None:
                raise ConfigError(f"runtime vllm starts no container: leave out --{name.replace('_', '-')}")
        folder = None if options.weights is None else _weights(options.weights, self.entry, mounted=False)
        version = images.parse_version(options.vllm_version or images.VLLM_TAG)
        argv = [
            "vllm",
            "serve",
            self.entry.huggingface if folder is None else f"{folder.parent.rstrip('/')}/{folder.name}",
        ]
        argv += self._vllm_arguments(version, options.host or "127.0.0.1")
        env = {} if self.devices is None else {"CUDA_VISIBLE_DEVICES": ",".join(self.devices)}
        notes = self._first_gpu_note() + (() if folder is None else folder.notes)
        return self._command(argv, env=env, notes=notes, folder=folder)

    def _vllm_arguments(self, version: images.Version | None, host: str) -> list[str]:
        argv = ["--served-model-name", self.model, "--host", host, "--port", str(self.port)]
        argv += _task(self.entry, version) or ["--runner", "pooling"]
        argv += ["--max-model-len", str(self._max_model_len())]
        if self.size > 1:
            argv += ["--tensor-parallel-size", str(self.size)]
        return [*argv, *self._overrides("--hf-overrides")]

    def _command(
        self,
        argv: list[str],
        *,
        folder: _Folder | None,
        env: Mapping[str, str] | None = None,
        notes: tuple[str, ...] = (),
        container: str | None = None,
    ) -> Command:
        host = self.options.host
        local = "127.0.0.1" if host is None or host in _ANY_HOST else host
        return Command(
            argv=(*argv, *self.entry.serve.arguments, *self.options.extra),
            env=env or {},
            url=f"http://{f'[{local}]' if ':' in local else local}:{self.port}",
            model=self.model,
            container=container,
            notes=notes,
            placeholder=folder is not None and folder.placeholder,
        )

    def _overrides(self, flag: str) -> list[str]:
        overrides, wanted = self.entry.serve.hf_overrides, self.options.dimensions
        if wanted is not None:
            _check_dimensions(self.entry, wanted)
            if wanted != self.entry.dimensions:
                # without it vLLM answers 400 to every request that names a length
                overrides = json.dumps({**json.loads(overrides or "{}"), "is_matryoshka": True})
        return [] if overrides is None else [flag, overrides]

    def _max_model_len(self) -> int:
        wanted = self.options.max_model_len
        if wanted is None:
            return self.entry.max_tokens
        if not 1 <= wanted <= self.entry.model_limit:
            raise ConfigError(
                f"--max-model-len {wanted}: {self.entry.name} takes 1 to {self.entry.model_limit} tokens"
                f" (its published scores were measured at {self.entry.max_tokens})"
            )
        return wanted

    def _version(self, from_tag: images.Version | None, tag: str) -> tuple[images.Version | None, tuple[str, ...]]:
        if self.options.vllm_version is not None:
            return images.parse_version(self.options.vllm_version), ()
        if from_tag is None:
            note = f"The tag {tag} does not say which vLLM is inside; a recent one is assumed."
            return None, (f"{note} If it is 0.10 or older, say so with --vllm-version.",)
        return from_tag, ()

    def _tag_note(self, tag: str, newer: str) -> tuple[str, ...]:
        return () if self.options.image_tag else (f"The image's tag is {tag}; for newer ones see {newer}.",)

    def _first_gpu_note(self) -> tuple[str, ...]:
        if self.devices is not None:
            return ()
        return ("It takes the first GPU, as another service without --devices does; --devices 1 takes the second.",)

    def _host(self) -> str:
        host = self.options.host or _ANY_HOST[0]
        if host not in _ANY_HOST:
            raise ConfigError(f"host {host!r}: inside a container the server has to listen on {' or '.join(_ANY_HOST)}")
        return host

    def _container(self) -> str:
        name = self.options.container_name
        if name is None:
            return "vllm_service_reranker" if self.entry.is_cross_encoder else "vllm_service_embedding"
        if not _CONTAINER_NAME.fullmatch(name):
            raise ConfigError(f"container name {name!r}: letters, digits, '_', '.' and '-' only, two at least")
        return name

    def _image(self, default: str) -> str:
        image = self.options.image or default
        if not _IMAGE.fullmatch(image) or ":" in image.rpartition("/")[2]:
            raise ConfigError(f"image {image!r}: give the repository alone, without a tag; the tag is --image-tag")
        return image

    def _shm_size(self) -> str:
        if not _SIZE.fullmatch(self.options.shm_size):
            raise ConfigError(f"shared memory size {self.options.shm_size!r}: write it like 64g")
        return self.options.shm_size


def _task(entry: Entry, version: images.Version | None) -> list[str]:
    if version is None or version > images.LAST_WITH_TASK:
        return []
    return ["--task", "score" if entry.is_cross_encoder else "embed"]


def _port(port: int | None, entry: Entry) -> int:
    if port is None:
        return 8001 if entry.is_cross_encoder else 8000  # as in the vendor's guide: both can run at once
    if not 1 <= port <= 65535:
        raise ConfigError(f"port {port}: it must be between 1 and 65535")
    return port


def _spread(entry: Entry, options: ServeOptions) -> tuple[int, tuple[str, ...] | None]:
    """Returns over how many devices the model is spread, and which, or None where that is left to the runtime."""
    devices, size = options.devices, options.tensor_parallel_size
    if devices is not None:
        if not devices or len(set(devices)) != len(devices) or not all(map(_DEVICE.fullmatch, devices)):
            raise ConfigError(f"devices {','.join(devices)!r}: give their numbers, each once, such as 0,1")
        if size is None:
            size = len(devices)
        elif size > len(devices):
            raise ConfigError(f"--tensor-parallel-size {size} needs {size} devices, --devices names {len(devices)}")
    if size is None:
        size = entry.tensor_parallel[0]
    if size < 1 or (size not in entry.tensor_parallel and not options.force):
        offered = ", ".join(map(str, entry.tensor_parallel))
        if 1 <= size < entry.tensor_parallel[0]:
            why = f"it does not fit on {size} device{'s' if size > 1 else ''} of the accelerator"
        else:
            why = f"it cannot be spread over {size}"
        raise ConfigError(
            f"{entry.name}: {why}; the tensor parallel sizes known to work are {offered}"
            " (--force continues anyway, as on one large GPU)"
        )
    return size, devices


def _check_dimensions(entry: Entry, wanted: int) -> None:
    if entry.is_cross_encoder:
        raise ConfigError(f"--dimensions {wanted}: {entry.name} is a cross-encoder, it answers with scores")
    if wanted == entry.dimensions:
        return
    if entry.matryoshka is None:
        raise ConfigError(
            f"--dimensions {wanted}: {entry.name} offers {entry.dimensions} only;"
            " it was not trained for shorter vectors (Matryoshka)"
        )
    low, high = entry.matryoshka
    if not low <= wanted <= high:
        raise ConfigError(f"--dimensions {wanted}: {entry.name} offers {low} to {high}")


def _check_extra(extra: tuple[str, ...]) -> None:
    for argument in extra:
        if "\0" in argument:
            raise ConfigError(f"extra argument {argument!r}: an argument cannot hold a NUL character")
        flag = argument.partition("=")[0]
        ours = _OURS.get(flag.replace("_", "-"))
        if ours is not None:
            raise ConfigError(f"extra argument {flag}: say it with {ours}, before the --")


@dataclasses.dataclass(frozen=True)
class _Folder:
    """Where the weights are: ``parent`` is mounted, ``name`` is the model's own folder in it."""

    parent: str
    name: str
    placeholder: bool = False
    notes: tuple[str, ...] = ()


def _weights(given: str | None, entry: Entry, *, mounted: bool = True) -> _Folder:
    """Finds the model's folder and the one around it.

    The guide mounts the folder around the model's (``/path/to/model``); users also give the model's own. What exists
    decides, then the name.
    """
    if given is None:
        if Path(entry.name, "config.json").is_file():  # where `download` puts it by default
            return _Folder(str(Path.cwd()), entry.name)
        note = f"Replace {PLACEHOLDER} by the folder that holds {entry.name}, or give it with --weights."
        return _Folder(PLACEHOLDER, entry.name, placeholder=True, notes=(note,))
    path = Path(given).expanduser().absolute()
    if not str(path).isprintable() or (mounted and ":" in str(path)):
        raise ConfigError(f"weights {given!r}: no path with a colon or a control character can be mounted")
    own = (path / "config.json").is_file() or (
        path.name.casefold() == entry.name.casefold() and not (path / entry.name / "config.json").is_file()
    )
    notes: tuple[str, ...] = ()
    parent, name = (path.parent, path.name) if own else (path, entry.name)
    if not (parent / name / "config.json").is_file():
        notes = (f"There is no {parent / name}/config.json on this machine yet; `evalscope-vacc download` gets it.",)
    return _Folder(str(parent), name, placeholder=bool(notes), notes=notes)
