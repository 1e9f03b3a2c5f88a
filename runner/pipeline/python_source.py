"""Parses Python source."""

from __future__ import annotations

import ast


def parse_python(source: bytes | str, file: str = "<unknown>") -> ast.Module:
    """Return the tree of a module's source. Raises SyntaxError and ValueError.

    In Python 3.11.0 to 3.11.4 it can fail by chance with SystemError, when other code is parsed meanwhile: it is tried
    again. Source: https://github.com/python/cpython/issues/106905
    """
    try:
        return ast.parse(source, file)
    except SystemError:
        return ast.parse(source, file)
