"""Limits of the files of a pipeline. They are checked while parsing, so an alias bomb never expands."""

from __future__ import annotations

from typing import Final

MAX_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 50
MAX_NODES: Final = 10_000
MAX_EXPANDED_NODES: Final = 100_000
"""Nodes of all files with all aliases and defaults expanded, which validation has to visit."""

MAX_SUITE_NODES: Final = MAX_EXPANDED_NODES
"""Nodes of a test file, which has many tests that are alike."""

MAX_INCLUDE_DEPTH: Final = 8
MAX_FILES: Final = 1000
MAX_GLOB_MATCHES: Final = 10_000
"""Files and folders that the pattern of an include may match."""

MAX_TOTAL_BYTES: Final = 16 * 1024 * 1024
"""Characters of all files of a pipeline together."""

MAX_INTERPOLATED_CHARACTERS: Final = 1024 * 1024
"""Characters of the values of variables and secret files, in all files together."""

MAX_SECRET_BYTES: Final = 64 * 1024
MAX_PROBLEMS: Final = 1000
"""Problems that are reported for one pipeline. A hostile file can have hundreds of thousands."""
