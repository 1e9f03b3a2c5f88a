"""The YAML that a Markdown document shows."""

from __future__ import annotations

import re

_BLOCK = re.compile(r"^```yaml[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def yaml_blocks(text: str) -> list[str]:
    """Return the YAML blocks of a document, those with a file's name too."""
    return _BLOCK.findall(text)
