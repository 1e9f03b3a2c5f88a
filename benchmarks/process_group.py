"""Processes that handle messages together: started, watched by their ledgers, and ended as a supervisor would."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from benchmarks.harness import BenchmarkError, environment

LOOK_S = 0.02
SETTLE_S = 0.1
"""The last acknowledgements go out in it."""
QUORUM_SETTLE_S = 0.4
"""RabbitMQ 3.10's quorum queues forget acknowledgements that were sent just before a channel closes."""
END_S = 20.0
IN_ORDER = (0, -signal.SIGTERM, 128 + signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Account:
    """The ledgers of all processes as one."""

    count: int
    sum: int
    began: float
    ended: float
    cpu_s: float
    processes: int
    latencies: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, ledgers: Sequence[Mapping[str, Any]]) -> Account:
        """Add up: from the first one's beginning to the last one's end."""
        return cls(
            count=sum(ledger["count"] for ledger in ledgers),
            sum=sum(ledger["sum"] for ledger in ledgers),
            began=min((ledger["began"] for ledger in ledgers), default=0.0),
            ended=max((ledger["ended"] for ledger in ledgers), default=0.0),
            cpu_s=sum(ledger["cpu_s"] for ledger in ledgers),
            processes=len(ledgers),
            latencies=[latency for ledger in ledgers for latency in ledger.get("latencies", ())],
        )

    def check(self, name: str, count: int) -> None:
        """Raise BenchmarkError unless the messages 0 … count - 1 were handled, each once."""
        if (self.count, self.sum) != (count, count * (count - 1) // 2):
            raise BenchmarkError(f"{name}: {self.count} messages instead of {count}, or not each once")


class ProcessGroup:
    """Processes in one folder, each in a session of its own. Use it as a context manager.

    `name` is for error messages, `variables` are what the processes find in their environment.
    """

    def __init__(
        self, name: str, commands: Sequence[Sequence[str]], folder: Path, variables: Mapping[str, str]
    ) -> None:
        self._name = name
        self._folder = folder
        self._commands = commands
        self._environment = environment(**{"BENCH_LEDGER": str(folder), **variables})
        self._processes: list[subprocess.Popen[bytes]] = []

    def wait(self, count: int, timeout_s: float) -> None:
        """Return when the ledgers have `count` messages."""
        deadline = time.monotonic() + timeout_s
        while (now := self.account()).count < count:
            codes = [process.poll() for process in self._processes]
            if any(code not in (None, 0) for code in codes) or None not in codes:
                now = self.account()  # the last thing that one did may have been to write it
                if now.count >= count:
                    return
                raise self._error(f"ended with {codes} and {now.count} of {count} messages")
            if time.monotonic() > deadline:
                raise self._error(f"{now.count} of {count} messages after {timeout_s:.0f} s")
            time.sleep(LOOK_S)

    def end(self, *, by_themselves: bool = False, settle_s: float = SETTLE_S) -> Account:
        """End them by SIGTERM after a moment, or wait until they have ended, and return what they did."""
        if not by_themselves:
            time.sleep(settle_s)
            for process in self._processes:
                if process.poll() is None:
                    process.terminate()
        for process in self._processes:
            try:
                code = process.wait(END_S)
            except subprocess.TimeoutExpired:
                raise self._error(f"still there {END_S:.0f} s after its end was due") from None
            if code not in IN_ORDER:
                raise self._error(f"exit {code}")
        return self.account()

    def account(self) -> Account:
        """Return what the ledgers say now."""
        return read_accounts(self._folder)

    def __enter__(self) -> Self:
        try:
            for number, command in enumerate(self._commands):
                with self._open(f"stdout-{number}") as out, self._open(f"stderr-{number}") as err:
                    self._processes.append(
                        subprocess.Popen(
                            command,
                            cwd=self._folder,
                            env=self._environment,
                            stdin=subprocess.DEVNULL,
                            stdout=out,
                            stderr=err,
                            start_new_session=True,
                        )
                    )
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._kill()

    def _kill(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its children too
            process.wait()

    def _open(self, name: str) -> IO[bytes]:
        return (self._folder / name).open("wb")

    def _error(self, text: str) -> BenchmarkError:
        said = [(file.name, file.read_text(errors="replace")[-1500:]) for file in sorted(self._folder.glob("std*-*"))]
        return BenchmarkError(f"{self._name}: {text}\n" + "\n".join(f"--- {name}\n{end}" for name, end in said if end))


def read_accounts(folder: Path) -> Account:
    """Return what the ledgers of a folder say, as one."""
    return Account.of([json.loads(file.read_text()) for file in folder.glob("ledger-*.json")])
