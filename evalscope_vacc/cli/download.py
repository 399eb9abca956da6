"""``evalscope-vacc download``: a model's files for serving, from one of the hubs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Optional

import typer


def download(
    model: Annotated[str, typer.Argument(help="A model of the catalog, or organisation/name on the hub.")],
    *,
    from_: Annotated[
        str, typer.Option("--from", metavar="huggingface|modelscope", help="The hub to download from.")
    ] = "huggingface",
    endpoint: Annotated[
        Optional[str],  # noqa: UP045 - a Python 3.10 host may carry a typer that knows no `X | None`
        typer.Option(
            help="A mirror of the hub. Default for huggingface: HF_ENDPOINT; from China https://hf-mirror.com."
        ),
    ] = None,
    to: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="DIR", help="Folder for the files. Default: ./ and the name of the model."),
    ] = None,
    revision: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Branch, tag or commit. Default: the newest."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Downloads MODEL for serving, with the hub's own client.

    The same command continues an interrupted download.

    evalscope-vacc download Qwen3-Embedding-0.6B --from modelscope --to DIR
    """
    from evalscope_vacc.serving.download import prepare

    planned = prepare(model, from_, endpoint=endpoint, to=to, revision=revision)
    to_get = sum(planned.missing().values()) / 1e6
    typer.echo(
        f"{planned.repository} at {planned.revision} from {planned.where}: {len(planned.sizes)} files"
        f" ({planned.left_out} that serving does not need are left out), {to_get:,.1f} MB to get",
        err=True,
    )
    planned.run()
    if json_:
        done = {
            "repository": planned.repository,
            "revision": planned.revision,
            "hub": planned.hub,
            "endpoint": planned.where,
            "folder": str(planned.folder),
            "files": [{"path": path, "size": size} for path, size in planned.sizes.items()],
        }
        typer.echo(json.dumps(done, ensure_ascii=False))
    else:
        typer.echo(f"{planned.repository} is complete in {planned.folder}")
