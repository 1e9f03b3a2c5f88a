"""The name and version of this product."""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime
from typing import Final

PRODUCT: Final = "mqrunner"
STARTED_AT: Final = datetime.now(UTC)
"""When this process started, near enough."""


@functools.cache
def version() -> str:
    """Return the installed version; `unknown` if only the sources are there."""
    from importlib.metadata import PackageNotFoundError, distribution  # this import takes some milliseconds

    try:
        text = distribution(PRODUCT).read_text("METADATA") or ""
    except PackageNotFoundError:
        return "unknown"
    found = re.search(r"^Version: (.+)$", text, re.MULTILINE)  # `importlib.metadata.version` parses the README, too
    return found[1] if found else "unknown"


def version_fields(release: str) -> dict[str, str]:
    """Return the version of the runner, and the release of the user's code if there is one, for logs and probes."""
    return {"version": version()} | ({"release": release} if release else {})
