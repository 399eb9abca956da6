"""Completes the package's metadata for the repository that builds it: ``[project.urls]``, and absolute links in the README.

A checkout does not know where it is published. The release workflow says so in ``PROJECT_URL``; a build without it has no URLs.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

# an address, and an anchor of the same page, are left alone
_RELATIVE = r"\((?!\w+:|#)([^)\s]+)\)"


class RepositoryLinks(MetadataHookInterface):
    """Fills the dynamic fields ``readme`` and ``urls``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Sets both fields; hatchling calls this for every build."""
        address = os.environ.get("PROJECT_URL", "").rstrip("/")
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        if address:
            text = absolute(text, address)
            metadata["urls"] = {
                "Homepage": address,
                "Documentation": f"{address}/blob/HEAD/docs/start.md",
                "Changelog": f"{address}/blob/HEAD/CHANGELOG.md",
                "Issues": f"{address}/issues",
            }
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def absolute(text: str, address: str) -> str:
    """Returns Markdown whose relative links and pictures are those of the repository at an address."""
    text = re.sub(rf"(!\[[^\]]*\]){_RELATIVE}", rf"\1({address}/raw/HEAD/\2)", text)
    return re.sub(rf"\]{_RELATIVE}", rf"]({address}/blob/HEAD/\1)", text)
