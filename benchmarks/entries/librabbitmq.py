"""Entry: a client in C, librabbitmq's blocking calls as in its examples, and cJSON for the bodies.

`make bench` compiles `librabbitmq.c` with the system's compiler, librabbitmq-dev and libcjson-dev.
"""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.entries.job import WINDOW, Entry, Job

PROGRAM = Path(sys.prefix) / "librabbitmq-client"


def _command(job: Job, _: Path) -> list[str]:
    url = urlsplit(job.url)
    address = [url.hostname or "", str(url.port), url.username or "", url.password or ""]
    numbers = [str(number) for number in (job.count, job.prefetch, WINDOW)]
    return [str(PROGRAM), job.work, *address, job.source or "-", job.target or "-", *numbers]


LIBRABBITMQ = Entry(
    name="librabbitmq (C)",
    command=_command,
    works=frozenset({"consume", "hop", "publish"}),
    kinds=frozenset({"classic"}),
    files={"librabbitmq-dev, libcjson-dev and cc": PROGRAM},
    share=4.0,
)
