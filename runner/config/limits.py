"""Input: how large a pipeline's files may be, checked while it is parsed: a bomb is refused before it grows."""

from __future__ import annotations

from typing import Final

MAX_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 50
MAX_NODES: Final = 10_000
MAX_EXPANDED_NODES: Final = 100_000
"""Nodes of all files once every alias and every default is written out: what validation has to walk."""

MAX_INCLUDE_DEPTH: Final = 8
MAX_FILES: Final = 1000
MAX_TOTAL_BYTES: Final = 16 * 1024 * 1024
"""Characters of a pipeline's files together."""

MAX_INTERPOLATED_CHARACTERS: Final = 1024 * 1024
"""Characters that variables and secret files may bring in, over all files."""

MAX_SECRET_BYTES: Final = 64 * 1024
MAX_PROBLEMS: Final = 1000
"""Problems reported for one pipeline; nobody reads more, and a hostile file has hundreds of thousands."""
