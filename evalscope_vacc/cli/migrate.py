"""``evalscope-vacc migrate``: prints an older configuration in the newer spelling."""

from __future__ import annotations

from pathlib import Path

import typer


def migrate(
    old: Path = typer.Argument(..., metavar="OLD.py|OLD.yaml", help="A script or file for EvalScope 1.3 to 1.8.0."),
) -> None:
    """Print the RAGEval configuration of an older script or file as EvalScope 1.8.1 and later spell it.

    A script is read, not run. Keys are not repeated: the output names environment variables in their place. What needs
    attention stands in comments above each configuration.

        evalscope-vacc migrate embedding.py > embedding.yaml
    """
    import yaml

    from evalscope_vacc.hosts.migrate import migrate as read

    documents = []
    for found in read(old):
        head = [f"# from {old.name}{', ' + found.where if found.where else ''}", *(f"# {note}" for note in found.notes)]
        text = yaml.safe_dump(found.content, sort_keys=False, allow_unicode=True, width=1000)
        documents.append("\n".join(head) + "\n" + text)
    typer.echo("---\n".join(documents), nl=False)
