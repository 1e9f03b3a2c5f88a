"""`python -m runner`, the same as the command `runner`."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # Python has put the current folder in front of everything; where it belongs is our rule

    from runner.cli import main

    main()
