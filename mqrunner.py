"""The start of the command `runner`, also as `python -m mqrunner`.

A module `runner` of yours that comes first on the import path would hide the package `runner`, and this check with it.
So the check is in a module with the name of the distribution.
"""

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder

_PACKAGE = os.path.join(os.path.dirname(os.path.realpath(__file__)), "runner", "__init__.py")
_INVALID = 78  # the exit code of an invalid pipeline


def main() -> None:
    """Run the command line. Ends the process with one of the documented exit codes."""
    if text := hidden_by(PathFinder.find_spec("runner")):
        sys.stderr.write(text)
        sys.exit(_INVALID)
    from runner.cli import main as run

    run()


def hidden_by(spec: ModuleSpec | None) -> str:
    """Return the error if what would be imported as `runner` is another module than the package; else nothing."""
    if spec is None or not spec.origin or os.path.realpath(spec.origin) == _PACKAGE:
        return ""
    file = spec.origin
    folder = os.path.dirname(os.path.dirname(file) if os.path.basename(file) == "__init__.py" else file)
    return (
        f'error[reserved-module]: module "runner" is the runner itself, and {file} hides it\n'
        f"  = help: give this file another name, or take {folder} out of PYTHONPATH\n"
    )


if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the current folder, which Python puts first
    main()
