"""What an entry is asked to do, and how it answers: all that a benchmark and an entry need to know of each other."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

Work = Literal["consume", "model", "log", "threads", "hop", "publish", "latency"]

THREADS = 8
"""In how many threads the handlers of `threads` run."""
Kind = Literal["classic", "quorum"]

WINDOW = 100
"""How many published messages wait for their confirm at once."""

_SMALL = 112


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One measurement.

    consume: handle `count` messages that wait in `source`, as dicts. model: the same, as pydantic models. log: the
    same as consume, with a line of JSON for each message on stdout, which is a file. threads: the same as consume, with
    plain functions in `THREADS` threads of one process. hop: publish, confirmed, each to
    `target` before it is acknowledged. publish: publish `count` messages to `target`, `WINDOW` of them waiting for
    their confirm at once. latency: clock messages that arrive while one waits.

    Bodies are JSON objects with a `number` from 0 (`body`). Always: durable queues, persistent messages, acknowledged
    after the handler.
    """

    work: Work
    count: int
    url: str = "memory"
    kind: Kind = "classic"
    source: str = ""
    target: str = ""
    prefetch: int = 100
    concurrency: int = 100
    body_bytes: int = 0
    processes: int = 1

    def variables(self) -> dict[str, str]:
        """Return the environment that carries the job to a process."""
        return {"BENCH_JOB": json.dumps(asdict(self)), "BENCH_COUNT": str(self.count)}

    @classmethod
    def from_environment(cls) -> Job:
        """Return the job that this process was started for."""
        return cls(**json.loads(os.environ["BENCH_JOB"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Who does the work.

    `command` gets the job and an empty folder, and returns what to run there. The process finds the job and its ledger
    in its environment, and goes on until SIGTERM, except for publish, where it ends by itself.
    """

    name: str
    command: Callable[[Job, Path], list[str]]
    works: frozenset[Work]
    kinds: frozenset[Kind] = frozenset({"classic", "quorum"})
    requires: tuple[str, ...] = ()
    """Modules without which it is left out."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """The same for what is no Python module: its name, and a file or folder of it."""
    share: float = 1.0
    """How many of a scenario's messages are enough, or needed, for a window of about a second."""
    fill: list[str] | None = None
    """The command that makes the queues and puts the messages in, for a peer with an envelope of its own."""
    variables: Mapping[str, str] = field(default_factory=dict)
    is_shared: bool = False
    """Whether its own child processes share the messages."""
    starts_its_own: bool = False
    """Whether one command starts all of a job's processes."""
    read_end: Callable[[Job, Path], float | None] = lambda _, __: None
    """Returns when (monotonic seconds) the work really ended, if what the process left in the folder says so."""

    def missing(self) -> list[str]:
        """Return the names of what it needs and is not installed."""
        modules = [name for name in self.requires if importlib.util.find_spec(name) is None]
        return modules + [name for name, path in self.files.items() if not path.exists()]


def module(name: str, *arguments: str) -> Callable[[Job, Path], list[str]]:
    """Return a `command` that runs a module of this package with this interpreter."""
    return lambda _, __: [sys.executable, "-m", name, *arguments]


def body(number: int, size: int = 0) -> dict[str, object]:
    """Return a message of about 100 bytes of JSON, or of about `size` where that is more."""
    order = {"customer": "Ada Lovelace", "article": "analytical engine", "quantity": 3, "urgent": True}
    padding = {"text": "x" * (size - _SMALL)} if size > _SMALL else {}
    return {"number": number, **order, **padding}
