"""``evalscope-vacc serve``: the command that serves a model, printed or run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.serving.images import VACC_NEWER, VACC_TAG, VLLM_NEWER, VLLM_TAG

if TYPE_CHECKING:
    from evalscope_vacc.catalog import Entry
    from evalscope_vacc.serving.command import Command

# typer reads these at run time; `Optional` because a Python 3.10 host may carry a typer that knows no `X | None`
_Text = Optional[str]  # noqa: UP045
_Number = Optional[int]  # noqa: UP045
_Arguments = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Argument(metavar="[-- ARGUMENTS]", help="Passed on to `vllm serve`."),
]
_Runtime = Annotated[
    str,
    typer.Option(
        metavar="vacc-docker|docker|vllm",
        help="The accelerator vendor's image, vLLM's own image, or the vLLM installed on this machine.",
    ),
]
_StopAfterCheck = Annotated[
    bool, typer.Option("--stop-after-check", help="With --run --wait: stop the server after `check`.")
]
_Devices = Annotated[
    _Text,
    typer.Option(
        "--devices",
        "--device",
        help="Device numbers, such as 0,1; two services cannot share a device. Default on the accelerator: from "
        "0, for cross-encoders from 2.",
    ),
]
_TensorParallelSize = Annotated[
    _Number,
    typer.Option("--tensor-parallel-size", "-tp", help="Number of devices for one copy of the model."),
]
_Dimensions = Annotated[_Number, typer.Option(help="Size of a shorter vector that requests may ask for (Matryoshka).")]
_ImageTag = Annotated[
    _Text,
    typer.Option(
        help=f"Tag of the container image. Default: {VACC_TAG}, newer ones: {VACC_NEWER}; with docker {VLLM_TAG}, "
        f"newer ones: {VLLM_NEWER}."
    ),
]


def serve(
    model: Annotated[str, typer.Argument(help="A model of the catalog; `evalscope-vacc models` lists them.")],
    arguments: _Arguments = None,
    *,
    runtime: _Runtime = "vacc-docker",
    run: Annotated[bool, typer.Option("--run", help="Run it, in the foreground, instead of printing it.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the server answers, then run `check`.")] = False,
    wait_s: Annotated[float, typer.Option(help="Seconds to wait at most.", min=1)] = 1800,
    stop_after_check: _StopAfterCheck = False,
    weights: Annotated[_Text, typer.Option(help="The model's folder, or the folder that holds it.")] = None,
    port: Annotated[_Number, typer.Option(help="Port to listen on. Default: 8000, for cross-encoders 8001.")] = None,
    host: Annotated[_Text, typer.Option(help="Address to listen on. Default: vllm 127.0.0.1, else 0.0.0.0.")] = None,
    devices: _Devices = None,
    tensor_parallel_size: _TensorParallelSize = None,
    served_model_name: Annotated[_Text, typer.Option(help="Name that requests use. Default: the model's own.")] = None,
    max_model_len: Annotated[_Number, typer.Option(help="Longest input, in tokens, that the server accepts.")] = None,
    dimensions: _Dimensions = None,
    image: Annotated[_Text, typer.Option(help="Repository of the container image, without tag.")] = None,
    image_tag: _ImageTag = None,
    vllm_version: Annotated[
        _Text, typer.Option(help="vLLM in the image, such as 0.9.2, if its tag does not say.")
    ] = None,
    name: Annotated[_Text, typer.Option(help="Name of the container.")] = None,
    shm_size: Annotated[str, typer.Option(help="Shared memory of the container.")] = "256g",
    force: Annotated[bool, typer.Option("--force", help="Ignore the catalog's tensor parallel sizes.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the command as JSON.")] = False,
) -> None:
    """Prints the command that serves MODEL, ready to be pasted, or runs it with --run.

    What follows a lone -- goes to `vllm serve` as it is. Example, two devices of the accelerator:

    evalscope-vacc serve Qwen3-Embedding-8B --weights DIR --devices 0,1
    """
    from evalscope_vacc import catalog
    from evalscope_vacc.serving.command import ServeOptions, build_command

    entry = catalog.get(model)
    options = ServeOptions(
        runtime=runtime,
        weights=weights,
        host=host,
        port=port,
        devices=None if devices is None else tuple(part.strip() for part in devices.split(",")),
        tensor_parallel_size=tensor_parallel_size,
        served_model_name=served_model_name,
        image=image,
        image_tag=image_tag,
        vllm_version=vllm_version,
        max_model_len=max_model_len,
        dimensions=dimensions,
        container_name=name,
        shm_size=shm_size,
        force=force,
        extra=tuple(arguments or ()),
    )
    if stop_after_check and not (run and wait):
        raise ConfigError("--stop-after-check needs --run and --wait")
    command = build_command(entry, options)
    _show(command, as_json=json_)
    raise typer.Exit(_go(command, entry, run=run, wait=wait, wait_s=wait_s, stop_after_check=stop_after_check))


def _show(command: Command, *, as_json: bool) -> None:
    if as_json:
        fields = {"argv": list(command.argv), "env": dict(command.env), "url": command.url, "model": command.model}
        typer.echo(json.dumps({**fields, "shell": command.shell(), "notes": list(command.notes)}, ensure_ascii=False))
        return
    typer.echo(command.lines())
    for note in command.notes:
        typer.echo(f"# {note}", err=True)


def _go(command: Command, entry: Entry, *, run: bool, wait: bool, wait_s: float, stop_after_check: bool) -> int:
    from evalscope_vacc.serving.runner import run_command, wait_until_healthy

    def wait_and_check(alive: Callable[[], bool]) -> int:
        typer.echo(f"# waiting for {command.url}/health, {wait_s:g} s at most", err=True)
        took = wait_until_healthy(command.url, timeout_s=wait_s, alive=alive)
        typer.echo(f"# {command.model} is ready at {command.url} after {took:.0f} s", err=True)
        return _check(command, entry)

    def when_started(alive: Callable[[], bool]) -> int | None:
        status = wait_and_check(alive)
        if status != 0 or stop_after_check:
            return status
        typer.echo(f"# serving {command.model} at {command.url}; Ctrl-C stops it", err=True)
        return None

    if run:
        return run_command(command, when_started=when_started if wait else None)
    return wait_and_check(lambda: True) if wait else 0


def _check(command: Command, entry: Entry) -> int:
    """Runs the pre-flight check on the fresh server and returns its exit status."""
    served: Mapping[str, Any] = {
        "model_type": "vacc_api",
        "model_name": command.model,
        "api_base": command.url,
        "is_cross_encoder": entry.is_cross_encoder,
    }
    check_served = import_module("evalscope_vacc.cli.check").check_served
    return int(check_served(served))
