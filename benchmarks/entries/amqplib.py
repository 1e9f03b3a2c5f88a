"""Entry: amqplib on Node.js, its promises and a confirm channel, as in its documentation.

`make bench` installs it with npm beside the virtual environment's packages; `amqplib.js` is the program.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from benchmarks.entries.job import WINDOW, Entry, Job

MODULES = Path(sys.prefix) / "amqplib" / "node_modules"
NODE = Path(shutil.which("node") or "/usr/bin/node")


def _command(_: Job, __: Path) -> list[str]:
    return [str(NODE), str(Path(__file__).with_suffix(".js"))]


AMQPLIB = Entry(
    name="amqplib (Node.js)",
    command=_command,
    works=frozenset({"consume", "hop", "publish"}),
    kinds=frozenset({"classic"}),
    files={"Node.js": NODE, "amqplib (npm)": MODULES / "amqplib"},
    share=3.0,
    variables={"NODE_PATH": str(MODULES), "BENCH_WINDOW": str(WINDOW)},
)
