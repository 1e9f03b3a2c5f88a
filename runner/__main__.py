"""`python -m runner`, the same as the command `runner`."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # Python puts the current folder first; `python_path` and our own rule decide

    from runner.cli import main

    main()
