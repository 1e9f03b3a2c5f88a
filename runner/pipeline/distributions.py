"""Which package to install for a module that is missing, and modules that Python itself no longer has."""

from __future__ import annotations

import difflib
import shlex
import sys
from collections.abc import Sequence
from functools import partial

from runner.tables import read_kind

_modules = partial(read_kind, "runner.pipeline", "distributions.txt")

DISTRIBUTIONS = _modules("installed")
"""Distributions whose name is not that of their module. Without this, `pip install` could install a foreign package."""
FREQUENT = _modules("frequent")
"""Modules that many projects import: a name near to one of them is misspelt, and not to be installed."""
FREQUENT_NAMES = _modules("name")
"""Names that are often used without an import, and their modules."""
OWN = _modules("own")
"""Modules of projects: a package of such a name is not the one that is meant."""
_MOVED, _REMOVED = _modules("moved"), _modules("removed")


def is_package(name: str) -> bool:
    """Whether a module is known to be one of a package, or of an older Python."""
    return any(name in known for known in (FREQUENT, DISTRIBUTIONS, _MOVED, _REMOVED))


def likely_module(name: str) -> str:
    """Return the module of Python, or of a frequent package, that a misspelt name means; "" if none is near.

    A package with the misspelt name is not to be installed.
    """
    if is_package(name):
        return ""
    packages = {package.lower().replace("-", "_"): module for module, package in DISTRIBUTIONS.items()}
    known = [item for item in (*sys.stdlib_module_names, *FREQUENT) if not item.startswith("_")]
    return packages.get(name.lower()) or next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.82)), "")


def how_to_get(names: Sequence[str]) -> tuple[str, str]:
    """Return what is the matter with missing modules, and the help: the command that installs them."""
    first = names[0].partition(".")[0]
    release = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    if first in _MOVED:
        return f"which {release} does not have", f'import "{_MOVED[first]}" instead'
    if first in _REMOVED:
        return f"which {release} no longer has", "use another module for this"
    wanted = " ".join(shlex.quote(_distribution(name)) for name in names)
    verb = "is" if len(names) == 1 else "are"
    return f"which {verb} not installed", f"run: {shlex.quote(sys.executable)} -m pip install {wanted}"


def _distribution(name: str) -> str:
    top = name.partition(".")[0]
    return DISTRIBUTIONS.get(name) or DISTRIBUTIONS.get(top) or top.replace("_", "-")
