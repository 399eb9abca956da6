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
        typer.Option(help="A mirror of the hub, such as https://hf-mirror.com."),
    ] = None,
    to: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="DIR", help="Folder for the files. Default: one of the model's name, here."),
    ] = None,
    revision: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Branch, tag or commit. Default: the newest."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Downloads MODEL for serving, with the hub's own client.

    An interrupted download goes on where it stopped when the same command is given again.

    evalscope-vacc download Qwen3-Embedding-0.6B --from modelscope --to DIR
    """
    from evalscope_vacc.redact import public_url
    from evalscope_vacc.serving import download as downloads
    from evalscope_vacc.serving.hubs import open_hub

    hub = open_hub(from_, endpoint)
    planned = downloads.plan(hub, model, to, revision)
    where = public_url(hub.endpoint)
    typer.echo(
        f"{planned.repository} at {planned.revision} from {where}: {len(planned.files)} files"
        f" ({planned.left_out} that serving does not need are left out), {planned.to_get / 1e6:,.1f} MB to get",
        err=True,
    )
    downloads.download(hub, planned)
    if json_:
        done = {
            "repository": planned.repository,
            "revision": planned.revision,
            "hub": hub.name,
            "endpoint": where,
            "folder": str(planned.folder),
            "files": [{"path": file.path, "size": file.size} for file in planned.files],
        }
        typer.echo(json.dumps(done, ensure_ascii=False))
    else:
        typer.echo(f"{planned.repository} is complete in {planned.folder}")
