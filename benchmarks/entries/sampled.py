"""The `runner` command, sampled: where does it stand whenever another millisecond of its CPU time is over?

python -m benchmarks.entries.sampled FILE ARGUMENTS…

Only while the ledger counts. A sample costs a few microseconds and nothing is traced in between, so that what is cheap
stays cheap; but a signal is handled after the running C function, which is then its caller's time. The kernel's clock
may be coarser than a millisecond.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import NoReturn

from runner.cli import main

INTERVAL_S = 0.001

Stack = tuple[tuple[str, str], ...]

_samples: Counter[Stack] = Counter()


def _sample(_: int, frame: FrameType | None) -> None:
    handlers = sys.modules.get("benchmarks.entries.handlers")
    if handlers is None or not hasattr(handlers, "ledger") or not handlers.ledger.is_counting:
        return
    stack = []
    while frame is not None:
        stack.append((frame.f_code.co_filename, frame.f_code.co_qualname))
        frame = frame.f_back
    _samples[tuple(stack)] += 1


def _write_at_exit(file: Path) -> None:
    """Write where `runner up` ends: by `os._exit`, when its loop is closed and its last line is written."""
    exit_at_once = os._exit

    def write_and_exit(status: int) -> NoReturn:
        signal.setitimer(signal.ITIMER_PROF, 0)
        file.write_text(json.dumps([[stack, number] for stack, number in _samples.items()]))
        exit_at_once(status)

    os._exit = write_and_exit


if __name__ == "__main__":
    _write_at_exit(Path(sys.argv.pop(1)).resolve())
    signal.signal(signal.SIGPROF, _sample)
    signal.siginterrupt(signal.SIGPROF, False)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)
    main()
