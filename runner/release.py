"""Vocabulary: what runs here: the product and its version."""

from __future__ import annotations

import functools
from typing import Final

PRODUCT: Final = "mqrunner"


@functools.cache
def version() -> str:
    """Return the installed version; `unknown` where only the sources are."""
    from importlib.metadata import PackageNotFoundError, version  # some milliseconds of every start

    try:
        return version(PRODUCT)
    except PackageNotFoundError:
        return "unknown"


def version_fields(release: str) -> dict[str, str]:
    """Return what runs here, for the log and the probes: our version, and the release of the user's code, if any."""
    return {"version": version()} | ({"release": release} if release else {})
