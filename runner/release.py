"""Vocabulary: what runs here: the product and its version."""

from __future__ import annotations

import functools
from typing import Final

PRODUCT: Final = "runline"


@functools.cache
def version() -> str:
    """Return the installed version; `unknown` where only the sources are."""
    from importlib.metadata import PackageNotFoundError, version  # some milliseconds of every start

    try:
        return version(PRODUCT)
    except PackageNotFoundError:
        return "unknown"
